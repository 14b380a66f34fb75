"""Lets another process make system calls: madvise(MADV_DONTNEED), where nobody else can make them for it.

Theory of operation
-------------------
All threads are stopped (`seizing`), so that none maps something else meanwhile. Then one thread borrows
the system call instruction of its vDSO, between PTRACE_SYSCALL stops, which need no signal.

A thread may be in the middle of a call of its own, to be restarted, and signals may come. All signals
are blocked while it works for us, so they wait with all that belongs to them. Who is detached from a
stop goes where the kernel delivers signals (`__ptrace_unlink` sets TIF_SIGPENDING): with the registers
and the mask of before, the kernel itself decides about handlers, restarts and EINTR.

On aarch64 the restart has been decided at the first stop: a signal that comes while we are at it finds a
call that goes on where it should end with EINTR.

`borrow` is called on a thread that ends after it: then the kernel lets go of what could not be detached.
"""

import errno
import functools
import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fakedev.sandbox.exact import ptrace
from fakedev.sandbox.exact.ptrace import Registers, Stop
from fakedev.sandbox.exact.seizing import Pause, Piece, Spared, Threads, status

_MADV_DONTNEED = 4
_RSEQ_CS = 8  # in struct rseq
_RSEQ = struct.Struct("=8x3Q")  # struct rseq_cs: start_ip, post_commit_offset, abort_ip


def borrow(pid: int, wanted: Callable[[], Sequence[Piece]]) -> None:
    """Let a process discard what it has mapped at the addresses (start, size) that `wanted` names.

    Waits as long as all its threads sleep uninterruptibly, and something is wanted. Raises Spared; it
    may end meanwhile. Raises RuntimeError where no thread can be started.
    """
    with Threads(pid) as threads:
        threads.seize()
        stopped = threads.gather(wanted)
        pieces = wanted() if stopped else ()
        if pieces:
            _discard(_willing(stopped), pieces)


# -- one thread


class _Willing(NamedTuple):
    """A thread that can make calls: its registers, and where a system call instruction is."""

    tid: int
    found: Registers
    instruction: int


def _willing(stopped: Sequence[int]) -> _Willing:
    """One of the threads. Raises Spared."""
    reasons: list[str] = []
    for tid in stopped:
        found = ptrace.registers(tid)
        at = _instruction(tid, found.abi.instruction) if found else 0
        if found is None or not at:
            reasons.append("it has no vDSO that we know")
        elif _filters(tid) > _own_filters() + 1:
            reasons.append("it filters its system calls")  # and might be killed by ours
        else:
            return _Willing(tid, found, at)
    raise Spared(reasons[0])


def _filters(tid: int) -> int:
    """How many seccomp filters a thread has; 0 before 5.9, which does not tell."""
    return int(status(tid).get("Seccomp_filters", "0"))


@functools.cache
def _own_filters() -> int:
    return _filters(os.getpid())


def _instruction(tid: int, code: bytes) -> int:
    """Where the vDSO has such an instruction; 0: nowhere."""
    with open(f"/proc/{tid}/maps", "rb") as maps:  # noqa: PTH123
        line = next((line for line in maps if line.endswith(b"[vdso]\n")), b"0-0 ")
    start, end = (int(word, 16) for word in line.split(None, 1)[0].split(b"-"))
    place = _read(tid, start, end - start).find(code) if end else -1
    return start + place if place >= 0 else 0


def _read(tid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _discard(who: _Willing, pieces: Sequence[Piece]) -> None:
    """madvise(2) of each piece, unlocked before where that is needed (mlockall)."""
    tid, abi, words = who.tid, who.found.abi, list(who.found.words)
    words[abi.pc] = _outside_rseq(tid, words[abi.pc])
    mask = ptrace.block_signals(tid)
    for start, size in pieces:
        advise = (abi.madvise, start, size, _MADV_DONTNEED)
        if _call(who, advise) == -errno.EINVAL:  # can_madv_dontneed_free: VM_LOCKED
            _call(who, (abi.munlock, start, size, 0))
            _call(who, advise)
    ptrace.set_registers(tid, Registers(abi, words))
    ptrace.set_blocked(tid, mask)


def _call(who: _Willing, call: tuple[int, int, int, int]) -> int:
    """Make a system call; returns its result."""
    abi = who.found.abi
    changed = abi.calling(who.found.words, who.instruction, call)
    ptrace.set_registers(who.tid, Registers(abi, changed))
    for _ in ("entry", "exit"):
        ptrace.resume_to_call(who.tid)
        _until_call(who.tid)
    after = ptrace.registers(who.tid)
    return abi.signed(after.words[abi.result]) if after else 0


def _until_call(tid: int) -> None:
    """Wait for that stop, and pass on what comes before (SIGSTOP, SIGCONT)."""
    pause = Pause()
    while (stop := ptrace.stopped(tid)) is None or stop.why is not Stop.CALL:
        if stop is None:
            pause()
        else:
            ptrace.resume_to_call(tid, stop.signal)


def _outside_rseq(tid: int, pc: int) -> int:
    """Where a thread goes on: its restartable sequence is aborted, as by any other preemption."""
    area = ptrace.rseq_area(tid)
    pointer = int.from_bytes(_read(tid, area + _RSEQ_CS, 8), "little") if area else 0
    sequence = _read(tid, pointer, _RSEQ.size) if pointer else b""
    if len(sequence) == _RSEQ.size:
        start, length, abort = _RSEQ.unpack(sequence)
        if start <= pc < start + length:
            return int(abort)
    return pc
