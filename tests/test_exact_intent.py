"""What a thread is about to do, read from /proc, with threads that really do it."""

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import wait_for

from fakedev.fuse import intent

ON_X86 = platform.machine() == "x86_64"
OPENAT, OPENAT2 = (257, 437) if ON_X86 else (56, 437)
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def fifo(tmp_path: Path) -> bytes:
    """A file whose open(2) waits for the other side."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return os.fsencode(path)


@pytest.fixture
def asleep() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Start processes that do one thing; the number of one that sleeps in it."""
    children: list[int] = []

    def start(action: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            try:
                action()
            finally:
                os._exit(1)
        children.append(child)
        stat = Path(f"/proc/{child}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "it sleeps")
        return child

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def call(number: int, *arguments: object) -> None:
    _libc.syscall(ctypes.c_long(number), *arguments)


HOW = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
OPENS = {"openat": (OPENAT, -100, None, os.O_RDONLY), "openat2": (OPENAT2, -100, None, HOW, 24)}
if ON_X86:
    OPENS |= {"open": (2, None, os.O_RDONLY), "creat": (85, None, 0o600)}


@pytest.mark.parametrize("name", OPENS)
def test_a_thread_that_opens(name: str, fifo: bytes, asleep: Callable[..., int]) -> None:
    number, *arguments = (fifo if word is None else word for word in OPENS[name])
    assert intent.opens(asleep(lambda: call(number, *arguments)))


def test_a_thread_that_does_something_else(asleep: Callable[..., int]) -> None:
    ends = os.pipe()
    try:
        assert not intent.opens(asleep(lambda: os.read(ends[0], 1)))
        assert not intent.opens(asleep(signal.pause))
    finally:
        for end in ends:
            os.close(end)


def test_threads_of_one_process_are_told_apart(fifo: bytes) -> None:
    opener = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_RDONLY)), daemon=True)
    end = threading.Event()
    waiter = threading.Thread(target=end.wait, daemon=True)
    for thread in (opener, waiter):
        thread.start()
    try:
        wait_for(lambda: intent.opens(opener.native_id or 0), "one is seen in open")
        wait_for(lambda: not intent.opens(waiter.native_id or 0), "the other is seen in futex")
        assert intent.opens(opener.native_id or 0)
    finally:
        os.close(os.open(fifo, os.O_WRONLY))
        end.set()
        opener.join(10)
        waiter.join(10)


def test_one_that_runs_counts_as_opening_after_a_while() -> None:
    command = [sys.executable, "-uc", "print()\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as spinning:
        try:
            assert spinning.stdout is not None
            spinning.stdout.readline()
            syscall = Path(f"/proc/{spinning.pid}/syscall")
            wait_for(lambda: syscall.read_text() == "running\n", "it runs")
            before = time.monotonic()
            assert intent.opens(spinning.pid)
            assert time.monotonic() - before < 5
        finally:
            spinning.kill()


def test_one_that_is_gone_counts_as_opening() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert intent.opens(done.pid)
    assert intent.opens(0)
