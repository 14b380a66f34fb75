"""Small experiments: does this host let an ordinary process do X? Each raises what is in the way.

They run in a forked child (see `attempt`), because namespaces, filters and tracing stick to the
process that tries them, and because a probe that hangs must not hang the doctor.
"""

import contextlib
import ctypes
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from fakedev.sandbox import namespace, syscalls
from fakedev.sandbox.exact import listener

_T = TypeVar("_T")

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

_PTRACE_SEIZE = 0x4206

_FUSE_INIT_EXT = 1 << 30
_FUSE_DIRECT_IO_ALLOW_MMAP = 1 << 36


class Outcome(NamedTuple):
    """How an experiment ended; `step` and `errno` say where and why it failed, `detail` how."""

    ok: bool
    detail: str = ""
    step: str = ""
    errno: int = 0


class ProbeError(Exception):
    """A probe failed at `step` for the reason `number` (errno, 0 if there is none)."""

    def __init__(self, step: str, number: int, detail: str) -> None:
        super().__init__(detail)
        self.step = step
        self.number = number


def attempt(probe: Callable[[], str], *, deadline: float = 5.0) -> Outcome:
    """Run `probe` in a forked child; `deadline` in seconds."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)
            os.write(writer, json.dumps(_outcome(probe)).encode())
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], deadline)
        data = os.read(reader, 1 << 16) if ready else b""
    finally:
        os.close(reader)
        for kill in (os.kill, os.killpg):  # its own children too, if it has got that far
            with contextlib.suppress(OSError):
                kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not ready:
        return Outcome(ok=False, detail=f"no answer within {deadline:g} s", step="deadline")
    if not data:
        return Outcome(ok=False, detail="the trial process was killed", step="killed")
    return Outcome(*json.loads(data))


def _outcome(probe: Callable[[], str]) -> Outcome:
    try:
        return Outcome(ok=True, detail=probe())
    except ProbeError as error:
        return Outcome(ok=False, detail=str(error), step=error.step, errno=error.number)
    except OSError as error:
        return Outcome(ok=False, detail=error.strerror or "", step="probe", errno=error.errno or 0)
    except BaseException as error:  # noqa: BLE001 - the doctor reports whatever it was
        return Outcome(ok=False, detail=f"{type(error).__name__}: {error}", step="probe")


def open_fuse() -> str:
    """Open /dev/fuse."""
    _step("fuse-open", lambda: os.close(namespace.open_fuse()))
    return ""


def run_layer(stage: str) -> str:
    """Enter namespaces, mount FUSE there, and read the kernel's first message."""
    ids = namespace.inside_ids(as_root=True)
    _step("namespace", lambda: namespace.enter(ids))
    descriptor = _step("fuse-open", namespace.open_fuse)
    _step("fuse-mount", lambda: namespace.mount_fuse(descriptor, stage, ids))
    message = os.read(descriptor, 1 << 16)
    major, minor, _readahead, low = struct.unpack_from("<4I", message, 40)
    (high,) = struct.unpack_from("<I", message, 56) if low & _FUSE_INIT_EXT else (0,)
    mappable = bool((low | high << 32) & _FUSE_DIRECT_IO_ALLOW_MMAP)
    return json.dumps({"protocol": f"{major}.{minor}", "mappable": mappable})


def plain_mount(helper: str, directory: str) -> str:
    """Mount on `directory` with fusermount3 and unmount again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [helper, "-o", "fsname=fakedev-doctor", "--", directory]
        environment = os.environ | {"_FUSE_COMMFD": str(theirs.fileno())}
        done = subprocess.run(
            command,
            env=environment,
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ProbeError("fusermount", 0, done.stderr.strip() or f"status {done.returncode}")
        _data, descriptors, _flags, _address = socket.recv_fds(ours, 1, 1)
        subprocess.run(
            [helper, "-u", "-z", "--", directory], check=False, stderr=subprocess.DEVNULL
        )
        for descriptor in descriptors:
            os.close(descriptor)
        return ""


def exact_layer() -> str:
    """Filter this process, with a listener."""
    program = listener.filter_program()
    if program is None:
        raise ProbeError("arch", 0, f"no table of system calls for {platform.machine()}")
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    _step("seccomp", lambda: listener.install(program))
    return ""


def trap_layer() -> str:
    """Trace a child of our own with PTRACE_SEIZE."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        if _libc.ptrace(_PTRACE_SEIZE, pid, None, None) < 0:
            failed = ctypes.get_errno()
            raise ProbeError("ptrace", failed, os.strerror(failed))
    finally:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return ""


def _step(name: str, action: Callable[[], _T]) -> _T:
    try:
        return action()
    except OSError as error:
        raise ProbeError(name, error.errno or 0, error.strerror or str(error)) from error
