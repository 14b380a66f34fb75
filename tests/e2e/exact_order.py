"""Calls that fail before any file is asked: each gives the same for /dev/mem and for the host's /dev/zero."""

import ctypes
import mmap
import os
import sys

FIXED, NOREPLACE, SHARED = 0x10, 0x10_0000, 1
RAM = 0x10_0000  # refused
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]
for name in ("splice", "sendfile", "sync_file_range"):
    getattr(libc, name).restype = ctypes.c_long
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_uint]
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
FAILED = ctypes.c_void_p(-1).value
page = mmap.mmap(-1, 4096)
taken = ctypes.addressof(ctypes.c_char.from_buffer(page))
_, pipe = os.pipe()
room = ctypes.create_string_buffer(64)


def mapped(fd: int, address: int, flags: int) -> int:
    found = libc.mmap(address, 4096, 1, SHARED | flags, fd, RAM)
    return -1 if found == FAILED else 0


CALLS = {
    "a place that is taken": lambda fd: mapped(fd, taken, NOREPLACE),
    "a place that is taken, both": lambda fd: mapped(fd, taken, NOREPLACE | FIXED),
    "no page": lambda fd: mapped(fd, taken + 1, FIXED),
    "no page either": lambda fd: mapped(fd, taken + 1, NOREPLACE),
    "an address of the kernel": lambda fd: mapped(fd, 0xFFFF_8000_0000_0000, FIXED),
    "the first address that is none": lambda fd: mapped(fd, 1 << 47, FIXED),
    "splice of nothing": lambda fd: libc.splice(fd, None, pipe, None, 0, 0),
    "splice of nothing, bad flags": lambda fd: libc.splice(fd, None, pipe, None, 0, 64),
    "splice of nothing nowhere": lambda fd: libc.splice(fd, None, 999, None, 0, 0),
    "sendfile of nothing": lambda fd: libc.sendfile(pipe, fd, None, 0),
    "sync_file_range": lambda fd: libc.sync_file_range(fd, 0, 0, 7),
    "sync_file_range, bad flags": lambda fd: libc.sync_file_range(fd, 0, 0, 8),
    "sync_file_range, a negative offset": lambda fd: libc.sync_file_range(fd, -1, 1, 0),
    "sync_file_range, a negative size": lambda fd: libc.sync_file_range(fd, 1, -1, 0),
    "sync_file_range, too far": lambda fd: libc.sync_file_range(fd, 1, (1 << 63) - 1, 0),
    **{
        f"ioctl {word}": lambda fd, word=word: libc.ioctl(fd, int(word, 16), room)
        for word in sys.argv[1:]
    },
}
files = {path: os.open(path, os.O_RDWR) for path in ("/dev/mem", "/dev/zero")}
for what, call in CALLS.items():
    found = {}
    for path, fd in files.items():
        ctypes.set_errno(0)
        found[path] = call(fd), ctypes.get_errno()
    if found["/dev/mem"] != found["/dev/zero"]:
        print(what, found)
print("done")
