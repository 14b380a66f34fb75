"""The place where everything is measured: a mount namespace of our own, with a tmpfs to work in.

Nothing in it can outlive this process: mounts are seen by nobody else and end with the namespace,
and the servers are told by the kernel when we die.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fakedev.model.errors import HostError
from fakedev.sandbox import namespace, syscalls

HERE = Path(__file__).resolve().parent
TIMEOUT = 300.0
ROOT = namespace.Ids(0, 0)


class Child:
    """A helper process that answers a line of JSON with another one."""

    def __init__(self, command: Sequence[str], *, keep: Sequence[int] = (), name: str = "") -> None:
        self.name = name or command[0]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=keep,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            cwd=HERE.parent,
            env={**os.environ, "FAKEDEV_NO_CACHE": "1"},
        )

    def ask(self, **question: Any) -> Any:
        """Send a question and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def line(self) -> str:
        """One line of output. RuntimeError when the process has ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return line

    def stop(self) -> None:
        """End it; what it holds is let go with it."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _die_with_parent() -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


class Arena:
    """`path` is an empty tmpfs; `client` and `floor` are the compiled programs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.client = compile_c("client.c", path)
        self.floor = compile_c("floor.c", path)
        self._count = 0

    def directory(self, name: str) -> Path:
        """A new empty directory."""
        self._count += 1
        path = self.path / f"{self._count}-{name}"
        path.mkdir()
        return path

    @contextlib.contextmanager
    def fuse(self, name: str) -> Iterator[tuple[Path, int]]:
        """A new FUSE mount and the descriptor to serve; both are gone at the end."""
        path = self.directory(name)
        descriptor = namespace.open_fuse()
        try:
            namespace.mount_fuse(descriptor, str(path), ROOT)
            yield path, descriptor
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                syscalls.umount(str(path))

    def measure(self, *words: object) -> int:
        """Run the client once; the nanoseconds of its loop."""
        done = subprocess.run(
            [str(self.client), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"client {' '.join(map(str, words))}: {done.stderr.strip()}")
        return int(done.stdout.split()[0])


def compile_c(source: str, into: Path) -> Path:
    """A program of this directory. HostError without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise HostError("the benchmarks need a C compiler: install gcc and libc6-dev")
    program = into / Path(source).stem
    subprocess.run(
        [compiler, "-O2", "-Wall", "-pthread", "-o", str(program), str(HERE / source)], check=True
    )
    return program


@contextlib.contextmanager
def enter() -> Iterator[Arena]:
    """Move this process, for good, into namespaces of its own. HostError where that is forbidden."""
    path = Path(tempfile.mkdtemp(prefix="fakedev-bench-"))
    try:
        try:
            namespace.enter(ROOT)
        except OSError as error:
            raise HostError(f"no user namespace: {error}; `fakedev doctor` tells more") from None
        syscalls.mount("none", str(path), kind="tmpfs", data="mode=0755")
        try:
            yield Arena(path)
        finally:
            syscalls.umount(str(path))
    finally:
        path.rmdir()


@contextlib.contextmanager
def one_cpu(*, wanted: bool = True) -> Iterator[None]:
    """Keep this process and those that it starts on one CPU.

    A round trip is cheap while client and server share a CPU, and several times as much when one
    has to wake an idle one. Which of the two it is changes from second to second, and between servers.
    """
    before = os.sched_getaffinity(0)
    if wanted:
        os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python(module: str, *words: str) -> list[str]:
    """The command line of a module of this package."""
    return [sys.executable, "-m", f"benchmarks.{module}", *words]
