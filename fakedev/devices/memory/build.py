"""A `BlocksPlan` to the memory blocks of a machine."""

from typing import TYPE_CHECKING

from fakedev.devices.memory.blocks import MemoryBlocks
from fakedev.devices.memory.nodes import NodeSettings
from fakedev.model.kernel import KernelRules
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.resources import ResourceTree

if TYPE_CHECKING:
    from fakedev.devices.memory.plan import BlocksPlan


def build_blocks(
    plan: "BlocksPlan | None",
    rules: KernelRules,
    memory: PhysicalMemory,
    tree: ResourceTree,
    *,
    cpus: str = "0",
) -> tuple[MemoryBlocks, int]:
    """The blocks as they are at boot, and the end of the highest DIMM that is plugged (0: none).

    `cpus` are those of node 0 where the plan names no nodes. Raises MemoryLayoutError or
    ResourceConflictError when a plugged DIMM lies on something else.
    """
    movable = any(name == "movable_node" for name, _ in rules.parameters)
    if plan is None:
        blocks = MemoryBlocks(rules.arch, cpus=cpus, movable_node=movable)
    else:
        nodes = [
            NodeSettings(n.id, tuple(Range(*r) for r in n.ranges), n.cpus, n.distances)
            for n in plan.nodes
        ]
        blocks = MemoryBlocks(
            rules.arch,
            block_size=plan.size,
            auto_online=plan.auto_online,
            nodes=nodes,
            cpus=cpus,
            unmovable=[Range(*span) for span in plan.unmovable],
            movable_node=movable,
            dimms=plan.dimms,
        )
        blocks.probe = plan.probe
    top = blocks.dimms.boot(memory, tree)
    blocks.boot(tree)
    return blocks, top
