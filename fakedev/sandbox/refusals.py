"""From a refused system call to the cause on this host and the way out."""

import errno as _errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fakedev.model.errors import HostError
from fakedev.sandbox import syscalls

_IN_CONTAINER = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
_FUSE_DEVICE = "docker run --device /dev/fuse"
#: Name, the value that forbids user namespaces, the value that allows them.
_SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


class Refusal(NamedTuple):
    """Why the host does not allow something, and the command (or step) that would enable it."""

    reason: str
    remedy: str

    def error(self, detail: str) -> HostError:
        """Return it as an exception; `detail` is the system call that was refused."""
        return HostError(f"{self.reason} ({detail}); way out: {self.remedy}")


def is_filtered() -> bool:
    """Whether this process runs under a seccomp filter, as in most containers."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "\nSeccomp:\t2" in status


def explain(step: str, number: int, detail: str) -> HostError:
    """Turn a failure in the child (step of `fakedev.sandbox.child`) into an error for a person."""
    reasons: dict[str, Callable[[int], Refusal]] = {
        "namespace": explain_namespace,
        "fuse-open": explain_fuse_open,
        "fuse-mount": explain_fuse_mount,
    }
    if step in reasons:
        return reasons[step](number).error(detail)
    if step == "exact":
        return explain_exact(number, detail).error("fakedev run --no-exact does without")
    return HostError(f"the sandbox failed at step {step!r}: {detail}")


def explain_namespace(number: int) -> Refusal:
    """Say why unshare(CLONE_NEWUSER | CLONE_NEWNS), the id maps or the first mount failed."""
    for name, off, on in _SWITCHES:
        if syscalls.sysctl(name) == off:
            return Refusal(
                f"user namespaces are switched off here: {name} = {off}",
                f"sudo sysctl {name}={on}",
            )
    if number == _errno.ENOSPC:
        return Refusal(
            "the limit of user or mount namespaces is reached, or they are nested 32 deep",
            "sudo sysctl user.max_user_namespaces=15000 user.max_mnt_namespaces=15000",
        )
    if number in (_errno.EINVAL, _errno.ENOSYS):
        return Refusal(
            "this kernel has no user namespaces", "use a kernel that has CONFIG_USER_NS=y"
        )
    if is_filtered():
        return Refusal(
            "a seccomp filter (a container's?) forbids user namespaces",
            f"start the container with: {_IN_CONTAINER}",
        )
    return Refusal(
        "this host forbids user namespaces: a security module, or this process is in a chroot",
        "leave the chroot, or look for the denial in: sudo dmesg",
    )


def explain_fuse_open(number: int) -> Refusal:
    """Say why /dev/fuse could not be opened."""
    if number == _errno.ENOENT:
        return Refusal(
            "/dev/fuse does not exist", f"sudo modprobe fuse (in a container: {_FUSE_DEVICE})"
        )
    if number == _errno.EACCES:
        return Refusal("/dev/fuse is closed to this user", "sudo chmod 0666 /dev/fuse")
    if number == _errno.EPERM:
        return Refusal(
            "the device control group forbids /dev/fuse",
            f"start the container with: {_FUSE_DEVICE}",
        )
    if number in (_errno.ENODEV, _errno.ENXIO):
        return Refusal("this kernel has no FUSE", "sudo modprobe fuse")
    return Refusal(f"/dev/fuse cannot be opened: {os.strerror(number)}", "ls -l /dev/fuse")


def _is_fuse_device() -> bool:
    """Whether /dev/fuse is character device 10:229."""
    status = os.stat("/dev/fuse")  # noqa: PTH116 - its device number is wanted
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(10, 229)


def explain_fuse_mount(number: int) -> Refusal:
    """Say why mount(2) of the type fuse failed inside the namespace."""
    if number == _errno.ENODEV:
        return Refusal("this kernel has no FUSE", "sudo modprobe fuse")
    if number == _errno.EINVAL and not _is_fuse_device():
        return Refusal(
            "/dev/fuse is not the FUSE device: something else was put in its place",
            f"in a container: {_FUSE_DEVICE}; else: sudo umount /dev/fuse",
        )
    if number in (_errno.EPERM, _errno.EACCES) and is_filtered():
        return Refusal(
            "a seccomp filter or security profile (a container's?) forbids mount(2)",
            f"start the container with: {_IN_CONTAINER} --device /dev/fuse",
        )
    if number in (_errno.EPERM, _errno.EACCES):
        return Refusal(
            "FUSE mounts in user namespaces are refused: kernel before 4.18, or a security module",
            "use a newer kernel, or look for the denial in: sudo dmesg",
        )
    return Refusal(f"FUSE cannot be mounted: {os.strerror(number)}", "look into: sudo dmesg")


def explain_exact(number: int, detail: str) -> Refusal:
    """Say why a seccomp filter with a listener could not be installed."""
    if number == _errno.EBUSY:
        return Refusal(
            "a seccomp listener watches this process already, and there can be only one",
            "start fakedev outside of the program that installed it",
        )
    reason = f"seccomp user notification is refused: {detail}"
    if number in (_errno.EPERM, _errno.EACCES) and is_filtered():
        return Refusal(
            reason, "start the container with: docker run --security-opt seccomp=unconfined"
        )
    return Refusal(reason, "use Linux 5.0 or later with CONFIG_SECCOMP_FILTER=y")
