"""Addresses of BARs and bridge windows: checked where they are given, else as firmware assigns them.

Every BAR and every window behind a host bridge is a share of the windows above it. Windows that
the profile leaves to us are sized first, from the deepest bus up; then each bus, from the root down,
gives the shares without an address the first place that fits, largest alignment first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fakedev.model.ranges import Range
from fakedev.profiles.compile_pci_buses import BusKey, Port, Topology, bus_name
from fakedev.profiles.compile_pci_pool import Pool, Share, assign, packed
from fakedev.profiles.context import Context, Path

GRAIN = {"io": 1 << 12, "mem": 1 << 20, "pref": 1 << 20}
LIMIT = {"io": 1 << 16, "mem": 1 << 32, "pref": 1 << 64}
NAMES = {"io": "I/O", "mem": "memory", "pref": "prefetchable"}
KEYS = {"io": "io", "mem": "memory", "pref": "prefetch"}
# What firmware leaves alone: legacy devices, and the first MiB.
_FLOOR = {"io": 0x1000, "mem": 1 << 20}
# Where no host bridge window in `iomem:` or `ports:` says otherwise.
_USUAL = {"io": Range(0x1000, 0xF000), "mem": Range(0xC000_0000, 0x3EC0_0000)}


class HostWindows(NamedTuple):
    """What a root bus owns of memory and of ports; nothing where the profile does not say."""

    memory: tuple[Range, ...] = ()
    ports: tuple[Range, ...] = ()


@dataclass(slots=True)
class Space:
    """Shares by the bus that they are on; the open windows of each bridge by the bus behind it.

    `taken`: what host bridge windows hold beside PCI, for memory and ports ("mem", "io").
    """

    buses: Topology
    hosts: dict[BusKey, HostWindows]
    taken: dict[str, list[Range]]
    context: Context
    shares: dict[BusKey, list[Share]] = field(default_factory=dict)
    windows: dict[BusKey, dict[str, Share]] = field(default_factory=dict)

    def add(self, bus: BusKey, share: Share) -> None:
        """Put a BAR on a bus."""
        self.shares.setdefault(bus, []).append(share)

    def settle(self) -> None:
        """Give everything a place, and report what has none or is in the way."""
        ports = sorted(self.buses.ports.items(), key=lambda one: one[1].secondary)
        for key, port in reversed(ports):
            self.windows[key] = self._opened(port)
            self.shares.setdefault(port.upper, []).extend(self.windows[key].values())
        self._settle_roots()
        for key, port in ports:
            self._settle_bus(self.shares.get(key, []), port, self.windows[key])

    def _opened(self, port: Port) -> dict[str, Share]:
        """The windows of a bridge: as given, around what has an address, or as large as needed."""
        behind = self.shares.get(port.lower, [])
        wanted = {"io": port.bridge.io, "mem": port.bridge.memory, "pref": port.bridge.prefetch}
        opened = {}
        for kind, value in wanted.items():
            path = (*port.path, KEYS[kind])
            label = f"the {NAMES[kind]} window of {port.spot.bdf}"
            inside = ("pref", "mem") if kind == "pref" else (kind,)
            if isinstance(value, Range):
                self._check_grain(value, kind, label, path)
                opened[kind] = Share(label, path, inside, value.size, 1, LIMIT[kind], value.start)
            elif value == "auto":
                mine = [one for one in behind if _best(one, wanted) == kind]
                if mine:
                    opened[kind] = _sized(mine, kind, Share(label, path, inside, 0, 1, LIMIT[kind]))
        return opened

    # Root buses

    def _settle_roots(self) -> None:
        roots = sorted(self.buses.roots)
        everything = [share for key in roots for share in self.shares.get(key, ())]
        self._check_overlaps(everything)
        for kind in ("mem", "io"):
            here = [share for share in everything if share.io == (kind == "io")]
            for key in roots:
                mine = [one for one in self.shares.get(key, ()) if one.io == (kind == "io")]
                if mine:
                    self._settle_root(key, kind, mine, here)

    def _settle_root(self, key: BusKey, kind: str, mine: list[Share], here: list[Share]) -> None:
        host = self.hosts.get(key, HostWindows())
        spans = host.ports if kind == "io" else host.memory
        section = "ports" if kind == "io" else "iomem"
        if spans:
            for share in mine:
                self._check_host(share, spans, f"`PCI Bus {bus_name(key)}` in `{section}:`")
        if all(share.start is not None for share in mine):
            return
        rooms = [_above(span, _FLOOR[kind]) for span in spans or (_USUAL[kind],)]
        busy = [share.span for share in here if share.start is not None]
        pool = Pool([room for room in rooms if room.size > 0], [*busy, *self.taken[kind]])
        for share, _ in assign(mine, lambda _: [pool]):
            self._no_room(share, f"the windows of bus {bus_name(key)}")

    def _check_host(self, share: Share, spans: tuple[Range, ...], where: str) -> None:
        if share.start is None or any(_holds(span, share.span) for span in spans):
            return
        shown = ", ".join(map(_shown, spans[:6]))
        self.context.report(f"{share.label} ({_shown(share.span)}) lies outside the windows of "
                            f"{where} ({shown}); move it", *share.path)  # fmt: skip

    # Buses behind bridges

    def _settle_bus(self, mine: list[Share], port: Port, opened: dict[str, Share]) -> None:
        self._check_overlaps(mine)
        for share in mine:
            self._check_window(share, port, opened)
        if all(share.start is not None for share in mine):
            return
        pools = {}
        for kind, window in opened.items():
            if window.start is not None:
                busy = [one.span for one in mine if one.io == window.io and one.start is not None]
                pools[kind] = Pool([window.span], busy)
        where = f"the windows of its bridge {port.spot.bdf} ({self.context.place(*port.path)})"
        for share, _ in assign(mine, lambda one: [pools[k] for k in one.inside if k in pools]):
            # A window that found no place itself has been reported.
            if not any(kind in opened for kind in share.inside):
                self._no_window(share, port)
            elif all(opened[k].start is not None for k in share.inside if k in opened):
                self._no_room(share, where)

    def _check_window(self, share: Share, port: Port, opened: dict[str, Share]) -> None:
        if share.start is None:
            return
        allowed = [opened[kind] for kind in share.inside if kind in opened]
        other = opened.get("pref")
        if share.inside == ("mem",) and other and other.start and _holds(other.span, share.span):
            self.context.report(f"{share.label} is not prefetchable, so it cannot lie in the prefetchable "
                                f"window {_shown(other.span)} of its bridge {port.spot.bdf}; move it",
                                *share.path)  # fmt: skip
            return
        if not allowed:
            self._no_window(share, port)
            return
        if any(window.start is None or _holds(window.span, share.span) for window in allowed):
            return
        kinds = " or ".join(NAMES[kind] for kind in share.inside if kind in opened)
        shown = " or ".join(_shown(window.span) for window in allowed)
        self.context.report(
            f"{share.label} ({_shown(share.span)}) lies outside the {kinds} window {shown} of its "
            f"bridge {port.spot.bdf} ({self.context.place(*port.path)}); move it, or widen the window",
            *share.path,
        )

    # Problems

    def _no_room(self, share: Share, where: str) -> None:
        low = " below 4 GiB" if share.limit == 1 << 32 else ""
        self.context.report(f"there is no room{low} for {share.label} ({share.size:#x} bytes) in {where}; "
                            "give it an address, or make room", *share.path)  # fmt: skip

    def _no_window(self, share: Share, port: Port) -> None:
        kind = share.inside[0]
        write = f"`{KEYS[kind]}: auto`"
        if share.start is not None:
            write = f"`{KEYS[kind]}: {_shown(_rounded(share.span, GRAIN[kind]))}`"
        self.context.report(
            f"{share.label} needs {NAMES[kind]} addresses, and its bridge {port.spot.bdf} "
            f"({self.context.place(*port.path)}) has no such window; write {write} there",
            *share.path,
        )

    def _check_overlaps(self, shares: list[Share]) -> None:
        """BARs and windows on one bus lie apart; I/O and memory are two spaces."""
        last: Share | None = None
        placed = [share for share in shares if share.start is not None]
        for share in sorted(placed, key=lambda one: (one.io, one.span)):
            if last is None or share.io != last.io:
                last = share
                continue
            if share.span.start < last.span.end:
                place = self.context.place(*last.path)
                self.context.report(f"{share.label} ({_shown(share.span)}) overlaps {last.label} "
                                    f"({_shown(last.span)}) of {place}; move one of them",
                                    *share.path)  # fmt: skip
            if share.span.end > last.span.end:
                last = share

    def _check_grain(self, span: Range, kind: str, label: str, path: Path) -> None:
        right = _rounded(span, GRAIN[kind])
        if right != span:
            unit = "4 KiB" if kind == "io" else "1 MiB"
            self.context.report(f"{label} is made of whole {unit}, and {_shown(span)} is not; "
                                f"{_shown(right)} would be right", *path)  # fmt: skip
        elif span.end > LIMIT[kind]:
            self.context.report(
                f"{label} lies below {LIMIT[kind]:#x}, and {_shown(span)} does not", *path
            )


def _best(share: Share, wanted: dict[str, Range | str]) -> str:
    """The kind of window that a share is put behind: the one it lies in, or the first open one."""
    for kind in ("mem", "pref") if share.start is not None and not share.io else ():
        given = wanted[kind]
        if isinstance(given, Range) and _holds(given, share.span):
            return kind
    return next((kind for kind in share.inside if wanted[kind] != "none"), share.inside[0])


def _sized(mine: list[Share], kind: str, window: Share) -> Share:
    """A window around the shares that have an address, else as large as all of them need."""
    if any(share.limit <= 1 << 32 for share in mine):
        window.limit = min(window.limit, 1 << 32)
    placed = [share.span for share in mine if share.start is not None]
    if placed:
        low = min(span.start for span in placed)
        around = Range(low, max(span.end for span in placed) - low)
        window.start, window.size = _rounded(around, GRAIN[kind])
    else:
        window.size = _rounded(Range(0, packed(mine)), GRAIN[kind]).size
        window.align = max(GRAIN[kind], *(share.align for share in mine))
    return window


def _rounded(span: Range, grain: int) -> Range:
    start = span.start // grain * grain
    return Range(start, -(-span.end // grain) * grain - start)


def _holds(outer: Range, inner: Range) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _above(span: Range, floor: int) -> Range:
    start = max(span.start, floor)
    return Range(start, span.end - start)


def _shown(span: Range) -> str:
    return f"{span.start:04x}-{span.end - 1:04x}" if span.end <= 1 << 16 else str(span)
