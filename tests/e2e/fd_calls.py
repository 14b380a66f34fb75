"""Runs inside the machine: the calls of the recorded phase `fd`, one JSON line each: [case, result, errno, position].

Only the standard library; everything goes to libc directly, because Python's own wrappers refuse what the
kernel is to be asked.
"""

import ctypes
import errno
import json
import mmap
import os
import select
import struct
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
LONG, POINTER, SIZE = ctypes.c_int64, ctypes.c_void_p, ctypes.c_size_t
BIOS = 0xF0000
DEVMEM = "/dev/mem"
_SIGNATURES: dict[str, list[Any]] = {
    "lseek": [ctypes.c_int, LONG, ctypes.c_int],
    "read": [ctypes.c_int, POINTER, SIZE],
    "pread": [ctypes.c_int, POINTER, SIZE, LONG],
    "pwrite": [ctypes.c_int, POINTER, SIZE, LONG],
    "readv": [ctypes.c_int, POINTER, ctypes.c_int],
    "preadv": [ctypes.c_int, POINTER, ctypes.c_int, LONG],
    "sendfile": [ctypes.c_int, ctypes.c_int, POINTER, SIZE],
    "copy_file_range": [ctypes.c_int, POINTER, ctypes.c_int, POINTER, SIZE, ctypes.c_uint],
    "splice": [ctypes.c_int, POINTER, ctypes.c_int, POINTER, SIZE, ctypes.c_uint],
    "fallocate": [ctypes.c_int, ctypes.c_int, LONG, LONG],
    "ftruncate": [ctypes.c_int, LONG],
    "mmap": [POINTER, SIZE, ctypes.c_int, ctypes.c_int, ctypes.c_int, LONG],
    "mprotect": [POINTER, SIZE, ctypes.c_int],
    "munmap": [POINTER, SIZE],
}
_INT_RESULT = {"fallocate", "ftruncate", "mprotect", "munmap"}
FIONREAD, F_SETLK = 0x541B, 6
SEEKS = [
    ("set0", 0, 0), ("set4096", 4096, 0), ("cur+16", 16, 1), ("cur-4112-to-0", -4112, 1),
    ("cur-1-below-0", -1, 1), ("end0", 0, 2), ("set-hi", 2**63 - 1, 0), ("cur+1-past-max", 1, 1),
    ("set-min64", -(2**63), 0), ("set-neg1", -1, 0), ("set-neg4095", -4095, 0),
    ("set-neg4096", -4096, 0), ("set-neg0x100000", -0x100000, 0), ("set-2^52", 2**52, 0),
    ("data", 0, 3), ("hole", 0, 4), ("whence99", 0, 99),
]  # fmt: skip


def call(name: str, *args: Any) -> tuple[int, str | None]:
    """Result and errno of a libc function; a negative offset is a result, not an error."""
    function = getattr(libc, name)
    function.argtypes = _SIGNATURES[name]
    function.restype = ctypes.c_int if name in _INT_RESULT else LONG
    ctypes.set_errno(0)
    result = function(*args)
    return result, errno.errorcode[ctypes.get_errno()] if ctypes.get_errno() else None


def tell(case: str, outcome: tuple[int, str | None], position: int | None = None) -> None:
    print(json.dumps([case, *outcome, position]))


def guarded(action: Callable[[], Any]) -> tuple[int, str | None]:
    """Result (0 for a function without one) and errno of a function of Python."""
    try:
        return int(action() or 0), None
    except OSError as error:
        return -1, errno.errorcode[error.errno or 0]


def positions(fd: int) -> None:
    room = ctypes.create_string_buffer(0x200)
    for name, offset, whence in SEEKS:
        outcome = call("lseek", fd, offset, whence)
        tell(f"lseek-{name}", outcome, call("lseek", fd, 0, 1)[0])
        if name.startswith("set-") or name == "cur+1-past-max":
            tell(f"read16-after-lseek-{name}", call("read", fd, room, 16))
    call("lseek", fd, BIOS, 0)
    tell("read-advances-pos", call("read", fd, room, 10), call("lseek", fd, 0, 1)[0])
    call("lseek", fd, 0xFFF00, 0)
    tell("failed-cross-read-pos", call("read", fd, room, 0x200), call("lseek", fd, 0, 1)[0])


def reads(fd: int) -> None:
    room = ctypes.create_string_buffer(16)
    tell("pread-neg", call("pread", fd, room, 16, -16))
    tell("pread-badptr", call("pread", fd, 8, 16, BIOS))
    tell("pread-badptr-len0", call("pread", fd, 8, 0, BIOS))
    page = call("mmap", None, 8192, 3, 0x22, -1, 0)[0]
    call("munmap", page + 4096, 4096)
    tell("pread-buf-partially-unmapped", call("pread", fd, page + 4096 - 32, 64, BIOS))
    vector = struct.pack("4Q", ctypes.addressof(room), 8, ctypes.addressof(room) + 8, 8)
    tell("preadv-2x8", call("preadv", fd, vector, 2, BIOS))
    call("lseek", fd, BIOS, 0)
    tell("readv-2x8", call("readv", fd, vector, 2))


def transfers(fd: int) -> None:
    target = os.memfd_create("target")
    into, out_of = LONG(BIOS), LONG(0)
    tell("sendfile-from-devmem", call("sendfile", target, fd, ctypes.byref(into), 16))
    into = LONG(BIOS)
    both = ctypes.byref(into), ctypes.byref(out_of)
    tell(
        "copy_file_range-from-devmem", call("copy_file_range", fd, both[0], target, both[1], 16, 0)
    )
    reader, writer = os.pipe()
    into = LONG(BIOS)
    tell("splice-from-devmem", call("splice", fd, ctypes.byref(into), writer, None, 16, 0))
    for number in (target, reader, writer):
        os.close(number)


def others(fd: int) -> None:
    import fcntl

    tell("ioctl-FIONREAD", guarded(lambda: int(bool(fcntl.ioctl(fd, FIONREAD, bytes(4))))))
    tell("fsync", guarded(lambda: os.fsync(fd)))
    tell("ftruncate", call("ftruncate", fd, 0))
    tell("fallocate", call("fallocate", fd, 0, 0, 4096))
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    tell("poll", (len(ready := poll.poll(0)), None), ready[0][1])
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)
    tell("flock-F_SETLK", guarded(lambda: int(not fcntl.fcntl(fd, F_SETLK, lock))))
    advice = os.POSIX_FADV_WILLNEED
    tell("posix_fadvise", guarded(lambda: os.posix_fadvise(fd, 0, 4096, advice)))


def modes() -> None:
    room = ctypes.create_string_buffer(16)
    fd = os.open(DEVMEM, os.O_RDONLY)
    tell("pwrite-on-O_RDONLY", call("pwrite", fd, room, 1, BIOS))
    page = call("mmap", None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, BIOS)[0]
    tell("mprotect-W-on-O_RDONLY-shared", call("mprotect", page, 4096, 3))
    tell("pread-on-O_WRONLY", call("pread", os.open(DEVMEM, os.O_WRONLY), room, 1, BIOS))
    tell("pread-on-O_PATH", call("pread", os.open(DEVMEM, os.O_PATH), room, 1, BIOS))


def main() -> None:
    fd = os.open(DEVMEM, os.O_RDWR)
    positions(fd)
    reads(fd)
    transfers(fd)
    others(fd)
    modes()
    sys.stdout.flush()


main()
