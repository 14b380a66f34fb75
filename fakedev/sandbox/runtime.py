"""The directory on the host for what a running machine needs: stages for mounts, sockets."""

import os
import stat
from pathlib import Path

from fakedev.model.errors import HostError


def runtime_directory() -> Path:
    """Return `$XDG_RUNTIME_DIR/fakedev`, or `/tmp/fakedev-UID`; made when missing, mode 0700.

    Inside a machine it is the one that the machine's own socket lies in: uids are others there.
    Raises HostError when it belongs to somebody else or cannot be made.
    """
    inside = os.environ.get("FAKEDEV_CONTROL")
    if inside and _is_private(Path(inside).parent):
        return Path(inside).parent
    base = os.environ.get("XDG_RUNTIME_DIR")
    uid = os.geteuid()
    if base and Path(base).is_absolute() and os.access(base, os.W_OK | os.X_OK):
        return private_directory(Path(base) / "fakedev")
    number = _uid_outside(uid)
    names = [f"/tmp/fakedev-{number}", *(f"/tmp/fakedev-{number}-{n}" for n in range(1, 9))]  # noqa: S108 - owner and mode are checked
    for name in names[:-1]:
        # Another user may have taken the name.
        if not os.path.lexists(name) or Path(name).lstat().st_uid == uid:
            return private_directory(Path(name))
    return private_directory(Path(names[-1]))


def _uid_outside(uid: int) -> int:
    """The number of `uid` one user namespace further out, so that a machine in a machine shares it."""
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return uid
    for inside, outside, count in (map(int, line.split()) for line in lines):
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid


def _is_private(path: Path) -> bool:
    """Whether it is a directory of this user that nobody else may enter."""
    try:
        status = path.lstat()
    except OSError:
        return False
    mine = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return mine and stat.S_ISDIR(status.st_mode) and os.access(path, os.W_OK | os.X_OK)


def private_directory(path: Path) -> Path:
    """Make `path` if it is missing; it must be a directory of this user, and becomes mode 0700."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise HostError(f"{path}: cannot be made: {error.strerror}; set XDG_RUNTIME_DIR") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise HostError(
            f"{path}: is not a directory of this user (owner {status.st_uid}, mode "
            f"{status.st_mode:o}); remove it, or set XDG_RUNTIME_DIR to a directory of your own"
        )
    if stat.S_IMODE(status.st_mode) != 0o700:
        path.chmod(0o700)
    return path
