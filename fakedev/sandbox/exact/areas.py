"""What a process has mapped: PROCMAP_QUERY (Linux 6.11), or the text of /proc/TID/maps before it.

Nobody asks a file system of ours for that. It may wait for the lock of the process's mappings, whose
holder may wait for a worker of the server; workers wait for nobody.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_QUERY = struct.Struct("=9Q4I2Q")  # struct procmap_query (include/uapi/linux/fs.h)
_PROCMAP_QUERY = 3 << 30 | _QUERY.size << 16 | ord("f") << 8 | 17
_WRITABLE, _SHARED, _COVERING_OR_NEXT, _FILE_BACKED = 0x2, 0x8, 0x10, 0x20


class Area(NamedTuple):
    """One line of maps; `shared` is VM_MAYSHARE, `device` and `ino` are 0 where there is no file."""

    start: int
    end: int
    writable: bool
    shared: bool
    offset: int
    device: int
    ino: int


def areas(tid: int, start: int, end: int, *, files: bool = False) -> Iterator[Area]:
    """What thread `tid` has mapped in a range of addresses, in order; with `files` only files.

    Nothing where there is no such thread, or it may not be looked at.
    """
    try:
        fd = os.open(b"/proc/%d/maps" % tid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while start < end and (area := _next(fd, start, files=files)) and area.start < end:
            yield area
            start = area.end
    finally:
        os.close(fd)


def _next(fd: int, address: int, *, files: bool) -> Area | None:
    """The area that holds an address, or the first one above it."""
    flags = _COVERING_OR_NEXT | (_FILE_BACKED if files else 0)
    room = bytearray(_QUERY.pack(_QUERY.size, flags, address, *[0] * 12))
    try:
        fcntl.ioctl(fd, _PROCMAP_QUERY, room, True)
    except FileNotFoundError:
        return None
    except OSError:
        return _read(fd, address, files=files)
    _, _, _, start, end, kind, _, offset, ino, major, minor, *_ = _QUERY.unpack(room)
    device = os.makedev(major, minor)
    return Area(start, end, bool(kind & _WRITABLE), bool(kind & _SHARED), offset, device, ino)


def _read(fd: int, address: int, *, files: bool) -> Area | None:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as text:
        found = (parse(line) for line in text)
        return next((a for a in found if a.end > address and (a.ino or not files)), None)


def parse(line: bytes) -> Area:
    """`start-end perms offset major:minor inode path`."""
    span, kind, offset, device, ino, *_ = line.split(None, 5)
    start, _, end = span.partition(b"-")
    major, _, minor = device.partition(b":")
    return Area(
        int(start, 16), int(end, 16), kind[1:2] == b"w", kind[3:4] == b"s", int(offset, 16),
        os.makedev(int(major, 16), int(minor, 16)), int(ino),
    )  # fmt: skip
