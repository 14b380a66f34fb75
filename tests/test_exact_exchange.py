"""Descriptors that are exchanged because their inode lost pages, and those that are left alone."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostneeds import needs_sandbox
from test_exact_supervisor import exact, faults

from fakedev import Machine, build_machine, load_profile
from fakedev.model.ranges import Range
from fakedev.sandbox.exact.listener import Listener
from fakedev.sandbox.exact.seizing import Spared, Threads

pytestmark = needs_sandbox
BOARD = Range(0xD000_0000, 0x2000)
STRICT = str(Path(__file__).parent / "e2e" / "strict.yaml")
BEGIN = """
import ctypes, mmap, os, resource, sys, threading, time
BOARD = 0xD0000000
def mapped(fd, offset=BOARD):
    return mmap.mmap(fd, 4096, offset=offset)
old = os.open("/dev/mem", os.O_RDWR)
before = mapped(old)
before[0]
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]
def mapped_apart(fd):  # while other threads of Python run
    return libc.mmap(None, 4096, 1, 1, fd, BOARD)
print("mapped", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def machine() -> Machine:
    return build_machine(load_profile(STRICT))


def run(machine: Machine, code: str, between: Callable[[Machine], None] | None = None) -> Any:
    """Runs BEGIN and `code`; a driver comes and goes between. Returns status and output."""
    command = [sys.executable, "-c", BEGIN + code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with exact(machine).popen(command, **pipes) as tool:
        try:
            assert tool.stdout is not None
            assert tool.stdout.readline() == "mapped\n"
            machine.claim(BOARD, "driver")
            machine.release(BOARD)
            output = tool.communicate("\n", timeout=20)[0]
        finally:
            tool.kill()
    return tool.returncode, output


def kept(machine: Machine) -> list[str]:
    """What the log says of descriptors that stay."""
    words = [event.message for event in machine.events if "stays as it is" in event.message]
    return [word.partition("stays as it is: ")[2] for word in words]


def test_an_old_descriptor_maps_again_and_its_duplicate_too(machine: Machine) -> None:
    code = """
twin = os.dup(old)
mapped(old)[0]
mapped(twin)[0]
mapped(old)[0]
print("done")
"""
    assert run(machine, code) == (0, "done\n")
    assert (kept(machine), faults(machine)) == ([], [])


def test_a_fresh_descriptor_of_the_same_file_is_left_alone(machine: Machine) -> None:
    """It shares its position with its duplicate, before and after it is mapped."""
    code = """
new = os.open("/dev/mem", os.O_RDWR)
twin = os.dup(new)
mapped(new)[0]
os.lseek(new, 77, 0)
print(os.lseek(twin, 0, 1))
"""
    assert run(machine, code) == (0, "77\n")


def test_the_second_claim_wears_out_what_the_first_did_not(machine: Machine) -> None:
    """Each inode of a file has a generation of its own."""
    code = """
mapped(old)[0]
new = os.open("/dev/mem", os.O_RDWR)
twin = os.dup(new)
mapped(new)[0]
print("again", flush=True)
sys.stdin.readline()
mapped(new)[0]
mapped(old)[0]
os.lseek(new, 77, 0)
print(os.lseek(twin, 0, 1), os.fstat(old).st_ino == os.fstat(new).st_ino)
"""
    command = [sys.executable, "-c", BEGIN + code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with exact(machine).popen(command, **pipes) as tool:
        try:
            assert tool.stdin is not None
            assert tool.stdout is not None
            for word in ("mapped\n", "again\n"):
                assert tool.stdout.readline() == word
                machine.claim(BOARD, "driver")
                machine.release(BOARD)
                tool.stdin.write("\n")
                tool.stdin.flush()
            assert (
                tool.communicate(timeout=20)[0] == "0 True\n"
            )  # `new` was exchanged, its twin not
        finally:
            tool.kill()
    assert tool.returncode == 0


RACE = """
null = os.open("/dev/null", os.O_RDWR)
os.dup2(old, 60)
def other():
    time.sleep(0.1)
    os.dup2(null, 60)
thread = threading.Thread(target=other)
thread.start()
mapped_apart(60)
thread.join()
print(os.major(os.fstat(60).st_rdev), os.minor(os.fstat(60).st_rdev))
"""


def test_a_number_that_another_thread_uses_again_is_not_overwritten(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window between the last look and the exchange is made longer: the other thread is stopped in it."""
    replace = Listener.replace

    def late(self: Listener, *arguments: Any, **options: Any) -> None:
        time.sleep(0.4)
        replace(self, *arguments, **options)

    monkeypatch.setattr(Listener, "replace", late)
    assert run(machine, RACE) == (0, "1 3\n")
    assert (kept(machine), faults(machine)) == ([], [])


def test_threads_of_one_process_map_again(machine: Machine) -> None:
    code = """
found = []
threads = [threading.Thread(target=lambda: found.append(mapped(old)[0])) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found))
"""
    assert run(machine, code) == (0, "8\n")
    assert (kept(machine), faults(machine)) == ([], [])


@pytest.mark.parametrize("error", [Spared("process 7 traces it"), RuntimeError("no more threads")])
def test_where_others_cannot_be_stopped_the_descriptor_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: Threads) -> None:
        raise error

    monkeypatch.setattr(Threads, "seize", refuse)
    code = "threading.Thread(target=time.sleep, args=(3,), daemon=True).start(); mapped(old)[0]"
    assert run(machine, code)[0] == -signal.SIGBUS
    assert kept(machine) == [f"its other threads cannot be stopped: {error}"]
    assert faults(machine) == []
    machine = build_machine(load_profile(STRICT))
    assert run(machine, "mapped(old)[0]")[0] == 0  # there are none


def test_a_number_beyond_the_limit(machine: Machine) -> None:
    code = """
os.dup2(old, 60)
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
ctypes.c_ubyte.from_address(mapped_apart(60)).value
"""
    assert run(machine, code)[0] == -signal.SIGBUS
    assert kept(machine) == ["its number is not below RLIMIT_NOFILE"]
    assert faults(machine) == []


def test_another_descriptor_of_the_file_under_the_same_number_is_left_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again when the other threads have stopped."""
    gather = Threads.gather

    def late(self: Threads, wanted: Callable[[], Any]) -> list[int]:
        stopped = gather(self, wanted)
        monkeypatch.setattr(Listener, "replace", never)
        return stopped

    def never(*_: object, **__: object) -> None:
        raise AssertionError("exchanged")

    seize = Threads.seize

    def after_a_while(self: Threads) -> None:
        time.sleep(0.2)  # in which another thread puts a fresh one in its place
        seize(self)

    monkeypatch.setattr(Threads, "seize", after_a_while)
    monkeypatch.setattr(Threads, "gather", late)
    code = """
fresh = os.open("/dev/mem", os.O_RDONLY)
os.lseek(fresh, 77, 0)
mapper = threading.Thread(target=mapped_apart, args=(old,))
mapper.start()
time.sleep(0.05)
os.dup2(fresh, old)
mapper.join()
print(os.lseek(old, 0, os.SEEK_CUR))
"""
    assert run(machine, code) == (0, "77\n")
    assert faults(machine) == []
