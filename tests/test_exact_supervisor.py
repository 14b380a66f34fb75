"""The supervisor when it fails, when its sandbox fails, and when there are many of them."""

import ctypes
import errno
import gc
import os
import platform
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hostneeds import needs_sandbox
from support import compiled, wait_for

from fakedev import Machine, Sandbox, build_machine, load_profile
from fakedev.model.errors import HostError
from fakedev.model.ranges import Range
from fakedev.sandbox import process
from fakedev.sandbox.exact import listener
from fakedev.sandbox.exact.calls import Calls
from fakedev.sandbox.exact.dispatch import Dispatch
from fakedev.sandbox.exact.listener import Listener
from fakedev.sandbox.exact.numbers import AARCH64, I386, X86_64, Arch
from fakedev.sandbox.exact.states import States
from fakedev.sandbox.exact.supervisor import Supervisor
from fakedev.sandbox.process import SandboxProcess

pytestmark = needs_sandbox
LOOK = "import os, stat; print(stat.filemode(os.stat(os.open('/dev/mem', 0)).st_mode))"
SANDBOXES = 40
SEED = int.from_bytes(os.urandom(3), "little")
BOARD = Range(0xD000_0000, 0x2000)
E2E = Path(__file__).parent / "e2e"
JOBS = ("fakedev-notifier", "fakedev-verbs", "fakedev-witness")
PR_SET_SECUREBITS, NOROOT = 28, 1
PROCESS_VM_READV = "310" if platform.machine() == "x86_64" else "270"
CAPSET = 126 if platform.machine() == "x86_64" else 91


@contextmanager
def ended(tool: SandboxProcess) -> Iterator[None]:
    """Whatever fails, the tool is killed, and not waited for as long as it likes to live."""
    try:
        yield
    finally:
        tool.kill()


def is_kept_waiting(thread: threading.Thread) -> bool:
    """Whether a thread of this process waits for memory of a tool."""
    try:
        call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text()
    except OSError:
        return False
    return call.split()[0] == PROCESS_VM_READV


@pytest.fixture
def machine() -> Machine:
    return build_machine(load_profile("pc-q35"))


def exact(machine: Machine) -> Sandbox:
    sandbox = Sandbox(machine)
    if sandbox.filter is None:
        pytest.skip(sandbox.without_exact)
    return sandbox


def run(sandbox: Sandbox, code: str) -> Any:
    return sandbox.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )


def raising(*_: object) -> bool:
    raise RuntimeError("broken by the test")


def faults(machine: Machine) -> list[str]:
    return [event.message for event in machine.events if event.kind == "error"]


def test_a_fault_of_ours_lets_the_call_go_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calls, "stat", raising)
    done = run(exact(machine), LOOK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "-rw-r-----\n", "")
    assert any("broken by the test" in fault for fault in faults(machine))


def test_a_fault_after_the_answer_changes_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Listener.answer

    def then_raise(self: Listener, one: int, value: int) -> None:
        answer(self, one, value)
        raising()

    monkeypatch.setattr(Listener, "answer", then_raise)
    done = run(exact(machine), LOOK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "crw-r-----\n", "")


def exiting(*_: object) -> None:
    raise SystemExit("broken by the test")


@pytest.mark.parametrize("how", [raising, exiting])
@pytest.mark.parametrize("also", [None, "failed"])
def test_a_supervisor_that_dies_ends_the_tool_with_a_message(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    also: str | None,
    how: Any,
) -> None:
    monkeypatch.setattr(Dispatch, "handle", how)
    if also is not None:
        monkeypatch.setattr("fakedev.fuse.exact.ExactFiles.failed", raising)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
    done = run(exact(machine), LOOK)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""
    assert "Error 38" not in done.stderr
    assert capfd.readouterr().err == "fakedev: the exact layer failed; the tool was ended\n"


def counts() -> tuple[int, int]:
    """Descriptors and threads of this process, without those that wait a while for more work."""
    gc.collect()
    threads = [one for one in threading.enumerate() if one.name not in JOBS]
    return len(list(Path("/proc/self/fd").iterdir())), len(threads)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM, errno.EINVAL])
def test_a_filter_that_the_host_refuses(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: bytes) -> int:
        raise OSError(number, "refused by the test")

    sandbox = exact(machine)
    monkeypatch.setattr(listener, "install", refuse)
    before = counts()
    start = time.monotonic()
    with pytest.raises(HostError, match=r"listener|notification"):
        sandbox.run(["true"])
    assert time.monotonic() - start < 4  # nobody waits for the launcher's death
    wait_for(lambda: counts() == before, "nothing is left")


@pytest.mark.parametrize(("of", "name"), [(process, "Supervisor"), (Supervisor, "start")])
def test_a_supervisor_that_cannot_start(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, of: object, name: str
) -> None:
    sandbox = exact(machine)
    monkeypatch.setattr(of, name, raising)
    before = counts()
    with pytest.raises(RuntimeError, match="broken by the test"):
        sandbox.run(["true"])
    wait_for(lambda: counts() == before, "nothing is left")


def drop_privileges() -> None:
    """All capabilities, and the way back to them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = struct.pack("=Ii", 0x2008_0522, 0), bytes(24)
    assert libc.prctl(PR_SET_SECUREBITS, NOROOT, 0, 0, 0) == 0
    assert libc.syscall(ctypes.c_long(CAPSET), header, none) == 0


def test_a_preexec_function_that_raises(machine: Machine) -> None:
    sandbox = exact(machine)
    before = counts()
    with pytest.raises(subprocess.SubprocessError):
        sandbox.run(["true"], preexec_fn=raising)
    wait_for(lambda: counts() == before, "nothing is left")


def test_a_preexec_function_that_gives_up_every_privilege(machine: Machine) -> None:
    """It runs before the filter is there, which then needs no_new_privs."""
    status = "print(open('/proc/self/status').read())"
    command = [sys.executable, "-c", status]
    done = exact(machine).run(
        command, preexec_fn=drop_privileges, capture_output=True, text=True, timeout=30
    )
    assert "\nCapEff:\t0000000000000000\n" in done.stdout, done.stderr
    assert "\nNoNewPrivs:\t1\n" in done.stdout
    assert "\nSeccomp:\t2\n" in done.stdout
    # Who keeps them does not get it, or sudo and the like would behave in another way.
    assert "\nNoNewPrivs:\t0\n" in run(exact(machine), status).stdout


def test_a_state_belongs_to_the_open_file(tmp_path: Path) -> None:
    states, tid = States(), threading.get_native_id()
    path = tmp_path / "file"
    path.touch()
    first, second = (os.open(path, os.O_RDWR) for _ in range(2))
    assert states.load(tid, first) == {}
    assert not states.any
    states.store(tid, first, {"memory": 1})
    states.store(tid, second, {"memory": 1, "combine": 1})
    duplicate = os.dup(first)
    states.load(tid, first)["memory"] = 2  # is a copy
    assert states.load(tid, duplicate) == {"memory": 1}
    assert states.load(tid, second) == {"memory": 1, "combine": 1}
    states.store(tid, duplicate, {})
    assert states.load(tid, first) == {}
    states.store(tid, second, {"memory": 1})
    os.close(second)
    assert os.open(path, os.O_RDWR) == second  # the number is used again
    assert states.load(tid, second) == {}
    for fd in (first, second, duplicate):
        os.close(fd)


def test_states_are_few(tmp_path: Path) -> None:
    states, tid = States(), threading.get_native_id()
    with (tmp_path / "file").open("wb") as file:
        for number in range(64):
            states.store(tid, file.fileno(), {"number": number})
        assert states.load(tid, file.fileno()) == {"number": 63}
        with pytest.raises(ValueError, match="not in list"):
            states.store(tid, file.fileno(), {"number": 64})
        with pytest.raises(OSError, match="pidfd_getfd"):
            states.load(tid, 1 << 20)


SEEKS = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.lseek.restype = ctypes.c_long
libc.lseek.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int]
fd = os.open("/dev/mem", 0)
for page in range(2000):
    address = (1 << 63) + 4096 * page
    assert libc.lseek(fd, address - (1 << 64), 0) % (1 << 64) == address
print("sought", flush=True)
sys.stdin.readline()
"""


def test_positions_that_no_file_can_have_are_few(machine: Machine) -> None:
    command = [sys.executable, "-c", SEEKS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with exact(machine).popen(command, **pipes) as tool, ended(tool):
        assert tool.stdout is not None
        assert tool.stdout.readline() == "sought\n"
        assert 0 < len(tool._supervisor.shared.positions) <= 1024
        tool.communicate("\n", timeout=20)
    assert tool.returncode == 0


def everything(arch: Arch) -> list[str]:
    return [str(number) for table in arch[3:] for number in table.values()]


BOUND = """
import ctypes, mmap, os, sys
other = sys.argv[1]
assert ctypes.CDLL(None).mount(b"/dev", other.encode(), None, 0x5000, None) == 0
fd = os.open(f"{other}/mem", os.O_RDWR)
before = mmap.mmap(fd, 4096, offset=0xD0000000)
before[0]
print("mapped", flush=True)
sys.stdin.readline()
os.stat(f"{other}/mem")
mmap.mmap(fd, 4096, offset=0xD0000000)[0]
print("mapped again")
"""


def test_a_descriptor_maps_again_though_its_path_in_proc_is_nowhere(tmp_path: Path) -> None:
    """The tool has mounted /dev at a second place: `Names.path` knows where it was found."""
    machine = build_machine(load_profile(str(E2E / "strict.yaml")))
    other = tmp_path / "other"
    other.mkdir()
    command = [sys.executable, "-c", BOUND, other]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with exact(machine).popen(command, **pipes) as tool, ended(tool):
        assert tool.stdout is not None
        assert tool.stdout.readline() == "mapped\n"
        machine.claim(BOARD, "driver")
        machine.release(BOARD)
        assert tool.communicate("\n", timeout=20)[0] == "mapped again\n"
    assert (tool.returncode, faults(machine)) == (0, [])


BY_NAME = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/mem", os.O_PATH)
calls = {
    "lseek": lambda: libc.lseek(fd, 0, os.SEEK_END),
    "ioctl": lambda: libc.ioctl(fd, 0x541B, 0),
    "fsync": lambda: libc.fsync(fd),
    "ftruncate": lambda: libc.ftruncate(fd, 0),
    "readahead": lambda: libc.readahead(fd, 0, 4096),
    "fcntl": lambda: libc.fcntl(fd, 4, os.O_DIRECT),
}
for name, call in calls.items():
    assert call() == -1, name
    assert ctypes.get_errno() == 9, (name, ctypes.get_errno())
assert libc.readahead(os.open("/dev/mem", os.O_WRONLY), 0, 4096) == -1
assert ctypes.get_errno() == 9
assert libc.readahead(os.open("/dev/mem", os.O_RDONLY), 0, 4096) == -1
assert ctypes.get_errno() == 22
"""


def test_a_descriptor_of_the_name_only_is_not_open(machine: Machine) -> None:
    """O_PATH: EBADF, before the file is asked anything; readahead(2) as well without reading."""
    done = run(exact(machine), BY_NAME)
    assert (done.returncode, done.stderr, faults(machine)) == (0, "", [])


MLOCKALL = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
page = mmap.mmap(os.open("/dev/mem", os.O_RDWR), 4096, offset=0x10000)
assert libc.mlockall(1) == 0
assert libc.mlockall(1 | 8) == -1
assert ctypes.get_errno() == 22
"""


def test_mlockall_with_flags_that_do_not_exist(machine: Machine) -> None:
    done = run(exact(machine), MLOCKALL)
    assert (done.returncode, done.stderr, faults(machine)) == (0, "", [])


@pytest.mark.parametrize("victim", ["everything", "the reaper"])
def test_memory_that_nobody_fills_does_not_keep_the_sandbox(
    machine: Machine, tmp_path: Path, victim: str
) -> None:
    """The tool serves a file system itself: the supervisor waits for a page of it."""
    command = [sys.executable, E2E / "exact_own_fuse.py", tmp_path]
    with exact(machine).popen(command, stdout=subprocess.PIPE, text=True) as tool, ended(tool):
        assert tool.stdout is not None
        assert tool.stdout.readline() == "mapped\n"
        crew = tool._supervisor.crew
        wait_for(lambda: any(map(is_kept_waiting, crew.threads)), "the supervisor waits")
        if victim == "everything":
            tool.kill()
        else:
            os.kill(tool.pid, signal.SIGKILL)
        tool.wait(15)
    assert crew.threads == ()


def test_processes_that_are_killed_in_a_call_are_no_fault(machine: Machine, tmp_path: Path) -> None:
    storm = compiled(E2E / "exact_storm.c", tmp_path)
    done = exact(machine).run([storm, "killed", "150"], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert faults(machine) == []


def test_random_calls_while_a_driver_comes_and_goes(tmp_path: Path) -> None:
    """No call is a fault of ours, and nobody hangs; the seed is in the message."""
    machine = build_machine(load_profile(str(E2E / "strict.yaml")))
    lists = [*everything(X86_64), "-", *everything(I386)]
    if platform.machine() != "x86_64":
        lists = everything(AARCH64)
    fuzz = compiled(E2E / "exact_fuzz.c", tmp_path)
    command = [fuzz, str(SEED), "200", *lists]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    deadline = time.monotonic() + 45
    with exact(machine).popen(command, **pipes) as tool, ended(tool):
        while tool.poll() is None:
            machine.claim(BOARD, "driver")
            machine.release(BOARD)
            assert time.monotonic() < deadline, f"seed {SEED} hangs"
    assert tool.returncode == 0, f"seed {SEED}"
    assert faults(machine) == [], f"seed {SEED}"
    kinds = {event.kind for event in machine.events}
    assert kinds >= {"exact", "claim"}


def grow() -> None:
    """Print how many descriptors, threads, objects and resident pages `SANDBOXES` sandboxes leave."""
    sandbox = Sandbox(build_machine(load_profile("pc-q35")))

    def turns(count: int) -> tuple[int, ...]:
        for _ in range(count):
            done = sandbox.run(
                ["stat", "-c", "", "/dev/mem"], stdout=subprocess.DEVNULL, timeout=30
            )
            assert done.returncode == 0
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return *counts(), len(gc.get_objects()), pages

    before, after = turns(30), turns(SANDBOXES)
    print(*(one - other for one, other in zip(after, before, strict=True)))


def test_many_sandboxes_leave_nothing(machine: Machine) -> None:
    """In a process of its own: what other tests left is collected, and freed, at any moment."""
    exact(machine)
    name = Path(__file__).stem
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}; {name}.grow()"],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    descriptors, threads, objects, pages = map(int, done.stdout.split())
    assert (descriptors, threads) == (0, 0)
    assert objects < SANDBOXES // 2  # not one for each
    assert pages < 50 * SANDBOXES  # threads come with memory of their own
