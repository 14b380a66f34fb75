"""Tools whose memory is a page of a file system that another tool serves, which makes looked-at calls itself.

    exact_stuck.py DIRECTORY COUNT answered|killed

COUNT processes call fstat(2) with a buffer in such a page. The server takes all their READs before it answers
one, and asks the exact layer each time. Others go on meanwhile. Then the READs are answered, or the
processes are killed before. Prints "done".
"""

import ctypes
import mmap
import os
import select
import signal
import stat
import struct
import sys

INIT, LOOKUP, GETATTR, OPEN, READ, ATTR = 26, 1, 3, 14, 15, struct.Struct("=6Q10I")
SILENT = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
ENOSYS, KEEP_CACHE = 38, 2
PAGE = 4096
folder, count, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)


def attr(node: int) -> bytes:
    mode = 0o040755 if node == 1 else 0o100644
    return ATTR.pack(node, PAGE * count, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def serve(fd: int) -> None:
    waiting: list[int] = []

    def reply(unique: int, body: bytes, error: int = 0) -> None:
        os.write(fd, struct.pack("=IiQ", 16 + len(body), -error, unique) + body)

    while True:
        found, _, _ = select.select([fd, let_go], [], [])
        if let_go in found and os.read(let_go, 1):
            for unique in waiting:
                reply(unique, bytes(PAGE))
            waiting.clear()
        if fd not in found:
            continue
        _, code, unique, node = struct.unpack_from("=IIQQ", os.read(fd, 1 << 20))
        os.fstat(0)  # the exact layer is asked
        answers = {
            INIT: struct.pack("=4I2HIIHHI28x", 7, 31, 0, 0, 12, 9, PAGE, 1, 1, 0, 0),
            LOOKUP: struct.pack("=4Q2I", 2, 0, 60, 60, 0, 0) + attr(2),
            GETATTR: struct.pack("=QII", 60, 0, 0) + attr(node),
            OPEN: struct.pack("=QII", 1, KEEP_CACHE, 0),  # else it waits for pages that are read
        }
        if code == READ:
            waiting.append(unique)
            os.write(told, b"r")
        elif code in answers:
            reply(unique, answers[code])
        elif code not in SILENT:
            reply(unique, b"", ENOSYS)


def look_into(page: int) -> None:
    """fstat(2) of /dev/mem into a page of the file."""
    served = os.open(f"{folder}/file", os.O_RDWR)
    room = mmap.mmap(served, PAGE, mmap.MAP_PRIVATE, offset=PAGE * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    result = libc.fstat(device, ctypes.c_void_p(address))
    shown = os.fstat(device)
    assert result == 0, os.strerror(ctypes.get_errno())
    assert struct.pack("=Q", shown.st_ino) == room[8:16]
    os._exit(0)


(ready, told), (let_go, go) = os.pipe(), os.pipe()
device = os.open("/dev/mem", os.O_RDONLY)
if not os.fork():
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"own", folder.encode(), b"fuse", 0, options):
        sys.exit(os.strerror(ctypes.get_errno()))
    os.write(told, b"m")
    serve(fuse)
os.read(ready, 1)
tools = []
for number in range(count):
    tools.append(os.fork())
    if not tools[-1]:
        look_into(number)
for _ in range(count):
    assert os.read(ready, 1) == b"r"  # one more thread of the supervisor waits for us
assert stat.S_ISCHR(os.fstat(device).st_mode)
if how == "killed":
    for tool in tools:
        os.kill(tool, signal.SIGKILL)
else:
    os.write(go, b"x")
ends = [os.waitpid(tool, 0)[1] for tool in tools]
assert ends == [signal.SIGKILL if how == "killed" else 0] * count, ends
assert stat.S_ISCHR(os.fstat(device).st_mode)
os.write(go, b"x")
print("done", flush=True)
