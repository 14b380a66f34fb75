"""Looks at the process behind a call, through files of /proc that stay open."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakedev.sandbox.exact.tasks import Tasks
from fakedev.sandbox.exact.tracee import Comms, Memory, Statuses

MOST = 32
EXEC_IN_A_THREAD = """
import os, sys, threading
print("ready", flush=True)
sys.stdin.readline()
again = "print('again', flush=True); import sys; sys.stdin.readline()"
threading.Thread(target=lambda: os.execv(sys.executable, [sys.executable, "-c", again])).start()
threading.Event().wait()
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def statuses(tmp_path: Path) -> Iterator[Statuses]:
    root = os.open(tmp_path, os.O_PATH)
    found = Statuses(root)
    yield found
    found.close()
    os.close(root)


@pytest.fixture
def child(file: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open, too."""
    command = [sys.executable, "-c", EXEC_IN_A_THREAD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, pass_fds=[file], **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def ino_of(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_what_is_on_the_mount_is_ours(statuses: Statuses, file: int) -> None:
    tid = threading.get_native_id()
    with Path("/proc/self/stat").open("rb") as other:
        assert statuses.ours(tid, file) == ino_of(file)
        assert statuses.ours(tid, other.fileno()) == 0
    for _ in range(3):
        assert statuses.ours(tid, file) == ino_of(file)
        assert statuses.ours(tid, 1 << 20) == 0


@pytest.mark.parametrize(
    ("flags", "access", "is_open"),
    [
        (os.O_RDONLY, os.O_RDONLY, True),
        (os.O_WRONLY, os.O_WRONLY, True),
        (os.O_RDWR, os.O_RDWR, True),
        (os.O_ACCMODE, None, True),  # ioctl(2) only
        (os.O_PATH, None, False),
    ],
)
def test_how_a_file_is_open(
    statuses: Statuses, file: int, tmp_path: Path, flags: int, access: int | None, is_open: bool
) -> None:
    tid, fd = threading.get_native_id(), os.open(tmp_path / "file", flags)
    assert (statuses.access(tid, fd), statuses.is_open(tid, fd)) == (access, is_open)
    os.close(fd)
    assert (statuses.access(tid, fd), statuses.is_open(tid, fd)) == (None, False)


def test_a_descriptor_that_is_another_file_now(statuses: Statuses, file: int) -> None:
    tid, fd = threading.get_native_id(), os.dup(file)
    for _ in range(3):
        assert statuses.ours(tid, fd) == ino_of(file)
    assert tid in statuses._tables
    with Path("/proc/self/stat").open("rb") as other:
        os.dup2(other.fileno(), fd)
    assert statuses.ours(tid, fd) == 0
    os.close(fd)


def test_the_number_of_a_thread_that_is_used_again(
    statuses: Statuses, file: int, child: subprocess.Popen[str]
) -> None:
    """What is open of the process that had it leads nowhere; there is no other process at its end."""
    comms = Comms()
    for _ in range(3):
        assert statuses.ours(child.pid, file) == ino_of(file)
        assert comms.of(child.pid) == Path("/proc/self/comm").read_text().strip()
    assert child.pid in statuses._tables
    assert child.pid in comms._files
    child.kill()
    child.wait()
    assert (statuses.ours(child.pid, file), comms.of(child.pid)) == (0, "?")
    for table, name in ((statuses._tables, "fd"), (comms._files, "comm")):
        table[os.getpid()] = ended(name)
    assert statuses.ours(os.getpid(), file) == ino_of(file)
    assert comms.of(os.getpid()) == Path("/proc/self/comm").read_text().strip()
    comms.close()


def ended(name: str) -> int:
    """A descriptor of /proc/PID/NAME of a process that is no more."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        flags = os.O_PATH | os.O_DIRECTORY if name == "fd" else os.O_RDONLY
        return os.open(f"/proc/{process.pid}/{name}", flags)


def test_exec_in_a_thread(statuses: Statuses, file: int, child: subprocess.Popen[str]) -> None:
    """It gets the number of the first one, which ends."""
    for _ in range(3):
        assert statuses.ours(child.pid, file) == ino_of(file)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "again\n"
    assert statuses.ours(child.pid, file) == ino_of(file)
    assert statuses.ours(child.pid, 0) == 0


def test_a_thread_that_changes_its_name() -> None:
    comms, tid = Comms(), threading.get_native_id()
    comm = Path(f"/proc/self/task/{tid}/comm")
    before = comm.read_text()
    try:
        for name, shown in (("one", "one"), ("two\nlines", "two?lines"), ("3", "3")):
            comm.write_text(name)
            assert comms.of(tid) == comms.of(tid) == shown
    finally:
        comm.write_text(before)
    assert len(comms._files) == 1
    comms.close()
    assert comms.of(1 << 30) == "?"


@pytest.fixture
def threads() -> Iterator[list[int]]:
    """The numbers of more threads than are kept."""
    over = threading.Event()
    started = [threading.Thread(target=over.wait) for _ in range(MOST + 8)]
    for thread in started:
        thread.start()
    yield [thread.native_id or 0 for thread in started]
    over.set()
    for thread in started:
        thread.join()


def test_few_threads_are_open(threads: list[int]) -> None:
    tasks = Tasks(b"comm", os.O_RDONLY)
    for tid in threads:
        tasks.missed(tid)
        assert tid not in tasks
        tasks.missed(tid)
    assert list(tasks) == threads[-MOST:]
    found = list(tasks.values())
    tasks.missed(threads[-1])
    assert len(tasks) == MOST - 1, "it led nowhere"
    tasks.close()
    assert not tasks
    for fd in found:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_threads_in_turn_are_not_opened(threads: list[int]) -> None:
    """More of them than are kept: each would be closed before it is asked about again."""
    tasks = Tasks(b"comm", os.O_RDONLY)
    for _ in range(3):
        for tid in threads:
            tasks.missed(tid)
        assert not tasks


def test_without_a_descriptor_to_spare(
    statuses: Statuses, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("fakedev.sandbox.exact.tasks.os.open", full)
    for _ in range(3):
        assert statuses.ours(os.getpid(), file) == ino_of(file)
    assert not statuses._tables


def test_memory_is_read_and_written_up_to_a_size(child: subprocess.Popen[str]) -> None:
    memory = Memory()
    maps = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
    stack = next(line.split() for line in maps if line.endswith("[stack]"))
    at = int(stack[0].partition("-")[2], 16) - 4096
    data = bytes(range(256))
    assert memory.write(child.pid, at, data)
    assert memory.read(child.pid, at, 256) == data
    assert memory.read(child.pid, at + 7, 1) == b"\x07"
    assert memory.read(child.pid, 4096, 1) is None
    assert not memory.write(child.pid, 4096, b"x")
    with pytest.raises(ValueError, match="different structures"):
        memory.write(child.pid, at, bytes(257))
