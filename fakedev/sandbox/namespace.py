"""Inside the child: the namespaces, the FUSE mount in them, and the plan carried out.

Everything here runs after a fork, perhaps of a process with threads, and before exec. It calls
nothing but `os` and our system call wrappers.
"""

import os
from collections import Counter
from typing import NamedTuple

from fakedev.sandbox import syscalls
from fakedev.sandbox.plan import Plan, Shadow
from fakedev.sandbox.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_REC,
    MS_SLAVE,
)

#: What a real root becomes with `--as user`: any id that is not 0 will do.
UNPRIVILEGED_ID = 1000
_WORTH_LISTING = 4
_PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Ids(NamedTuple):
    """The one user and the one group of a sandbox, by their numbers inside."""

    uid: int
    gid: int


def inside_ids(*, as_root: bool) -> Ids:
    """Return the ids that the tool runs with: 0, or the caller's own (1000 for a real root)."""
    if as_root:
        return Ids(0, 0)
    uid, gid = os.geteuid(), os.getegid()
    return Ids(uid or UNPRIVILEGED_ID, gid if uid else UNPRIVILEGED_ID)


def enter(ids: Ids) -> None:
    """Move this process into a user and a mount namespace of its own.

    The caller's effective ids become `ids` inside; no other id exists there. All capabilities of
    the new namespace are held until exec; with a uid that is not 0 they vanish there, so that both
    kinds of sandbox are built by the same code. Mounts made here never reach the host.
    """
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    # Without this the kernel refuses a gid_map from an unprivileged process (CVE-2014-8989).
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{ids.uid} {uid} 1")
    _write("/proc/self/gid_map", f"{ids.gid} {gid} 1")
    syscalls.mount("none", "/", flags=MS_REC | MS_SLAVE)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path} <- {text!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def open_fuse() -> int:
    """Open /dev/fuse; it has to be opened in the user namespace that mounts it."""
    return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)


def mount_fuse(descriptor: int, stage: str, ids: Ids) -> None:
    """Mount the connection behind `descriptor` on the directory `stage`."""
    syscalls.mount(
        "fakedev",
        stage,
        kind="fuse",
        flags=MS_NOSUID | MS_NODEV,
        data=f"fd={descriptor},rootmode=40000,user_id={ids.uid},group_id={ids.gid}",
    )


def open_root(stage: str) -> int:
    """An O_PATH descriptor of the root of the tree that is mounted on `stage`.

    What is opened through it is called by its absolute path in /proc, as inside the sandbox.
    """
    return os.open(stage, _PATH_FLAGS)


def apply(plan: Plan, stage: str) -> list[str]:
    """Carry out `plan` with the tree that is mounted on `stage`, then take the stage away.

    Returns the host entries that could not be shown, as "path: reason". The working directory is
    looked up again at the end: it may lie in a directory that was replaced.
    """
    # The stage and the host's directories disappear from view on the way, so hold on to them first.
    cwd = _working_directory()
    stage_fd = os.open(stage, _PATH_FLAGS)
    merged = [shadow for shadow in plan.shadows if shadow.binds]
    host_fds = [os.open(shadow.path, _PATH_FLAGS) for shadow in merged]
    for source, place in plan.clones:
        syscalls.bind(source, place)
    os.fchdir(stage_fd)
    virtual = [shadow.path for shadow in plan.shadows if not shadow.inner]
    places = [*virtual, *plan.binds]
    parents = Counter(path.rpartition("/")[0] for path in places)
    for parent, count in parents.items():
        _list("." + parent, count)
    for path in places:
        syscalls.mount("." + path, path, flags=MS_BIND)
    skipped: list[str] = []
    for shadow, host_fd in zip(merged, host_fds, strict=True):
        os.fchdir(host_fd)
        _fill(shadow, skipped)
        os.close(host_fd)
    syscalls.umount(f"/proc/self/fd/{stage_fd}")
    os.close(stage_fd)
    _return_to(cwd)
    return skipped


def _fill(shadow: Shadow, skipped: list[str]) -> None:
    """Cover the placeholders of a merged directory; the host's is the working directory."""
    _list(shadow.path, len(shadow.binds))
    for name in shadow.binds:
        target = f"{shadow.path}/{name}"
        try:
            syscalls.mount(name, target, flags=MS_BIND | MS_REC)
        except OSError as error:  # gone since the plan was made, or a mount that nobody may copy
            skipped.append(f"{target}: {os.strerror(error.errno or 0)}")


def _list(path: str, count: int) -> None:
    """A few READDIRPLUS instead of `count` LOOKUPs, where the server offers it."""
    if count > _WORTH_LISTING:
        os.listdir(path)  # noqa: PTH208 - plain os calls after a fork


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - plain os calls after a fork
    except OSError:  # removed under our feet
        return "/"


def _return_to(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/")
