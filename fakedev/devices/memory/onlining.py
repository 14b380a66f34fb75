"""Blocks go online and offline: `memory_block_online`, `memory_block_offline`, and who may veto."""

import errno
from collections.abc import Callable, Iterable
from typing import Any

from fakedev.devices.memory.block import BlockError, MemoryBlock
from fakedev.devices.memory.zones import KINDS, NO_ZONE, Zones
from fakedev.model.ranges import Range

EHWPOISON = 133
AUTO_ONLINE = ("offline", *KINDS)
Listener = Callable[[str, Range], None]


class Onlining:
    """The blocks of a machine and their states. Errors are ControlError with the kernel's errno."""

    machine: Any  # a Machine, once attached

    def __init__(self, zones: Zones) -> None:
        self.blocks: dict[int, MemoryBlock] = {}
        self.zones = zones
        self.auto_online = "offline"
        self.listeners: list[Listener] = []
        self.changes = 0  # how often memory went online or offline

    def block(self, number: int) -> MemoryBlock:
        """The block of a number. ENODEV when there is none."""
        found = self.blocks.get(number)
        if found is None:
            raise BlockError(f"there is no memory{number}", errno=errno.ENODEV)
        return found

    def set_auto_online(self, kind: str) -> None:
        """What `add_memory` does with new blocks. EINVAL for a word that is none of the four."""
        if kind not in AUTO_ONLINE:
            words = ", ".join(AUTO_ONLINE)
            raise BlockError(f"auto_online_blocks is one of {words}, not {kind!r}")
        self.auto_online = kind

    def online(self, number: int, kind: str = "online") -> None:
        """Give a block to the page allocator; `kind` is online, online_kernel or online_movable.

        EINVAL: unknown kind, or online already. EHWPOISON: pages of it have failed. A listener's
        errno: it said no to `going-online`.
        """
        self.online_all((number,), kind)

    def offline(self, number: int) -> None:
        """Take a block from the page allocator.

        EINVAL: not online, with holes, or in several zones. EBUSY: pages cannot be moved away, or
        a listener said no (or another errno of it).
        """
        self.offline_all((number,))

    def online_all(self, numbers: Iterable[int], kind: str = "online") -> None:
        """Bring several online, or, where one cannot, none. Errors of `online`."""
        with self.machine.verb():
            for block in self._ready(numbers, "online", lambda b: self._check_online(b, kind)):
                if self.blocks.get(block.number) is not block or block.online:
                    continue  # a listener did that when it heard of those before
                self._enter(block, (self.zones.choose(block.nid, block.number, kind),))
                self.machine.record("online", f"{block.name} online: {block.zone}", block.span)
                self._tell("online", block)

    def offline_all(self, numbers: Iterable[int]) -> None:
        """Take several offline, or, where one cannot, none. Errors of `offline`."""
        with self.machine.verb():
            for block in self._ready(numbers, "offline", self._check_offline):
                with self.machine.lock:
                    self.leave(block)
                self.machine.record("offline", f"{block.name} offline", block.span)
                self._tell("offline", block)

    def _ready(
        self, numbers: Iterable[int], what: str, check: Callable[[MemoryBlock], None]
    ) -> list[MemoryBlock]:
        """Blocks that can go `what`, every one of them, and nobody says no. Else nothing has changed.

        So no block ever has to be put back, which could fail, or end in another zone.
        """
        ready: dict[int, MemoryBlock] = {}
        try:
            for number in numbers:
                block = self._another(number, ready)
                check(block)
                self._ask(what, block)
                ready[number] = block
        except BaseException:
            for block in reversed(ready.values()):
                self._call_off(what, block)
            raise
        return list(ready.values())

    def _another(self, number: int, others: dict[int, MemoryBlock]) -> MemoryBlock:
        if number in others:
            raise BlockError(f"memory{number} is named twice")
        return self.block(number)

    def _check_online(self, block: MemoryBlock, kind: str) -> None:
        if kind not in KINDS:
            raise BlockError(f"a block goes {', '.join(KINDS)}, not {kind!r}")
        if block.state != "offline":
            raise BlockError(f"{block.name} is {block.state} already")
        poison = self.machine.poison
        if block.poisoned or (poison is not None and poison.covers(block.span)):
            why = f"{block.name} has pages that failed (EHWPOISON)"
            raise BlockError(why, errno=EHWPOISON)

    def _check_offline(self, block: MemoryBlock) -> None:
        if block.state != "online":
            raise BlockError(f"{block.name} is {block.state} already")
        if block.zone == NO_ZONE:
            raise BlockError(f"{block.name} lies in several zones: {', '.join(block.zones)}")
        if block.present < block.size:
            raise BlockError(f"{block.name} has holes: {block.present:#x} bytes of RAM")
        if block.unmovable:
            raise BlockError(
                f"{block.name} has pages that cannot be moved away (EBUSY)", errno=errno.EBUSY
            )

    def _enter(self, block: MemoryBlock, zones: tuple[str, ...]) -> None:
        """A block is online now, in one zone, or at boot in several."""
        with self.machine.lock:
            self._join(block, zones)

    def _join(self, block: MemoryBlock, zones: tuple[str, ...]) -> None:
        block.state, block.zones = "online", zones
        block.zone = zones[0] if len(zones) == 1 else NO_ZONE
        for zone in zones:
            self.zones.add(block.nid, zone, block.number)

    def leave(self, block: MemoryBlock) -> None:
        """A block is in no zone any more; called under `machine.lock`, or before there is a machine."""
        for zone in block.zones:
            self.zones.discard(block.nid, zone, block.number)
        block.state, block.zone, block.zones = "offline", NO_ZONE, ()

    def _ask(self, what: str, block: MemoryBlock) -> None:
        """`MEM_GOING_ONLINE`, `MEM_GOING_OFFLINE`: whoever raises stops it, and all hear of that."""
        if what == "offline":
            self._set_state(block, "going-offline")
        try:
            for listener in tuple(self.listeners):
                listener(f"going-{what}", block.span)
        except BaseException:
            self._call_off(what, block)
            raise

    def _call_off(self, what: str, block: MemoryBlock) -> None:
        """`MEM_CANCEL_ONLINE`, `MEM_CANCEL_OFFLINE`: it stays as it was."""
        if what == "offline":
            self._set_state(block, "online")
        for listener in tuple(self.listeners):
            listener(f"cancel-{what}", block.span)

    def _set_state(self, block: MemoryBlock, state: str) -> None:
        with self.machine.lock:
            block.state = state

    def _tell(self, what: str, block: MemoryBlock) -> None:
        self.changes += 1
        for listener in tuple(self.listeners):
            listener(what, block.span)
