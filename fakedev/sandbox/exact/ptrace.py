"""ptrace(2) of one thread by the thread that asks. No stop is waited for: a request tells of it.

`waitpid` would need a deadline, and a program that embeds us may have taken the stop with a
`waitpid(-1)` of its own. When the asking thread ends, the kernel detaches all that it traced. Only
who has ended is waited for, and by any thread.
"""

import contextlib
import ctypes
import errno
import os
import struct
from enum import Enum
from typing import Any, NamedTuple

from fakedev.sandbox.exact.registers import ABIS, Abi

_CONT, _DETACH, _SYSCALL = 7, 17, 24
_GETSIGINFO, _GETREGSET, _SETREGSET = 0x4202, 0x4204, 0x4205
_SEIZE, _INTERRUPT, _GETSIGMASK, _SETSIGMASK = 0x4206, 0x4207, 0x420A, 0x420B
_GET_RSEQ_CONFIGURATION = 0x420F
_TRACESYSGOOD = 1
_EVENT_STOP = 128
_SYSCALL_STOP = 5 | 0x80  # SIGTRAP of PTRACE_O_TRACESYSGOOD
_NT_PRSTATUS = 1
_EVERY_SIGNAL = (1 << 64) - 1
_IOVEC = struct.Struct("@PN")
_WCLONE = -(1 << 31)  # __WCLONE: what is traced, and no child of ours that was forked as usual

_libc: Any = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class Stop(Enum):
    """Why a thread is stopped."""

    EVENT = 1  # by PTRACE_INTERRUPT, or with its process
    CALL = 2  # at a system call
    SIGNAL = 3  # that it is about to get


class Stopped(NamedTuple):
    """A stop; `signal` is the one that a thread is about to get."""

    why: Stop
    signal: int = 0


class Registers(NamedTuple):
    """What NT_PRSTATUS has."""

    abi: Abi
    words: list[int]


def _request(number: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _ptrace(number, tid, address, data) == -1 and (failed := ctypes.get_errno()):
        raise OSError(failed, os.strerror(failed))


def seize(tid: int) -> None:
    """Begin to trace. PermissionError where another one does, or the thread is ending."""
    _request(_SEIZE, tid, data=_TRACESYSGOOD)


def interrupt(tid: int) -> None:
    """Have it stop before it does anything else of its own. ProcessLookupError when it is not ours to stop."""
    try:
        _request(_INTERRUPT, tid)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise ProcessLookupError(errno.ESRCH, "it is being buried") from None


def stopped(tid: int) -> Stopped | None:
    """Whether and why it is stopped. ProcessLookupError when it is gone."""
    info = ctypes.create_string_buffer(128)
    try:
        _request(_GETSIGINFO, tid, data=ctypes.addressof(info))
    except ProcessLookupError:
        if state(tid) in "ZX":
            raise
        return None
    number, _, code = struct.unpack_from("=3i", info)
    if code == _SYSCALL_STOP:
        return Stopped(Stop.CALL)
    return Stopped(Stop.EVENT) if code >> 8 == _EVENT_STOP else Stopped(Stop.SIGNAL, number)


def state(tid: int) -> str:
    """The letter in /proc/TID/stat; X when it is gone."""
    try:
        fd = os.open(b"/proc/%d/stat" % tid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "X"
    try:
        return chr(os.read(fd, 512).rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return "X"
    finally:
        os.close(fd)


def resume(tid: int, signal: int = 0) -> None:
    """Go on, with a signal that it was about to get."""
    _request(_CONT, tid, data=signal)


def resume_to_call(tid: int, signal: int = 0) -> None:
    """Go on until a system call begins, or ends."""
    _request(_SYSCALL, tid, data=signal)


def detach(tid: int, signal: int = 0) -> None:
    """Trace no more. From a stop only."""
    _request(_DETACH, tid, data=signal)


def bury(tid: int) -> None:
    """Let the kernel forget a traced thread that has ended (state Z), which is not the first of its process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(tid, os.WNOHANG | _WCLONE)


def registers(tid: int) -> Registers | None:
    """The registers of a stopped thread; None on an architecture without a table."""
    room = ctypes.create_string_buffer(1024)
    area = ctypes.create_string_buffer(_IOVEC.pack(ctypes.addressof(room), len(room)))
    _request(_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(area))
    size = _IOVEC.unpack_from(area)[1]
    abi = ABIS.get(size)
    return Registers(abi, list(abi.layout.unpack_from(room))) if abi else None


def set_registers(tid: int, found: Registers) -> None:
    """Change the registers of a stopped thread."""
    room = ctypes.create_string_buffer(found.abi.layout.pack(*found.words))
    area = ctypes.create_string_buffer(_IOVEC.pack(ctypes.addressof(room), found.abi.layout.size))
    _request(_SETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(area))


def block_signals(tid: int) -> int:
    """Block all; returns the mask of before."""
    mask = ctypes.c_uint64()
    _request(_GETSIGMASK, tid, 8, ctypes.addressof(mask))
    before = mask.value
    set_blocked(tid, _EVERY_SIGNAL)
    return before


def set_blocked(tid: int, signals: int) -> None:
    """Set the mask of a stopped thread."""
    mask = ctypes.c_uint64(signals)
    _request(_SETSIGMASK, tid, 8, ctypes.addressof(mask))


def rseq_area(tid: int) -> int:
    """Where a thread has registered `struct rseq`; 0: nowhere, or the kernel does not tell (before 5.13)."""
    room = ctypes.create_string_buffer(24)
    try:
        _request(_GET_RSEQ_CONFIGURATION, tid, len(room), ctypes.addressof(room))
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EINVAL):
            raise
        return 0
    return int(struct.unpack_from("=Q", room)[0])
