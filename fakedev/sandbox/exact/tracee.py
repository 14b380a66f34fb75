"""Looks at the process behind a call: its descriptors, and its memory. Never asks a file system of ours.

The thread number is safe to use while the call waits (`Listener.waits`).
"""

import ctypes
import errno
import os
import stat
import struct
from typing import Any, NamedTuple

_SYS_PIDFD_GETFD = 438
_PIDFD_THREAD = os.O_EXCL
_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_MODE, _STATX_INO = 0x2, 0x100
_STX_MODE = 28
_STX_INO = 32
_INO_AND_DEVICE = struct.Struct("=Q96x8s")  # of struct statx, from stx_ino on
_TWO_AREAS = struct.Struct("@PNPN")  # of struct iovec: ours, and the caller's

_libc: Any = ctypes.CDLL(None, use_errno=True)
_quick: Any = ctypes.CDLL(None)  # where nobody asks which errno it was
_statx = _quick.statx
_statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
for _function in (_quick.process_vm_readv, _quick.process_vm_writev):
    _function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p,
                          ctypes.c_ulong, ctypes.c_ulong]  # fmt: skip
    _function.restype = ctypes.c_ssize_t

_ACCESS = {
    stat.S_IRUSR: os.O_RDONLY,
    stat.S_IWUSR: os.O_WRONLY,
    stat.S_IRUSR | stat.S_IWUSR: os.O_RDWR,
}


class Descriptor(NamedTuple):
    """/proc/TID/fdinfo/N: file position, and the flags of open(2) with O_CLOEXEC."""

    position: int
    flags: int


class Statuses:
    """Tells descriptors of the mount that `root` is in from all others; for one thread."""

    __slots__ = ("_address", "_pair", "_room", "device")

    def __init__(self, root: int) -> None:
        self._room = bytearray(256)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._room))
        flags = _AT_STATX_DONT_SYNC | _AT_EMPTY_PATH
        if _statx(root, b"", flags, _STATX_INO, self._address):
            raise OSError(errno.EBADF, "statx")
        self._pair = _INO_AND_DEVICE.unpack_from(self._room, _STX_INO)[1]
        self.device = os.makedev(*struct.unpack("=2I", self._pair))

    def ours(self, tid: int, fd: int) -> int:
        """The inode number of a descriptor of thread `tid`; 0 where it is not ours or there is none."""
        path = b"/proc/%d/fd/%d" % (tid, fd)
        if _statx(_AT_FDCWD, path, _AT_STATX_DONT_SYNC, _STATX_INO, self._address):
            return 0
        ino, pair = _INO_AND_DEVICE.unpack_from(self._room, _STX_INO)
        return int(ino) if pair == self._pair else 0

    def access(self, tid: int, fd: int) -> int | None:
        """O_RDONLY, O_WRONLY or O_RDWR: the mode of the link in /proc. None where it has neither (O_PATH)."""
        path = b"/proc/%d/fd/%d" % (tid, fd)
        flags = _AT_STATX_DONT_SYNC | _AT_SYMLINK_NOFOLLOW
        if _statx(_AT_FDCWD, path, flags, _STATX_MODE, self._address):
            return None
        mode = self._room[_STX_MODE] | self._room[_STX_MODE + 1] << 8
        return _ACCESS.get(mode & (stat.S_IRUSR | stat.S_IWUSR))


class Memory:
    """Reads and writes memory of callers, up to SIZE bytes; for one thread."""

    SIZE = 256

    __slots__ = ("_address", "_areas", "_here", "_room", "_there")

    def __init__(self) -> None:
        self._room = bytearray(self.SIZE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._room))
        self._areas = bytearray(_TWO_AREAS.size)
        self._here = ctypes.addressof(ctypes.c_char.from_buffer(self._areas))
        self._there = self._here + _TWO_AREAS.size // 2

    def read(self, tid: int, address: int, size: int) -> bytes | None:
        """Bytes of the caller's memory; None where it has none there."""
        _TWO_AREAS.pack_into(self._areas, 0, self._address, size, address, size)
        if _quick.process_vm_readv(tid, self._here, 1, self._there, 1, 0) != size:
            return None
        return bytes(self._room[:size])

    def write(self, tid: int, address: int, data: bytes) -> bool:
        """Put bytes into the caller's memory; False where it may not be written."""
        size = len(data)
        self._room[:size] = data
        _TWO_AREAS.pack_into(self._areas, 0, self._address, size, address, size)
        return bool(_quick.process_vm_writev(tid, self._here, 1, self._there, 1, 0) == size)


def descriptor(tid: int, fd: int) -> Descriptor | None:
    """What /proc tells of a descriptor; None when it is gone."""
    try:
        number = os.open(b"/proc/%d/fdinfo/%d" % (tid, fd), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        _, position, _, flags, _ = os.read(number, 512).split(
            None, 4
        )  # pos: N flags: 0N mnt_id: ...
    finally:
        os.close(number)
    return Descriptor(int(position), int(flags, 8))


def copy(tid: int, fd: int) -> int:
    """Our own descriptor of an open file of the caller. Raises OSError when it has none there."""
    try:
        task = os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        task = os.pidfd_open(_process(tid))  # before 6.9
    try:
        found = _libc.syscall(_SYS_PIDFD_GETFD, task, fd, 0)
    finally:
        os.close(task)
    if found < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return int(found)


def _process(tid: int) -> int:
    """The process that a thread belongs to."""
    with open(f"/proc/{tid}/status", "rb") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith(b"Tgid:"))
