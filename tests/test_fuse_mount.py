"""The server against the real kernel: one plain mount, both ways of serving pages."""

import contextlib
import errno
import mmap
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import BAR, HIGH, small_machine
from support import AGENT_SOURCE, Agent, Fault, compiled, wait_for

from fakedev.fuse import mount, wire
from fakedev.fuse.connection import Connection
from fakedev.fuse.service import FORCE_CACHED, Service
from fakedev.model.errors import HostError

PAGE = mmap.PAGESIZE
TOUCH = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
area = mmap.mmap(fd, 2 * mmap.PAGESIZE, offset=int(sys.argv[2], 0))
area[0:6] = b"stored"
print("mapped", flush=True)
sys.stdin.readline()
print(area[mmap.PAGESIZE], flush=True)
print(area[0], flush=True)
"""

POLL = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
area = mmap.mmap(fd, mmap.PAGESIZE, offset=int(sys.argv[2], 0))
last = int.from_bytes(area[0:4], "little")
print("polling", flush=True)
while last < 100:
    now = int.from_bytes(area[0:4], "little")
    if now != last:
        print(now)
    last = now
"""


class Mounted:
    """A small machine on a plain mount."""

    def __init__(self, directory: Path) -> None:
        self.machine = small_machine()
        self.service = Service(self.machine)
        self.directory = directory
        try:
            descriptor = mount.mount(str(directory))
        except HostError as error:
            self.service.close()
            pytest.skip(str(error))
        self.connection: Connection = self.service.attach_plain(descriptor)
        assert self.connection.session.ready.wait(10)
        self.mem = directory / "dev" / "mem"

    def close(self) -> None:
        if self.directory.is_mount():
            mount.unmount(str(self.directory), lazy=True)
        self.connection.wait_closed(10)
        self.service.close()


@pytest.fixture(params=["direct", "cached"])
def mounted(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mounted]:
    monkeypatch.setenv(FORCE_CACHED, "1" if request.param == "cached" else "0")
    found = Mounted(tmp_path)
    if request.param == "direct" and not found.connection.session.direct:
        found.close()
        pytest.skip("this kernel has no mappable direct I/O (needs 6.6)")
    yield found
    found.close()


@pytest.fixture
def mem(mounted: Mounted) -> Iterator[int]:
    descriptor = os.open(mounted.mem, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A process that maps for us: who serves a mount must not touch its own mappings of it.

    (A page fault holds the interpreter's lock, which the worker that could answer it needs.)
    """
    binary = compiled(AGENT_SOURCE, tmp_path_factory.getbasetemp())
    pipe = subprocess.PIPE
    with subprocess.Popen([binary], stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Agent(process.stdin.write, process.stdout.readline)
        process.kill()


def test_the_tree_is_listed_in_order_with_types(mounted: Mounted) -> None:
    with os.scandir(mounted.directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    assert found == [("dev", True), ("proc", True), ("sys", True)]
    status = mounted.mem.stat()
    assert stat.S_ISREG(status.st_mode)
    assert status.st_size == mounted.machine.top
    assert not (mounted.directory / "dev" / "nothing").exists()
    text = (mounted.directory / "proc" / "iomem").read_text()
    assert text == mounted.machine.iomem()


def test_a_read_has_the_errno_of_the_kernel(mounted: Mounted, mem: int) -> None:
    assert os.pread(mem, 4, BAR) == bytes(4)
    with pytest.raises(OSError, match=r".") as caught:
        os.pread(mem, 4, 0x200000)
    direct = mounted.connection.session.direct
    # Through the page cache, newer kernels pass the errno on and older ones make it EIO.
    assert caught.value.errno in ({errno.EPERM} if direct else {errno.EPERM, errno.EIO})
    if direct:
        with pytest.raises(OSError, match="Bad address"):
            os.pread(mem, 4, mounted.machine.top)
    else:
        assert os.pread(mem, 4, mounted.machine.top) == b"", "the end of a cached file"


def test_a_write_has_the_errno_of_the_kernel(mounted: Mounted, mem: int) -> None:
    assert os.pwrite(mem, b"data", BAR) == 4
    assert mounted.machine.peek(f"{BAR:#x}+4") == b"data"
    with pytest.raises(PermissionError):
        os.pwrite(mem, b"data", 0x200000)


def test_every_way_sees_the_same_bytes(mounted: Mounted, agent: Agent) -> None:
    mem = agent.open(str(mounted.mem))
    area = agent.map(mem, BAR, PAGE)
    agent("store", area, 0, 4, 0x1111)
    assert agent("pread", mem, BAR, 2) == b"\x11\x11"
    assert mounted.machine.peek(f"{BAR:#x}+2") == b"\x11\x11"
    agent("pwrite", mem, BAR, "22220000")
    assert agent("load", area, 0, 4) == 0x2222
    mounted.machine.poke(BAR, b"\x33\x33")
    assert agent("load", area, 0, 4) == 0x3333
    assert agent("pread", mem, BAR, 2) == b"\x33\x33"


def test_low_ram_reads_as_zeros_and_maps_for_real(mounted: Mounted, agent: Agent) -> None:
    mounted.machine.poke(0x1000, b"real")
    mem = agent.open(str(mounted.mem))
    assert agent("bytes", agent.map(mem, 0x1000, PAGE), 0, 4) == b"real"
    if mounted.connection.session.direct:
        assert agent("pread", mem, 0x1000, 4) == bytes(4)
        assert agent("pwrite", mem, 0x1000, "6c6f7374") == 4
        assert mounted.machine.peek("0x1000+4") == b"real"


def touch(mounted: Mounted) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TOUCH, str(mounted.mem), hex(BAR)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def test_a_claim_kills_the_mapping_and_spares_its_neighbour(mounted: Mounted) -> None:
    with touch(mounted) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "mapped\n"
        mounted.machine.claim(f"{BAR:#x}+4K", "drv")
        output, _ = child.communicate("\n", timeout=20)
        assert output == "0\n"
        assert child.returncode == -signal.SIGBUS
    assert mounted.machine.peek(f"{BAR:#x}+6") == b"stored", "stores before the claim are kept"
    denied = [event for event in mounted.machine.events if event.kind == "denied"]
    assert len(denied) == 1
    assert "claimed by drv" in denied[0].message


def test_after_a_release_a_new_open_maps_and_the_old_mapping_stays_dead(
    mounted: Mounted, agent: Agent
) -> None:
    old = agent.map(agent.open(str(mounted.mem)), BAR, 2 * PAGE)
    agent("store", old, 8, 4, 77)
    mounted.machine.claim(f"{BAR:#x}+4K", "drv")
    assert agent("load", old, 8, 4) == Fault(signal.SIGBUS, 2, 8)
    mounted.machine.release(f"{BAR:#x}+4K")
    new = agent.map(agent.open(str(mounted.mem)), BAR, PAGE)
    assert agent("load", new, 8, 4) == 77
    assert agent("load", old, 12, 4) == Fault(signal.SIGBUS, 2, 12)
    assert agent("load", old, PAGE, 4) == 0


def test_two_inodes_of_one_memory_agree(mounted: Mounted, agent: Agent) -> None:
    first = agent.open(str(mounted.mem))
    old = agent.map(first, BAR, 3 * PAGE)
    agent("store", old, 0, 4, 1)
    mounted.machine.claim(f"{BAR + PAGE:#x}+4K", "drv")
    mounted.machine.release(f"{BAR + PAGE:#x}+4K")
    new = agent.map(agent.open(str(mounted.mem)), BAR, 3 * PAGE)
    for turn in range(100):
        one, other = (old, new) if turn % 2 else (new, old)
        agent("store", one, 2 * PAGE, 4, turn)
        assert agent("load", other, 2 * PAGE, 4) == turn
        assert agent("pread", first, BAR + 2 * PAGE, 4) == turn.to_bytes(4, "little")


def test_who_polls_a_mapped_word_sees_what_is_written_there(mounted: Mounted) -> None:
    command = [sys.executable, "-c", POLL, str(mounted.mem), hex(BAR)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "polling\n"
        descriptor = os.open(mounted.mem, os.O_RDWR)
        for value in range(1, 101):
            os.pwrite(descriptor, value.to_bytes(4, "little"), BAR)
        os.close(descriptor)
        output, _ = reader.communicate(timeout=30)
    seen = [int(word) for word in output.split()]
    assert seen == sorted(seen)
    assert seen[-1] == 100


def test_a_store_notification_is_seen_by_who_maps_the_page(mounted: Mounted, agent: Agent) -> None:
    area = agent.map(agent.open(str(mounted.mem)), BAR, PAGE)
    assert agent("load", area, 0, 4) == 0
    (alias,) = mounted.service.coherence._aliases
    inodes = mounted.connection.session._inodes._by_id.values()
    (nodeid,) = [inode.nodeid for inode in inodes if inode.alias is alias]
    mounted.connection._notify(wire.store(nodeid, BAR, b"pushed".ljust(PAGE, b"\0")))
    assert agent("bytes", area, 0, 6) == b"pushed"


def test_requests_of_many_sizes_arrive_whole(mounted: Mounted, mem: int) -> None:
    pattern = bytes(range(256)) * (3 << 12)
    os.pwrite(mem, pattern[: 64 << 10], BAR)
    for size in (1, 3, 4095, 4097, 65536):
        assert os.pread(mem, size, BAR) == pattern[:size]
        assert os.pread(mem, size, BAR + 7)[: size - 7] == pattern[7:size]
    if mounted.connection.session.direct:
        with pytest.raises(PermissionError):
            os.pread(mem, 4 << 20, HIGH)


def test_what_the_kernel_forgets_is_forgotten_here(mounted: Mounted) -> None:
    session = mounted.connection.session
    for _ in range(50):
        with (mounted.directory / "proc" / "iomem").open() as file:
            file.read()
    wait_for(lambda: session.open_files() == 0, "RELEASE of every descriptor")
    assert len(session._inodes) < 10


def descriptors() -> list[str]:
    """What the descriptors of this process are."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


def workers() -> list[str]:
    """Threads that serve a mount."""
    return [t.name for t in threading.enumerate() if t.name.startswith("fakedev-worker")]


def test_an_unmount_ends_the_workers_and_closes_the_descriptor(mounted: Mounted) -> None:
    assert "/dev/fuse" in descriptors()
    mount.unmount(str(mounted.directory))
    assert mounted.connection.wait_closed(10)
    assert "/dev/fuse" not in descriptors()
    wait_for(lambda: not workers(), "the workers end")


def test_who_still_maps_when_the_server_goes_is_not_stuck(mounted: Mounted) -> None:
    with touch(mounted) as child:
        assert child.stdout is not None
        child.stdout.readline()
        mount.unmount(str(mounted.directory), lazy=True)
        child.kill()
        child.wait(20)
    assert mounted.connection.wait_closed(20)


def test_mount_points_that_cannot_be_used(
    mounted: Mounted, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(HostError, match="fakedev umount"):
        mount.mount(str(mounted.directory))
    folder = tmp_path_factory.mktemp("points")
    with pytest.raises(HostError, match="No such file"):
        mount.mount(str(folder / "missing"))
    (folder / "file").touch()
    with pytest.raises(HostError, match="not a directory"):
        mount.mount(str(folder / "file"))


def test_no_helper_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="install the package fuse3"):
        mount.find_helper()
