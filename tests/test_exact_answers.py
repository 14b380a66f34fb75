"""What is answered again and again: once judged, never out of date, always in the trace."""

import sys
from typing import Any

import pytest
from calling import mapped, said
from hostneeds import needs_sandbox
from machines import BAR, small_machine

from fakedev import Machine, Sandbox, build_machine, load_profile
from fakedev.model.policy import Policy
from fakedev.model.ranges import Range
from fakedev.sandbox.exact import layouts, tracee
from fakedev.views.calls import SeekCall
from fakedev.views.devmem import DevMem

SEEK_END = 2
BOARD = Range(BAR, 0x1000)


@pytest.fixture
def machine() -> Machine:
    return build_machine(load_profile("pc-q35"))


def run(machine: Machine, code: str) -> list[str]:
    """What a tool prints in a sandbox with the exact layer."""
    sandbox = Sandbox(machine)
    if sandbox.filter is None:
        pytest.skip(sandbox.without_exact)
    given: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30}
    done = sandbox.run([sys.executable, "-c", code], check=False, **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event.message for event in machine.events if event.kind == "error"] == []
    return done.stdout.splitlines()


def test_a_mapping_is_judged_anew_after_each_change() -> None:
    machine = small_machine()
    node = DevMem(machine)
    for _ in range(2):
        assert mapped(node, BAR) is None
        machine.claim(BOARD, "driver", exclusive=True)
        assert mapped(node, BAR) == mapped(node, BAR) == "EPERM"
        assert mapped(node, BOARD.end) is None
        machine.release(BOARD)


def test_the_same_mapping_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, judged, judge = small_machine(), [], Policy.mmap

    def counting(policy: Policy, address: int, size: int) -> Any:
        judged.append(address)
        return judge(policy, address, size)

    monkeypatch.setattr(Policy, "mmap", counting)
    node = DevMem(machine)
    machine.claim(BOARD, "driver", exclusive=True)
    judged.clear()
    assert {mapped(node, BAR) for _ in range(5)} == {"EPERM"}
    assert judged == [BAR]


def test_lseek_does_not_ask_how_much_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Machine) -> int:
        raise AssertionError("asked")

    node = DevMem(small_machine())
    monkeypatch.setattr(Machine, "top", property(refuse))
    assert said(node.seek(SeekCall(0, SEEK_END, 0))) == "EINVAL"
    assert said(node.seek(SeekCall(4096, 0, 0))) == 4096


FSTAT = """
import os, stat
fd = os.open("/dev/mem", os.O_RDWR)
for mode in (0o640, 0o600, 0o640):
    os.chmod("/dev/mem", mode)
    print(*{stat.filemode(os.fstat(fd).st_mode) for _ in range(3)})
print(stat.filemode(os.fstat(os.open("/dev/port", os.O_RDWR)).st_mode))
print(stat.filemode(os.fstat(fd).st_mode))
"""


@needs_sandbox
def test_fstat_shows_what_is_there_now(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    made, stat = [], layouts.stat

    def counting(*given: Any) -> bytes:
        made.append(given)
        return stat(*given)

    monkeypatch.setattr(layouts, "stat", counting)
    layouts.packed.cache_clear()
    shown = ["crw-r-----", "crw-------", "crw-r-----", "crw-r-----", "crw-r-----"]
    assert run(machine, FSTAT) == shown
    assert len(made) == 3, "two modes of one file, one of the other"


IOCTL = """
import fcntl, os
for flags in (os.O_RDONLY, os.O_RDWR, os.O_ACCMODE):
    fd = os.open("/dev/mem", flags)
    try:
        fcntl.ioctl(fd, 0x541B, bytes(4))
    except OSError as error:
        print(error.errno)
"""


@needs_sandbox
def test_ioctl_of_a_file_without_a_state(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has left a state, so no open file is looked into for one."""

    def refuse(*_: int) -> int:
        raise AssertionError("looked")

    monkeypatch.setattr(tracee, "copy", refuse)
    assert run(machine, IOCTL) == ["25", "25", "25"]


NAMES = """
import os, pathlib
fd = os.open("/dev/mem", os.O_RDONLY)
comm = pathlib.Path("/proc/self/comm")
for name in ("first", "second"):
    comm.write_text(name)
    for call in (lambda: os.lseek(fd, 0, os.SEEK_END), lambda: os.fsync(fd)):
        for _ in range(3):
            try:
                call()
            except OSError as error:
                print(error.errno)
"""


@needs_sandbox
def test_every_answer_is_in_the_trace_with_its_rule(machine: Machine) -> None:
    """Once, where the same is asked again; with the name that the caller has by then."""
    assert run(machine, NAMES) == ["22"] * 12
    messages = [event.message for event in machine.events if event.kind == "exact"]
    told = [(line.partition("[")[0], line.partition("]: ")[2]) for line in messages]
    seek = "lseek EINVAL: memory_lseek: SEEK_SET and SEEK_CUR only"
    sync = "fsync EINVAL: vfs_fsync_range: there is no fsync operation"
    assert told == [(name, rule) for name in ("first", "second") for rule in (seek, sync)]
