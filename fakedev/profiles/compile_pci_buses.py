"""Buses and the bridges that lead to them, with every clash of addresses and numbers reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.errors import PciError
from fakedev.profiles.context import Context, Path
from fakedev.profiles.schema_pci_functions import Bridge, PciFunction

BusKey = tuple[int, int]
FUNCTIONS: Path = ("pci", "functions")


class Spot(NamedTuple):
    """A function of the profile, its address, and the way to it."""

    bdf: Bdf
    entry: PciFunction
    path: Path


@dataclass(slots=True)
class Port:
    """A bridge: the bus it sits on, and the buses behind it."""

    spot: Spot
    bridge: Bridge
    secondary: int
    subordinate: int = 0

    @property
    def path(self) -> Path:
        """The way to its `bridge:`."""
        return (*self.spot.path, "bridge")

    @property
    def upper(self) -> BusKey:
        """The bus that it sits on."""
        return self.spot.bdf.domain, self.spot.bdf.bus

    @property
    def lower(self) -> BusKey:
        """The bus behind it."""
        return self.spot.bdf.domain, self.secondary

    @property
    def name(self) -> str:
        """Its address, and the buses behind it."""
        return f"{self.spot.bdf} [bus {self.secondary:02x}-{self.subordinate:02x}]"


@dataclass(slots=True)
class Topology:
    """Functions sorted by address; `ports` by the bus that they lead to; the root buses."""

    spots: list[Spot] = field(default_factory=list)
    ports: dict[BusKey, Port] = field(default_factory=dict)
    roots: set[BusKey] = field(default_factory=set)
    # Buses of bridges that are wrong themselves: what is on them has no problem of its own.
    excused: set[BusKey] = field(default_factory=set)


def bus_name(key: BusKey) -> str:
    """`0000:01`."""
    return f"{key[0]:04x}:{key[1]:02x}"


def topology(
    functions: dict[str, PciFunction], host_buses: Iterable[BusKey], context: Context
) -> Topology:
    """What sits where. `host_buses` are those that a host bridge window is named after."""
    made = Topology(_spots(functions, context))
    ports = [
        Port(spot, spot.entry.bridge, spot.entry.bridge.secondary)
        for spot in made.spots
        if spot.entry.bridge is not None
    ]
    for port in ports:
        _add_port(port, made, context)
    made.roots = {(spot.bdf.domain, 0) for spot in made.spots}
    made.roots.update(key for key in host_buses if key not in made.ports)
    _number(made)
    _check_numbers(made, context)
    _check_reach(made, context)
    _check_slots(made.spots, context)
    return made


def _spots(functions: dict[str, PciFunction], context: Context) -> list[Spot]:
    spots: dict[Bdf, Spot] = {}
    for key, entry in functions.items():
        path: Path = (*FUNCTIONS, key)
        try:
            bdf = Bdf.parse(key)
        except PciError as error:
            context.report(str(error), *path, key=True)
            continue
        if bdf.domain > 0xFFFF:
            context.report(f"{key}: a domain has at most four hexadecimal digits", *path, key=True)
            continue
        known = spots.get(bdf)
        if known is not None:
            where = context.root.find(known.path).key_place
            context.report(f"two functions at one address: {bdf} is there already ({where}); "
                           "keep one, or move it", *path, key=True)  # fmt: skip
            continue
        spots[bdf] = Spot(bdf, entry, path)
    return [spots[bdf] for bdf in sorted(spots)]


def _add_port(port: Port, made: Topology, context: Context) -> None:
    primary, own = port.bridge.primary, port.spot.bdf.bus
    if primary is not None and primary != own:
        context.report(f"the bridge sits on bus {own:#04x}, so its primary bus is {own:#04x}, "
                       f"not {primary:#04x}", *port.path, "primary")  # fmt: skip
    if port.secondary <= own:
        made.excused.add(port.lower)
        context.report(
            f"bus {port.secondary:#04x} cannot lie behind a bridge on bus {own:#04x}: "
            "the numbers behind a bridge are larger than its own",
            *port.path, "secondary",
        )  # fmt: skip
        return
    known = made.ports.get(port.lower)
    if known is not None:
        context.report(f"two bridges lead to bus {bus_name(port.lower)}: {known.spot.bdf} does too "
                       f"({context.place(*known.path)})", *port.path, "secondary")  # fmt: skip
        return
    made.ports[port.lower] = port


def _number(made: Topology) -> None:
    """The last bus behind each bridge, where the profile leaves it to us; deepest bridges first."""
    for port in sorted(made.ports.values(), key=lambda one: one.secondary, reverse=True):
        given = port.bridge.subordinate
        port.subordinate = max(port.subordinate, port.secondary) if given is None else given
        above = made.ports.get(port.upper)
        if above is not None:
            above.subordinate = max(above.subordinate, port.subordinate)


def _check_numbers(made: Topology, context: Context) -> None:
    """Bus ranges nest as bridges do: inside that of the bridge above, apart from its siblings."""
    siblings: dict[tuple[int, int], list[Port]] = {}
    for port in made.ports.values():
        above = made.ports.get(port.upper)
        siblings.setdefault(port.upper if above else (port.upper[0], -1), []).append(port)
        if port.subordinate < port.secondary:
            context.report(f"the last bus behind the bridge ({port.subordinate:#04x}) comes before the "
                           f"first ({port.secondary:#04x})", *port.path, "subordinate")  # fmt: skip
        elif above is not None and port.subordinate > above.subordinate:
            context.report(
                f"bridge bus numbers clash: {port.name} lies behind {above.name}, which leads to "
                f"fewer buses; `subordinate: {port.subordinate:#04x}` would be right there "
                f"({context.place(*above.path)})",
                *port.path,
            )
    for group in siblings.values():
        _check_siblings(group, context)
    for key in made.roots:
        for port in siblings.get((key[0], -1), ()):
            if port.secondary <= key[1] <= port.subordinate:
                context.report(f"bridge bus numbers clash: {port.name} leads to bus {bus_name(key)}, "
                               "which is a root bus", *port.path)  # fmt: skip


def _check_siblings(group: list[Port], context: Context) -> None:
    last: Port | None = None
    for port in sorted(group, key=lambda one: one.secondary):
        if last is not None and port.secondary <= last.subordinate:
            context.report(f"bridge bus numbers clash: {port.name} and {last.name} "
                           f"({context.place(*last.path)}) lead to the same buses", *port.path)  # fmt: skip
        if last is None or port.subordinate > last.subordinate:
            last = port


def _check_reach(made: Topology, context: Context) -> None:
    buses = made.roots | made.ports.keys()
    lost = {(spot.bdf.domain, spot.bdf.bus) for spot in made.spots}
    lost -= buses | made.excused
    for spot in made.spots if lost else ():
        key = (spot.bdf.domain, spot.bdf.bus)
        if key in lost:
            known = ", ".join(bus_name(bus) for bus in sorted(buses)[:8])
            context.report(f"no bridge leads to bus {bus_name(key)}; add a bridge with "
                           f"`secondary: {key[1]:#04x}`, or use one of the buses {known}",
                           *spot.path, key=True)  # fmt: skip


def _check_slots(spots: list[Spot], context: Context) -> None:
    """The kernel looks at functions 1 to 7 only where there is a function 0."""
    first = {spot.bdf[:3] for spot in spots if spot.bdf.function == 0}
    for spot in spots:
        if spot.bdf[:3] not in first:
            zero = spot.bdf._replace(function=0)
            context.report(f"{spot.bdf} is never found: the kernel looks for it only where there is "
                           f"a {zero}", *spot.path, key=True)  # fmt: skip
