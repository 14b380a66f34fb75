"""The buffers of a read(2) or write(2) that waits for us: /proc/TID/syscall, and the caller's memory.

The thread sleeps in its call, so number, arguments and position stay as they are. Memory of a process is
behind its mmap lock, whose holder may wait for an answer of ours: nothing of this is for a worker.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from fakedev.fuse.intent import system_call

UIO_MAXIOV = 1024
_ALL_ONES = (1 << 64) - 1
_WORDS = 9  # number, six arguments, stack pointer, program counter

_libc: Any = ctypes.CDLL(None)
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p,
                          ctypes.c_ulong, ctypes.c_ulong]  # fmt: skip
    _function.restype = ctypes.c_ssize_t
_AREA = struct.Struct("@PN")  # struct iovec


class Segment(NamedTuple):
    """A buffer, or a part of one."""

    address: int
    size: int


class _Call(NamedTuple):
    """`bits`: the width of a pointer. `vector`: it passes a struct iovec. `at`: it passes a position."""

    bits: int
    vector: bool
    at: bool


def _table(bits: int, plain: int, plain_at: int, vector: int, *vectors_at: int) -> dict[int, _Call]:
    return {
        plain: _Call(bits, False, False),
        plain_at: _Call(bits, False, True),
        vector: _Call(bits, True, False),
        **dict.fromkeys(vectors_at, _Call(bits, True, True)),
    }


# read pread64 readv preadv preadv2, and the same of write. A number that is one of these in the table of
# x86-64 and another call in that of i386, or the reverse, is the one that can wait for such a request.
_READS = {
    "x86_64": _table(64, 0, 17, 19, 295, 327) | _table(32, 3, 180, 145, 333, 378),
    "aarch64": _table(64, 63, 67, 65, 69, 286),
}
_WRITES = {
    "x86_64": _table(64, 1, 18, 20, 296, 328) | _table(32, 4, 181, 146, 334, 379),
    "aarch64": _table(64, 64, 68, 66, 70, 287),
}
READS: dict[int, _Call] = _READS.get(platform.machine(), {})
WRITES: dict[int, _Call] = _WRITES.get(platform.machine(), {})


def segments(calls: dict[int, _Call], tid: int, offset: int, size: int) -> list[Segment]:
    """Where the bytes of a request go to or come from, piece by piece; empty where nobody can tell."""
    words = system_call(tid)
    if len(words) != _WORDS or int(words[-1], 16) == 0:
        return []  # gone, or a worker of io_uring: it has no program counter, and somebody else's arguments
    call = calls.get(int(words[0]))
    if call is None:
        return []
    arguments = [int(word, 16) for word in words[1:7]]
    whole = _whole(call, tid, arguments)
    if sum(count for _, count in whole) == size:
        return [segment for segment in whole if segment.size]
    # The kernel made several requests of it, or found that a part of the buffer is not there.
    done = offset - _position(call, tid, arguments)
    pieces = list(cut(whole, done, size)) if done >= 0 else []
    return pieces if sum(count for _, count in pieces) == size else []


def cut(whole: Iterable[Segment], skip: int, size: int) -> Iterator[Segment]:
    """`size` bytes of a list of buffers, behind the first `skip`."""
    for address, count in whole:
        part = min(count - skip, size)
        if part > 0:
            yield Segment(address + skip & _ALL_ONES, part)
            size -= part
        skip = max(skip - count, 0)


def peek(tid: int, address: int, size: int) -> bytes:
    """Bytes of the memory of a thread; fewer where it has no more."""
    room = ctypes.create_string_buffer(size)
    copied = _copy(_libc.process_vm_readv, tid, room, address, size)
    return room.raw[: max(0, copied)]


def put(tid: int, address: int, data: bytes) -> None:
    """Put bytes into the memory of a thread, as far as it may be written."""
    _copy(_libc.process_vm_writev, tid, ctypes.c_char_p(data), address, len(data))


def _copy(function: Any, tid: int, room: Any, address: int, size: int) -> int:
    here = _AREA.pack(ctypes.cast(room, ctypes.c_void_p).value, size)
    return int(function(tid, here, 1, _AREA.pack(address, size), 1, 0))


def _whole(call: _Call, tid: int, arguments: list[int]) -> list[Segment]:
    _, address, count = arguments[:3]
    if not call.vector:
        return [Segment(address, count)]
    layout = struct.Struct("=II" if call.bits == 32 else "=QQ")
    vector = peek(tid, address, min(count, UIO_MAXIOV) * layout.size)
    full = len(vector) // layout.size * layout.size
    return [Segment(*words) for words in layout.iter_unpack(vector[:full])]


def _position(call: _Call, tid: int, arguments: list[int]) -> int:
    """Where in the file the call begins; that of the descriptor stays until it ends."""
    low, high = arguments[3:5]
    position = low | high << 32 if call.bits == 32 else low
    if call.at and position != _ALL_ONES:  # -1: preadv2 and pwritev2 without one
        return position
    try:
        file = os.open(f"/proc/{tid}/fdinfo/{arguments[0] & 0x7FFF_FFFF}", os.O_RDONLY)
    except OSError:
        return _ALL_ONES
    try:
        return int(os.read(file, 64).split(None, 2)[1])  # pos: N
    finally:
        os.close(file)
