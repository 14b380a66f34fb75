"""Functions whose BARs have addresses, as plain values."""

from __future__ import annotations

import posixpath
from collections import Counter
from typing import Any

from fakedev.devices.pci.plan import ROM, BarPlan, BridgePlan, FunctionPlan, LinkPlan
from fakedev.profiles.compile_pci_buses import Port, Spot
from fakedev.profiles.compile_pci_capabilities import Chains
from fakedev.profiles.compile_pci_functions import Draft, Slice
from fakedev.profiles.compile_pci_space import Space
from fakedev.profiles.context import Context, Path
from fakedev.profiles.plan import Fill
from fakedev.profiles.schema_pci_functions import Header, Interrupt, PciFunction, Rom

_IO, _MEMORY, _MASTER = 1, 2, 4
_NO_SOFT_RESET = 8
_PORTS = ("root-port", "upstream", "downstream")


class Planner:
    """Drafts to plans, once every share has its address."""

    def __init__(self, drafts: list[Draft], space: Space, chains: Chains, context: Context) -> None:
        self.space = space
        self.chains = chains
        self.context = context
        self.header, self.interrupt = Header(), Interrupt()
        self.slots = Counter(one.spot.bdf[:3] for one in drafts)
        self.alone = {bus for bus, n in Counter(one.bus for one in drafts).items() if n == 1}
        self.ports: dict[Path, Port] = {port.spot.path: port for port in space.buses.ports.values()}

    def plan(self, one: Draft) -> FunctionPlan:
        """The function as plain values."""
        entry, bdf = one.spot.entry, one.spot.bdf
        header = entry.header or self.header
        pin = entry.interrupt or self.interrupt
        chain = self.chains.of(entry, one.spot.path, {s.index: s.share for s in one.slices})
        several = self.slots[bdf[:3]] > 1 and bdf.function == 0
        bridge = self._bridge(one.spot)
        if bridge is None and chain.names.get("pcie", {}).get("type") in _PORTS:
            self.context.report(f"a {chain.names['pcie']['type']} is a bridge; write `bridge: "
                                "{secondary: ...}`", *one.spot.path, "capabilities")  # fmt: skip
        size = entry.config_size or (4096 if chain.extended else 256)
        self._check_links(entry, one.spot.path)
        self._check_config(entry, one.spot.path, size, extended=chain.extended)
        return FunctionPlan(
            *bdf,
            *entry.id,
            entry.class_code,
            entry.revision,
            *entry.subsystem,
            cache_line=header.cache_line,
            latency=header.latency,
            bist=header.bist,
            multifunction=several if header.multifunction is None else header.multifunction,
            command=_command(one, bridge) if entry.command is None else entry.command,
            status=entry.status,
            config_size=size,
            pin=pin.pin,
            line=pin.line,
            irq=pin.irq,
            gsi=pin.gsi,
            numa_node=entry.numa_node,
            bars=tuple(_bar_plan(each) for each in one.slices),
            bridge=bridge,
            capabilities=chain.plan,
            config=tuple((patch.at, patch.data) for patch in entry.config),
            slot=entry.slot or _slot(chain.names),
            driver="" if entry.driver == "none" else entry.driver,
            reset=self._resets(one, chain.names),
            on_unplug=entry.on_unplug,
            msi_irqs=tuple(entry.msi_irqs),
            power_state=entry.power_state,
            dma_mask_bits=entry.dma_mask_bits,
            consistent_dma_mask_bits=entry.consistent_dma_mask_bits,
            enabled=entry.enabled,
            d3cold_allowed=entry.d3cold_allowed,
            link=_link(entry),
            links=tuple(entry.links.items()),
        )

    def _bridge(self, spot: Spot) -> BridgePlan | None:
        given, port = spot.entry.bridge, self.ports.get(spot.path)
        if given is None:
            return None
        if port is None:
            return BridgePlan(spot.bdf.bus, given.secondary, given.subordinate or given.secondary)
        opened = self.space.windows.get(port.lower, {})
        io, memory, prefetch = (
            (opened[kind].start or 0, opened[kind].size) if kind in opened else None
            for kind in ("io", "mem", "pref")
        )
        return BridgePlan(spot.bdf.bus, port.secondary, port.subordinate, io, memory, prefetch,
                          given.windows_listed)  # fmt: skip

    def _resets(self, one: Draft, capabilities: dict[str, Any]) -> tuple[str, ...]:
        """`pci_init_reset_methods`, as far as a profile can tell."""
        if one.spot.entry.reset is not None:
            return one.spot.entry.reset
        found = []
        if capabilities.get("pcie", {}).get("flr"):
            found.append("flr")
        if "af" in capabilities and capabilities["af"].get("flr", True):
            found.append("af_flr")
        if "pm" in capabilities and not capabilities["pm"].get("control", 8) & _NO_SOFT_RESET:
            found.append("pm")
        behind = one.bus not in self.space.buses.roots and one.spot.entry.bridge is None
        if behind and one.bus in self.alone:
            found.append("bus")
        return tuple(found)

    def _check_links(self, entry: PciFunction, path: Path) -> None:
        for link, target in entry.links.items():
            good = link.startswith("/sys/") and posixpath.normpath(link) == link
            if not good or target.startswith("/") or ".." in target.split("/") or not target:
                self.context.report(
                    f"not a link into the function's directory: {link!r} to {target!r}; write "
                    "/sys/class/net/eth0: net/eth0",
                    *path, "links", link, key=True,
                )  # fmt: skip

    def _check_config(self, entry: PciFunction, path: Path, size: int, *, extended: bool) -> None:
        if extended and size == 256:
            self.context.report("an extended capability needs `config_size: 4096`",
                                *path, "config_size")  # fmt: skip
        for index, patch in enumerate(entry.config):
            if patch.at + len(patch.data) > size:
                self.context.report(
                    f"{len(patch.data)} bytes at {patch.at:#x} leave the {size} bytes of configuration "
                    "space" + ("; `config_size: 4096` would do" if size == 256 else ""),
                    *path, "config", index,
                )  # fmt: skip


def _command(one: Draft, bridge: BridgePlan | None) -> int:
    """The command register as firmware leaves it: what has an address decodes."""
    if bridge is not None:
        spaces = (_IO if bridge.io else 0) | (_MEMORY if bridge.memory or bridge.prefetch else 0)
    else:
        spaces = 0
    for each in one.slices:
        spaces |= _IO if each.share.io else _MEMORY
    return spaces | (_MASTER if bridge is not None else 0)


def _bar_plan(each: Slice) -> BarPlan:
    entry, share = each.entry, each.share
    if isinstance(entry, Rom):
        return BarPlan(ROM, "mem", 32, False, share.size, share.start or 0, entry.listed,
                       entry.enabled, (), Fill(), tuple(each.contents))  # fmt: skip
    registers = tuple(register.plan() for register in entry.registers or ())
    fill = entry.fill._replace(seed=entry.seed or 0)
    return BarPlan(
        each.index,
        "io" if share.io else "mem",
        64 if entry.mem64 else 32,
        entry.prefetch,
        share.size,
        share.start or 0,
        entry.listed,
        registers=registers,
        fill=fill,
        contents=tuple(each.contents),
    )


def _slot(capabilities: dict[str, Any]) -> str | None:
    """The driver pciehp names the slot of a hot-plug port after its physical number."""
    options = capabilities.get("pcie", {})
    return str(options["slot"]) if options.get("hotplug") and "slot" in options else None


def _link(entry: PciFunction) -> LinkPlan | None:
    link = entry.link
    if link is None:
        return None
    return LinkPlan(link.speed, link.width, link.max_speed, link.max_width)
