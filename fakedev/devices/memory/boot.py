"""The memory blocks of a machine at boot, and questions about them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from fakedev.devices.memory.block import BUSY_RAM, MemoryBlock
from fakedev.devices.memory.dimm import Dimms
from fakedev.devices.memory.nodes import NodeSettings
from fakedev.devices.memory.onlining import Onlining
from fakedev.devices.memory.zones import Zones
from fakedev.model.ranges import PAGE_MASK, Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree

if TYPE_CHECKING:
    from fakedev.devices.memory.blocks import MemoryBlocks
    from fakedev.devices.memory.plan import DimmPlan
    from fakedev.model.machine import Machine

BLOCK_SIZE = 128 << 20


class BootBlocks(Onlining):
    """Blocks of the System RAM at boot. `told`: the firmware tells of nodes; else node 0 has all."""

    def __init__(
        self,
        arch: str = "x86_64",
        *,
        block_size: int = BLOCK_SIZE,
        auto_online: str = "offline",
        nodes: Iterable[NodeSettings] = (),
        cpus: str = "0",
        unmovable: Iterable[Range] = (),
        movable_node: bool = False,
        dimms: "tuple[DimmPlan, ...]" = (),
    ) -> None:
        super().__init__(Zones(arch, movable_node=movable_node))
        self.block_size = block_size
        self.nodes = {node.id: node for node in nodes}
        self.told = bool(self.nodes)
        self.nodes = self.nodes or {0: NodeSettings(0, cpus=cpus)}
        self.set_auto_online(auto_online)
        self.probe = False  # whether the file `probe` exists (CONFIG_ARCH_MEMORY_PROBE)
        self._boot_auto = auto_online
        self._unmovable = tuple(unmovable)
        self.dimms = Dimms(cast("MemoryBlocks", self), dimms)
        for plan in dimms:
            self.nodes.setdefault(plan.nid, NodeSettings(plan.nid))
        self._boot_nodes = self.nodes = dict(sorted(self.nodes.items()))
        self._tree = ResourceTree()
        self._numbers: list[int] = []  # sorted, for questions about ranges

    # -- boot -------------------------------------------------------------------------------

    def boot(self, tree: ResourceTree) -> None:
        """The blocks of the System RAM at boot, all online."""
        self._tree = tree
        found: dict[int, MemoryBlock] = {}
        size, at_boot = self.block_size, self.zones.at_boot
        only = None if self.told or self.dimms.plans else min(self.nodes)
        for span in self.ram_ranges():
            first, last = span.start, span.end
            for number in self.numbers(span):
                start, end = max(first, number * size), min(last, number * size + size)
                block = found.get(number)
                if block is None:
                    block = found[number] = self._at_boot(number)
                    block.nid = self.nid_at(start) if only is None else only
                block.present += end - start
                block.zones += at_boot(start, end)
        self.blocks = dict(sorted(found.items()))
        self._numbers = list(self.blocks)
        for block in self.blocks.values():
            if len(block.zones) > 1:
                block.zones = tuple(dict.fromkeys(block.zones))
            self._join(block, block.zones)
        self._mark_kernel()
        self.dimms.boot_states()

    def _at_boot(self, number: int) -> MemoryBlock:
        """A block of the boot memory; after a reset still the same one, if it was there all the time."""
        block = self.blocks.get(number)
        if block is None or not block.boot:
            return MemoryBlock(number, self.block_size, self._tree, boot=True)
        block.present, block.zones, block.unmovable = 0, (), False
        return block

    def adopt(self, span: Range) -> None:
        """Blocks that a reset has added anew are boot memory, and online as `boot` makes them."""
        with self.machine.lock:
            for block in self.within(span):
                self.leave(block)
                block.boot = True
                block.unmovable = any(one.overlaps(block.span) for one in self._unmovable)
                zones = self.zones.at_boot(block.span.start, block.span.end)
                self._join(block, tuple(dict.fromkeys(zones)))

    def _mark_kernel(self) -> None:
        """What the kernel itself lies in cannot move: children of System RAM, and what is said."""
        for span in self._unmovable:
            self.mark_unmovable(span)
        for node in self._tree.root.children:
            for child in node.children if node.matches(BUSY_RAM) else ():
                self.mark_unmovable(child.span)

    def nid_at(self, address: int) -> int:
        """The node that an address belongs to; the lowest one where nobody says."""
        for plan in self.dimms.plans.values():
            if plan.at <= address < plan.at + plan.size:
                return plan.nid
        for node in self.nodes.values():
            if any(span.start <= address < span.end for span in node.ranges):
                return node.id
        return min(self.nodes)

    def attach(self, machine: "Machine") -> None:
        """Become `machine.blocks`."""
        self.machine = machine
        machine.blocks = self

    def mark_unmovable(self, span: Range, *, unmovable: bool = True) -> None:
        """Say of every block of a range whether pages in it cannot be moved away."""
        for block in self.within(span):
            block.unmovable = unmovable

    # -- questions --------------------------------------------------------------------------

    def numbers(self, span: Range) -> range:
        """The numbers of the blocks that a range touches, whether they are there or not."""
        return range(span.start // self.block_size, (span.end - 1) // self.block_size + 1)

    def within(self, span: Range) -> list[MemoryBlock]:
        """The blocks that are there and share a byte with a range, by number."""
        wanted = self.numbers(span)
        low = bisect_left(self._numbers, wanted.start)
        high = bisect_left(self._numbers, wanted.stop, low)
        return [self.blocks[number] for number in self._numbers[low:high]]

    def not_online(self, span: Range) -> list[Range]:
        """Blocks of a range whose pages the page allocator does not have (`pfn_to_online_page`)."""
        found, size = self.blocks, self.block_size
        blocks = ((number, found.get(number)) for number in self.numbers(span))
        return [Range(n * size, size) for n, block in blocks if block is None or not block.online]

    def ram_ranges(self) -> list[Range]:
        """System RAM that is BUSY, at any depth, in whole pages (`walk_system_ram_range`)."""
        return list(_ram(self._tree.root.children))


def _ram(nodes: list[Resource]) -> Iterator[Range]:
    for node in nodes:
        if node.matches(BUSY_RAM):
            start, end = (node.start + PAGE_MASK) & ~PAGE_MASK, (node.end + 1) & ~PAGE_MASK
            if start < end:
                yield Range(start, end - start)
        else:
            yield from _ram(node.children)
