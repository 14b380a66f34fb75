"""A tool that serves a file system itself, and hands the exact layer memory that it never fills.

Prints "mapped", then calls newfstatat(2) with a path in that memory. With `chown` it changes the owner of a
file in it instead, and prints the errno: who answers the look-up asks the exact layer first.
"""

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys

INIT, LOOKUP, GETATTR, OPEN, ATTR = 26, 1, 3, 14, struct.Struct("=6Q10I")
NEWFSTATAT = 262 if platform.machine() == "x86_64" else 79
AT_EMPTY_PATH = 0x1000


def attr(node: int) -> bytes:
    mode = 0o040755 if node == 1 else 0o100644
    return ATTR.pack(node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def serve(fd: int) -> None:
    """Answers all but READ, which it takes and keeps."""
    while True:
        request = os.read(fd, 1 << 20)
        _, code, unique, node = struct.unpack_from("=IIQQ", request)
        os.fstat(0)  # the exact layer is asked
        answers = {
            INIT: struct.pack("=4I2HIIHHI28x", 7, 31, 0, 0, 12, 9, 4096, 1, 1, 0, 0),
            LOOKUP: struct.pack("=4Q2I", 2, 0, 60, 60, 0, 0) + attr(2),
            GETATTR: struct.pack("=QII", 60, 0, 0) + attr(node),
            OPEN: struct.pack("=QII", 1, 0, 0),
        }
        if body := answers.get(code):
            os.write(fd, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)


libc = ctypes.CDLL(None, use_errno=True)
device, (ready, told) = os.open("/dev/mem", os.O_RDONLY), os.pipe()
if not os.fork():
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"own", sys.argv[1].encode(), b"fuse", 0, options):
        sys.exit(os.strerror(ctypes.get_errno()))
    os.write(told, b"x")
    os.setsid()
    serve(fuse)
os.close(told)
assert os.read(ready, 1)
if sys.argv[2:] == ["chown"]:
    libc.chown(f"{sys.argv[1]}/file".encode(), 5, 5)
    print(errno.errorcode[ctypes.get_errno()])
    sys.exit()
served = os.open(f"{sys.argv[1]}/file", os.O_RDWR)
page = mmap.mmap(served, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print("mapped", flush=True)
room = ctypes.create_string_buffer(256)
libc.syscall(ctypes.c_long(NEWFSTATAT), device, ctypes.c_void_p(address), room, AT_EMPTY_PATH)
