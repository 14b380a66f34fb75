"""System calls that `os` does not offer; each raises an OSError that says what was tried."""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000

MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_SLAVE = 1 << 19
MNT_FORCE = 1
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_LAST_DESCRIPTOR = 0xFFFF_FFFF

# Looked up once: a process that was forked from one with threads must not take the loader's locks.
_libc: Any = ctypes.CDLL(None, use_errno=True)
_mount = _libc.mount
_mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_umount2 = _libc.umount2
_umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_unshare = _libc.unshare
_unshare.argtypes = [ctypes.c_int]
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_signalfd = _libc.signalfd
_signalfd.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


def _check(result: int, attempt: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{attempt}: {os.strerror(number)}")
    return result


def mount(
    source: str, target: str, *, kind: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    """Mount `source` on `target`; `kind` is the type of file system."""
    result = _mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        flags,
        None if data is None else data.encode(),
    )
    if result < 0:  # the text is made only when needed: this runs a hundred times per start
        _check(result, f"mount({source!r}, {target!r}, {kind}, flags={flags:#x}, {data!r})")


def bind(source: str, target: str) -> None:
    """Show `source`, with everything mounted below it, at `target` as well.

    Always recursive: in a new user namespace the host's mounts are locked together, and a plain
    bind of a directory that has some below it is refused (EINVAL).
    """
    mount(source, target, flags=MS_BIND | MS_REC)


def umount(target: str) -> None:
    """Detach the mount at `target` now; it ends when its last user ends."""
    _check(_umount2(os.fsencode(target), MNT_DETACH), f"umount2({target!r}, MNT_DETACH)")


def abort(target: str) -> None:
    """End the FUSE connection of the mount at `target`: every request on it fails from now on.

    The mount itself stays while it is used, which is no error.
    """
    _umount2(os.fsencode(target), MNT_FORCE)


def unshare(flags: int) -> None:
    """Move this process, which must have one thread only, into new namespaces."""
    _check(_unshare(flags), f"unshare({flags:#x})")


def prctl(option: int, value: int = 0) -> int:
    """Set an attribute of this process that takes one integer."""
    return _check(_prctl(option, value, 0, 0, 0), f"prctl({option}, {value})")


def set_name(name: str) -> None:
    """Set what `ps` shows as this process's command (15 bytes at most)."""
    text = ctypes.create_string_buffer(name.encode()[:15])
    _check(_prctl(PR_SET_NAME, ctypes.addressof(text), 0, 0, 0), f"prctl(PR_SET_NAME, {name!r})")


def close_all_except(keep: Iterable[int]) -> None:
    """Close every descriptor but those in `keep`."""
    first = 0
    for descriptor in sorted(set(keep)):
        if descriptor > first:
            _close_range(first, descriptor - 1)
        first = descriptor + 1
    _close_range(first, _LAST_DESCRIPTOR)


def _close_range(first: int, last: int) -> None:
    """close_range(2); before Linux 5.9 or glibc 2.34, one by one."""
    function = getattr(_libc, "close_range", None)
    number = ctypes.c_uint
    if function is not None and function(number(first), number(last), number(0)) == 0:
        return
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - plain os calls after a fork
        if first <= int(name) <= last:
            os.closerange(int(name), int(name) + 1)


class SignalInfo(NamedTuple):
    """What a signalfd reports: `signal`, `code` (si_code) and the sender's `pid`."""

    signal: int
    code: int
    pid: int


_SIGINFO = struct.Struct("=IiiI112x")


def signalfd(signals: Iterable[int]) -> int:
    """Return a non-blocking descriptor that reports `signals`, which must be blocked."""
    mask = 0
    for signal_number in signals:
        mask |= 1 << (signal_number - 1)
    sigset = ctypes.create_string_buffer(mask.to_bytes(8, "little"), 128)
    return int(_check(_signalfd(-1, ctypes.addressof(sigset), _SFD_FLAGS), "signalfd()"))


def read_signals(descriptor: int) -> list[SignalInfo]:
    """Take the signals that wait on a signalfd."""
    try:
        data = os.read(descriptor, 32 * _SIGINFO.size)
    except BlockingIOError:
        return []
    found = []
    for number, _errno, code, pid in _SIGINFO.iter_unpack(data):
        found.append(SignalInfo(number, code, pid))
    return found


def sysctl(name: str) -> str | None:
    """Return the value of a sysctl such as `kernel.yama.ptrace_scope`; None where there is none."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
    except OSError:
        return None
