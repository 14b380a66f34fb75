"""Phase `cross-write`: reads and writes of /dev/mem that begin in an allowed BAR and end in a claimed one."""

import struct

from truth.actors import Actors
from truth.probe import Record
from truth.tree import PAGE

IVSHMEM, VGA = (0x1AF4, 0x1110), (0x1234, 0x1111)


def run(actors: Actors, records: list[Record]) -> None:
    root, _ = actors.probes(records, "cross-write")
    actors.module("modprobe", "bochs")
    vga = root.tree.find(*VGA)
    end = root.tree.resources(root.tree.find(*IVSHMEM))[2][1] + 1
    assert end == root.tree.resources(vga)[0][0]
    root.driver_state("state", vga, 0)
    fd = root.fd("/dev/mem")
    root.map_and_touch("before(mmap last page of allowed)", fd, end - PAGE, PAGE)
    root.pread("pread-cross-into-claimed", fd, end - 8, 16)
    root.write("pwrite-cross-into-claimed", "pwrite", fd, b"\x77" * 16, end - 8)
    root.pread("readback-of-allowed-part", fd, end - 8, 8)
    root.caller.call("lseek", fd, end - 8, 0)
    done = root.caller.call("write", fd, root.caller.put(0, b"\x77" * 16), 16)
    after = root.caller.call("lseek", fd, 0, 1).value
    root.record("write-cross-fpos", "write", done, pos_after=hex(after))
    root.map_and_touch("mmap-cross-into-claimed", fd, end - PAGE, 2 * PAGE)
    base = root.caller.number("room")
    vector = struct.pack("<4Q", base, 8, base + 8, 8)
    for name in ("pwritev", "preadv"):
        pointer = root.caller.put(0x1000, vector)
        root.record(f"{name}-2x8-cross", name, root.caller.call(name, fd, pointer, 2, end - 8))
    root.close(fd)
