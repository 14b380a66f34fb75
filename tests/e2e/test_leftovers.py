"""After every kind of end nothing is left: no mount, no process, no control socket."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Host, Running, compiled, need, need_sandbox, on_terminal, wait_for

HERE = Path(__file__).parent
#: A tool with a child that ignores what it is asked, a grandchild of another session, and a mapping.
TREE = """
trap '' HUP
sh -c 'trap "" TERM HUP INT; while :; do sleep 0.05; done' &
setsid -f sh -c 'trap "" TERM HUP; while :; do sleep 0.05; done'
echo $$
"""
STAY = TREE + "while :; do read line || sleep 0.05; done"


@pytest.fixture
def alone() -> Iterator[Host]:
    """A runtime directory that belongs to one test; it must be clean at its end."""
    need_sandbox()
    with tempfile.TemporaryDirectory(prefix="fdrt-", ignore_cleanup_errors=True) as folder:
        host = Host(Path(folder))
        yield host
        for pid in host.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def assert_clean(host: Host) -> None:
    with contextlib.suppress(BaseException):
        wait_for(lambda: not host.leftovers(), "clean")
    assert host.leftovers() == []


def test_normal_end(alone: Host) -> None:
    done = alone.run(str(HERE / "strict.yaml"), "sh", "-c", TREE + "exit 7")
    assert done.returncode == 7
    assert_clean(alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_tool_dies_of_a_signal(alone: Host, number: signal.Signals) -> None:
    done = alone.run(str(HERE / "strict.yaml"), "sh", "-c", TREE + f"kill -{number.name[3:]} $$")
    assert done.returncode == -number
    assert_clean(alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_launcher_gets_a_signal(alone: Host, number: signal.Signals) -> None:
    """TERM and HUP go to the tool, whose default is to end; KILL takes everything with it."""
    stay = STAY.replace("trap '' HUP\n", "")
    with Running(alone, str(HERE / "strict.yaml"), "sh", "-c", stay) as running:
        assert running.receive()
        wait_for(running.socket.exists, "the control socket is there")
        # Launcher, reaper, tool, its child and its grandchild: what is looked for can be seen.
        wait_for(lambda: len(alone.processes()) >= 5, "all of them run")
        running.tool.send_signal(number)
        assert running.tool.wait(10) == -number
        assert_clean(alone)


def test_tool_is_killed_from_outside(alone: Host) -> None:
    with Running(alone, str(HERE / "strict.yaml"), "sh", "-c", STAY) as running:
        os.kill(int(running.receive()), signal.SIGKILL)
        assert running.tool.wait(10) == -signal.SIGKILL
        assert_clean(alone)


def test_reaper_is_killed(alone: Host) -> None:
    """The process between launcher and tool: the kernel ends the tool with it."""
    with Running(alone, str(HERE / "strict.yaml"), "sh", "-c", "echo $$; exec cat") as running:
        tool = int(running.receive())
        status = Path(f"/proc/{tool}/status").read_text()
        reaper = int(re.findall(r"PPid:\s+(\d+)", status)[0])
        os.kill(reaper, signal.SIGKILL)
        running.tool.wait(10)
        assert_clean(alone)


def test_all_of_them_are_killed(alone: Host, folder: Path) -> None:
    """Launcher first, while processes fault and drivers come and go."""
    storm = compiled(HERE / "storm.c", folder)
    with Running(alone, str(HERE / "strict.yaml"), storm, "0xd0000000", "4") as running:
        assert running.receive() == "ready\n"
        for _ in range(20):
            running.claim("d0000000-d0000fff")
            running.release("d0000000-d0000fff")
        running.tool.kill()
        assert running.tool.wait(10) == -signal.SIGKILL
        assert_clean(alone)


@pytest.mark.parametrize("character", [b"\x03", b"\x1c"], ids=["ctrl-c", "ctrl-backslash"])
def test_keys_of_a_terminal(alone: Host, character: bytes) -> None:
    quiet = "stty -echo; echo ready; exec sleep 1000"
    command = alone.command("run", "-q", str(HERE / "strict.yaml"), "--", "sh", "-c", quiet)
    with on_terminal(command, alone.env) as (process, main):
        text = b""
        while b"ready" not in text:
            text += os.read(main, 4096)
        wait_for(lambda: b"sleep" in foreground(main), "the tool is in the foreground")
        os.write(main, character)
        number = signal.SIGINT if character == b"\x03" else signal.SIGQUIT
        assert process.wait(10) == -number
    assert_clean(alone)


def foreground(terminal: int) -> bytes:
    """Names of the processes in the terminal's foreground group."""
    group = os.tcgetpgrp(terminal)
    names = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry.name)) == group:
                    names.append((entry / "comm").read_bytes().strip())
    return b" ".join(names)


def test_hangup_of_a_terminal(alone: Host) -> None:
    """The window is closed: everything ends."""
    script = "echo ready; cat"
    command = alone.command("run", "-q", str(HERE / "strict.yaml"), "--", "sh", "-c", script)
    with on_terminal(command, alone.env) as (process, main):
        assert b"ready" in os.read(main, 4096)
        os.close(main)
        process.wait(10)
    assert_clean(alone)


def test_output_that_nobody_reads(alone: Host) -> None:
    """`fakedev run ... | head -1`: SIGPIPE ends the tool, and we end like it."""
    need("head", "coreutils")
    words = alone.command("run", "-q", str(HERE / "strict.yaml"), "--", "yes")
    first = subprocess.Popen(words, env=alone.env, stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"y\n"
    first.stdout.close()
    assert first.wait(10) == -signal.SIGPIPE
    assert_clean(alone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_plain_mount(alone: Host, number: signal.Signals) -> None:
    need("fusermount3", "fuse3")
    place = alone.runtime / "place"
    place.mkdir()
    process = subprocess.Popen(
        [*alone.mounter("mount", "-q", str(HERE / "strict.yaml"), place)], env=alone.env
    )
    try:
        wait_for(lambda: process.poll() is not None or place.is_mount(), "it is mounted")
        assert process.poll() is None
        assert (place / "proc/iomem").read_text().startswith("00000000-00000fff : Reserved\n")
        process.send_signal(number)
        assert process.wait(10) == (-number if number == signal.SIGKILL else 0)
        if number == signal.SIGKILL:
            # Nobody is left who could unmount. It does not hang, and can be cleared.
            with pytest.raises(OSError, match="Transport endpoint"):
                (place / "proc/iomem").read_text()
            subprocess.run(alone.mounter("umount", place), env=alone.env, check=True)
            sockets = alone.check("ps", "--json")
            assert sockets.strip() == "[]"
    finally:
        process.kill()
        process.wait()
    assert_clean(alone)
