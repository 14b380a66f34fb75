"""`pci:` to its plan.

The steps: functions and bridges to buses (`compile_pci_buses`); BARs and windows to addresses
(`compile_pci_functions`, `compile_pci_space`); then the whole as plain values. BAR memory counts as
memory: contents that are placed there become contents of the BAR, wherever it moves later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fakedev.devices.pci.plan import EcamPlan, PciPlan, PortPlan
from fakedev.firmware.base import Placed
from fakedev.model.resources import ResourceTree
from fakedev.profiles.compile_memory import Area
from fakedev.profiles.compile_pci_buses import topology
from fakedev.profiles.compile_pci_capabilities import Chains
from fakedev.profiles.compile_pci_drivers import check_drivers, drivers
from fakedev.profiles.compile_pci_functions import Draft, Slice, draft
from fakedev.profiles.compile_pci_hosts import (
    ecam_span,
    ecam_windows,
    host_windows,
    port_plans,
    port_tree,
    taken,
)
from fakedev.profiles.compile_pci_plans import Planner
from fakedev.profiles.compile_pci_space import Space
from fakedev.profiles.context import Context
from fakedev.profiles.plan import Placement
from fakedev.profiles.schema_pci import Pci


@dataclass(slots=True)
class PciParts:
    """`pci:` half way: everything has an address, contents are still to come."""

    pci: Pci
    drafts: list[Draft]
    space: Space
    ports: tuple[PortPlan, ...]
    context: Context

    def areas(self) -> list[Area]:
        """Where BAR memory lies; it is built apart from the segments."""
        return [_area(each) for each in self.slices() if not each.share.io]

    def slices(self) -> Iterator[Slice]:
        """All BARs that have an address."""
        for one in self.drafts:
            for each in one.slices:
                if each.share.start is not None:
                    yield each

    def divide(self, placements: Iterable[Placement]) -> Iterator[Placement]:
        """Give contents to the BARs that they lie in; yields what is left for other memory."""
        memory = sorted(
            (each for each in self.slices() if each.memory), key=lambda each: each.share.span
        )
        starts = [each.share.span.start for each in memory]
        for placement in placements:
            yield from _divided(placement, memory, starts)

    def plan(self, tables: Iterable[Placed], other: list[Area]) -> PciPlan:
        """The plan, with drivers and ECAM checked; `other` is the memory beside ECAM."""
        planner = Planner(self.drafts, self.space, Chains(self.context), self.context)
        functions = [planner.plan(one) for one in self.drafts]
        known = drivers(self.pci.drivers, self.context)
        check_drivers(known, self.drafts, functions, self.context)
        ecam = ecam_windows(self.pci, tables, self.context)
        _check_ecam(ecam, other, self.context)
        return PciPlan(
            self.pci.sysfs,
            ecam,
            self.pci.conf1,
            self.pci.cpus,
            self.ports,
            tuple(functions),
            known,
            0 if self.pci.ecam_padding == "zeros" else 0xFF,
        )


def compile_pci(
    pci: Pci,
    iomem: ResourceTree,
    other: Iterable[Area],
    context: Context,
) -> PciParts:
    """Everything in its place. `other` is the memory that is no BAR."""
    ports = port_tree(pci.ports, context)
    hosts = host_windows(iomem, ports)
    buses = topology(pci.functions, hosts, context)
    drafts = [draft(spot, context) for spot in buses.spots]
    busy = {"mem": [*taken(iomem), *(area.span for area in other)], "io": taken(ports)}
    space = Space(buses, hosts, busy, context)
    for one in drafts:
        for each in one.slices:
            space.add(one.bus, each.share)
    space.settle()
    return PciParts(pci, drafts, space, port_plans(ports), context)


def _area(each: Slice) -> Area:
    """Registers are no place for contents: they count as taken, not as memory."""
    path = each.share.path if each.entry.at is None else (*each.share.path, "at")
    return Area(each.share.span, each.share.label, path, window=True, memory=each.memory)


def _check_ecam(windows: tuple[EcamPlan, ...], other: list[Area], context: Context) -> None:
    for window in windows:
        span = ecam_span(window)
        for area in other:
            if area.span.overlaps(span):
                context.report(f"{area.name} ({area.span}) lies in the configuration window {span} (ECAM), "
                               "which answers there; move it, or take it out", *area.path)  # fmt: skip


def _divided(placement: Placement, memory: list[Slice], starts: list[int]) -> Iterator[Placement]:
    """The parts of a content: those inside BARs are kept there, with offsets in the BAR."""
    at, end = placement.start, placement.start + placement.size
    index = max(bisect_right(starts, at) - 1, 0)
    while at < end and index < len(memory):
        span = memory[index].share.span
        if span.end <= at:
            index += 1
            continue
        if span.start > at:
            stop = min(span.start, end)
            yield _cut(placement, at, stop)
            at = stop
            continue
        stop = min(span.end, end)
        part = _cut(placement, at, stop)
        memory[index].contents.append(part._replace(start=at - span.start))
        at = stop
    if at < end:
        yield _cut(placement, at, end)


def _cut(placement: Placement, low: int, high: int) -> Placement:
    """The bytes of a content from one address up to another."""
    skip, size = low - placement.start, high - low
    if (skip, size) == (0, placement.size):
        return placement
    data = placement.data[skip : skip + size]
    fill = placement.fill
    if fill.pattern:
        phase = skip % len(fill.pattern)
        fill = fill._replace(pattern=fill.pattern[phase:] + fill.pattern[:phase])
    return Placement(low, size, data, placement.path, placement.offset + skip, fill)
