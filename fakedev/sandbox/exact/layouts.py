"""What calls of stat ask for, and the structs of their answers (arch/*/include/uapi/asm/stat.h)."""

import functools
import os
import struct

from fakedev.sandbox.exact.listener import Notification
from fakedev.sandbox.exact.rules import ALL_ONES
from fakedev.views.calls import Shown

_STATX_BASIC_STATS = 0x7FF
_BLOCK = 4096

_X86_64 = struct.Struct("=QQQIII4xQqqqqQqQqQ24x")
_I386 = struct.Struct("=Q4xIIIIIQ4xqIQIIIIIIQ")
_AARCH64 = struct.Struct("=QQIIIIQ8xqi4xqqQqQqQ8x")
_STATX = struct.Struct("=IIQIIIH2xQQQQ")
_STATX_SIZE = 256
_STATX_TIMES = (64, 96, 112)  # access, change, modification; birth stays empty
_STATX_NUMBERS = 128
_STATX_RESERVED = 1 << 31
# What newfstatat and statx know of AT_*; the kernel refuses the others.
_AT_FLAGS = 0x100 | 0x800 | 0x1000 | 0x6000
_AT_SYNC_TYPES = 0x6000


def asked(name: str, waiting: Notification) -> tuple[int, int] | None:
    """What fstat, newfstatat or statx asks for; None where its flags are EINVAL.

    Addresses of a path, which has to be empty (0: there is none), and of room for the answer.
    """
    if name == "fstat":
        return 0, waiting.register_1
    if name == "newfstatat":
        flags, mask, room = waiting.register_3, 0, waiting.register_2
    else:
        flags, mask, room = waiting.register_2, waiting.register_3, waiting.register_4
    if flags & ALL_ONES & ~_AT_FLAGS:
        return None
    if name == "statx" and (flags & _AT_SYNC_TYPES == _AT_SYNC_TYPES or mask & _STATX_RESERVED):
        return None
    return waiting.register_1, room


@functools.lru_cache(maxsize=64)
def packed(name: str, arch: str, device: int, shown: Shown) -> bytes:
    """The struct that a call fills; tools ask for the same again and again."""
    return statx(device, shown) if name == "statx" else stat(arch, device, shown)


def stat(arch: str, device: int, shown: Shown) -> bytes:
    """`struct stat` of fstat and newfstatat; for i386 the `struct stat64` of fstat64 and fstatat64."""
    ino, mode, nlink, uid, gid, rdev, size, time = shown
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


def statx(device: int, shown: Shown) -> bytes:
    """`struct statx` with the basic fields."""
    ino, mode, nlink, uid, gid, rdev, size, time = shown
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
