"""What a thread that looks up a name is about to do: /proc/TID/syscall.

A mount of an ordinary user is `nodev`: a device node on it can be seen, and not opened. So stat finds a
node behind the name, and open(2) the file that can be opened. The kernel asks for the name each time, and
the thread sleeps in its system call while we answer.
"""

import os
import platform

_X86 = frozenset(
    {2, 85, 257, 437, 426, 5, 8, 295}
)  # open creat openat openat2 io_uring_enter; i386
_GENERIC = frozenset({56, 437, 426})
OPENING = _X86 if platform.machine() == "x86_64" else _GENERIC
_PATIENCE = 1000


def opens(tid: int) -> bool:
    """Whether thread `tid` is in an open(2) of any kind; with O_PATH too, as that can be opened again.

    True where nobody can tell: a tool that works is worth more than one that sees a device.
    """
    words = system_call(tid)
    return not words or words[0] == "-1" or int(words[0]) in OPENING


def system_call(tid: int) -> list[str]:
    """Number and arguments; empty where it cannot be known."""
    for _ in range(_PATIENCE):
        try:
            words = _read(b"/proc/%d/syscall" % tid).decode().split()
        except OSError:
            return []
        if words != ["running"]:  # it sent the request, and has not gone to sleep yet
            return words
        os.sched_yield()
    return []


def _read(path: bytes) -> bytes:
    """A short file; half the time of open()."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 256)
    finally:
        os.close(file)
