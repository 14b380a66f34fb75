"""What host bridges own: their windows in `iomem:` and `ports:`, ECAM, and what else lies there."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_

from fakedev.devices.pci.plan import EcamPlan, PortPlan
from fakedev.firmware.base import Placed
from fakedev.model.flags import FLAG_NAMES, IORESOURCE_BUSY, IORESOURCE_IO
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree
from fakedev.profiles.compile_pci_buses import BusKey
from fakedev.profiles.compile_pci_space import HostWindows
from fakedev.profiles.context import Context, Path
from fakedev.profiles.schema_memory import IomemEntry
from fakedev.profiles.schema_pci import Pci

_BUS = re.compile(r"PCI Bus ([0-9a-f]{4}):([0-9a-f]{2})")
_FUNCTION = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_PORTS = 1 << 16
_MCFG_HEADER, _MCFG_ENTRY = 44, struct.Struct("<QHBB4x")


def port_tree(entries: list[IomemEntry], context: Context) -> ResourceTree:
    """`ports:` as a resource tree; nodes that do not nest are reported."""
    tree = ResourceTree.ioports()
    origins: dict[Resource, Path] = {}

    def add(entry: IomemEntry, parent: Resource, path: Path) -> None:
        start, end = entry.span.start, entry.span.end - 1
        if end >= _PORTS:
            context.report(
                f"{start:04x}-{end:04x} : {entry.name} ends beyond the last port, ffff", *path
            )
            return
        node = Resource(start, end, entry.name, _flags(entry))
        conflict = tree.request_resource(parent, node)
        if conflict is not None:
            where = origins.get(conflict)
            place = f" of {context.place(*where)}" if where else ""
            why = "does not lie inside" if conflict is parent else "is in conflict with"
            context.report(
                f"{_shown(node)} {why} {_shown(conflict)}{place}; nodes nest or lie apart", *path
            )
            return
        origins[node] = path
        for index, child in enumerate(entry.children):
            add(child, node, (*path, "children", index))

    for index, entry in enumerate(entries):
        add(entry, tree.root, ("pci", "ports", index))
    return tree


def _shown(node: Resource) -> str:
    return f"{node.start:04x}-{node.end:04x} : {node.name}"


def _flags(entry: IomemEntry) -> int:
    if entry.flags is not None:
        return reduce(or_, (FLAG_NAMES[name] for name in entry.flags), IORESOURCE_IO)
    window = _BUS.fullmatch(entry.name) or _FUNCTION.fullmatch(entry.name)
    return IORESOURCE_IO | (0 if window else IORESOURCE_BUSY)


def port_plans(tree: ResourceTree) -> tuple[PortPlan, ...]:
    """The tree in pre-order."""
    return tuple(
        PortPlan(depth, node.start, node.end, node.name, node.flags) for depth, node in tree.walk()
    )


def host_windows(iomem: ResourceTree, ports: ResourceTree) -> dict[BusKey, HostWindows]:
    """The windows of each root bus: nodes `PCI Bus DDDD:BB` that lie in no other such node."""
    memory, io = dict(_grouped(iomem)), dict(_grouped(ports))
    return {
        key: HostWindows(tuple(memory.get(key, ())), tuple(io.get(key, ())))
        for key in memory.keys() | io.keys()
    }


def _grouped(tree: ResourceTree) -> Iterable[tuple[BusKey, list[Range]]]:
    found: dict[BusKey, list[Range]] = {}
    for node in _outermost(tree.root):
        match = _BUS.fullmatch(node.name)
        if match is not None:
            key = (int(match[1], 16), int(match[2], 16))
            found.setdefault(key, []).append(_span(node))
    return found.items()


def _outermost(node: Resource) -> Iterator[Resource]:
    for child in node.children:
        if _BUS.fullmatch(child.name):
            yield child
        else:
            yield from _outermost(child)


def taken(tree: ResourceTree) -> list[Range]:
    """What lies in host bridge windows beside PCI: legacy devices, firmware's own registers."""
    return [span for window in _outermost(tree.root) for span in _inside(window)]


def _inside(node: Resource) -> Iterator[Range]:
    for child in node.children:
        if _BUS.fullmatch(child.name):
            yield from _inside(child)
        else:
            yield _span(child)


def _span(node: Resource) -> Range:
    return Range(node.start, node.end + 1 - node.start)


def ecam_windows(given: Pci, tables: Iterable[Placed], context: Context) -> tuple[EcamPlan, ...]:
    """Where configuration space lies in memory: as the profile says, else as MCFG does."""
    if given.ecam == "none":
        return ()
    if isinstance(given.ecam, int):
        if given.ecam & 0xFFFFF or not given.ecam:
            context.report(f"{given.ecam:#x} cannot be the address of ECAM: each bus has 1 MiB of it, at "
                           "a multiple of that", "pci", "ecam")  # fmt: skip
        return (EcamPlan(0, given.ecam),)
    table = next((item.data for item in tables if item.name == "MCFG"), b"")
    found = []
    for at in range(_MCFG_HEADER, len(table) - _MCFG_ENTRY.size + 1, _MCFG_ENTRY.size):
        base, domain, first, last = _MCFG_ENTRY.unpack_from(table, at)
        if first <= last:
            found.append(EcamPlan(domain, base, first, last))
    return tuple(found)


def ecam_span(window: EcamPlan) -> Range:
    """The addresses that it answers at."""
    return Range(window.base + (window.first << 20), (window.last + 1 - window.first) << 20)
