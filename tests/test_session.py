"""One mount without I/O: requests as the kernel sends them, replies as it reads them."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import ClassVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import BAR, small_machine

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.names import Names
from fakedev.fuse.session import Body, Options, Session
from fakedev.fuse.wire import Opcode, Request
from fakedev.model.files import StaticFile
from fakedev.views.node import Refused
from fakedev.views.tree import Tree

ROOT = wire.ROOT_ID


class Kernel:
    """The other end of a session."""

    def __init__(self, **options: object) -> None:
        self.machine = small_machine()
        self.machine.files["/sys/firmware/dmi/tables/DMI"] = StaticFile.regular(b"table", 0o400)
        self.machine.files["/sys/link"] = StaticFile.symlink("firmware/dmi")
        self.notified: list[bytes] = []
        self.coherence = Coherence(self.machine)
        self.session = Session(
            Tree(self.machine), self.coherence, Options(**options), self.notified.append
        )
        self.init()

    def close(self) -> None:
        self.session.close()
        self.coherence.close()

    def send(self, opcode: int, nodeid: int = ROOT, body: bytes = b"", *, uid: int = 0) -> Body:
        return self.session.handle(Request(opcode, 1, nodeid, uid, 0, 1, memoryview(body)))

    def init(self, *, flags: int = 0xFFFFFFFF, flags2: int = 0xFFFFFFFF) -> tuple[int, ...]:
        body = wire.INIT_IN.pack(7, 40, 1 << 20, flags, flags2, b"")
        return wire.INIT_OUT.unpack(self.send(Opcode.INIT, 0, body)[0])

    def lookup(self, *names: str) -> int:
        node = ROOT
        for name in names:
            node = wire.ENTRY_OUT.unpack(self.send(Opcode.LOOKUP, node, name.encode() + b"\0")[0])[
                0
            ]
        return node

    def attr(self, nodeid: int) -> dict[str, int]:
        raw = wire.ATTR_OUT.unpack(self.send(Opcode.GETATTR, nodeid, bytes(16))[0])[3]
        return dict(zip(wire.ATTR.offsets, wire.ATTR.unpack(raw), strict=True))

    def open(self, nodeid: int, flags: int = os.O_RDWR, *, uid: int = 0) -> tuple[int, int]:
        out = self.send(Opcode.OPEN, nodeid, wire.OPEN_IN.pack(flags, 0), uid=uid)
        return wire.OPEN_OUT.unpack(out[0])[:2]

    def read(
        self, nodeid: int, fh: int, offset: int, size: int, flags: int = wire.READ_LOCKOWNER
    ) -> bytes:
        body = wire.READ_IN.pack(fh, offset, size, flags, 0, 0, 0)
        return b"".join(self.send(Opcode.READ, nodeid, body))

    def write(self, nodeid: int, fh: int, offset: int, data: bytes, flags: int = 0) -> int:
        body = wire.WRITE_IN.pack(fh, offset, len(data), flags, 0, 0, 0) + data
        return wire.WRITE_OUT.unpack(self.send(Opcode.WRITE, nodeid, body)[0])[0]

    def release(self, nodeid: int, fh: int) -> None:
        self.send(Opcode.RELEASE, nodeid, wire.RELEASE_IN.pack(fh, 0, 0, 0))

    def names(self, nodeid: int, size: int = 4096) -> list[str]:
        fh = wire.OPEN_OUT.unpack(self.send(Opcode.OPENDIR, nodeid, bytes(8))[0])[0]
        found: list[str] = []
        offset = 0
        while True:
            body = wire.READ_IN.pack(fh, offset, size, 0, 0, 0, 0)
            page = b"".join(self.send(Opcode.READDIR, nodeid, body))
            if not page:
                return found
            at = 0
            while at < len(page):
                _, offset, length, _ = wire.DIRENT.unpack_from(page, at)
                found.append(page[at + 24 : at + 24 + length].decode())
                at += (24 + length + 7) & ~7


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def refusal(call: object, *args: object, **kwargs: object) -> int:
    assert callable(call)
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    return caught.value.errno


def test_init_asks_for_direct_io_that_can_be_mapped(kernel: Kernel) -> None:
    out = kernel.init()
    assert out[0] == 7
    assert out[10] << 32 & wire.DIRECT_IO_ALLOW_MMAP
    assert kernel.session.direct


def test_an_older_kernel_gets_the_cached_fallback(kernel: Kernel) -> None:
    kernel.init(flags2=0)
    assert not kernel.session.direct
    mem = kernel.lookup("dev", "mem")
    first, flags = kernel.open(mem)
    assert flags == 0  # what the kernel may have of it we know nothing of
    kernel.read(mem, first, 0x1000, 4096)
    assert kernel.open(mem)[1] == wire.FOPEN_KEEP_CACHE


def test_a_protocol_that_is_too_old_is_refused(kernel: Kernel) -> None:
    assert refusal(kernel.send, Opcode.INIT, 0, wire.INIT_IN_SHORT.pack(7, 8, 0, 0)) == errno.EPROTO


def test_lookup_finds_files_and_says_so_for_names_that_are_not_there(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    attr = kernel.attr(mem)
    assert stat.S_ISREG(attr["mode"])
    assert attr["size"] == kernel.machine.top
    assert kernel.lookup("dev", "nothing") == 0
    assert refusal(kernel.lookup, "dev", "mem", "below") == errno.ENOTDIR


def test_directories_are_sorted_and_survive_small_pages(kernel: Kernel) -> None:
    assert kernel.names(ROOT) == [".", "..", "dev", "proc", "sys"]
    assert kernel.names(ROOT, size=64) == [".", "..", "dev", "proc", "sys"]


def test_readdirplus_counts_as_lookup_and_forget_gives_it_back(kernel: Kernel) -> None:
    before = len(kernel.session._inodes)
    fh = wire.OPEN_OUT.unpack(kernel.send(Opcode.OPENDIR, ROOT, bytes(8))[0])[0]
    kernel.send(Opcode.READDIRPLUS, ROOT, wire.READ_IN.pack(fh, 0, 8192, 0, 0, 0, 0))
    assert len(kernel.session._inodes) == before + 3
    for nodeid in list(kernel.session._inodes._by_id):
        kernel.send(Opcode.FORGET, nodeid, wire.FORGET_IN.pack(5))
    assert len(kernel.session._inodes) == 1, "only the root is never forgotten"


def test_forget_counts(kernel: Kernel) -> None:
    dev = kernel.lookup("dev")
    assert kernel.lookup("dev") == dev
    body = wire.BATCH_FORGET_IN.pack(1, 0) + wire.FORGET_ONE.pack(dev, 1)
    kernel.send(Opcode.BATCH_FORGET, 0, body)
    kernel.attr(dev)
    kernel.send(Opcode.FORGET, dev, wire.FORGET_IN.pack(1))
    assert refusal(kernel.attr, dev) == errno.ESTALE


def test_links_and_tables(kernel: Kernel) -> None:
    link = kernel.lookup("sys", "link")
    assert kernel.send(Opcode.READLINK, link) == [b"firmware/dmi"]
    table = kernel.lookup("sys", "firmware", "dmi", "tables", "DMI")
    assert kernel.attr(table)["size"] == 5
    fh, flags = kernel.open(table, os.O_RDONLY)
    assert flags & wire.FOPEN_DIRECT_IO
    assert kernel.read(table, fh, 1, 100) == b"able"
    assert refusal(kernel.write, table, fh, 0, b"x") == errno.EIO


def test_a_user_is_stopped_where_the_kernel_stops_one(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    assert refusal(kernel.open, mem, uid=1000) == errno.EACCES
    iomem = kernel.lookup("proc", "iomem")
    fh, _ = kernel.open(iomem, os.O_RDONLY, uid=1000)
    assert kernel.read(iomem, fh, 0, 4096).startswith(b"00000000-00000000 : System RAM")
    assert refusal(kernel.open, iomem, os.O_WRONLY, uid=1000) == errno.EACCES
    access = wire.ACCESS_IN.pack(os.R_OK, 0)
    assert kernel.send(Opcode.ACCESS, mem, access) == []
    assert refusal(kernel.send, Opcode.ACCESS, mem, access, uid=1000) == errno.EACCES


def test_open_rules_of_dev_mem(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    assert refusal(kernel.open, mem, os.O_RDONLY | os.O_DIRECT) == errno.EINVAL
    kernel.open(mem, os.O_RDWR | os.O_TRUNC | os.O_CREAT)


def test_what_a_character_device_cannot_do(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    kernel.open(mem)
    resize = wire.SETATTR_IN.pack(wire.FATTR_SIZE, *[0] * 15)
    assert refusal(kernel.send, Opcode.SETATTR, mem, resize) == errno.EINVAL
    assert refusal(kernel.send, Opcode.FSYNC, mem) == errno.EINVAL
    assert refusal(kernel.send, Opcode.LSEEK, mem) == errno.EINVAL
    assert refusal(kernel.send, Opcode.IOCTL, mem) == errno.ENOTTY
    assert refusal(kernel.send, Opcode.FALLOCATE, mem) == errno.ENODEV
    assert refusal(kernel.send, 9999, mem) == errno.ENOSYS


def test_read_and_fault_differ_in_low_ram(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    fh, _ = kernel.open(mem)
    kernel.machine.poke(0x1000, b"real")
    assert kernel.read(mem, fh, 0x1000, 4) == bytes(4)
    assert kernel.read(mem, fh, 0x1000, 4096, flags=0).startswith(b"real")
    assert refusal(kernel.read, mem, fh, 0x200000, 4) == errno.EPERM


def test_a_write_is_seen_by_the_next_read(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    fh, _ = kernel.open(mem)
    assert kernel.write(mem, fh, BAR, b"data") == 4
    assert kernel.read(mem, fh, BAR, 4) == b"data"


def test_stores_made_before_a_revoke_land_after_it(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    fh, _ = kernel.open(mem)
    kernel.read(mem, fh, BAR, 4096, flags=0)
    kernel.machine.claim(f"{BAR:#x}+4K", "drv")
    page = b"stored before".ljust(4096, b"\0")
    assert kernel.write(mem, 0, BAR, page, flags=wire.WRITE_CACHE) == 4096
    assert kernel.machine.peek(f"{BAR:#x}+6") == b"stored"


def test_a_revoked_page_is_invalidated_and_stays_lost_until_a_new_open(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    fh, _ = kernel.open(mem)
    kernel.read(mem, fh, BAR, 4096, flags=0)
    kernel.machine.claim(f"{BAR:#x}+4K", "drv")
    assert kernel.notified == [wire.inval_inode(mem, BAR, 4096)]
    kernel.machine.release(f"{BAR:#x}+4K")
    assert kernel.notified[1:] == [wire.inval_entry(kernel.lookup("dev"), b"mem")]
    assert refusal(kernel.read, mem, fh, BAR, 4096, flags=0) == errno.EIO
    assert kernel.read(mem, fh, BAR, 4) == bytes(4), "read(2) holds no state"
    again = kernel.lookup("dev", "mem")
    assert again != mem
    fresh, _ = kernel.open(again)
    with pytest.raises(Deferred) as deferred:
        kernel.read(again, fresh, BAR, 4096, flags=0)
    assert deferred.value.wait() == [bytes(4096)]


def test_the_last_close_ends_what_was_lost(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    fh, _ = kernel.open(mem)
    kernel.read(mem, fh, BAR, 4096, flags=0)
    kernel.machine.claim(f"{BAR:#x}+4K", "drv")
    kernel.release(mem, fh)
    kernel.machine.release(f"{BAR:#x}+4K")
    fh, _ = kernel.open(kernel.lookup("dev", "mem"))
    assert kernel.read(mem, fh, BAR, 4096, flags=0) == bytes(4096)


def test_descriptors_are_counted(kernel: Kernel) -> None:
    mem = kernel.lookup("dev", "mem")
    handles = [kernel.open(mem)[0] for _ in range(3)]
    assert kernel.session.open_files() == 3
    for fh in handles:
        kernel.release(mem, fh)
    assert kernel.session.open_files() == 0
    assert refusal(kernel.read, mem, handles[0], 0, 1) == errno.EBADF


@settings(max_examples=300)
@given(st.integers(0, 60), st.integers(0, 12), st.binary(max_size=120))
def test_garbage_bodies_are_refused_and_nothing_else(opcode: int, nodeid: int, body: bytes) -> None:
    with contextlib.suppress(Refused, Deferred):
        GARBAGE.send(opcode, nodeid, body)


GARBAGE = Kernel()
for path in (("dev", "mem"), ("proc", "iomem"), ("sys", "link")):
    GARBAGE.lookup(*path)
GARBAGE.open(GARBAGE.lookup("dev", "mem"))


class Reopened:
    """A mount at which two threads open again (`ExactFiles.again`)."""

    options = Options()
    again: ClassVar[dict[int, int]] = {6: 5, 7: 8}


@pytest.mark.parametrize(("tid", "expected"), [(6, (5, True)), (7, (8, True)), (9, (9, False))])
def test_who_opens_again_is_the_thread_that_said_so(tid: int, expected: tuple[int, bool]) -> None:
    request = Request(Opcode.OPEN, 1, ROOT, 0, 0, tid, memoryview(b""))
    opener = Names._caller(cast("Names", Reopened()), request)
    assert (opener.pid, opener.again) == expected


def test_where_a_file_was_found(kernel: Kernel) -> None:
    way = ("sys", "firmware", "dmi", "tables", "DMI")
    session, node = kernel.session, kernel.lookup(*way)
    (inode,) = session.numbered(kernel.attr(node)["ino"])
    assert session.path(inode) == "/sys/firmware/dmi/tables/DMI"
    session._inodes.forget(inode.parent, 1 << 60)
    assert session.path(inode) == ""
