"""Big-block mode: what the device plugs at a time is whole memory blocks, one or several."""

from collections import Counter
from typing import TYPE_CHECKING

from fakedev.devices.memory.virtio_mem import VirtioMemDevice
from fakedev.devices.memory.virtio_mem_mode import MOVABLE, OFFLINE_THRESHOLD, Mode, usable_units
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.model.machine import Machine


class BigBlockMode(Mode):
    """Bookkeeping of a driver in big-block mode.

    `added` holds the numbers of big blocks that are plugged and added, `plugged` of those that the
    kernel did not take.
    """

    name = "BBM"

    def __init__(self, machine: "Machine", device: VirtioMemDevice, parent: Resource) -> None:
        super().__init__(machine, device, parent)
        plan = device.plan
        smallest = max(plan.block_size, self.blocks.block_size)
        self.unit = max(plan.bbm_block_size, smallest)
        self.offline_threshold = max(2 * self.unit, OFFLINE_THRESHOLD)
        self.usable = usable_units(device, self.unit, 1 << machine.rules.physical_address_bits)
        self.added: set[int] = set()
        self.plugged: set[int] = set()

    def states(self) -> dict[str, int]:
        """Big blocks by state."""
        return dict(Counter([*("added" for _ in self.added), *("plugged" for _ in self.plugged)]))

    def hidden(self) -> list[Range]:
        """Nothing: big blocks are plugged as a whole."""
        return []

    def span(self, number: int) -> Range:
        """The bytes of a big block."""
        return Range(number * self.unit, self.unit)

    def plug(self, size: int) -> None:
        """Add big blocks, upwards."""
        wanted = size // self.unit
        end = self.device.plan.addr + self.device.usable_region_size
        for number in self.usable:
            if not wanted or (number + 1) * self.unit > end:
                return
            if number not in self.added:
                if not self._plug_and_add(number):
                    return
                wanted -= 1

    def _plug_and_add(self, number: int) -> bool:
        span = self.span(number)
        if not self.could_add(span.size):
            return False
        if number not in self.plugged and not self.ask(self.device.plug(span), "plugged", span):
            return False
        self.plugged.discard(number)
        self.added.add(number)
        if self.add(span):
            return True
        self.added.discard(number)
        if not self.ask(self.device.unplug(span), "unplugged", span):
            self.plugged.add(number)
        return False

    def unplug(self, size: int) -> None:
        """Offline big blocks first, then movable ones, then the rest; downwards."""
        wanted = size // self.unit
        for test in (self._all_offline, self._all_movable, lambda _: True):
            for number in sorted(self.added, reverse=True):
                if wanted and test(number) and self._remove_and_unplug(number):
                    wanted -= 1

    def _all_offline(self, number: int) -> bool:
        return not any(block.online for block in self.blocks.within(self.span(number)))

    def _all_movable(self, number: int) -> bool:
        found = self.blocks.within(self.span(number))
        return all(not block.online or block.zone == MOVABLE for block in found)

    def _remove_and_unplug(self, number: int) -> bool:
        span = self.span(number)
        held = [b for b in self.blocks.within(span) if b.online and b.unmovable]
        if held:
            self.log(f"{held[0].name} cannot be moved away", held[0].span)
            return False
        if not self.remove(span):
            return False
        self.added.discard(number)
        if not self.ask(self.device.unplug(span), "unplugged", span):
            self.plugged.add(number)
        return True

    def remove_leftovers(self) -> None:
        """Nothing is hidden in big blocks: what is offline stays, and so does the region."""

    def online(self, span: Range) -> None:
        """A block went online: the kernel keeps something in one of a kernel zone."""
        for block in self.blocks.within(span):
            if block.span.start // self.unit in self.added:
                block.unmovable = block.zone != MOVABLE and self.unmovable > 0

    def offline(self, span: Range) -> None:
        """A block went offline: the machine's own table says so."""
