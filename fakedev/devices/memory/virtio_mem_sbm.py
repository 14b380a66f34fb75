"""Sub-block mode: memory blocks that are larger than what the device plugs at a time.

Each memory block is divided into sub-blocks. A block is added once its first sub-block is plugged,
and removed after its last one was unplugged; in between, the pages of unplugged sub-blocks are
hidden from the page allocator (PageOffline). `/proc/iomem` shows whole memory blocks.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fakedev.devices.memory.virtio_mem import VirtioMemDevice
from fakedev.devices.memory.virtio_mem_mode import (
    MOVABLE,
    OFFLINE_THRESHOLD,
    PAGEBLOCK,
    Mode,
    usable_units,
)
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.model.machine import Machine

_UNPLUG_ORDER = (
    ("offline", True), ("offline", False), ("movable", True),
    ("kernel", True), ("movable", False), ("kernel", False),
)  # fmt: skip


class SubBlocks:
    """One memory block. `where`: unused, plugged (not added), offline, kernel or movable.

    `plugged` has a byte for each sub-block; the first `held` plugged ones cannot be moved away.
    """

    __slots__ = ("held", "number", "plugged", "where")

    def __init__(self, number: int, count: int) -> None:
        self.number = number
        self.plugged = bytearray(count)
        self.where = "unused"
        self.held: frozenset[int] = frozenset()

    @property
    def partial(self) -> bool:
        """Some sub-blocks are not plugged."""
        return not all(self.plugged)

    @property
    def state(self) -> str:
        """The kernel's name for it: `offline_partial`, `movable`, ..."""
        suffix = "_partial" if self.partial and self.where not in {"unused", "plugged"} else ""
        return f"{self.where}{suffix}"

    def runs(self, wanted: int, most: int) -> Iterator[tuple[int, int]]:
        """Runs of sub-blocks that are (1) or are not (0) plugged, upwards, of `most` together."""
        at = self.plugged.find(wanted)
        while at >= 0 and most:
            end = self.plugged.find(1 - wanted, at)
            end = min(len(self.plugged) if end < 0 else end, at + most)
            yield at, end
            most -= end - at
            at = self.plugged.find(wanted, end)

    def movable_runs(self, most: int) -> Iterator[tuple[int, int]]:
        """Runs of plugged sub-blocks that can be given up, downwards, of `most` together."""
        end = len(self.plugged)
        while end and most:
            if not self.plugged[end - 1] or end - 1 in self.held:
                end -= 1
                continue
            at = end - 1
            while at and end - at < most and self.plugged[at - 1] and at - 1 not in self.held:
                at -= 1
            yield at, end
            most -= end - at
            end = at


class SubBlockMode(Mode):
    """Bookkeeping of a driver in sub-block mode.

    `mbs` are the memory blocks that it has used, by number: they are used upwards from the first.
    """

    name = "SBM"

    def __init__(self, machine: "Machine", device: VirtioMemDevice, parent: Resource) -> None:
        super().__init__(machine, device, parent)
        self.block_size = self.blocks.block_size
        self.unit = max(device.plan.block_size, PAGEBLOCK)
        self.per_block = self.block_size // self.unit
        self.offline_threshold = max(2 * self.block_size, OFFLINE_THRESHOLD)
        self.usable = usable_units(
            device, self.block_size, 1 << machine.rules.physical_address_bits
        )
        self.mbs: dict[int, SubBlocks] = {}

    def states(self) -> dict[str, int]:
        """Memory blocks by state."""
        return dict(Counter(mb.state for mb in self.mbs.values() if mb.where != "unused"))

    def hidden(self) -> list[Range]:
        """Sub-blocks of added blocks that are not plugged."""
        every = tuple(self.mbs.values())  # who asks may hold no lock
        added = [mb for mb in every if mb.where not in {"unused", "plugged"}]
        return [self.span(mb, *run) for mb in added for run in mb.runs(0, self.per_block)]

    def span(self, mb: SubBlocks, first: int = 0, end: int | None = None) -> Range:
        """The bytes of some sub-blocks."""
        end = self.per_block if end is None else end
        return Range(mb.number * self.block_size + first * self.unit, (end - first) * self.unit)

    # -- plugging ---------------------------------------------------------------------------

    def plug(self, size: int) -> None:
        """Fill blocks that are there, of kernel zones first; then add new ones, upwards."""
        wanted = size // self.unit
        for where in ("kernel", "movable", "offline"):
            for mb in tuple(self.mbs.values()):
                if wanted and mb.where == where and mb.partial:
                    done = self._plug_some(mb, wanted)
                    if not done:
                        return
                    wanted -= done
        for number in self.usable:
            if not wanted or not self._within_usable(number):
                return
            mb = self._block(number)
            if mb.where in {"unused", "plugged"}:
                done = self._plug_and_add(mb, wanted)
                if not done:
                    return
                wanted -= done

    def _within_usable(self, number: int) -> bool:
        end = self.device.plan.addr + self.device.usable_region_size
        return number * self.block_size < end

    def _block(self, number: int) -> SubBlocks:
        found = self.mbs.get(number)
        if found is None:
            found = self.mbs[number] = SubBlocks(number, self.per_block)
        return found

    def _plug_some(self, mb: SubBlocks, wanted: int) -> int:
        done = 0
        for first, end in list(mb.runs(0, wanted)):
            span = self.span(mb, first, end)
            if not self.ask(self.device.plug(span), "plugged", span):
                break
            mb.plugged[first:end] = b"\1" * (end - first)
            done += end - first
        return done

    def _plug_and_add(self, mb: SubBlocks, wanted: int) -> int:
        if not self.could_add(self.block_size):
            return 0
        done = self._plug_some(mb, wanted)
        if not any(mb.plugged):
            return 0
        mb.where = "offline"  # what the notifier hears of is in this state
        if not self.add(self.span(mb)):
            mb.where = "plugged"
            if self._unplug_runs(mb, list(mb.movable_runs(self.per_block))):
                mb.where = "unused"
            return 0
        return done

    # -- unplugging -------------------------------------------------------------------------

    def unplug(self, size: int) -> None:
        """Partial blocks first, of the movable zone before others; downwards."""
        wanted = size // self.unit
        for where, partial in _UNPLUG_ORDER:
            for mb in reversed(tuple(self.mbs.values())):
                if wanted and mb.where == where and mb.partial is partial:
                    wanted -= self._unplug_block(mb, wanted)

    def _unplug_block(self, mb: SubBlocks, wanted: int) -> int:
        before = sum(mb.plugged)
        self._unplug_runs(mb, list(mb.movable_runs(wanted)))
        done = before - sum(mb.plugged)
        if not any(mb.plugged) and self.remove(self.span(mb)):
            mb.where = "unused"
        elif done < min(wanted, before):
            held = self.span(mb, 0, len(mb.held)).size >> 20
            self.log(f"memory{mb.number}: {held} MiB cannot be moved away", self.span(mb))
        return done

    def _unplug_runs(self, mb: SubBlocks, runs: list[tuple[int, int]]) -> bool:
        for first, end in runs:
            span = self.span(mb, first, end)
            if not self.ask(self.device.unplug(span), "unplugged", span):
                return False
            mb.plugged[first:end] = bytes(end - first)
        return True

    def remove_leftovers(self) -> None:
        """Offline blocks with hidden pages would be onlined whole later: they are removed."""
        for mb in self.mbs.values():
            if mb.where == "offline" and mb.partial and self.remove(self.span(mb)):
                mb.where = "unused"

    # -- the memory notifier ----------------------------------------------------------------

    def online(self, span: Range) -> None:
        """A block went online: what the kernel keeps in it from now on is decided here."""
        mb = self.mbs.get(span.start // self.block_size)
        if mb is None:
            return
        movable = self.blocks.block(mb.number).zone == MOVABLE
        mb.where = "movable" if movable else "kernel"
        keep = 0 if movable else -(-self.unmovable // self.unit)
        mb.held = frozenset(n for first, end in mb.runs(1, keep) for n in range(first, end))
        self.blocks.mark_unmovable(span, unmovable=bool(mb.held))

    def offline(self, span: Range) -> None:
        """A block went offline."""
        mb = self.mbs.get(span.start // self.block_size)
        if mb is not None:
            mb.where, mb.held = "offline", frozenset()
