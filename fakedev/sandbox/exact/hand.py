"""What one thread that answers needs for itself: buffers, and descriptors of /proc that stay open."""

import os
from typing import NamedTuple

from fakedev.sandbox.exact import tracee
from fakedev.sandbox.exact.listener import Listener, Notification
from fakedev.sandbox.exact.numbers import Arch
from fakedev.sandbox.exact.shared import Shared
from fakedev.sandbox.protocols import ExactFile
from fakedev.views.calls import Answer


class Call(NamedTuple):
    """A call on one of our files; `name` is that of the x86-64 table."""

    waiting: Notification
    arch: Arch
    name: str
    fd: int
    file: ExactFile


class Hand:
    """For one thread."""

    __slots__ = ("_comm_of", "_comms", "_files", "listener", "memory", "shared", "statuses")

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.listener = Listener(shared.listener)
        self.statuses = tracee.Statuses(shared.root)
        self.memory = tracee.Memory()
        self._comms = tracee.Comms()
        self._comm_of, self._files = self._comms.of, shared.files

    def close(self) -> None:
        """Forget the threads that called."""
        self.statuses.close()
        self._comms.close()

    def record(self, tid: int, name: str, answer: Answer) -> None:
        """Put an answer into the trace."""
        self._files.answered(tid, name, answer, self._comm_of)

    def answer(self, call: Call, answer: Answer | None) -> bool:
        """End a call; False where there is nothing to say, and the kernel is to do it."""
        if answer is None:
            return False
        self.record(call.waiting.tid, call.name, answer)
        self.listener.answer(call.waiting.id, answer.value)
        return True

    def is_open(self, call: Call) -> bool:
        """Whether the file is open; with O_PATH, to all but few calls it is not (EBADF)."""
        return self.statuses.is_open(call.waiting.tid, call.fd)

    def access(self, call: Call) -> int | None:
        """O_RDONLY, O_WRONLY or O_RDWR."""
        return self.statuses.access(call.waiting.tid, call.fd)

    def state(self, call: Call) -> dict[str, int]:
        """What an ioctl has left."""
        states = self.shared.states
        return states.load(call.waiting.tid, call.fd) if states.any else {}

    def move(self, call: Call, position: int) -> None:
        """Set the position of the caller's open file, which it shares with its duplicates."""
        copy = tracee.copy(call.waiting.tid, call.fd)
        try:
            os.lseek(copy, position, os.SEEK_SET)
        finally:
            os.close(copy)
