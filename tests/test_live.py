"""Live directories, sysfs files, and what the kernel has to be told when entries change."""

import errno
import os
from collections.abc import Iterator

import pytest
from machines import small_machine

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.jobs import Jobs
from fakedev.fuse.session import Options, Session
from fakedev.fuse.wire import Opcode, Request
from fakedev.model.errors import ControlError
from fakedev.model.files import StaticFile
from fakedev.views.live import Attribute, BinaryFile, LiveDirectory
from fakedev.views.node import Node, Opener, Refused, TextFile
from fakedev.views.tree import Tree

ROOT = Opener(1, 0, os.O_RDWR)
USER = Opener(1, 1000, os.O_RDONLY)


class Bus:
    """Directories that come and go."""

    def __init__(self) -> None:
        self.names = ["a", "b"]
        self.root = LiveDirectory(lambda: self.names, self.make)

    def make(self, name: str) -> Node | None:
        if name not in self.names:
            return None
        return LiveDirectory(lambda: ["vendor"], lambda _: TextFile(lambda _: b"1\n"))


def test_a_name_is_one_node_until_it_is_forgotten() -> None:
    bus = Bus()
    first = bus.root.lookup("a")
    assert bus.root.lookup("a") is first is bus.root.entries()["a"]
    assert bus.root.lookup("c") is None
    bus.root.forget(["a"])
    assert bus.root.lookup("a") is not first


def test_a_dead_directory_is_empty() -> None:
    alive = True
    directory = LiveDirectory(lambda: ["x"], lambda _: TextFile(lambda _: b""), alive=lambda: alive)
    assert list(directory.entries()) == ["x"]
    alive = False
    assert not directory.entries()
    assert directory.lookup("x") is None


def test_files_of_the_profile_stay_beside_live_ones() -> None:
    machine = small_machine()
    machine.files["/sys/bus/a/extra/file"] = StaticFile.text("hello")
    bus = Bus()
    tree = Tree(small_machine())
    tree.directory("/sys").add("bus", bus.root)

    def device(_: str) -> Node:
        return LiveDirectory(lambda: ["vendor"], lambda _: None, extras=tree.extras("/sys/bus/a"))

    bus.make = device  # type: ignore[method-assign]
    live = LiveDirectory(lambda: ["a"], device)
    tree.directory("/sys").add("bus", live)
    tree._directories.clear()
    tree._directories[""] = tree.root
    tree._place("/sys/bus/a/extra/file", TextFile(lambda _: b"hello"))
    for _ in range(2):
        extra = live.lookup("a").lookup("extra")  # type: ignore[union-attr]
        assert list(extra.entries()) == ["file"]
        live.forget(["a"])


def taken(node: Node, data: bytes, opener: Opener = ROOT) -> int:
    return node.open(opener).write(0, memoryview(data))


def code(call: object) -> str:
    with pytest.raises(Refused) as caught:
        call()  # type: ignore[operator]
    return errno.errorcode[caught.value.errno]


def test_text_is_made_at_offset_0_and_kept() -> None:
    count = iter(range(10))
    handle = Attribute(lambda: f"text{next(count)}\n").open(ROOT._replace(flags=os.O_RDONLY))
    assert bytes(handle.read(0, 3)[0]) == b"tex"
    assert bytes(handle.read(3, 100)[0]) == b"t0\n"
    assert bytes(handle.read(6, 100)[0]) == b""
    assert bytes(handle.read(0, 100)[0]) == b"text1\n"


def test_stores_take_a_page_up_to_the_first_nul() -> None:
    seen: list[str] = []
    node = Attribute(None, lambda text, _: seen.append(text), mode=0o200)
    opener = ROOT._replace(flags=os.O_WRONLY)
    assert taken(node, b"1\0junk", opener) == 6
    assert taken(node, b"x" * 5000, opener) == 4096
    assert seen == ["1", "x" * 4096]


def test_modes_bind_root_too_and_removal_kills() -> None:
    node = Attribute(None, lambda *_: None, mode=0o200)
    assert code(lambda: node.open(ROOT)) == "EACCES"
    alive = True
    node = Attribute(lambda: "1\n", mode=0o444, alive=lambda: alive)
    handle = node.open(USER)
    assert code(lambda: handle.write(0, memoryview(b"1"))) == "EIO"
    alive = False
    assert code(lambda: handle.read(0, 10)) == "ENODEV"
    assert code(lambda: node.open(USER)) == "ENODEV"


def test_errors_of_the_model_become_errnos() -> None:
    def refuse(_: str, __: Opener) -> None:
        raise ControlError("busy", errno=errno.EBUSY)

    node = Attribute(None, refuse, mode=0o200)
    assert code(lambda: taken(node, b"1", ROOT._replace(flags=os.O_WRONLY))) == "EBUSY"


class Echo(BinaryFile):
    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        return bytes(range(256))[offset : offset + size]

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        return len(data)


def test_binary_files_clip_and_refuse_as_sysfs_does() -> None:
    handle = Echo(mode=0o600, size=256).open(ROOT)
    assert len(handle.read(250, 100)[0]) == 6
    assert handle.read(256, 4) == handle.read(10, 0) == []
    assert handle.write(250, memoryview(bytes(100))) == 6
    assert code(lambda: handle.write(256, memoryview(b"1"))) == "EFBIG"
    assert code(lambda: BinaryFile(mode=0o600, size=16).open(ROOT).read(0, 4)) == "EIO"


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs("verbs", lambda error: None)
    yield made
    made.close()


def test_the_kernel_is_told_of_known_directories_only(jobs: Jobs) -> None:
    machine = small_machine()
    tree = Tree(machine)
    bus = Bus()
    tree.root.add("bus", bus.root)
    coherence = Coherence(machine)
    session = Session(tree, coherence, Options(), lambda _: None, verbs=jobs)

    def lookup(parent: int, name: bytes) -> int:
        request = Request(Opcode.LOOKUP, 1, parent, 0, 0, 1, memoryview(name + b"\0"))
        return int(wire.ENTRY_OUT.unpack(session.handle(request)[0])[0])

    assert session.stale("/nowhere", ["a"]) == session.stale("/bus", ["a"]) == []
    root = lookup(wire.ROOT_ID, b"bus")
    device = lookup(root, b"a")
    lookup(device, b"vendor")
    assert session.stale("/bus", ["a", "new"]) == [
        wire.inval_entry(device, b"vendor"),
        wire.inval_entry(root, b"a"),
        wire.inval_entry(root, b"new"),
    ]
    assert lookup(root, b"a") != device
    coherence.close()


def test_a_listing_goes_on_after_a_removal_without_names_that_are_gone(jobs: Jobs) -> None:
    """The kernel keeps what READDIRPLUS gives it, and it has been told already that `b` is gone."""
    tree, bus = Tree(small_machine()), Bus()
    tree.root.add("bus", bus.root)
    coherence = Coherence(tree.machine)
    session = Session(tree, coherence, Options(), lambda _: None, verbs=jobs)
    request = Request(Opcode.LOOKUP, 1, wire.ROOT_ID, 0, 0, 1, memoryview(b"bus\0"))
    root = wire.ENTRY_OUT.unpack(session.handle(request)[0])[0]
    body = memoryview(bytes(8))
    handle = wire.OPEN_OUT.unpack(
        session.handle(Request(Opcode.OPENDIR, 1, root, 0, 0, 1, body))[0]
    )[0]
    size = wire.ENTRY_OUT.size + len(wire.dirent(1, 1, 4, b"a"))

    def entry(offset: int) -> tuple[bytes, int]:
        """Name and inode of the entry there."""
        read = wire.READ_IN.pack(handle, offset, size, 0, 0, 0, 0)
        request = Request(Opcode.READDIRPLUS, 1, root, 0, 0, 1, memoryview(read))
        page = bytes(session.handle(request)[0])
        return page[-8:-7], wire.ENTRY_OUT.unpack_from(page)[0]

    entry(0)
    name, nodeid = entry(2)
    assert name == b"a"
    assert nodeid
    bus.names = ["a"]
    session.stale("/bus", ["b"])
    assert entry(3) == (b"b", 0)
    coherence.close()


def test_a_slow_write_is_done_by_the_thread_for_verbs(jobs: Jobs) -> None:
    machine = small_machine()
    tree = Tree(machine)
    ran: list[bool] = []
    store = Attribute(None, lambda *_: ran.append(jobs.current), mode=0o200, verb=True)
    tree.root.add("bind", store)
    coherence = Coherence(machine)
    session = Session(tree, coherence, Options(), lambda _: None, verbs=jobs)
    request = Request(Opcode.LOOKUP, 1, wire.ROOT_ID, 0, 0, 1, memoryview(b"bind\0"))
    node = wire.ENTRY_OUT.unpack(session.handle(request)[0])[0]
    body = memoryview(wire.OPEN_IN.pack(os.O_WRONLY, 0))
    handle = wire.OPEN_OUT.unpack(session.handle(Request(Opcode.OPEN, 1, node, 0, 0, 1, body))[0])[
        0
    ]
    body = memoryview(wire.WRITE_IN.pack(handle, 0, 1, 0, 0, 0, 0) + b"1")
    with pytest.raises(Deferred) as caught:
        session.handle(Request(Opcode.WRITE, 2, node, 0, 0, 1, body))
    assert wire.WRITE_OUT.unpack(caught.value.wait()[0])[0] == 1
    assert ran == [True]
    coherence.close()
