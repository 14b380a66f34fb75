"""`memory_blocks:` to plain values."""

from __future__ import annotations

from fakedev.devices.memory.nodes import cpus_of
from fakedev.devices.memory.plan import BlocksPlan, DimmPlan, NodePlan
from fakedev.model.kernel import KernelRules
from fakedev.model.ranges import Range
from fakedev.model.resource import conflict_text
from fakedev.model.resources import ResourceTree
from fakedev.profiles.compile_memory import Area, overlaps
from fakedev.profiles.context import Context, Path
from fakedev.profiles.schema_blocks import NODE_LIMIT, DimmSlot, MemoryBlocks, MemoryNode

SECTION = "memory_blocks"
SMALLEST, LARGEST = 128 << 20, 64 << 30


def compile_blocks(
    given: MemoryBlocks | None,
    tree: ResourceTree,
    mapped: list[Area],
    bits: int,
    context: Context,
) -> BlocksPlan | None:
    """The plan; None for a machine that says nothing of it. `bits`: address width of the CPU."""
    if given is None:
        return None
    if not SMALLEST <= given.size <= LARGEST or given.size & (given.size - 1):
        context.report(
            f"a memory block is a power of two from 128 MiB to 64 GiB, not {given.size:#x} bytes",
            SECTION, "size",
        )  # fmt: skip
        return None
    _check_nodes(given.nodes, context)
    _check_dimms(given, tree, mapped, bits, context)
    return BlocksPlan(
        given.size,
        given.auto_online,
        tuple(
            NodePlan(
                node.id,
                tuple((span.start, span.size) for span in node.ranges),
                node.cpus or "",
                tuple(node.distances),
            )
            for node in sorted(given.nodes, key=lambda one: one.id)
        ),
        tuple(DimmPlan(d.slot, d.at, d.size, d.nid, d.plugged) for d in given.dimms),
        tuple((span.start, span.size) for span in given.unmovable),
        given.probe,
    )


def _check_nodes(nodes: list[MemoryNode], context: Context) -> None:
    ids: dict[int, int] = {}
    cpus: dict[int, int] = {}
    areas = []
    for index, node in enumerate(nodes):
        path: Path = (SECTION, "nodes", index)
        if node.id >= NODE_LIMIT:
            context.report(f"a node has a number below {NODE_LIMIT}, not {node.id}", *path, "id")
        if node.id in ids:
            place = context.place(SECTION, "nodes", ids[node.id], "id")
            context.report(f"there is a node {node.id} already ({place})", *path, "id")
        ids.setdefault(node.id, index)
        for cpu in cpus_of(node.cpus or ""):
            if cpu in cpus:
                context.report(f"CPU {cpu} is in node {cpus[cpu]} already", *path, "cpus")
                break
            cpus[cpu] = node.id
        areas += [
            Area(span, f"node {node.id}", (*path, "ranges", at))
            for at, span in enumerate(node.ranges)
        ]
        if node.distances:
            _check_distances(node, nodes, path, context)
    overlaps(areas, context, what="range of a node")


def _check_distances(
    node: MemoryNode, nodes: list[MemoryNode], path: Path, context: Context
) -> None:
    if len(node.distances) != len(nodes):
        context.report(
            f"{len(node.distances)} distances for {len(nodes)} nodes; write one for each, in order",
            *path, "distances",
        )  # fmt: skip
        return
    own = sorted(one.id for one in nodes).index(node.id)
    if node.distances[own] != 10 or not all(10 <= d <= 254 for d in node.distances):
        context.report(
            "a node is 10 away from itself, and from 10 to 254 from others", *path, "distances"
        )


def _check_dimms(
    given: MemoryBlocks, tree: ResourceTree, mapped: list[Area], bits: int, context: Context
) -> None:
    slots: set[str] = set()
    areas = []
    for index, dimm in enumerate(given.dimms):
        path: Path = (SECTION, "dimms", index)
        if dimm.slot in slots:
            context.report(f"there is a slot {dimm.slot!r} already", *path, "slot")
        slots.add(dimm.slot)
        if given.nodes and dimm.nid not in {node.id for node in given.nodes}:
            context.report(f"there is no node {dimm.nid}", *path, "nid")
        if _check_place(dimm, given.size, bits, path, context):
            span = Range(dimm.at, dimm.size)
            areas.append(Area(span, dimm.slot, (*path, "at")))
            _check_free(span, tree, mapped, path, context)
    overlaps(areas, context, what="DIMM")


def _check_place(dimm: DimmSlot, size: int, bits: int, path: Path, context: Context) -> bool:
    block = f"{size >> 20} MiB"
    if not dimm.size or dimm.size % size:
        context.report(f"a DIMM has whole memory blocks of {block}", *path, "size")
    elif dimm.at % size:
        context.report(f"a DIMM starts at a multiple of {block} (the block size)", *path, "at")
    elif dimm.at + dimm.size > 1 << bits:
        context.report(f"it ends beyond the {bits} address bits of this CPU", *path, "at")
    else:
        return True
    return False


def _check_free(
    span: Range, tree: ResourceTree, mapped: list[Area], path: Path, context: Context
) -> None:
    """Nothing else decodes there, and the kernel will find the place free."""
    other = next((area for area in mapped if area.span.overlaps(span)), None)
    if other is not None:
        context.report(f"{span} overlaps {other.name or 'memory'} ({other.span})", *path, "at")
        return
    _, conflict = tree.placement(span.start, span.end - 1)
    if conflict is not None:
        why = conflict_text(conflict, span.start, span.end - 1)
        context.report(f"{span} cannot be added: {why}", *path, "at")


def address_bits(rules: dict[str, str | int | bool]) -> int:
    """The address width of the CPU, for rules that have been checked, or the usual one."""
    known = {name: rules[name] for name in ("arch", "phys_bits") if name in rules}
    try:
        return KernelRules(**known).physical_address_bits  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - reported where the rules are checked
        return KernelRules().physical_address_bits
