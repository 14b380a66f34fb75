"""A virtio-mem device: the hypervisor's side (Virtual I/O Device specification 1.2, section 5.15).

It offers a region of physical addresses, of which the driver may plug blocks until their sum is the
requested size. The whole region decodes all the time: behind an unplugged block are zeros, as with
a device that does not offer UNPLUGGED_INACCESSIBLE. Nothing here knows the kernel.
"""

from collections.abc import Callable
from enum import Enum

from fakedev.devices.memory.virtio_mem_plan import USABLE_EXTENT, VirtioMemPlan
from fakedev.model.errors import ControlError
from fakedev.model.ranges import Range


class Answer(Enum):
    """VIRTIO_MEM_RESP_*: what the device says to a request."""

    ACK = 0
    NACK = 1
    BUSY = 2
    ERROR = 3


class State(Enum):
    """VIRTIO_MEM_STATE_*: what a STATE request finds."""

    PLUGGED = 0
    UNPLUGGED = 1
    MIXED = 2


class VirtioMemDevice:
    """Configuration space and requests of one device; addresses and sizes in bytes.

    `discard` makes zeros of a range that was unplugged; `queue_enabled` tells that a driver has set
    up the queue and the device was not reset since.
    """

    def __init__(self, plan: VirtioMemPlan) -> None:
        self.plan = plan
        self.discard: Callable[[Range], None] = lambda _: None
        self.power_on()

    def power_on(self) -> None:
        """As it was delivered: nothing plugged, the requested size of the profile."""
        self.requested_size = self.plan.requested_size
        self._plugged = bytearray(self.plan.region_size // self.plan.block_size)
        self.plugged_size = 0
        self.queue_enabled = False
        self.usable_region_size = 0
        self._resize_usable()
        if self.plan.usable is not None:
            self.usable_region_size = max(self.plan.usable, self.usable_region_size)

    @property
    def span(self) -> Range:
        """The region."""
        return Range(self.plan.addr, self.plan.region_size)

    # -- what the hypervisor does -----------------------------------------------------------

    def check_requested(self, size: int) -> None:
        """Raise ControlError for a requested size that the device cannot have."""
        plan = self.plan
        if size % plan.block_size:
            near = size // plan.block_size * plan.block_size
            raise ControlError(
                f"{plan.name}: requested-size {size:#x} is not a multiple of the block size "
                f"{plan.block_size:#x}; {near:#x} would be"
            )
        if size > plan.region_size:
            raise ControlError(
                f"{plan.name}: requested-size {size:#x} exceeds the region, which has "
                f"{plan.region_size:#x} bytes"
            )

    def request(self, size: int) -> None:
        """Set the requested size. Raises ControlError, and nothing has changed then."""
        self.check_requested(size)
        self.requested_size = size
        self._resize_usable()

    def _resize_usable(self) -> None:
        """The usable region follows the requested size upwards; it shrinks at unplug-all only."""
        wanted = min(self.requested_size + USABLE_EXTENT, self.plan.region_size)
        self.usable_region_size = max(self.usable_region_size, wanted)

    # -- what the driver asks for -----------------------------------------------------------

    def plug(self, span: Range) -> Answer:
        """VIRTIO_MEM_REQ_PLUG: NACK above the requested size, ERROR for what is not unplugged."""
        blocks = self._blocks(span)
        if blocks is None or any(self._plugged[blocks]):
            return Answer.ERROR
        if self.plugged_size + span.size > self.requested_size:
            return Answer.NACK
        self._set(blocks, plugged=True)
        return Answer.ACK

    def unplug(self, span: Range) -> Answer:
        """VIRTIO_MEM_REQ_UNPLUG: ERROR for what is not plugged. The bytes are gone."""
        blocks = self._blocks(span)
        if blocks is None or not all(self._plugged[blocks]):
            return Answer.ERROR
        self._set(blocks, plugged=False)
        self.discard(span)
        return Answer.ACK

    def unplug_all(self) -> Answer:
        """VIRTIO_MEM_REQ_UNPLUG_ALL: also lets the usable region shrink."""
        if self.plugged_size:
            self._plugged = bytearray(len(self._plugged))
            self.plugged_size = 0
            self.discard(self.span)
        self.usable_region_size = 0
        self._resize_usable()
        return Answer.ACK

    def state(self, span: Range) -> State | None:
        """VIRTIO_MEM_REQ_STATE; None is the answer ERROR."""
        blocks = self._blocks(span)
        if blocks is None:
            return None
        found = set(self._plugged[blocks])
        if len(found) > 1:
            return State.MIXED
        return State.PLUGGED if 1 in found else State.UNPLUGGED

    def reset(self) -> None:
        """The driver resets the device: plugged blocks stay."""
        self.queue_enabled = False

    def plugged_ranges(self) -> list[Range]:
        """What is plugged, neighbours joined."""
        size, found = self.plan.block_size, list[Range]()
        at = self._plugged.find(1)
        while at >= 0:
            end = self._plugged.find(0, at)
            end = len(self._plugged) if end < 0 else end
            found.append(Range(self.plan.addr + at * size, (end - at) * size))
            at = self._plugged.find(1, end)
        return found

    def _blocks(self, span: Range) -> slice | None:
        """The blocks of a range; None for one that no request may name."""
        size, start = self.plan.block_size, span.start - self.plan.addr
        inside = start >= 0 and start + span.size <= self.usable_region_size
        if not span.size or start % size or span.size % size or not inside:
            return None
        return slice(start // size, (start + span.size) // size)

    def _set(self, blocks: slice, *, plugged: bool) -> None:
        count = blocks.stop - blocks.start
        self._plugged[blocks] = bytes([plugged]) * count
        self.plugged_size += (count if plugged else -count) * self.plan.block_size
