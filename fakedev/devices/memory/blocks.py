"""Memory blocks: RAM in portions that go online and offline (`drivers/base/memory.c`).

Theory of operation
-------------------
A block is `block_size` bytes, numbered by address. `add_memory` and `remove_memory` are the
kernel's verbs of hot-plug: they claim or free a BUSY System RAM resource, make or drop the blocks,
and change what `/dev/mem` answers. `online` and `offline` hand whole blocks to the page allocator or
take them back; nothing of that is seen in `/proc/iomem`, nor does it change a verdict.

What decodes there is not our business: who plugs hardware adds it to the machine's memory before
`add_memory`, and takes it away after `remove_memory`. Verbs are all or nothing. They run under
`machine.verb()`; listeners are called without `machine.lock`.
"""

import contextlib
import errno
from bisect import bisect_left, insort

from fakedev.devices.memory.block import BlockError, MemoryBlock
from fakedev.devices.memory.boot import BLOCK_SIZE, BootBlocks
from fakedev.devices.memory.nodes import NodeSettings
from fakedev.devices.memory.onlining import AUTO_ONLINE, EHWPOISON, Listener
from fakedev.model.effects import NodesChanged
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.flags import IORESOURCE_SYSRAM_DRIVER_MANAGED
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

__all__ = [
    "AUTO_ONLINE",
    "BLOCK_SIZE",
    "EHWPOISON",
    "BlockError",
    "Listener",
    "MemoryBlock",
    "MemoryBlocks",
]

MEMORY = "/sys/devices/system/memory"
NODES = "/sys/devices/system/node"
DEVICES = "/sys/bus/memory/devices"


class MemoryBlocks(BootBlocks):
    """The memory blocks of a machine (`machine.blocks`): `blocks` by number, in order.

    `nodes` are the NUMA nodes by id, as the firmware tells of them. `listeners` is the memory
    notifier: each is called with a word and a range; at `going-online` and `going-offline` it may
    raise ControlError to say no (then all hear `cancel-online` or `cancel-offline`), and `online`
    and `offline` tell what has happened.
    """

    # -- hot-plug ---------------------------------------------------------------------------

    def add_memory(
        self,
        span: Range,
        *,
        name: str = "System RAM",
        nid: int = 0,
        parent: Resource | None = None,
        driver_managed: bool = False,
        mergeable: bool = False,
    ) -> list[MemoryBlock]:
        """`add_memory`, `add_memory_driver_managed`: the new blocks, online if `auto_online` says so.

        `parent` is where the search for a place starts (default: the root). `mergeable`: the
        resource is joined with equal neighbours. EINVAL: not whole blocks, or a driver-managed
        name other than `System RAM (...)`. ERANGE: beyond what the CPU addresses. EEXIST: memory or
        a BUSY resource is there. Under `deny-claim`, ResourceConflictError (EBUSY): who maps it.
        """
        with self.machine.verb():
            self._check_add(span, name, driver_managed=driver_managed)
            flags = IORESOURCE_SYSRAM_DRIVER_MANAGED if driver_managed else 0
            try:
                self.machine.add_ram(span, name, flags=flags, parent=parent, mergeable=mergeable)
            except ResourceConflictError as error:
                if error.denied:
                    raise
                raise BlockError(f"{error} (EEXIST)", errno=errno.EEXIST) from None
            unknown = {nid} - set(self.nodes)
            with self.machine.lock:
                new = [self._make(number, nid) for number in self.numbers(span)]
                self._keep(new)
            self._show(new, unknown)
            self._auto_online(new)
            return new

    def _check_add(self, span: Range, name: str, *, driver_managed: bool) -> None:
        if span.size <= 0 or span.start % self.block_size or span.size % self.block_size:
            raise BlockError(
                f"{span} is not made of whole memory blocks of {self.block_size >> 20} MiB"
            )
        if driver_managed and not (name.startswith("System RAM (") and name.endswith(")")):
            raise BlockError(f"memory of a driver is named `System RAM (...)`, not {name!r}")
        if span.end > 1 << self.machine.rules.physical_address_bits:
            bits = self.machine.rules.physical_address_bits
            why = f"{span} ends beyond the {bits} address bits of this CPU"
            raise BlockError(why, errno=errno.ERANGE)
        if there := self.within(span):
            why = f"{span}: {there[0].name} is there already (EEXIST)"
            raise BlockError(why, errno=errno.EEXIST)

    def _make(self, number: int, nid: int) -> MemoryBlock:
        block = MemoryBlock(number, self.block_size, self._tree, nid=nid, present=self.block_size)
        block.poisoned = self.machine.poison is not None and self.machine.poison.covers(block.span)
        return block

    def _keep(self, new: list[MemoryBlock]) -> None:
        """Take blocks in, in order; called under `machine.lock`."""
        for block in new:
            insort(self._numbers, block.number)
            self.blocks[block.number] = block
            if block.nid not in self.nodes:
                self.nodes = dict(
                    sorted({**self.nodes, block.nid: NodeSettings(block.nid)}.items())
                )
        if self._numbers[-1] != new[-1].number:
            self.blocks = {number: self.blocks[number] for number in self._numbers}

    def _auto_online(self, new: list[MemoryBlock]) -> None:
        for block in new if self.auto_online != "offline" else ():
            with contextlib.suppress(ControlError):  # the kernel ignores it, too
                self.online(block.number, self.auto_online)

    def remove_memory(self, span: Range) -> None:
        """`remove_memory`: blocks and resource vanish. EBUSY unless every block is offline.

        EINVAL: not whole blocks. ENXIO: a block of the range is not there.
        """
        with self.machine.verb():
            gone = self._check_remove(span)
            with self.machine.lock:
                for block in gone:
                    del self.blocks[block.number]
                low = bisect_left(self._numbers, gone[0].number)
                del self._numbers[low : low + len(gone)]
            self.machine.free_ram(span)
            self._show(gone, set())

    def _check_remove(self, span: Range) -> list[MemoryBlock]:
        if span.size <= 0 or span.start % self.block_size or span.size % self.block_size:
            raise BlockError(
                f"{span} is not made of whole memory blocks of {self.block_size >> 20} MiB"
            )
        found = self.within(span)
        if len(found) != len(self.numbers(span)):
            raise BlockError(f"{span} has no memory in all its blocks", errno=errno.ENXIO)
        busy = [block for block in found if block.online]
        if busy:
            raise BlockError(
                f"removing memory fails, because {busy[0].name} ({busy[0].span}) is onlined",
                errno=errno.EBUSY,
            )
        return found

    def _show(self, blocks: list[MemoryBlock], new_nodes: set[int]) -> None:
        """Directories of sysfs have other entries now."""
        names = tuple(block.name for block in blocks)
        effects = [NodesChanged(MEMORY, names), NodesChanged(DEVICES, names)]
        for nid in sorted({block.nid for block in blocks}):
            own = tuple(block.name for block in blocks if block.nid == nid)
            effects.append(NodesChanged(f"{NODES}/node{nid}", own))
        if new_nodes:
            effects.append(NodesChanged(NODES, tuple(f"node{nid}" for nid in sorted(new_nodes))))
        self.machine.publish(*effects)

    # -- reset ------------------------------------------------------------------------------

    def reset(self) -> None:
        """Blocks, nodes and slots as they were at boot; the RAM of all others is released.

        Called inside a verb, before what else has memory is reset. Bytes are put back by the machine.
        """
        before = dict(self.blocks)
        for span in [block.span for block in before.values() if not block.boot]:
            self.machine.free_ram(span)
        self.dimms.reset_before()
        with self.machine.lock:
            for block in before.values():
                self.leave(block)
            strange = self.nodes.keys() - self._boot_nodes.keys()
            self.auto_online, self.nodes = self._boot_auto, self._boot_nodes
            self.machine.boot_ram()
            self.boot(self._tree)
            self.changes += 1
        after = self.blocks
        moved = [b for n, b in before.items() if after.get(n) is not b]
        moved += [b for n, b in after.items() if n not in before]
        if moved or strange:
            self._show(moved, strange)
