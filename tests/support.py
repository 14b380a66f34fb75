"""What the end-to-end tests share: `fakedev` as an unprivileged command, a machine that runs, an agent in it."""

import base64
import contextlib
import errno
import functools
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import unprivileged

from fakedev.control.client import SUFFIX, Client

DATA = Path(__file__).parent / "data"
AGENT_SOURCE = Path(__file__).parent / "e2e" / "agent.c"
BIN = Path(sys.executable).parent
#: Longer soak runs multiply the work of the stress tests by this.
SOAK = int(os.environ.get("FAKEDEV_SOAK", "1"))
TIMEOUT = 30.0 * SOAK
#: As /proc/PID/status shows sets. Two are the C library's own, which make(1) has ignored for all it starts.
SIGNALS = sum(1 << number - 1 for number in signal.valid_signals())


def need(name: str, package: str) -> str:
    """The path of a tool, or a skip that names it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (package {package})")
    return path


@functools.cache
def sandbox_refusal() -> str:
    """Why this host gives no sandbox to an unprivileged user; empty if it does."""
    command = unprivileged.command(BIN / "fakedev", "doctor", "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    layers = {layer["name"]: layer for layer in json.loads(done.stdout)}
    found = layers["run"]
    return "" if found["ok"] else f"run: {found['reason']}; {found['remedy']}"


def need_sandbox() -> None:
    """Skip where this host allows no sandbox."""
    if reason := sandbox_refusal():
        pytest.skip(reason)


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 30.0) -> Any:
    """The first true value of `condition`, or a failure that says what did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def started(process: Path) -> float:
    """When a process started, in seconds since boot."""
    after_name = (process / "stat").read_bytes().rpartition(b")")[2]
    return int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")


class Host:
    """`fakedev` without privilege, with a runtime directory and a cache of its own."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.born = float(Path("/proc/uptime").read_text().split()[0]) - 1
        self.path = f"{BIN}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        self.env = {
            **os.environ,
            "PATH": self.path,
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CACHE_HOME": str(runtime / "cache"),
        }
        self.env.pop("FAKEDEV_CONTROL", None)

    def command(self, *args: str | os.PathLike[str]) -> list[str]:
        """The command line of `fakedev ARGS...` without any capability."""
        return unprivileged.command(BIN / "fakedev", *args)

    def mounter(self, *args: str | os.PathLike[str]) -> list[str]:
        """`fakedev ARGS...` as the user who runs the tests: fusermount3 is no help in a user namespace."""
        return [str(BIN / "fakedev"), *(os.fspath(word) for word in args)]

    def __call__(
        self,
        *args: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run `fakedev ARGS...` to its end; stdout and stderr are captured."""
        options = {"capture_output": True, "text": True, "cwd": self.runtime, **options}
        return subprocess.run(
            self.command(*args),
            env={**self.env, **(env or {})},
            timeout=timeout,
            check=False,
            **options,
        )

    def run(
        self, profile: str | os.PathLike[str], *command: str | os.PathLike[str], **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """`fakedev run -q PROFILE -- COMMAND...`; `settings` and `role` become options of it."""
        given = [f"--set={setting}" for setting in options.pop("settings", ())]
        role = options.pop("role", "root")
        return self("run", "-q", f"--as={role}", *given, profile, "--", *command, **options)

    def check(self, *args: str | os.PathLike[str], **options: Any) -> str:
        """Run `fakedev ARGS...`, which must succeed, and return what it printed."""
        done = self(*args, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def sockets(self) -> list[str]:
        """Control sockets in the runtime directory."""
        return sorted(path.name for path in (self.runtime / "fakedev").glob("*" + SUFFIX))

    def processes(self) -> dict[int, str]:
        """Processes of our runs: pid to name. Known by their environment, or by where they started."""
        mark = f"XDG_RUNTIME_DIR={self.runtime}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    name, _, state = (entry / "stat").read_text().rpartition(")")
                    # Memory of a process in state D may be locked: who reads its environment waits too.
                    if state.split()[0] == "D":
                        ours = (entry / "cwd").readlink() == self.runtime
                    else:
                        ours = mark in (entry / "environ").read_bytes().split(b"\0")
                    if ours:
                        found[int(entry.name)] = name.partition("(")[2]
        return found

    def leftovers(self) -> list[str]:
        """Everything of our runs that is still there: processes, sockets, mounts."""
        mounts = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(self.runtime) in line
        ]
        processes = [f"process {pid}: {line}" for pid, line in self.processes().items()]
        return [*processes, *(f"socket {name}" for name in self.sockets()), *mounts]


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command as the session leader of a terminal of its own, and the other end of that.

    Who closes the other end hangs up; it is closed at the end, and the command killed, if not yet.
    """
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        env=env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes ours
    )
    os.close(terminal)
    try:
        yield process, main
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.close(main)


class Fault(NamedTuple):
    """A signal that a load or store of the agent met; `offset` is si_addr from the mapping's start."""

    signal: int
    code: int
    offset: int


class Refusal(NamedTuple):
    """A system call of the agent that failed."""

    errno: str


def answer(line: str) -> Any:
    """The value of one answer line of the agent: an int, bytes, Fault or Refusal."""
    kind, *values = line.split()
    if kind == "fault":
        return Fault(*(int(value) for value in values))
    if kind == "err":
        return Refusal(errno.errorcode[int(values[0])])
    if kind == "data":
        return bytes.fromhex(values[0] if values else "")
    assert kind == "ok", line
    return int(values[0], 0)


@functools.cache
def compiled(source: Path, folder: Path) -> Path:
    """The binary of a C program, made once, or a skip."""
    compiler = need("gcc", "gcc")
    binary = folder / source.stem
    command: list[str | Path] = [
        compiler,
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-o",
        binary,
        source,
    ]
    subprocess.run(command, check=True)
    return binary


class Agent:
    """A process that does system calls, loads and stores as it is told, one line each."""

    def __init__(self, send: Callable[[str], None], receive: Callable[[], str]) -> None:
        self._send = send
        self._receive = receive

    def __call__(self, *words: str | int) -> Any:
        """Tell the agent one command and return its answer."""
        self._send(" ".join(str(word) for word in words) + "\n")
        line = self._receive()
        assert line, f"the agent died in {words}"
        return answer(line)

    def open(self, path: str = "/dev/mem", flags: int = os.O_RDWR) -> int:
        return int(self("open", path, flags))

    def map(self, fd: int, offset: int, length: int, *, private: bool = False) -> int:
        """Map it readable and writable; returns the number of the mapping."""
        flags = 2 if private else 1
        return int(self("map", fd, offset, length, 3, flags))

    def child(self) -> "Agent":
        """Fork a copy of this agent, with its descriptors and mappings."""
        number = int(self("fork"))
        return Agent(lambda line: self._send(f"to {number} {line}"), self._receive)


class Running:
    """A machine with a tool in it that runs until the `with` block ends.

    `tool` is the tool's Popen (the `fakedev run` command), `client` a control connection.
    """

    def __init__(
        self,
        host: Host,
        profile: str,
        *command: str | os.PathLike[str],
        settings: Sequence[str] = (),
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        name: str = "machine",
    ) -> None:
        self.host = host
        self.name = name
        given = [*options, *(f"--set={setting}" for setting in settings)]
        self.tool = subprocess.Popen(
            host.command("run", "-q", f"--name={name}", *given, profile, "--", *command),
            env={**host.env, **(env or {})},
            cwd=host.runtime,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.socket = host.runtime / "fakedev" / (name + SUFFIX)
        self.agent = Agent(self.send, self.receive)
        self._client: Client | None = None
        self._received = b""

    def send(self, line: str) -> None:
        """Write to the tool's stdin."""
        assert self.tool.stdin is not None
        self.tool.stdin.write(line)
        self.tool.stdin.flush()

    def send_end(self) -> None:
        """The end of the tool's stdin."""
        assert self.tool.stdin is not None
        self.tool.stdin.close()

    def receive(self, *, seconds: float = TIMEOUT) -> str:
        """The next line of the tool's stdout."""
        assert self.tool.stdout is not None
        stream = (
            self.tool.stdout.fileno()
        )  # past its buffer, in which a second line would not be seen
        while b"\n" not in self._received:
            if not select.select([stream], [], [], seconds)[0]:
                pytest.fail(f"no answer within {seconds:g} s: a hang")
            piece = os.read(stream, 1 << 16)
            if not piece:
                break
            self._received += piece
        line, end, self._received = self._received.partition(b"\n")
        return (line + end).decode()

    @property
    def client(self) -> Client:
        if self._client is None:
            wait_for(self.socket.exists, "the control socket is there")
            self._client = Client(self.socket, timeout=TIMEOUT)
        return self._client

    def ctl(self, *words: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """`fakedev ctl --machine NAME WORDS...` from another shell."""
        return self.host("ctl", "--machine", self.name, *words, **options)

    def claim(self, span: str, name: str = "driver") -> None:
        """What a driver does when it loads, without the cost of starting a command."""
        self.client.call("claim", range=span, name=name)

    def release(self, span: str) -> None:
        self.client.call("release", range=span)

    def peek(self, span: str) -> bytes:
        return base64.b64decode(self.client.call("peek", range=span)["base64"])

    @property
    def pid(self) -> int:
        """The process that serves the machine."""
        return int(self.client.call("state")["pid"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        assert self.tool.stdin is not None
        assert self.tool.stdout is not None
        if kind is not None:
            self.tool.kill()
        with contextlib.suppress(OSError):
            self.tool.stdin.close()  # the agent ends at the end of its input
        try:
            self.tool.wait(TIMEOUT / 3)
        except subprocess.TimeoutExpired:
            self.tool.kill()
            self.tool.wait()
            raise
        finally:
            self.tool.stdout.close()


@contextlib.contextmanager
def machine_with_agent(host: Host, folder: Path, profile: str, **options: Any) -> Iterator[Running]:
    """A machine in which the agent runs."""
    need_sandbox()
    with Running(host, profile, compiled(AGENT_SOURCE, folder), **options) as running:
        yield running
