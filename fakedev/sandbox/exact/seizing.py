"""The threads of a process, stopped all at once, and let go of.

PTRACE_SEIZE, PTRACE_INTERRUPT. One that sleeps uninterruptibly is not waited for: it stops before it gets
back to its own code. Exec by one of them kills the others, and gives it the number of the first
(`de_thread`): a number may be nobody's then, or that of a thread which is traced and was never told to stop.

A traced thread that has ended stays until its tracer buries it, or ends. An exec waits for that, with the lock
that PTRACE_SEIZE takes (`cred_guard_mutex`). So another thread of ours buries, while this one may wait in
the kernel.
"""

import _thread
import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from fakedev.sandbox.exact import ptrace
from fakedev.sandbox.exact.ptrace import Stop

# Seconds that a thread is waited for, and one that sleeps; pauses between looks, after the first ones.
PATIENCE, ASLEEP = 1.0, 0.02
_SHORTEST, _LONGEST = 0.00005, 0.05
_LOOKS = 20
Piece = tuple[int, int]


class Spared(Exception):  # noqa: N818 - a decision, not a fault
    """A process cannot be made to do it; says why."""


class Threads:
    """Those of a process, traced within a `with` block by a thread of ours that ends after it.

    `but`: one that is left alone.
    """

    def __init__(self, pid: int, *, but: int = 0) -> None:
        self._pid = pid
        self._but = but
        self._traced: set[int] = set()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for tid in self._traced:
                with contextlib.suppress(ProcessLookupError):
                    _let_go(tid)
        finally:
            self._over.set()

    def seize(self) -> None:
        """Trace all of them, and have them stop. Raises Spared; RuntimeError where no thread can be started."""
        seen: set[int] = set()
        while new := _tasks(self._pid) - seen - {self._but}:
            if len(seen) <= 1 < len(seen | new):
                # No threading.Thread: its start() waits until it runs, and tools wait for us.
                _thread.start_new_thread(self._bury, ())
            seen |= new
            for tid in sorted(new):
                with contextlib.suppress(ProcessLookupError):
                    if _seize_one(tid):
                        self._traced.add(tid)
                        ptrace.interrupt(tid)

    def _bury(self) -> None:
        """Do so with those that have ended, but the first, which is its parent's."""
        while not self._over.wait(ASLEEP):
            for tid in self._traced - {self._pid}:
                if ptrace.state(tid) == "Z":
                    ptrace.bury(tid)

    def gather(self, wanted: Callable[[], Sequence[Piece]]) -> list[int]:
        """Wait until they have stopped, or at least one; returns those that did."""
        stopped: list[int] = []
        waiting, pause = sorted(self._traced), Pause()
        while waiting:
            found = {tid: _has_stopped(tid) for tid in waiting}
            stopped += [tid for tid in waiting if found[tid]]
            waiting = [tid for tid in waiting if found[tid] is False]
            if pause.waited > ASLEEP:
                waiting = [tid for tid in waiting if _asked_again(tid)]
                if all(ptrace.state(tid) == "D" for tid in waiting) and (stopped or not wanted()):
                    break
            if stopped and pause.waited > PATIENCE:
                break
            pause()
        return stopped


def _seize_one(tid: int) -> bool:
    """Trace a thread, unless it is ending. Raises Spared."""
    pause = Pause()
    while True:
        try:
            ptrace.seize(tid)
        except PermissionError:
            if ptrace.state(tid) in "ZX":
                return False
            tracer = status(tid).get("TracerPid", "0")
            if tracer == str(threading.get_native_id()):
                return True  # exec has given it the number of another one (`de_thread`)
            us = str(os.getpid())
            other = tracer != "0" and status(int(tracer)).get("Tgid", us) != us
            if other or pause.waited > PATIENCE:
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


def status(tid: int) -> dict[str, str]:
    """What /proc/TID/status says; nothing when it is gone."""
    try:
        with open(f"/proc/{tid}/status", errors="replace") as text:  # noqa: PTH123
            lines = [line.partition(":") for line in text]
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in lines}


def _has_stopped(tid: int) -> bool | None:
    """Whether it is where it can be borrowed; a signal that comes before is passed on. None: it has ended."""
    try:
        stop = ptrace.stopped(tid)
        if stop is None or stop.why is not Stop.SIGNAL:
            return stop is not None
        ptrace.resume(tid, stop.signal)
    except ProcessLookupError:
        return None
    return False


def _asked_again(tid: int) -> bool:
    """Have it stop, if this thread traces it: by exec another one may have got its number (`de_thread`)."""
    try:
        ptrace.interrupt(tid)
    except ProcessLookupError:
        return False
    return True


def _let_go(tid: int) -> None:
    """Trace a thread no more, from whatever stop; without one the end of our own thread does it."""
    stop = ptrace.stopped(tid)
    if stop is None:
        return
    found = ptrace.registers(tid)
    if found and (words := found.abi.undisturbed(found.words)) is not found.words:
        ptrace.set_registers(tid, found._replace(words=words))
    ptrace.detach(tid, stop.signal)


class Pause:
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
