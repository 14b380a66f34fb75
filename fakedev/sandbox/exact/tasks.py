"""Files of /proc/TID that stay open, for threads that call again and again."""

import os
from contextlib import suppress

MOST = 32  # threads; whoever was first goes first


class Tasks(dict[int, int]):
    """Threads that were `missed` twice of late, and descriptors of their /proc/TID/`name`; for one thread.

    What is open belongs to that very thread: when it has ended nothing is found through it any more,
    also when its number is used again. Who finds nothing, or nothing open, looks by the number.
    """

    __slots__ = ("_flags", "_missed", "_name")

    def __init__(self, name: bytes, flags: int) -> None:
        super().__init__()
        self._name = name
        self._flags = flags | os.O_CLOEXEC
        self._missed: dict[int, None] = {}

    def missed(self, tid: int) -> None:
        """Nothing of this thread is open, or nothing was found through it."""
        if tid in self:
            os.close(self.pop(tid))
        elif tid in self._missed:
            del self._missed[tid]
            self._open(tid)
        else:
            if len(self._missed) >= MOST:
                del self._missed[next(iter(self._missed))]
            self._missed[tid] = None

    def _open(self, tid: int) -> None:
        if len(self) >= MOST:
            os.close(self.pop(next(iter(self))))
        with suppress(OSError):  # it has ended, or too much is open
            self[tid] = os.open(b"/proc/%d/%s" % (tid, self._name), self._flags)

    def close(self) -> None:
        """Forget all."""
        while self:
            os.close(self.popitem()[1])
