import contextlib
import errno
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from sandbox_program import FILES
from support import SIGNALS
from tinyfuse import TinyService
from unprivileged import command

from fakedev.model.errors import HostError
from fakedev.sandbox import launcher, namespace, syscalls
from fakedev.sandbox.host import HostView
from fakedev.sandbox.launcher import Sandbox
from fakedev.sandbox.protocols import HostEntry

pytestmark = needs_sandbox
HERE = Path(__file__).parent


@pytest.fixture
def service() -> TinyService:
    return TinyService(FILES)


@pytest.fixture(params=[True, False], ids=["root", "user"])
def sandbox(request: pytest.FixtureRequest, service: TinyService) -> Sandbox:
    return Sandbox(service, as_root=request.param)


def sh(sandbox: Sandbox, script: str, **options: object) -> str:
    done = sandbox.run(["sh", "-c", script], capture_output=True, text=True, **options)
    assert done.stderr == ""
    return str(done.stdout).strip()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("cat /proc/iomem", "00000000-00000fff : Reserved"),
        ("head -c 4 /dev/mem", "BBBB"),
        ("cat /sys/firmware/dmi/tables/DMI", "dmi"),
        ("readlink /sys/bus/cxl/devices/mem0", "../../../devices/mem0"),
        ("echo hello > /dev/null && echo fine", "fine"),
        ("head -c 3 /dev/zero | wc -c", "3"),
        ("stat -c %a /dev", "755"),
        ("test -w /dev/mem && echo writable", "writable"),
        ("echo $SYSTEMD_DEVICE_VERIFY_SYSFS", "0"),
        ("ls /proc/self/fd", "0\n1\n2\n3"),
        ("grep fakedev/stage /proc/self/mountinfo || echo gone", "gone"),
        ("cd /dev && pwd && head -c 2 mem", "/dev\nBB"),
        ("readlink /dev/fd", "/proc/self/fd"),
        ("touch /dev/shm/$$ && rm /dev/shm/$$ && echo shared", "shared"),
    ],
)
def test_inside(sandbox: Sandbox, script: str, expected: str) -> None:
    assert sh(sandbox, script) == expected


def test_ids_and_capabilities(service: TinyService) -> None:
    script = "id -u; grep CapEff /proc/self/status"
    uid, capabilities = sh(Sandbox(service, as_root=True), script).split("\n")
    assert uid == "0"
    assert int(capabilities.split()[1], 16) != 0
    uid, capabilities = sh(Sandbox(service, as_root=False), script).split("\n")
    assert int(uid) == (os.geteuid() or namespace.UNPRIVILEGED_ID)
    assert int(capabilities.split()[1], 16) == 0
    assert service.attached == [(True, 0, 0), (False, int(uid), service.attached[1][2])]


def test_without_any_privilege(tmp_path: Path) -> None:
    program = [sys.executable, HERE / "sandbox_program.py"]
    for option, uid in (("--user", os.geteuid() or 1000), ("--control", 0)):
        arguments = [option, tmp_path / "socket"] if option == "--control" else [option]
        inner = ["sh", "-c", "id -u; grep -c . /proc/iomem; echo > /dev/null; exit 7"]
        line = command(*program, *arguments, *inner)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (7, f"{uid}\n1\n", "")


def host_nodes(kind: str) -> list[str]:
    found = subprocess.run(
        ["find", "/dev", "-maxdepth", "1", "-type", kind, "-not", "-name", "ptmx"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(set(found.stdout.split()) - {"/dev/mem"})


@pytest.mark.parametrize("kind", ["c", "b", "l", "d"])
def test_entry_types_are_the_host_s(sandbox: Sandbox, kind: str) -> None:
    inside = sh(sandbox, f"find /dev -maxdepth 1 -type {kind} -not -name ptmx")
    assert sorted(inside.split()) == host_nodes(kind)


def test_nodes_can_appear_later(sandbox: Sandbox, service: TinyService) -> None:
    process = sandbox.popen(
        ["sh", "-c", "read go; cat /dev/later"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    service.add("/dev/later", "here")
    with process:
        assert process.communicate(b"go\n")[0] == b"here"


def test_only_the_server_holds_the_connection(sandbox: Sandbox) -> None:
    with sandbox.popen(["cat"], stdin=subprocess.PIPE) as process:
        for pid in (process.pid, process.tool_pid):
            links = []
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # cat is still being loaded
                    links.append(str(entry.readlink()))
            assert "/dev/fuse" not in links
            assert len(links) <= 6
        process.communicate(b"")


PTY = """
import os, tty
master, slave = os.openpty()
assert os.path.samestat(os.stat(os.ttyname(slave)), os.fstat(slave))
tty.setraw(slave)
os.write(master, b"x")
print(os.read(slave, 1).decode(), os.isatty(slave))
"""


def test_terminals_can_be_made(sandbox: Sandbox) -> None:
    done = sandbox.run(["python3", "-c", PTY], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("x True\n", "")


def test_the_host_s_terminal_keeps_its_name(sandbox: Sandbox) -> None:
    master, slave = os.openpty()
    done = sandbox.run(["tty"], stdin=slave, capture_output=True, text=True)
    assert done.stdout.strip() == os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_nested(service: TinyService) -> None:
    inner = [sys.executable, HERE / "sandbox_program.py", "sh", "-c", "cat /proc/iomem; tty; id -u"]
    done = Sandbox(service).run(inner, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout == "00000000-00000fff : Reserved\nnot a tty\n0\n"


# -- like subprocess


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", -9), ("kill -15 $$", -15)],
)
def test_return_codes(sandbox: Sandbox, script: str, code: int) -> None:
    assert sandbox.run(["sh", "-c", script]).returncode == code


def test_check_and_output(sandbox: Sandbox) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        sandbox.run(["sh", "-c", "echo out; exit 4"], check=True, capture_output=True, text=True)
    assert (caught.value.returncode, caught.value.stdout) == (4, "out\n")


def test_input_environment_and_directory(sandbox: Sandbox, tmp_path: Path) -> None:
    script = 'cat; echo "$A"; pwd'
    options = {"input": "in ", "env": {"A": "b", "PATH": os.environ["PATH"]}, "cwd": tmp_path}
    assert sh(sandbox, script, **options) == f"in b\n{tmp_path}"


def test_a_directory_that_is_replaced(sandbox: Sandbox) -> None:
    assert sh(sandbox, "head -c 1 mem; ls null", cwd="/dev") == "Bnull"


@pytest.mark.parametrize(
    "options", [{"input": b"", "stdin": 0}, {"capture_output": True, "stdout": 1}]
)
def test_contradictions(sandbox: Sandbox, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="may not"):
        sandbox.run(["true"], **options)


@pytest.mark.parametrize(
    ("args", "cwd", "error"),
    [
        (["no-such-program"], None, FileNotFoundError),
        (["/etc/passwd"], None, PermissionError),
        (["true"], "/no/such/directory", FileNotFoundError),
    ],
)
def test_what_cannot_be_started(
    sandbox: Sandbox, args: list[str], cwd: str | None, error: type[OSError]
) -> None:
    before = descriptors()
    with pytest.raises(error) as caught:
        sandbox.run(args, cwd=cwd)
    assert caught.value.filename == (cwd or args[0])
    assert descriptors() == before


def test_a_timeout_kills_everything(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        sandbox.run(
            ["sh", "-c", "trap '' TERM; setsid sleep 1000 & echo $!; wait"],
            timeout=0.5,
            capture_output=True,
        )
    assert time.monotonic() - started < 5
    assert caught.value.stdout is not None
    assert not Path(f"/proc/{int(caught.value.stdout)}").exists()


def test_signals_go_to_the_tool(sandbox: Sandbox) -> None:
    script = "trap 'echo got it; exit 5' USR1; echo ready; while :; do read x; done"
    with sandbox.popen(
        ["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        assert Path(f"/proc/{process.tool_pid}/comm").read_text(encoding="ascii") == "bash\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"got it\n"
    assert process.returncode == 5


@pytest.mark.parametrize(("method", "code"), [("terminate", -15), ("kill", -9)])
def test_ends_by_method(sandbox: Sandbox, method: str, code: int) -> None:
    with sandbox.popen(["sleep", "1000"]) as process:
        getattr(process, method)()
        assert process.wait(10) == code
    getattr(process, method)()  # too late, and no error


def test_default_signal_dispositions(sandbox: Sandbox) -> None:
    ignored = sh(sandbox, "grep -E 'SigIgn|SigBlk' /proc/self/status")
    values = [int(line.split()[1], 16) & SIGNALS for line in ignored.split("\n")]
    assert values == [0, 0]


def test_a_thread_may_end_before_its_sandbox(sandbox: Sandbox) -> None:
    started = []
    thread = threading.Thread(target=lambda: started.append(sandbox.popen(["cat"], stdin=-1)))
    thread.start()
    thread.join()
    with started[0] as process:
        process.communicate(b"")
    assert process.returncode == 0


def test_a_forgotten_process_is_killed(sandbox: Sandbox) -> None:
    process = sandbox.popen(["sleep", "1000"])
    watch = os.pidfd_open(process.tool_pid)
    with pytest.warns(ResourceWarning):
        del process
    assert select.select([watch], [], [], 10)[0]
    os.close(watch)


def test_preexec_fn_runs_in_the_tool(sandbox: Sandbox) -> None:
    done = sandbox.run(["sh", "-c", "umask"], preexec_fn=lambda: os.umask(0o27), stdout=-1)
    assert done.stdout == b"0027\n"


def test_background_processes_end_with_the_tool(sandbox: Sandbox) -> None:
    script = "setsid sleep 1000 & (setsid sleep 1000 & echo $!); echo $!"
    pids = sh(sandbox, script).split()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_background_processes_are_asked_first(sandbox: Sandbox, tmp_path: Path) -> None:
    script = """
        (trap "echo asked > note; exit" TERM; echo > ready; while :; do sleep 0.01; done) &
        until [ -e ready ]; do sleep 0.01; done
    """
    assert sandbox.run(["bash", "-c", script], cwd=tmp_path).returncode == 0
    assert (tmp_path / "note").read_text(encoding="ascii") == "asked\n"


def test_nothing_leaks(sandbox: Sandbox) -> None:
    sandbox.run(["true"])
    before = descriptors()
    threads = threading.active_count()
    for _ in range(20):
        sandbox.run(["true"])
    assert descriptors() == before
    assert threading.active_count() == threads


def test_many_at_once(sandbox: Sandbox) -> None:
    running = [sandbox.popen(["cat", "/proc/iomem"], stdout=-1) for _ in range(8)]
    for process in running:
        with process:
            assert process.communicate()[0].startswith(b"00000000-00000fff")


# -- what the tree and the host contribute


def test_unplaced_paths_are_in_the_plan(sandbox: Sandbox) -> None:
    assert sandbox.plan().unplaced == ("/proc/not-on-any-host",)


def test_a_host_entry_that_went_away_is_skipped(
    service: TinyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ghosts(HostView):
        def scan(self, path: str) -> list[HostEntry] | None:
            return [*(super().scan(path) or []), HostEntry("ghost", stat.S_IFCHR | 0o600)]

    monkeypatch.setattr(launcher, "HostView", Ghosts)
    with Sandbox(service).popen(["true"]) as process:
        assert "/dev/ghost: No such file or directory" in process.skipped


def test_control_socket_is_announced(service: TinyService) -> None:
    sandbox = Sandbox(service, control="/run/machine.sock")
    assert sh(sandbox, "echo $FAKEDEV_CONTROL") == "/run/machine.sock"


# -- refusals


def fail(number: int) -> object:
    def function(*_args: object, **_options: object) -> None:
        raise OSError(number, "refused by the test")

    return function


@pytest.mark.parametrize(
    ("module", "name", "number", "message"),
    [
        (syscalls, "unshare", errno.ENOSPC, "sudo sysctl user.max_user_namespaces"),
        (syscalls, "unshare", errno.EINVAL, "CONFIG_USER_NS"),
        (namespace, "open_fuse", errno.ENOENT, "sudo modprobe fuse"),
        (namespace, "open_fuse", errno.EACCES, "sudo chmod 0666 /dev/fuse"),
        (namespace, "open_fuse", errno.EPERM, "--device /dev/fuse"),
        (namespace, "mount_fuse", errno.ENODEV, "sudo modprobe fuse"),
        (namespace, "apply", errno.EINVAL, "step 'plan'"),
    ],
)
def test_a_refusal_says_the_way_out(
    service: TinyService,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    number: int,
    message: str,
) -> None:
    monkeypatch.setattr(module, name, fail(number))
    before = descriptors()
    with pytest.raises(HostError, match=re.escape(message)) as caught:
        Sandbox(service).run(["true"])
    assert "refused by the test" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == number
    assert descriptors() == before


def test_a_service_that_fails(service: TinyService, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(fuse_fd: int, **_ids: object) -> None:
        os.close(fuse_fd)
        raise RuntimeError("no threads left")

    monkeypatch.setattr(service, "attach", attach)
    before = descriptors()
    with pytest.raises(RuntimeError, match="no threads left"):
        Sandbox(service).run(["true"])
    assert descriptors() == before


def test_a_refused_thread_is_not_left(service: TinyService) -> None:
    before = threading.active_count()
    with pytest.raises(FileNotFoundError):
        Sandbox(service).run(["no-such-program"])
    assert threading.active_count() == before
