"""Plain mounts: `fusermount3` opens and mounts /dev/fuse for us and hands the descriptor back."""

import array
import contextlib
import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

from fakedev.model.errors import HostError

# Where the kernel lists FUSE connections, if somebody mounted it; files belong to who mounted each.
CONNECTIONS = Path("/sys/fs/fuse/connections")
HELPERS = ("fusermount3", "fusermount")


def find_helper() -> str:
    """The mount helper's path. Raises HostError where there is none."""
    for name in HELPERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise HostError(
        "fusermount3 is not installed: install the package fuse3, or use `fakedev run`, which needs none"
    )


def mount(directory: str) -> int:
    """Mount on `directory`; a descriptor of /dev/fuse to serve. Raises HostError with the way out."""
    check_mountpoint(directory)
    helper = find_helper()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", "fsname=fakedev,subtype=fakedev", "--", directory],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        theirs.close()
        fd = _receive(ours) if done.returncode == 0 else None
    if fd is None:
        raise HostError(_explain(directory, done.stderr.strip() or f"{helper} failed"))
    os.set_inheritable(fd, False)
    return fd


def _receive(channel: socket.socket) -> int | None:
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return array.array("i", data)[0]
    return None


def _explain(directory: str, message: str) -> str:
    hints = {
        "fuse device not found": "load it: sudo modprobe fuse; in a container: --device /dev/fuse",
        "/dev/fuse: Permission denied": "open it as udev does: sudo chmod 0666 /dev/fuse",
        "must not be followed": "give a path without symbolic links",
        "Operation not permitted": "the helper is not setuid root here: use `fakedev run`",
        "user has no write access": f"choose a directory that you own instead of {directory}",
    }
    for text, hint in hints.items():
        if text in message:
            return f"cannot mount on {directory}: {message}; {hint}"
    return f"cannot mount on {directory}: {message}; `fakedev doctor` shows what this host allows"


def check_mountpoint(directory: str) -> None:
    """Raises HostError for what cannot be mounted on: missing, a file, busy, or stale."""
    path = Path(directory)
    try:
        is_directory = path.is_dir() or path.stat() is None
        mounted = path.is_mount()
        if mounted:
            os.statvfs(path)  # what stat says may be cached, this asks the server
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise HostError(
                f"{directory} is a mount whose server died (ENOTCONN): "
                f"clear it with `fakedev umount {directory}`"
            ) from None
        raise HostError(
            f"cannot mount on {directory}: {error.strerror}; make it with mkdir"
        ) from None
    if not is_directory:
        raise HostError(f"cannot mount on {directory}: it is not a directory")
    if mounted:
        raise HostError(
            f"{directory} is a mount point already: unmount it with `fakedev umount {directory}`"
        )


def unmount(directory: str, *, lazy: bool = False) -> None:
    """Unmount a plain mount. Raises HostError, for example when it is busy.

    `lazy`: also when it is in use; whoever uses it gets errors from now on.
    """
    connection = _connection(directory)
    command = [find_helper(), "-u", *(["-z"] if lazy else []), "--", directory]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        message = done.stderr.strip()
        hint = "; close what uses it, or add --lazy" if "busy" in message else ""
        raise HostError(f"cannot unmount {directory}: {message}{hint}")
    if lazy and connection is not None:
        # A server that was killed at a bad moment may hold the connection open for ever.
        with contextlib.suppress(OSError):
            (CONNECTIONS / connection / "abort").write_text("1")


def _connection(directory: str) -> str | None:
    """The number under which the kernel lists the connection mounted at `directory`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[4] == directory and " - fuse" in line:
                return fields[2].partition(":")[2]
    return None
