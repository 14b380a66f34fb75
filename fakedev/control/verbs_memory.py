"""The verbs about memory blocks and DIMMs."""

import errno
import re
from typing import TYPE_CHECKING, Any

from fakedev.control.arguments import Arguments
from fakedev.model.errors import ControlError
from fakedev.model.machine import Machine
from fakedev.model.ranges import parse_range

if TYPE_CHECKING:
    from fakedev.devices.memory.block import MemoryBlock
    from fakedev.devices.memory.blocks import MemoryBlocks

_NUMBERS = re.compile(r"([0-9]{1,9})|memory([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


class MemoryVerbs:
    """Verbs of a machine that has memory blocks."""

    __slots__ = ()

    machine: Machine

    def do_memory(self, arguments: Arguments) -> dict[str, Any]:
        """Every block and every DIMM slot."""
        arguments.finish()
        blocks = self._blocks()
        with self.machine.lock:
            return {
                "block_size": blocks.block_size,
                "auto_online": blocks.auto_online,
                "blocks": [_block_json(blocks, block) for block in blocks.blocks.values()],
                "dimms": [
                    {
                        "slot": plan.slot,
                        "range": f"{plan.at:08x}-{plan.at + plan.size - 1:08x}",
                        "node": plan.nid,
                        "plugged": plan.slot in blocks.dimms.present,
                    }
                    for plan in blocks.dimms.plans.values()
                ],
            }

    def do_online(self, arguments: Arguments) -> dict[str, Any]:
        """Blocks go online: all that are named, or none. `kind` as the file `state` takes it."""
        kind = arguments.take("kind", str, default="online")
        chosen = self._chosen(arguments)
        with self.machine.verb():
            self._blocks().online_all([block.number for block in chosen], kind)
            return self._changed(chosen)

    def do_offline(self, arguments: Arguments) -> dict[str, Any]:
        """Blocks go offline: all that are named, or none."""
        chosen = self._chosen(arguments)
        with self.machine.verb():
            self._blocks().offline_all([block.number for block in chosen])
            return self._changed(chosen)

    def do_plug_dimm(self, arguments: Arguments) -> dict[str, Any]:
        """Put a DIMM into its slot; the kernel adds its memory."""
        slot = arguments.take("slot", str)
        arguments.finish()
        with self.machine.verb():
            added = self._blocks().dimms.plug(slot)
            return {"slot": slot, **self._changed(added)}

    def do_unplug_dimm(self, arguments: Arguments) -> dict[str, Any]:
        """Eject a DIMM: its blocks go offline, and all of it is gone; or nothing changes."""
        slot = arguments.take("slot", str)
        arguments.finish()
        with self.machine.verb():
            self._blocks().dimms.unplug(slot)
            return {"slot": slot, "blocks": [], "event": self.machine.now}

    # -- what they share --------------------------------------------------------------------

    def _blocks(self) -> "MemoryBlocks":
        blocks: MemoryBlocks | None = self.machine.blocks
        if blocks is None:
            raise ControlError(f"{self.machine.name} has no memory blocks", errno=errno.ENODEV)
        return blocks

    def _chosen(self, arguments: Arguments) -> "list[MemoryBlock]":
        """The argument `blocks`: `N`, `memoryN`, `memoryN-M`, or an address range of whole blocks."""
        text = arguments.take("blocks", str).strip()
        arguments.finish()
        blocks = self._blocks()
        match = _NUMBERS.fullmatch(text)
        if match is not None:
            first = int(match[1] or match[2])
            return [blocks.block(number) for number in range(first, int(match[3] or first) + 1)]
        span = parse_range(text)
        chosen = blocks.within(span)
        if not chosen:
            raise ControlError(f"there is no memory block in {span}", errno=errno.ENODEV)
        if chosen[0].span.start < span.start or chosen[-1].span.end > span.end:
            size = blocks.block_size >> 20
            raise ControlError(
                f"{span} is not made of whole memory blocks of {size} MiB (block numbers: memory2-3)",
                errno=errno.EINVAL,
            )
        return chosen

    def _changed(self, chosen: "list[MemoryBlock]") -> dict[str, Any]:
        blocks = self._blocks()
        return {
            "blocks": [_block_json(blocks, block) for block in chosen],
            "event": self.machine.now,
        }


def _block_json(blocks: "MemoryBlocks", block: "MemoryBlock") -> dict[str, Any]:
    return {
        "name": block.name,
        "range": str(block.span),
        "state": block.state,
        "zone": block.zone,
        "zones": [block.zone] if block.online else blocks.zones.candidates(block.nid, block.number),
        "node": block.nid,
        "removable": block.removable,
        "poisoned": block.poisoned,
    }
