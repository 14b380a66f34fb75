"""`struct stat` of each architecture and `struct statx`, for answers (arch/*/include/uapi/asm/stat.h)."""

import os
import struct
from typing import NamedTuple

_STATX_BASIC_STATS = 0x7FF
_BLOCK = 4096

_X86_64 = struct.Struct("=QQQIII4xQqqqqQqQqQ24x")
_I386 = struct.Struct("=Q4xIIIIIQ4xqIQIIIIIIQ")
_AARCH64 = struct.Struct("=QQIIIIQ8xqi4xqqQqQqQ8x")
_STATX = struct.Struct("=IIQIIIH2xQQQQ")
_STATX_SIZE = 256
_STATX_TIMES = (64, 96, 112)  # access, change, modification; birth stays empty
_STATX_NUMBERS = 128


class Look(NamedTuple):
    """What stat shows of a file: `time` stands for all of its times, in seconds."""

    device: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    time: int


def stat(arch: str, look: Look) -> bytes:
    """`struct stat` of fstat and newfstatat; for i386 the `struct stat64` of fstat64 and fstatat64."""
    device, ino, mode, nlink, uid, gid, rdev, size, time = look
    blocks = size + 511 >> 9
    times = (time, 0) * 3
    if arch == "i386":
        low = ino & 0xFFFF_FFFF
        return _I386.pack(
            device, low, mode, nlink, uid, gid, rdev, size, _BLOCK, blocks, *times, ino
        )
    if arch == "aarch64":
        return _AARCH64.pack(device, ino, mode, nlink, uid, gid, rdev, size, _BLOCK, blocks, *times)
    return _X86_64.pack(device, ino, nlink, mode, uid, gid, rdev, size, _BLOCK, blocks, *times)


def statx(look: Look) -> bytes:
    """`struct statx` with the basic fields."""
    device, ino, mode, nlink, uid, gid, rdev, size, time = look
    room = bytearray(_STATX_SIZE)
    blocks = size + 511 >> 9
    _STATX.pack_into(
        room, 0, _STATX_BASIC_STATS, _BLOCK, 0, nlink, uid, gid, mode, ino, size, blocks, 0
    )
    for offset in _STATX_TIMES:
        struct.pack_into("=q", room, offset, time)
    numbers = os.major(rdev), os.minor(rdev), os.major(device), os.minor(device)
    struct.pack_into("=4I", room, _STATX_NUMBERS, *numbers)
    return bytes(room)
