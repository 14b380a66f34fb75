"""The exact layer under tools that do odd, bad or violent things: they get what Linux would give them."""

import errno
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import BIN, SOAK, Host, Running, compiled, need_sandbox, on_terminal, wait_for

HERE = Path(__file__).parent
ODD = HERE / "exact_odd.py"
STRICT = str(HERE / "strict.yaml")
MACHINE = "pc-q35"
ALONE = [
    "own_mapping", "own_filter", "own_listener", "few_descriptors", "closes_all", "not_dumpable",
    "table_of_its_own", "first_thread_ends", "other_namespaces", "stopped", "many_programs",
]  # fmt: skip
STORMS = {"threads": 64, "closing": 8, "killed": 300, "ticks": 500, "breaks": 500, "vforks": 200}


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


@pytest.mark.parametrize("name", ALONE)
def test_odd(host: Host, name: str) -> None:
    done = host.run(MACHINE, "python3", ODD, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("what", STORMS)
def test_storm(host: Host, folder: Path, what: str) -> None:
    storm = compiled(HERE / "exact_storm.c", folder)
    done = host.run(MACHINE, storm, what, str(STORMS[what] * SOAK), timeout=50 * SOAK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_dead_page_is_no_buffer(host: Host) -> None:
    with Running(host, STRICT, "python3", str(ODD), "dead_mapping") as running:
        assert running.receive() == "mapped\n"
        running.claim("d0000000-d0000fff")
        running.send("\n")
        assert running.receive() == "done\n"


def test_claims_while_threads_map_through_one_descriptor(host: Host, folder: Path) -> None:
    storm = compiled(HERE / "exact_storm.c", folder)
    script = f"{storm} claims 6; echo $?"
    with Running(host, STRICT, "sh", "-c", script) as running:
        assert running.receive() == "started\n"
        for _ in range(60 * SOAK):
            running.claim("d0000000-d0000fff")
            running.release("d0000000-d0000fff")
        running.send_end()
        assert running.receive() == "0\n"


def test_a_run_inside_a_run_goes_without_and_says_so(host: Host) -> None:
    inner = [str(BIN / "fakedev"), "run", MACHINE, "--", "stat", "-c%F", "/dev/mem"]
    done = host.run(MACHINE, *inner)
    assert (done.returncode, done.stdout) == (0, "regular file\n"), done.stderr
    assert "listener" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    forced = host.run(MACHINE, *inner[:2], "--exact", *inner[2:])
    assert forced.returncode != 0
    assert "Traceback" not in forced.stderr
    assert "listener" in forced.stderr


def test_a_tool_under_timeout(host: Host, folder: Path) -> None:
    storm = compiled(HERE / "exact_storm.c", folder)
    done = host.run(MACHINE, "timeout", "-s", "KILL", "0.5", storm, "threads", "1000")
    assert done.returncode in (137, -9)
    assert host.run(MACHINE, "timeout", "20", storm, "once", "1").returncode == 0


def test_interrupt_from_the_terminal(host: Host, folder: Path) -> None:
    storm = compiled(HERE / "exact_storm.c", folder)
    script = f"echo ready; exec {storm} killed 100000000"
    line = host.command("run", "-q", MACHINE, "--", "sh", "-c", script)
    with on_terminal(line, host.env) as (process, terminal):
        assert select.select([terminal], [], [], 20)[0]
        assert b"ready" in os.read(terminal, 100)
        os.write(terminal, b"\x03")
        assert process.wait(20) == -signal.SIGINT


@pytest.fixture
def alone() -> Iterator[Host]:
    """A runtime directory of one test; nothing is left of its runs."""
    with tempfile.TemporaryDirectory(prefix="fdrt-", ignore_cleanup_errors=True) as folder:
        host = Host(Path(folder))
        yield host
        wait_for(lambda: not host.leftovers(), f"nothing is left: {host.leftovers()}")


@pytest.mark.parametrize("turn", range(2))
def test_when_the_launcher_is_killed_the_tool_ends_with_a_message(
    alone: Host, folder: Path, turn: int
) -> None:
    """Paths end with the file system (ENOTCONN), but no call fails with ENOSYS: the storm checks each."""
    storm = compiled(HERE / "exact_storm.c", folder)
    script = f"while :; do {storm} threads 16; done"
    line = alone.command("run", "-q", MACHINE, "--", "sh", "-c", script)
    with subprocess.Popen(line, env=alone.env, cwd=alone.runtime, stderr=subprocess.PIPE) as tool:
        wait_for(lambda: "exact_storm" in alone.processes().values(), "the tool runs")
        pause = time.monotonic() + turn * 0.1
        wait_for(lambda: time.monotonic() > pause, "some calls were made")
        tool.kill()
        text = tool.communicate(timeout=20)[1].decode()
    assert "fakedev: the process that serves the machine died; the tool was ended\n" in text
    assert os.strerror(errno.ENOSYS) not in text
    assert tool.returncode == -signal.SIGKILL


@pytest.mark.parametrize("turn", range(4))
def test_the_launcher_is_killed_while_it_starts(alone: Host, turn: int) -> None:
    line = alone.command("run", "-q", MACHINE, "--", "sh", "-c", "while :; do stat /dev/mem; done")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(line, env=alone.env, cwd=alone.runtime, **pipes) as tool:
        pause = time.monotonic() + 0.15 + turn * 0.02
        wait_for(lambda: time.monotonic() > pause, "it has begun")
        tool.kill()
        text = tool.communicate(timeout=20)[0].decode()
    assert os.strerror(errno.ENOSYS) not in text
    assert "Error 38" not in text
    wait_for(lambda: not alone.processes(), "no process is left")
    for name in alone.sockets():  # it was killed before there was a reaper to do that
        (alone.runtime / "fakedev" / name).unlink()


def test_when_the_launcher_is_stopped_the_tool_waits(host: Host, folder: Path) -> None:
    storm = compiled(HERE / "exact_storm.c", folder)
    with Running(host, MACHINE, "sh", "-c", f"read go; {storm} ticks 50; echo $?") as running:
        pid = running.pid
        os.kill(pid, signal.SIGSTOP)
        running.send("\n")
        stat = Path(f"/proc/{pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it stops")
        os.kill(pid, signal.SIGCONT)
        assert running.receive() == "0\n"


def test_an_ordinary_user_sees_the_device_and_may_not_open_it(host: Host, folder: Path) -> None:
    storm = compiled(HERE / "exact_storm.c", folder)
    done = host.run(MACHINE, storm, "once", "1", role="user")
    assert done.stderr == "open: Permission denied\n"
