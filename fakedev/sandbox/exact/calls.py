"""Calls on descriptors of our files, but mmap(2): the node of the file says what they give."""

import errno
import functools
import os
from collections.abc import Callable

from fakedev.sandbox.exact import layouts, tracee
from fakedev.sandbox.exact.hand import Call, Hand
from fakedev.sandbox.exact.numbers import I386
from fakedev.sandbox.exact.rules import ALL_ONES
from fakedev.sandbox.exact.transfers import TRANSFERS, is_sound
from fakedev.views.calls import Answer, IoctlCall, SeekCall

_UPPER_HALF = 1 << 63
_SYNC_FILE_RANGE_ALL = 7


class _Seek(SeekCall):
    """Asks for the position when a node does: few do, and it takes longer than to answer."""

    tell: Callable[[], int]

    @property
    def position(self) -> int:
        return self.tell()


class Calls:
    """Each handler answers a call; False where the kernel is to do it."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._listener = hand.listener
        self._memory = hand.memory
        self._device = hand.statuses.device

    def handlers(self) -> dict[str, Callable[[Call], bool]]:
        """By name; `other` is for the rest."""
        return {
            **dict.fromkeys(("fstat", "newfstatat", "statx"), self.stat),
            **dict.fromkeys(("lseek", "_llseek"), self.lseek),
            **dict.fromkeys(("pread64", "pwrite64"), self.empty),
            **dict.fromkeys(TRANSFERS, self.transfer),
            "ioctl": self.ioctl,
            "readahead": self.readahead,
            "sync_file_range": self.sync_file_range,
        }

    def stat(self, call: Call) -> bool:
        """fstat(2), and newfstatat(2) and statx(2) with AT_EMPTY_PATH."""
        waiting = call.waiting
        asked = layouts.asked(call.name, waiting)
        if asked is None:
            return False
        path, room = asked
        if path and self._memory.read(waiting.tid, path, 1) != b"\0":
            return False
        looked = call.file.look()
        if looked is None:
            return False
        shown, answer = looked
        data = layouts.packed(call.name, call.arch.name, self._device, shown)
        if not self._listener.waits(waiting.id):
            return True
        if not self._memory.write(waiting.tid, room, data):
            answer = answer._replace(value=-errno.EFAULT)
        self._listener.answer(waiting.id, answer.value)
        self._hand.record(waiting.tid, call.name, answer)  # the caller goes on meanwhile
        return True

    def lseek(self, call: Call) -> bool:
        """lseek(2) and _llseek of i386."""
        if not self._hand.is_open(call):
            return False
        arguments = call.waiting.arguments
        if call.name == "_llseek":
            offset, whence, room = arguments[1] << 32 | arguments[2], arguments[4], arguments[3]
        else:
            offset, whence, room = arguments[1], arguments[2], 0
            if call.arch is I386:
                offset = _signed(offset, 32)
        request = _Seek(_signed(offset, 64), whence & ALL_ONES, 0)
        request.tell = functools.partial(self._position, call)
        answer = call.file.node.seek(request)
        if answer is None or -4095 <= answer.value < 0:
            return self._hand.answer(call, answer)
        return self._moved(call, answer, room)

    def _position(self, call: Call) -> int:
        """The file position as the caller knows it."""
        found = tracee.descriptor(call.waiting.tid, call.fd)
        return self._hand.shared.positions.meant(found.position) if found else 0

    def _moved(self, call: Call, answer: Answer, room: int) -> bool:
        """The position was moved to where no file of the host can have it, or to an end of our own."""
        position = answer.value % (1 << 64)
        self._hand.move(call, self._hand.shared.positions.kept(position))
        if room:
            if not self._listener.waits(call.waiting.id):
                return True
            written = self._memory.write(call.waiting.tid, room, position.to_bytes(8, "little"))
            answer = answer._replace(value=0 if written else -errno.EFAULT)
        return self._hand.answer(call, answer)

    def ioctl(self, call: Call) -> bool:
        """ioctl(2)."""
        if not self._hand.is_open(call):
            return False
        arguments = call.waiting.arguments
        state = self._hand.state(call)
        before = dict(state)
        answer = call.file.node.ioctl(IoctlCall(arguments[1] & ALL_ONES, arguments[2], state))
        if state != before:
            self._hand.shared.states.store(call.waiting.tid, call.fd, state)
        return self._hand.answer(call, answer)

    def transfer(self, call: Call) -> bool:
        """sendfile(2), splice(2) and copy_file_range(2)."""
        sound = is_sound(call.waiting, call.name, call.fd, self._memory)
        return sound and self.other(call)

    def empty(self, call: Call) -> bool:
        """pread64(2) and pwrite64(2) of 0 bytes."""
        _, _, _, offset, high, *_ = call.waiting.arguments
        if call.arch is I386:
            offset |= high << 32
        wrong = os.O_WRONLY if call.name == "pread64" else os.O_RDONLY
        if offset >= _UPPER_HALF or self._hand.access(call) in (None, wrong):
            return False
        return self._hand.answer(call, call.file.node.empty(offset))

    def readahead(self, call: Call) -> bool:
        """readahead(2): EBADF where it is not open for reading."""
        return self._hand.access(call) not in (None, os.O_WRONLY) and self.other(call)

    def sync_file_range(self, call: Call) -> bool:
        """sync_file_range(2): flags and range are looked at before the type of the file."""
        words = call.waiting.arguments
        if call.arch is I386:
            offset, size, flags = words[1] | words[2] << 32, words[3] | words[4] << 32, words[5]
        else:
            offset, size, flags = words[1:4]
        known = not flags & ALL_ONES & ~_SYNC_FILE_RANGE_ALL
        return known and offset + size < _UPPER_HALF and self.other(call)

    def other(self, call: Call) -> bool:
        """Calls of which only the name matters."""
        return self._hand.is_open(call) and self._hand.answer(call, call.file.node.call(call.name))


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
