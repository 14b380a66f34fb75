"""Who maps our files: real mappings of a temporary file in child processes."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakedev.fuse import mappers as module
from fakedev.fuse.mappers import Mapped, comm_of, mappers
from fakedev.model.effects import Mapper
from fakedev.model.ranges import PAGE_SIZE, Range

BASE = 0xD8100000
CHILD = """
import ctypes, mmap, os, sys, threading
libc = ctypes.CDLL(None)
libc.prctl(15, sys.argv[1].encode())
file = os.open(sys.argv[2], os.O_RDWR)
held = [mmap.mmap(file, int(n), offset=int(at)) for at, n in (w.split("+") for w in sys.argv[3].split(","))]
os.close(file)
print("ready", flush=True)
if "thread" in sys.argv[4:]:
    threading.Thread(target=sys.stdin.readline).start()
    libc.pthread_exit(None)
sys.stdin.readline()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "resource0"
    path.write_bytes(bytes(16 * PAGE_SIZE))
    return path


@pytest.fixture
def child() -> Iterator[Callable[..., int]]:
    """Start a process called `comm` that maps parts of a file; its pid."""
    started = []

    def start(comm: str, path: Path, areas: str, *options: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, comm, str(path), areas, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def mapped(path: Path, base: int = BASE, size: int = 16 * PAGE_SIZE) -> Mapped:
    return Mapped(path.stat().st_ino, "/" + path.name, base, size)


def test_who_maps_a_range_is_found(file: Path, child: Any) -> None:
    pid = child("gdb", file, "0+8192")
    assert mappers([mapped(file)], Range(BASE, 4)) == [Mapper(pid, "gdb", Range(BASE, PAGE_SIZE))]
    assert mappers([mapped(file)], Range(BASE, 1 << 20)) == [
        Mapper(pid, "gdb", Range(BASE, 2 * PAGE_SIZE))
    ]
    assert mappers([mapped(file)], Range(BASE + 2 * PAGE_SIZE, PAGE_SIZE)) == []


def test_the_offset_of_a_mapping_counts(file: Path, child: Any) -> None:
    pid = child("gdb", file, "12288+4096")
    (found,) = mappers([mapped(file)], Range(BASE, 1 << 20))
    assert found == Mapper(pid, "gdb", Range(BASE + 3 * PAGE_SIZE, PAGE_SIZE))


def test_mappings_that_touch_are_one_and_others_are_not(file: Path, child: Any) -> None:
    pid = child("poker", file, "0+4096,4096+8192,0+4096,20480+4096")
    assert mappers([mapped(file)], Range(BASE, 1 << 20)) == [
        Mapper(pid, "poker", Range(BASE, 3 * PAGE_SIZE)),
        Mapper(pid, "poker", Range(BASE + 5 * PAGE_SIZE, PAGE_SIZE)),
    ]


def test_two_files_and_two_processes(file: Path, tmp_path: Path, child: Any) -> None:
    memory = tmp_path / "mem"
    memory.write_bytes(bytes(4 * PAGE_SIZE))
    first, second = child("one", file, "0+4096"), child("two", memory, "4096+4096")
    files = [mapped(file), mapped(memory, BASE - PAGE_SIZE)]
    found = mappers(files, Range(BASE, PAGE_SIZE))
    assert {(m.pid, m.comm) for m in found} == {(first, "one"), (second, "two")}
    assert {m.span for m in found} == {Range(BASE, PAGE_SIZE)}


def test_a_bar_that_is_smaller_than_a_page_counts_as_its_page(file: Path, child: Any) -> None:
    pid = child("gdb", file, "0+4096")
    files = [mapped(file, BASE + 0x800, 0x100)]
    assert mappers(files, Range(BASE + 0x800, 16)) == [Mapper(pid, "gdb", Range(BASE, PAGE_SIZE))]


def test_what_lies_behind_the_file_does_not_count(file: Path, child: Any) -> None:
    pid = child("gdb", file, "0+65536")
    files = [mapped(file, size=PAGE_SIZE + 1)]
    assert mappers(files, Range(0, 1 << 40)) == [Mapper(pid, "gdb", Range(BASE, 2 * PAGE_SIZE))]


def test_a_file_that_was_deleted_still_counts(file: Path, child: Any) -> None:
    pid, ours = child("gdb", file, "0+4096"), mapped(file)
    file.unlink()
    assert [m.pid for m in mappers([ours], Range(BASE, 1))] == [pid]


def test_inode_and_name_must_both_be_ours(file: Path, child: Any) -> None:
    child("gdb", file, "0+4096")
    ino = file.stat().st_ino
    span = Range(BASE, PAGE_SIZE)
    assert mappers([Mapped(ino, "/resource0_wc", BASE, PAGE_SIZE)], span) == []
    assert mappers([Mapped(ino, "/elsewhere/resource0", BASE, PAGE_SIZE)], span) == []
    assert mappers([Mapped(ino + 1, "/resource0", BASE, PAGE_SIZE)], span) == []


def test_a_file_system_can_be_named(file: Path, child: Any) -> None:
    pid = child("gdb", file, "0+4096")
    span = Range(BASE, PAGE_SIZE)
    line = next(x for x in Path(f"/proc/{pid}/maps").read_text().splitlines() if "resource0" in x)
    shown = line.split()[3]
    assert [m.pid for m in mappers([mapped(file)], span, devices=[shown])] == [pid]
    assert mappers([mapped(file)], span, devices=["ff:ff"]) == []


def test_a_process_whose_first_thread_has_ended(file: Path, child: Any) -> None:
    pid = child("gdb", file, "0+4096", "thread")
    while "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        pass
    assert [m.pid for m in mappers([mapped(file)], Range(BASE, 1))] == [pid]


def test_processes_that_end_or_may_not_be_looked_at_are_left_out(
    file: Path, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = child("gdb", file, "0+4096")
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if str(path) != f"/proc/{pid}/maps":
            raise PermissionError
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert [m.pid for m in mappers([mapped(file)], Range(BASE, 1))] == [pid]


def test_a_process_that_does_not_answer_holds_nobody_up(
    file: Path, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = sorted([child("stuck", file, "0+4096"), child("gdb", file, "0+4096")])
    real, go_on = Path.read_bytes, threading.Event()

    def block(path: Path) -> bytes:
        if str(path) == f"/proc/{pids[0]}/maps":
            go_on.wait()
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", block)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    assert [m.pid for m in mappers([mapped(file)], Range(BASE, 1))] == [pids[1]]
    go_on.set()


def test_nothing_to_look_for_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_maps", lambda _: pytest.fail("looked"))
    assert mappers([], Range(0, 1)) == []
    assert mappers([Mapped(1, "/mem", BASE, PAGE_SIZE)], Range(0, PAGE_SIZE)) == []


def test_the_name_of_a_process_is_one_printable_line(file: Path, child: Any) -> None:
    assert comm_of(child("a\nb\x1bc", file, "0+4096")) == "a?b?c"
    assert comm_of(1 << 30) == "?"
