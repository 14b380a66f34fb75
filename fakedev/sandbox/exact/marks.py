"""Which credentials a thread has: a table, and for each thread its number in it.

The number is added to the thread's timer slack (/proc/TID/timerslack_ns): fork copies that, exec keeps it, and
it does not matter by a microsecond when a timer ends. A table by process would have to hear of every fork,
or a daemon that leaves its parent would be root again.
"""

import os
import threading

from fakedev.fuse.credentials import Known
from fakedev.sandbox.exact.credentials import Bounds, Credentials, Program

_MOST = 1 << 16
_OVERFLOW_GID = 65534  # `overflowgid`: has no number there
_START_CODE, _START_STACK = 23, 25  # in /proc/PID/stat, counted from the state
_SETS = {b"CapInh:": 0, b"CapBnd:": 1, b"CapAmb:": 2}


class Marks:
    """Credentials that differ from what the host says. For any number of threads."""

    __slots__ = ("_all", "_base", "_lock", "_numbers")

    def __init__(self) -> None:
        self._base = _slack(
            threading.get_native_id()
        )  # as that of the tool, which is forked from here
        self._all: list[Credentials] = []
        self._numbers: dict[Credentials, int] = {}
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether there are such threads, or were."""
        return bool(self._all)

    def of(self, tid: int) -> Credentials | None:
        """The credentials of a thread; None where they are those that the host knows."""
        if not self._all:
            return None
        try:
            number = _slack(tid) - self._base
            if not 1 <= number <= len(self._all):
                return None
            return _now(tid, self._all[number - 1])
        except OSError:
            return None  # it is gone

    def at_files(self, tid: int, real: bool) -> Known | None:  # noqa: FBT001 - as `Callers` asks
        """What counts at a file, for a thread that has set an id."""
        found = self.of(tid)
        return None if found is None else found.at_files(real=real)

    def set(self, tid: int, new: Credentials) -> None:
        """From now on thread `tid`, and what it starts, has these."""
        if not new.is_the_same_after_exec():
            new = new._replace(program=_program(tid))
        with self._lock:
            number = self._numbers.get(new)
            if number is None:
                if len(self._all) == _MOST:
                    raise OSError("too many different credentials in one sandbox")
                self._all.append(new)
                number = self._numbers[new] = len(self._all)
        with open(f"/proc/{tid}/timerslack_ns", "w") as file:  # noqa: PTH123
            file.write(str(self._base + number))


def _now(tid: int, made: Credentials) -> Credentials:
    """What has become of credentials by an exec since they were made."""
    if made.program is None or made.program == _program(tid):
        return made._replace(program=None)
    return made.after_exec(bounds(tid))


def bounds(tid: int) -> Bounds:
    """The sets of a thread that the host keeps."""
    found = [0, 0, 0]
    for line in _read(f"/proc/{tid}/status").split(b"\n"):
        place = _SETS.get(line[:7])
        if place is not None:
            found[place] = int(line[7:], 16)
    return Bounds(*found)


def groups(tid: int) -> tuple[int, ...]:
    """Supplementary groups of a thread that has set none, as a sandbox with the group 0 alone shows them."""
    own, found = os.getegid(), b""
    for line in _read(f"/proc/{tid}/status").split(b"\n"):
        if line.startswith(b"Groups:"):
            found = line[7:]
    return tuple(0 if int(word) == own else _OVERFLOW_GID for word in found.split())


def _program(tid: int) -> Program:
    fields = _read(f"/proc/{tid}/stat").rpartition(b")")[2].split()
    return Program(int(fields[_START_CODE]), int(fields[_START_STACK]))


def _slack(tid: int) -> int:
    return int(_read(f"/proc/{tid}/timerslack_ns"))


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 8192)
    finally:
        os.close(fd)
