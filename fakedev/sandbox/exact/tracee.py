"""Looks at the process behind a call: its descriptors, and its memory. Never asks a file system of ours.

The thread number is safe to use while the call waits (`Listener.waits`).
"""

import ctypes
import errno
import os
import stat
import struct
from typing import Any, NamedTuple

from fakedev.fuse.mappers import comm_of, comm_text
from fakedev.sandbox.exact.tasks import Tasks

_SYS_PIDFD_GETFD = 438
_PIDFD_THREAD = os.O_EXCL
_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_MODE, _STATX_CTIME, _STATX_INO = 0x2, 0x80, 0x100
_STX_MODE = 28
_STX_INO = 32
_STX_CTIME = 96
_NANOSECONDS = struct.Struct("=8xI")
_TWO_NUMBERS = struct.Struct("=2I")
_INO_AND_DEVICE = struct.Struct("=Q96x8s")  # of struct statx, from stx_ino on
_TWO_AREAS = struct.Struct("@PNPN")  # of struct iovec: ours, and the caller's
_AREA = _TWO_AREAS.size // 2
_CHANGES = struct.Struct("@NPN")  # all but the address of ours, which is at the start
_CHANGES_AT = _TWO_AREAS.size - _CHANGES.size

_libc: Any = ctypes.CDLL(None, use_errno=True)
# Where nobody asks which errno it was. No argtypes: they take a microsecond of each call. So what is not a
# C int or bytes has to be made an argument here.
_quick: Any = ctypes.CDLL(None)
_statx = _quick.statx
_readv, _writev = _quick.process_vm_readv, _quick.process_vm_writev
_readv.restype = _writev.restype = ctypes.c_ssize_t
_NONE, _ONE = ctypes.c_ulong.from_param(0), ctypes.c_ulong.from_param(1)

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

    __slots__ = ("_address", "_pair", "_room", "_tables", "device")

    def __init__(self, root: int) -> None:
        self._tables = Tasks(b"fd", os.O_PATH | os.O_DIRECTORY)
        self._room = bytearray(256)
        self._address = ctypes.c_void_p.from_param(_address(self._room))
        self._pair = _device(root)
        self.device = os.makedev(*_TWO_NUMBERS.unpack(self._pair))

    def ours(self, tid: int, fd: int) -> int:
        """The inode number of a descriptor of thread `tid`; 0 where it is not ours or there is none."""
        if not self._look(tid, fd, _AT_STATX_DONT_SYNC, _STATX_INO):
            return 0
        ino: int
        ino, pair = _INO_AND_DEVICE.unpack_from(self._room, _STX_INO)
        return ino if pair == self._pair else 0

    def access(self, tid: int, fd: int) -> int | None:
        """O_RDONLY, O_WRONLY or O_RDWR: the mode of the link in /proc. None where it has neither (O_PATH)."""
        if not self._look(tid, fd, _AT_STATX_DONT_SYNC | _AT_SYMLINK_NOFOLLOW, _STATX_MODE):
            return None
        mode = self._room[_STX_MODE] | self._room[_STX_MODE + 1] << 8
        return _ACCESS.get(mode & (stat.S_IRUSR | stat.S_IWUSR))

    def generation(self, tid: int, fd: int) -> int | None:
        """Which inode of its file a descriptor belongs to (`Inode.generation`); None where there is none."""
        if not self._look(tid, fd, _AT_STATX_DONT_SYNC, _STATX_CTIME):
            return None
        found: int = _NANOSECONDS.unpack_from(self._room, _STX_CTIME)[0]
        return found

    def is_open(self, tid: int, fd: int) -> bool:
        """Whether the file is open; with O_PATH, to all but few calls it is not (EBADF)."""
        if self.access(tid, fd) is not None:
            return True
        found = descriptor(tid, fd)  # open(2) with access mode 3 permits neither, too
        return found is not None and not found.flags & os.O_PATH

    def close(self) -> None:
        """Forget the threads."""
        self._tables.close()

    def _look(self, tid: int, fd: int, flags: int, mask: int) -> bool:
        """statx(2) of /proc/TID/fd/N into `_room`; False where it fails."""
        table = self._tables.get(tid)
        if table is not None and _statx(table, b"%d" % fd, flags, mask, self._address) == 0:
            return True
        self._tables.missed(tid)
        path = b"/proc/%d/fd/%d" % (tid, fd)
        found: int = _statx(_AT_FDCWD, path, flags, mask, self._address)
        return found == 0


class Comms:
    """Names of threads; for one thread."""

    __slots__ = ("_files",)

    def __init__(self) -> None:
        self._files = Tasks(b"comm", os.O_RDONLY)

    def of(self, tid: int) -> str:
        """As `comm_of`."""
        file = self._files.get(tid)
        try:
            if file is not None:
                return comm_text(os.pread(file, 256, 0))
        except OSError:
            pass  # another thread has the number now
        self._files.missed(tid)
        return comm_of(tid)

    def close(self) -> None:
        """Forget the threads."""
        self._files.close()


class Memory:
    """Reads and writes memory of callers, up to SIZE bytes; for one thread."""

    SIZE = 256

    __slots__ = ("_areas", "_here", "_room", "_there")

    def __init__(self) -> None:
        room = bytearray(self.SIZE)
        self._room = memoryview(room)
        self._areas = bytearray(_TWO_AREAS.pack(_address(room), 0, 0, 0))
        here = _address(self._areas)
        self._here = ctypes.c_void_p.from_param(here)
        self._there = ctypes.c_void_p.from_param(here + _AREA)

    def read(self, tid: int, address: int, size: int) -> bytes | None:
        """Bytes of the caller's memory; None where it has none there."""
        _CHANGES.pack_into(self._areas, _CHANGES_AT, size, address, size)
        if _readv(tid, self._here, _ONE, self._there, _ONE, _NONE) != size:
            return None
        return self._room[:size].tobytes()

    def write(self, tid: int, address: int, data: bytes) -> bool:
        """Put bytes into the caller's memory; False where it may not be written."""
        size = len(data)
        self._room[:size] = data
        _CHANGES.pack_into(self._areas, _CHANGES_AT, size, address, size)
        moved: int = _writev(tid, self._here, _ONE, self._there, _ONE, _NONE)
        return moved == size


def device(root: int) -> int:
    """The device number of the mount that `root` is in, which the mount itself is not asked for."""
    return os.makedev(*_TWO_NUMBERS.unpack(_device(root)))


def _device(root: int) -> bytes:
    room = bytearray(256)
    address = ctypes.c_void_p.from_param(_address(room))
    if _statx(root, b"", _AT_STATX_DONT_SYNC | _AT_EMPTY_PATH, _STATX_INO, address):
        raise OSError(errno.EBADF, "statx")
    found: bytes = _INO_AND_DEVICE.unpack_from(room, _STX_INO)[1]
    return found


def _address(room: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))


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
        task = os.pidfd_open(process(tid))  # before 6.9
    try:
        found = _libc.syscall(_SYS_PIDFD_GETFD, task, fd, 0)
    finally:
        os.close(task)
    if found < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return int(found)


def process(tid: int) -> int:
    """The process that a thread belongs to."""
    with open(f"/proc/{tid}/status", "rb") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith(b"Tgid:"))
