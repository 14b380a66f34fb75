"""A program that is executed while the threads of its process are being stopped: neither waits for the other.

`de_thread` waits until every traced thread that it has killed is buried, with the lock that PTRACE_SEIZE takes.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from test_exact_inject import PAGE, borrow

from fakedev.sandbox.exact import ptrace
from fakedev.sandbox.exact.seizing import Piece

LONG = 0.3  # seconds: an exec has begun, and ended unless somebody holds it up
CODE = """
import os, sys, threading, time
def execute():
    sys.stdin.buffer.raw.read(1)
    os.execvp("cat", ["cat"])
threads = [threading.Thread(target=time.sleep, args=(1000,), daemon=True) for _ in range(2)]
threads.append(threading.Thread(target=execute))
for thread in threads: thread.start()
print(*(thread.native_id for thread in threads), flush=True)
time.sleep(1000)
"""


class Executer:
    """A process with two threads that sleep, and one that is told to become cat(1)."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        assert process.stdout
        self.sleepers = [int(word) for word in process.stdout.readline().split()]
        self.last = self.sleepers.pop()

    def execute(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"x")
        self.process.stdin.flush()
        time.sleep(LONG)

    def is_cat(self) -> bool:
        out, _ = self.process.communicate(b"meow\n", timeout=10)
        return out == b"meow\n"


@pytest.fixture
def program() -> Iterator[Executer]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Executer(process)
    finally:
        process.kill()
        process.communicate()


def discard(program: Executer) -> None:
    with contextlib.suppress(ProcessLookupError):
        borrow(program.process.pid, lambda: [(0x10000, PAGE)])


def test_an_exec_between_two_threads_that_are_seized(
    program: Executer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one to be seized is waited for in the kernel; then the process's number has another owner."""
    seize, seized = ptrace.seize, []

    def slow(tid: int) -> None:
        seize(tid)
        seized.append(tid)
        if seized == [program.process.pid, program.sleepers[0]]:
            program.execute()

    monkeypatch.setattr(ptrace, "seize", slow)
    discard(program)
    assert seized[:2] == [program.process.pid, program.sleepers[0]]
    assert program.is_cat()


def test_an_exec_when_all_threads_are_seized(
    program: Executer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps uninterruptibly, and all others have ended: there is nobody whose stop could be waited for."""
    interrupt, seized = ptrace.interrupt, []

    def late(tid: int) -> None:
        seized.append(tid)
        if tid == program.last:
            program.execute()
            for one in seized:
                with contextlib.suppress(ProcessLookupError):
                    interrupt(one)

    monkeypatch.setattr(ptrace, "interrupt", late)
    discard(program)
    assert seized[-1] == program.last
    assert program.is_cat()


def test_the_first_thread_is_left_to_its_parent(program: Executer) -> None:
    """It ends while it is traced, and is its parent's to wait for."""
    killed = []

    def wanted() -> list[Piece]:
        if not killed:
            killed.append(True)  # not by Popen.kill(), which takes a stop for the end
            os.kill(program.process.pid, signal.SIGKILL)
            time.sleep(LONG)
        return [(0x10000, PAGE)]

    with contextlib.suppress(ProcessLookupError):
        borrow(program.process.pid, wanted)
    assert killed
    assert program.process.wait(10) == -9


def test_one_that_is_being_buried_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """PTRACE_INTERRUPT finds it, and then no signals any more (`lock_task_sighand`)."""

    def request(*_: int) -> None:
        raise OSError(errno.EIO, "EIO")

    monkeypatch.setattr(ptrace, "_request", request)
    with pytest.raises(ProcessLookupError):
        ptrace.interrupt(1)
