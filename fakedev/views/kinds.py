"""Kinds of files, and what the kernel answers before it asks a driver, or where there is none to ask."""

import errno
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fakedev.model.ranges import ADDRESS_LIMIT, PAGE_MASK
from fakedev.views.calls import Answer, IoctlCall, MapCall, SeekCall

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_TYPE = 1, 2, 3, 0xF
MAP_FIXED, MAP_ANONYMOUS, MAP_HUGETLB = 0x10, 0x20, 0x4_0000
SEEK_DATA, SEEK_HOLE = 3, 4
MAX_ERRNO = 4095
MAX_LFS_FILESIZE = (1 << 63) - 1
_LEGACY_MAP_MASK = 0x7C00_0000 | 0x0407_F9F3
_TASK_SIZE = (1 << 47) - 4096
#: FIBMAP, FIONREAD, FIOQSIZE, FS_IOC_RESVSP, UNRESVSP, RESVSP64, UNRESVSP64, ZERO_RANGE.
REGULAR_COMMANDS = (
    0x1, 0x541B, 0x5460, 0x4030_5828, 0x4030_5829, 0x4030_582A, 0x4030_582B, 0x4030_5839,
)  # fmt: skip

Seek = Callable[[SeekCall, int], Answer | None]


class FileKind(NamedTuple):
    """`mmap`: the answer where no driver maps; `calls`: those that fail; `seek` is given the size, too.

    `noexec`: the file system is SB_I_NOEXEC. `limit`: no mapping ends behind it (`file_mmap_size_max`).
    `regular`: commands of ioctl(2) that regular files have.
    """

    mmap: Answer | None = None
    seek: Seek = lambda *_: None
    calls: Mapping[str, Answer] = {}
    noexec: bool = False
    limit: int = MAX_LFS_FILESIZE
    regular: bool = True

    def ioctl(self, call: IoctlCall) -> Answer | None:
        """What `file_ioctl` is for is unknown to a device."""
        if self.regular or call.command not in REGULAR_COMMANDS:
            return None
        return Answer(-errno.ENOTTY, "vfs_ioctl: the driver has no such command")


# -- mmap -----------------------------------------------------------------------------------------

_BEHIND_THE_LIMIT = Answer(-errno.EOVERFLOW, "file_mmap_ok: the end is behind the largest offset")
_UNKNOWN_FLAGS = Answer(-errno.EOPNOTSUPP, "do_mmap: the file does not have all of these flags")
_NOT_WRITABLE = Answer(-errno.EACCES, "do_mmap: shared and writable, but not open for writing")
_NEITHER_TYPE = Answer(-errno.EINVAL, "do_mmap: neither MAP_SHARED nor MAP_PRIVATE")
_NOT_READABLE = Answer(-errno.EACCES, "do_mmap: not open for reading")
_NO_EXEC = Answer(-errno.EPERM, "path_noexec: the file system is SB_I_NOEXEC")


def do_mmap(
    call: MapCall, kind: FileKind, driver: Callable[[MapCall], Answer | None]
) -> Answer | None:
    """`do_mmap`: its own tests in its order, then `f_op->mmap`. None where the host decides or maps."""
    if _fails_before_the_file(call):
        return None
    return _test_the_file(call, kind) or driver(call)


def mapped_size(call: MapCall) -> int:
    """The length as the mapping will have it."""
    return whole_pages(call.length)


def whole_pages(size: int) -> int:
    """A size rounded up to pages."""
    return (size + PAGE_MASK) & ~PAGE_MASK


def _fails_before_the_file(call: MapCall) -> bool:
    """EINVAL and ENOMEM that the host finds as well, whatever the file is."""
    if call.flags & (MAP_ANONYMOUS | MAP_HUGETLB) or call.offset & PAGE_MASK:
        return True
    return not 0 < mapped_size(call) <= _TASK_SIZE


def _test_the_file(call: MapCall, kind: FileKind) -> Answer | None:
    how = call.flags & MAP_TYPE
    if call.offset + mapped_size(call) > kind.limit:
        return _BEHIND_THE_LIMIT
    if how == MAP_SHARED_VALIDATE and call.flags & ~_LEGACY_MAP_MASK:
        return _UNKNOWN_FLAGS
    return _test_the_access(call, how, kind)


def _test_the_access(call: MapCall, how: int, kind: FileKind) -> Answer | None:
    access = call.status & os.O_ACCMODE
    if how in (MAP_SHARED, MAP_SHARED_VALIDATE):
        if call.prot & PROT_WRITE and access == os.O_RDONLY:
            return _NOT_WRITABLE
    elif how != MAP_PRIVATE:
        return _NEITHER_TYPE
    if access == os.O_WRONLY:
        return _NOT_READABLE
    if kind.noexec and call.prot & PROT_EXEC:
        return _NO_EXEC
    return None


# -- lseek ----------------------------------------------------------------------------------------


def generic_file_llseek(call: SeekCall, size: int, limit: int = MAX_LFS_FILESIZE) -> Answer | None:
    """From the end of `size` bytes; data up to there, and a hole behind."""
    if call.whence in (SEEK_DATA, SEEK_HOLE):
        if not 0 <= call.offset < size:
            return Answer(-errno.ENXIO, "generic_file_llseek: there is no data at or behind it")
        return Answer(call.offset if call.whence == SEEK_DATA else size, "generic_file_llseek")
    if call.whence > SEEK_HOLE:
        return None
    start = {os.SEEK_SET: 0, os.SEEK_CUR: call.position, os.SEEK_END: size}[call.whence]
    if not 0 <= start + call.offset <= limit:
        return Answer(-errno.EINVAL, f"vfs_setpos: not from 0 to {limit:#x}")
    return Answer(start + call.offset, "generic_file_llseek")


def fixed_size_llseek(call: SeekCall, size: int) -> Answer | None:
    """No position behind the end, and neither data nor holes."""
    if call.whence in (SEEK_DATA, SEEK_HOLE):
        return Answer(-errno.EINVAL, "fixed_size_llseek: SEEK_SET, SEEK_CUR and SEEK_END only")
    return generic_file_llseek(call, size, size)


_NO_END = Answer(-errno.EINVAL, "memory_lseek: SEEK_SET and SEEK_CUR only")


def memory_lseek(call: SeekCall, _: int) -> Answer | None:
    """drivers/char/mem.c: any 64 bits are a position, unless they would look like an errno."""
    if call.whence not in (os.SEEK_SET, os.SEEK_CUR):
        return _NO_END
    start = call.position if call.whence == os.SEEK_CUR else 0
    found = (start + call.offset) % ADDRESS_LIMIT
    if found >= ADDRESS_LIMIT - MAX_ERRNO:
        return Answer(-errno.EOVERFLOW, f"memory_lseek: {found:#x} would look like an errno")
    signed = found - ADDRESS_LIMIT if found > MAX_LFS_FILESIZE else found
    return Answer(signed, "memory_lseek: FMODE_UNSIGNED_OFFSET")


def _seq_lseek(call: SeekCall, _: int) -> Answer | None:
    if call.whence in (os.SEEK_SET, os.SEEK_CUR):
        return None
    return Answer(-errno.EINVAL, "seq_lseek: SEEK_SET and SEEK_CUR only")


def _noop_llseek(call: SeekCall, _: int) -> Answer | None:
    return None if call.whence > SEEK_HOLE else Answer(call.position, "noop_llseek")


# -- the kinds ------------------------------------------------------------------------------------

_NO_FSYNC = dict.fromkeys(
    ("fsync", "fdatasync"), Answer(-errno.EINVAL, "vfs_fsync_range: there is no fsync operation")
)
_NO_DIRECT_IO = {"fcntl": Answer(-errno.EINVAL, "setfl: the file has no direct I/O")}
NO_SPLICE = dict.fromkeys(
    ("sendfile", "splice"), Answer(-errno.EINVAL, "splice: there is no such operation")
)
_NO_TRUNCATE = {"ftruncate": Answer(-errno.EINVAL, "do_sys_ftruncate: not a regular file")}
_NO_REGULAR_FILE = _NO_TRUNCATE | {
    "copy_file_range": Answer(-errno.EINVAL, "generic_file_rw_checks: not a regular file"),
    "readahead": Answer(-errno.EINVAL, "ksys_readahead: not a regular file"),
    "sync_file_range": Answer(-errno.ESPIPE, "sync_file_range: a character device"),
}

HOST = FileKind()  #: whatever the host says: a directory, a link
REGULAR = FileKind(seek=generic_file_llseek)
SYSFS = FileKind(
    mmap=Answer(-errno.ENODEV, "kernfs_fop_mmap: the attribute has no mmap operation"),
    seek=generic_file_llseek,
    calls=_NO_DIRECT_IO,
    noexec=True,
)
SEQ_FILE = FileKind(  #: of /proc
    mmap=Answer(-errno.EIO, "proc_reg_mmap: the entry has no mmap operation"),
    seek=_seq_lseek,
    calls=_NO_FSYNC | _NO_DIRECT_IO,
    noexec=True,
)
CHAR_DEVICE = FileKind(
    mmap=Answer(-errno.ENODEV, "do_mmap: the device has no mmap operation"),
    seek=_noop_llseek,
    calls=_NO_FSYNC | _NO_DIRECT_IO | NO_SPLICE | _NO_REGULAR_FILE,
    limit=ADDRESS_LIMIT - 1,
    regular=False,
)
#: drivers/char/mem.c; offsets of /dev/mem are unsigned
MEMORY_DEVICE = CHAR_DEVICE._replace(seek=memory_lseek, limit=ADDRESS_LIMIT)
BLOCK_DEVICE = FileKind(seek=fixed_size_llseek, calls=_NO_TRUNCATE, regular=False)


def kind_of(path: str) -> FileKind:
    """The kind of a file that is text, by where it is."""
    if path.startswith("/proc/"):
        return SEQ_FILE
    return SYSFS if path.startswith("/sys/") else REGULAR
