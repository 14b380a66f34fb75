"""What both modes of the virtio-mem driver share: adding, removing and counting memory."""

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fakedev.devices.memory.virtio_mem import Answer, VirtioMemDevice
from fakedev.devices.memory.virtio_mem_plan import GIB, MIB
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.devices.memory.blocks import MemoryBlocks
    from fakedev.model.machine import Machine

PAGEBLOCK = 2 * MIB
OFFLINE_THRESHOLD = GIB
RAM_NAME = "System RAM (virtio_mem)"
MERGEABLE_SINCE = (5, 10)
MOVABLE = "Movable"


class Mode(ABC):
    """How a driver divides the region of its device; `parent` is the resource of the region.

    `unit` is how many bytes go and come at a time. Memory that is added but not online is limited
    (`offline_threshold`): the page tables of much more would eat the memory that is there.
    """

    name: str
    unit: int

    def __init__(self, machine: "Machine", device: VirtioMemDevice, parent: Resource) -> None:
        self.machine = machine
        self.device = device
        self.parent = parent
        self.blocks: MemoryBlocks = machine.blocks
        self.offline_threshold = OFFLINE_THRESHOLD
        self._not_online: set[int] = set()  # memory blocks that are added, by number
        plan = device.plan
        unmovable = self.default_unmovable if plan.unmovable is None else plan.unmovable
        self.unmovable = unmovable

    @property
    def default_unmovable(self) -> int:
        """Bytes that the kernel keeps for itself in a block of a kernel zone, unless told."""
        return max(self.device.plan.block_size, PAGEBLOCK)

    # -- what a mode does -------------------------------------------------------------------

    @abstractmethod
    def plug(self, size: int) -> None:
        """Get up to `size` bytes more. Stops where it cannot go on."""

    @abstractmethod
    def unplug(self, size: int) -> None:
        """Give up to `size` bytes back. Stops where nothing more can be moved away."""

    @abstractmethod
    def remove_leftovers(self) -> None:
        """At unload: remove what is offline and would be wrong to online later."""

    @abstractmethod
    def online(self, span: Range) -> None:
        """A memory block of the region has gone online."""

    @abstractmethod
    def offline(self, span: Range) -> None:
        """A memory block of the region has gone offline."""

    @abstractmethod
    def hidden(self) -> list[Range]:
        """Pages of blocks that are added and have nothing behind them (PageOffline)."""

    @abstractmethod
    def states(self) -> dict[str, int]:
        """How many units are in which state, for people."""

    # -- the shared parts -------------------------------------------------------------------

    @property
    def offline_size(self) -> int:
        """Bytes of the region that are added and not online."""
        return len(self._not_online) * self.blocks.block_size

    def heard(self, what: str, span: Range) -> None:
        """A memory block of the region has gone `online` or `offline`."""
        if what == "online":
            self._not_online.difference_update(self.blocks.numbers(span))
            self.online(span)
        else:
            self._not_online.update(self.blocks.numbers(span))
            self.offline(span)

    def could_add(self, size: int) -> bool:
        """`virtio_mem_could_add_memory`; that it could not is in the log."""
        if self.offline_size + size <= self.offline_threshold:
            return True
        self.log(f"{self.offline_size >> 20} MiB are added and not online: no more before they are")
        return False

    def add(self, span: Range) -> bool:
        """`virtio_mem_add_memory`: False when the kernel does not take it, which is in the log."""
        rules = self.machine.rules
        self._not_online.update(self.blocks.numbers(span))
        try:
            self.blocks.add_memory(
                span,
                name=RAM_NAME,
                nid=self.device.plan.node,
                parent=self.parent,
                driver_managed=True,
                mergeable=rules.release >= MERGEABLE_SINCE,
            )
        except (ControlError, ResourceConflictError) as error:
            self._not_online.difference_update(self.blocks.numbers(span))
            self.log(f"adding memory failed: {error}", span)
            return False
        self.log(f"{_numbers(self.blocks, span)} added", span)
        return True

    def remove(self, span: Range) -> bool:
        """`virtio_mem_offline_and_remove_memory`: False when a block of it does not go offline."""
        was_online: list[tuple[int, str]] = []
        try:
            for block in self.blocks.within(span):
                if block.online:
                    kind = "online_movable" if block.zone == MOVABLE else "online_kernel"
                    self.blocks.offline(block.number)
                    was_online.append((block.number, kind))
            self.blocks.remove_memory(span)
        except ControlError as error:
            self.log(f"removing memory failed: {error}", span)
            for number, kind in was_online:
                with contextlib.suppress(ControlError):  # the kernel tries, too, and no more
                    self.blocks.online(number, kind)
            return False
        self._not_online.difference_update(self.blocks.numbers(span))
        self.log(f"{_numbers(self.blocks, span)} removed", span)
        return True

    def ask(self, answer: Answer, what: str, span: Range) -> bool:
        """What the device said: True for ACK. The rest is in the log."""
        if answer is Answer.ACK:
            self.log(f"{what} {span.size >> 20} MiB at {span.start:#x}", span)
            return True
        self.log(f"the device answers {answer.name} to {what} {span}", span)
        return False

    def log(self, message: str, span: Range | None = None) -> None:
        """One step, in the machine's log."""
        self.machine.record("virtio-mem", f"{self.parent.name}: {message}", span)


def usable_units(device: VirtioMemDevice, unit: int, limit: int) -> range:
    """The numbers of the units that lie wholly inside the region and below `limit`."""
    span = device.span
    return range(-(-span.start // unit), min(span.end, limit) // unit)


def _numbers(blocks: "MemoryBlocks", span: Range) -> str:
    found = blocks.numbers(span)
    last = f"-{found[-1]}" if len(found) > 1 else ""
    return f"memory{found[0]}{last}"
