"""A launcher as a shell sees it: killed, stopped, continued, and how it ends."""

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from support import SIGNALS
from unprivileged import command

from fakedev.sandbox.foreground import Foreground

pytestmark = needs_sandbox
PROGRAM = Path(__file__).parent / "sandbox_program.py"
DEADLINE = 15.0


def line(*args: str | Path) -> list[str]:
    return command(sys.executable, PROGRAM, *args)


def run(*args: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line(*args), capture_output=True, text=True, check=False, **options)


def gone(pids: list[int]) -> bool:
    """Wait until all processes have ended; a zombie that nobody collects counts as ended."""
    until = time.monotonic() + DEADLINE
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            watch = os.pidfd_open(pid)
            ready = select.select([watch], [], [], max(0, until - time.monotonic()))[0]
            os.close(watch)
            if not ready:
                return False
    return True


def in_namespace(name: str) -> list[str]:
    """Return the processes that still live in a mount namespace."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns/mnt") == name:  # noqa: PTH115 - the raw text is wanted
                found.append(entry.name)
    return found


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 9", 9),
        ("kill -TERM $$", -15),
        ("kill -KILL $$", -9),
        ("kill -INT $$", -2),
    ],
)
@pytest.mark.parametrize("user", [[], ["--user"]], ids=["root", "user"])
def test_ends_as_the_tool_ended(script: str, status: int, user: list[str]) -> None:
    done = run(*user, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("no-such-program", 127, "fakedev: no-such-program: No such file or directory\n"),
        ("/etc/passwd", 126, "fakedev: /etc/passwd: Permission denied\n"),
    ],
)
def test_what_cannot_be_run(program: str, status: int, message: str) -> None:
    done = run(program)
    assert (done.returncode, done.stderr) == (status, message)


def test_input_and_output_pass_through() -> None:
    done = run("sh", "-c", "cat; echo err >&2", input="through")
    assert (done.stdout, done.stderr) == ("through", "err\n")


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, list[int], str]]:
    """A launcher whose tool has a background process: (launcher, control socket, pids, namespace)."""
    control = tmp_path / "control"
    script = "setsid sleep 1000 & echo $PPID $$ $! $(readlink /proc/self/ns/mnt); cat /dev/zero >&2"
    process = subprocess.Popen(
        line("--control", control, "bash", "-c", script),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        *pids, namespace = process.stdout.readline().split()
        assert control.exists()
        yield process, control, [int(pid) for pid in pids], namespace
        process.kill()


def test_kill_9_of_the_launcher(
    busy: tuple[subprocess.Popen[str], Path, list[int], str],
) -> None:
    process, control, pids, namespace = busy
    process.kill()
    assert process.wait(DEADLINE) == -9
    assert gone(pids)
    assert in_namespace(namespace) == []
    assert not control.exists()


def test_kill_9_of_the_tool(busy: tuple[subprocess.Popen[str], Path, list[int], str]) -> None:
    process, control, pids, namespace = busy
    os.kill(pids[1], signal.SIGKILL)
    assert process.wait(DEADLINE) == -9
    assert gone(pids)
    assert in_namespace(namespace) == []
    assert not control.exists()


@pytest.mark.parametrize("victims", [slice(0, 2), slice(0, 1)], ids=["both", "reaper"])
def test_kill_9_of_the_reaper(
    busy: tuple[subprocess.Popen[str], Path, list[int], str], victims: slice
) -> None:
    process, _control, pids, namespace = busy
    for pid in pids[victims]:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(DEADLINE) == -9
    assert gone(pids)
    assert in_namespace(namespace) == []


def test_kill_9_of_the_launcher_that_serves_a_blocked_read(tmp_path: Path) -> None:
    """The tool waits in the kernel for a stopped server; the end of the server frees it."""
    process = subprocess.Popen(
        line("sh", "-c", "echo $PPID $$; read go; exec cat /dev/mem"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGSTOP)
        process.stdin.write("go\n")
        process.kill()
        assert gone(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_forwarded(number: signal.Signals) -> None:
    script = (
        f"trap 'echo caught; exit 6' {number.name[3:]}; echo ready; while :; do read -t 0.1 x; done"
    )
    process = subprocess.Popen(
        line("bash", "-c", script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "caught\n"
        assert process.wait(DEADLINE) == 6


def test_interrupt_and_quit_are_the_tool_s() -> None:
    script = "trap 'echo int' INT; echo ready; read x; exit 3"
    process = subprocess.Popen(
        line("bash", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGQUIT)
        process.communicate("line\n", timeout=DEADLINE)
        assert process.returncode == 3


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_what_the_caller_ignored_stays_ignored(ignored: signal.Signals) -> None:
    done = run(
        *("grep", "SigIgn", "/proc/self/status"),
        preexec_fn=lambda: signal.signal(ignored, signal.SIG_IGN),
    )
    assert int(done.stdout.split()[1], 16) & SIGNALS == 1 << (ignored - 1)


def test_dispositions_are_put_back() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with Foreground() as foreground:
        assert signal.SIGTSTP in foreground.overridden
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


class Terminal:
    """An interactive bash on a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="prompt> ", TERM="dumb", HISTFILE="/dev/null")
            words = command("bash", "--norc", "--noprofile", "--noediting", "-i")
            os.execvp(words[0], words)
        self.seen = ""
        self.expect("prompt> ")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until `pattern` matches, and forget everything up to its end."""
        until = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.seen)):
            ready = select.select([self.master], [], [], max(0, until - time.monotonic()))[0]
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode()
        self.seen = self.seen[found.end() :]
        return found

    def close(self) -> None:
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(entry.name)) == self.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
        os.close(self.master)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


# The tools below are bash, not sh: dash starts programs with vfork(), and a ^Z in the middle of that stops
# the child only, while the shell waits for it for ever.
def shell_line(*args: str | Path) -> str:
    return shlex.join([sys.executable, str(PROGRAM), *map(str, args)]) + "\n"


LOOP = "echo started; while read x; do echo got:$x; done; echo theend"


def test_stop_and_continue(terminal: Terminal) -> None:
    terminal.type(shell_line("bash", "-c", LOOP))
    terminal.expect("started\r\n")
    for word in ("one", "two"):
        terminal.type("\x1a")
        terminal.expect(r"Stopped")
        terminal.expect("prompt> ")
        terminal.type("fg\n")
        terminal.expect("fg\r\n")
        terminal.type(word + "\n")
        terminal.expect(f"got:{word}\r\n")
    terminal.type("\x04")
    terminal.expect("theend\r\n")
    terminal.expect("prompt> ")


def test_a_stopped_launcher_still_ignores_the_terminal(terminal: Terminal) -> None:
    """Else the next ^Z after a `fg` may stop it behind the reaper's back, and later once more."""
    terminal.type(shell_line("bash", "-c", LOOP))
    terminal.expect("started\r\n")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("prompt> ")
    terminal.type("grep SigIgn /proc/$(jobs -p)/status\n")
    ignored = int(terminal.expect(r"SigIgn:\s+([0-9a-f]+)\r\n")[1], 16)
    assert ignored >> (signal.SIGTSTP - 1) & 1
    terminal.type("fg\n\x04")
    terminal.expect("theend\r\n")


def test_a_stopped_job_runs_on_in_the_background(terminal: Terminal, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo started; until [ -e {go} ]; do sleep 0.01; done; echo finished"
    terminal.type(shell_line("bash", "-c", script))
    terminal.expect("started\r\n")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("prompt> ")
    terminal.type("bg\n")
    terminal.expect("prompt> ")
    go.touch()
    terminal.expect("finished\r\n")


def test_interrupt_from_the_terminal(terminal: Terminal) -> None:
    terminal.type(
        shell_line("bash", "-c", "trap 'echo caught; exit 4' INT; echo ready; read x; read y")
    )
    terminal.expect("ready\r\n")
    terminal.type("\x03")
    terminal.expect("caught\r\n")
    terminal.expect("prompt> ")
    terminal.type("echo =$?\n")
    terminal.expect("=4\r\n")


def test_an_interactive_shell_has_job_control(terminal: Terminal) -> None:
    terminal.type(shell_line("bash", "--norc", "--noprofile", "--noediting", "-i"))
    terminal.expect("prompt> ")
    terminal.type("echo in $(cat /proc/iomem)\n")
    terminal.expect("in 00000000-00000fff : Reserved\r\n")
    terminal.type("bash -c 'echo started; cat'\n")
    terminal.expect("started\r\n")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("kill -9 %1; tty; exit 5\n")
    terminal.expect("/dev/pts/[0-9]+\r\n")
    terminal.expect("prompt> ")
    terminal.type("echo =$?\n")
    terminal.expect("=5\r\n")


def test_stopped_and_continued_from_elsewhere(terminal: Terminal, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    wait = "until [ -e {} ]; do sleep 0.01; done"
    script = f"echo pid $$ is; {wait.format(go)}; cat /proc/iomem > new; mv new {done}"
    terminal.type(f"cd {tmp_path}\n" + shell_line("bash", "-c", script))
    tool = int(terminal.expect(r"pid (\d+) is\r\n")[1])
    os.kill(tool, signal.SIGSTOP)
    terminal.expect("Stopped")
    terminal.expect("prompt> ")
    go.touch()
    os.kill(tool, signal.SIGCONT)  # wakes the launcher as well: it serves /proc/iomem
    terminal.type(f"{wait.format(done)}; cat {done}\n")
    terminal.expect("00000fff : Reserved\r\n")
