"""Lets another process make system calls: madvise(MADV_DONTNEED), where nobody else can make them for it.

Theory of operation
-------------------
All threads are stopped (PTRACE_SEIZE, PTRACE_INTERRUPT), so that none maps something else meanwhile.
One that sleeps uninterruptibly is not waited for: it stops before it gets back to its own code. Then one
thread borrows the system call instruction of its vDSO, between PTRACE_SYSCALL stops, which need no signal.

A thread may be in the middle of a call of its own, to be restarted, and signals may come. All signals
are blocked while it works for us, so they wait with all that belongs to them. Who is detached from a
stop goes where the kernel delivers signals (`__ptrace_unlink` sets TIF_SIGPENDING): with the registers
and the mask of before, the kernel itself decides about handlers, restarts and EINTR.

On aarch64 the restart has been decided at the first stop: a signal that comes while we are at it finds a
call that goes on where it should end with EINTR.

`borrow` is called on a thread that ends after it: then the kernel lets go of what could not be detached.
"""

import contextlib
import errno
import functools
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fakedev.sandbox.exact import ptrace
from fakedev.sandbox.exact.ptrace import Registers, Stop

_MADV_DONTNEED = 4
_RSEQ_CS = 8  # in struct rseq
_RSEQ = struct.Struct("=8x3Q")  # struct rseq_cs: start_ip, post_commit_offset, abort_ip
# Seconds that a thread is waited for, and one that sleeps; pauses between looks, after the first ones.
_PATIENCE, _ASLEEP = 1.0, 0.02
_SHORTEST, _LONGEST = 0.00005, 0.05
_LOOKS = 20
Piece = tuple[int, int]


class Spared(Exception):  # noqa: N818 - a decision, not a fault
    """A process cannot be made to do it; says why."""


def borrow(pid: int, wanted: Callable[[], Sequence[Piece]]) -> None:
    """Let a process discard what it has mapped at the addresses (start, size) that `wanted` names.

    Waits as long as all its threads sleep uninterruptibly, and something is wanted. Raises Spared; it
    may end meanwhile.
    """
    traced: set[int] = set()
    try:
        _seize(pid, traced)
        stopped = _gather(traced, wanted)
        pieces = wanted() if stopped else ()
        if pieces:
            _discard(_willing(stopped), pieces)
    finally:
        for tid in tuple(traced):
            with contextlib.suppress(ProcessLookupError):
                _let_go(tid)


# -- stopping


def _seize(pid: int, traced: set[int]) -> None:
    """Trace all threads of a process, and have them stop; adds them to `traced`."""
    seen: set[int] = set()
    while new := _tasks(pid) - seen:
        seen |= new
        for tid in new:
            with contextlib.suppress(ProcessLookupError):
                if _seize_one(tid):
                    traced.add(tid)
                    ptrace.interrupt(tid)


def _seize_one(tid: int) -> bool:
    """Trace a thread, unless it is ending. Raises Spared."""
    pause = _Pause()
    while True:
        try:
            ptrace.seize(tid)
        except PermissionError:
            if ptrace.state(tid) in "ZX":
                return False
            tracer = _status(tid).get("TracerPid", "0")
            us = str(os.getpid())
            other = tracer != "0" and _status(int(tracer)).get("Tgid", us) != us
            if other or pause.waited > _PATIENCE:
                why = f"process {tracer} traces it" if other else "it may not be traced"
                raise Spared(why) from None
            pause()  # a thread of ours that has let go of it is about to end
        else:
            return True


def _tasks(pid: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}  # noqa: PTH208 - fast
    except OSError:
        return set()


def _status(tid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{tid}/status", errors="replace") as status:  # noqa: PTH123
            lines = [line.partition(":") for line in status]
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in lines}


def _gather(traced: set[int], wanted: Callable[[], Sequence[Piece]]) -> list[int]:
    """Wait until the threads have stopped, or at least one; returns those that did."""
    stopped: list[int] = []
    waiting, pause = set(traced), _Pause()
    while waiting:
        ready = {tid for tid in waiting if _has_stopped(tid, traced)}
        stopped += sorted(ready & traced)
        waiting = (waiting - ready) & traced
        if pause.waited > _ASLEEP and all(ptrace.state(tid) == "D" for tid in waiting):
            if stopped or not wanted():
                break
        elif stopped and pause.waited > _PATIENCE:
            break
        pause()
    return stopped


def _has_stopped(tid: int, traced: set[int]) -> bool:
    """Whether it is where it can be borrowed; a signal that comes before is passed on."""
    try:
        stop = ptrace.stopped(tid)
        if stop is None or stop.why is not Stop.SIGNAL:
            return stop is not None
        ptrace.resume(tid, stop.signal)
    except ProcessLookupError:
        traced.discard(tid)
    return False


def _let_go(tid: int) -> None:
    """Trace a thread no more, from whatever stop; without one the end of our own thread does it."""
    stop = ptrace.stopped(tid)
    if stop is None:
        return
    found = ptrace.registers(tid)
    if found and (words := found.abi.undisturbed(found.words)) is not found.words:
        ptrace.set_registers(tid, found._replace(words=words))
    ptrace.detach(tid, stop.signal)


class _Pause:
    """Between two looks: a tenth of the time that it has taken until now."""

    def __init__(self) -> None:
        self._looks = 0
        self._began = time.monotonic()

    @property
    def waited(self) -> float:
        """Seconds since the first look."""
        return time.monotonic() - self._began

    def __call__(self) -> None:
        self._looks += 1
        if self._looks > _LOOKS:
            time.sleep(min(max(self.waited / 10, _SHORTEST), _LONGEST))


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
    return int(_status(tid).get("Seccomp_filters", "0"))


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
    pause = _Pause()
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
