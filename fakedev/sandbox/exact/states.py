"""What an ioctl leaves for later calls on the same open file (`file->private_data` of a real driver)."""

import fcntl
import os
import threading

from fakedev.sandbox.exact import tracee

_F_SETSIG, _F_GETSIG = 10, 11
_MOST = 64  # the last signal number


class States:
    """Small states, numbered in the order in which they are first seen.

    The number is kept in the open file itself, as the signal of F_SETSIG, which means nothing without
    O_ASYNC: so a state is shared by duplicates and children, and ends with the last descriptor.
    """

    __slots__ = ("_known", "_lock")

    def __init__(self) -> None:
        self._known: list[dict[str, int]] = [{}]
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether an open file may have a state."""
        return len(self._known) > 1

    def load(self, tid: int, fd: int) -> dict[str, int]:
        """The state behind a descriptor of thread `tid`, to be changed and stored."""
        copy = tracee.copy(tid, fd)
        try:
            number = fcntl.fcntl(copy, _F_GETSIG)
        finally:
            os.close(copy)
        return dict(self._known[number]) if number < len(self._known) else {}

    def store(self, tid: int, fd: int, state: dict[str, int]) -> None:
        """Remember a state. ValueError when there are more different ones than signals."""
        copy = tracee.copy(tid, fd)
        try:
            self.keep(copy, state)
        finally:
            os.close(copy)

    def keep(self, fd: int, state: dict[str, int]) -> None:
        """The same for a descriptor of ours."""
        with self._lock:
            if state not in self._known and len(self._known) <= _MOST:
                self._known.append(state)
        fcntl.fcntl(fd, _F_SETSIG, self._known.index(state))
