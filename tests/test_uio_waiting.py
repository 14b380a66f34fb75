"""Reads that wait and polls, as requests to a mount: against a socket that stands for the kernel."""

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from machines import small_machine

from fakedev.devices.pci.uio import End
from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.connection import Connection
from fakedev.fuse.wire import Opcode
from fakedev.views.node import Attr, Buffers, Handle, Node, Opener, TextFile, Waits
from fakedev.views.tree import Tree

KEY = 77
IN = select.POLLIN


class Slow(Node):
    """A file of which a read waits for an end, and says `done` then."""

    def __init__(self) -> None:
        self.mode = 0o600
        self.end = End()
        self.open_files = 0

    def attr(self) -> Attr:
        return Attr(0o100600)

    def open(self, opener: Opener) -> Handle:
        self.open_files += 1
        return SlowHandle(self)


class SlowHandle:
    def __init__(self, node: Slow) -> None:
        self.node = node
        self.until = node.end

    def released(self) -> None:
        self.node.open_files -= 1

    def read(self, offset: int, size: int) -> Buffers:
        if self.until.alive:
            raise Waits(self.until)
        return [memoryview(b"done")]

    def write(self, offset: int, data: memoryview) -> int:
        return 0

    def poll(self) -> int:
        return 0 if self.until.alive else IN


class Kernel:
    """Sends requests, and receives what comes back."""

    def __init__(self) -> None:
        self.slow = Slow()
        tree = Tree(small_machine())
        tree.root.add("slow", self.slow)
        tree.root.add("text", TextFile(lambda _: b"1\n"))
        server, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.coherence = Coherence(tree.machine)
        self.connection = Connection(server.detach(), tree, self.coherence)
        self.unique = 0

    def send(self, opcode: int, nodeid: int, body: bytes) -> int:
        self.unique += 2
        size = wire.IN_HEADER.size + len(body)
        header = wire.IN_HEADER.pack(size, opcode, self.unique, nodeid, 0, 0, os.getpid(), 0, 0)
        self.socket.send(header + body)
        return self.unique

    def receive(self) -> tuple[int, int, bytes]:
        """Errno (or the code of a notification), unique, body."""
        data = self.socket.recv(8192)
        _, error, unique = wire.OUT_HEADER.unpack_from(data)
        return -error if unique else error, unique, data[wire.OUT_HEADER.size :]

    def ask(self, opcode: int, nodeid: int, body: bytes) -> bytes:
        unique = self.send(opcode, nodeid, body)
        number, answered, answer = self.receive()
        assert (number, answered) == (0, unique)
        return answer

    def open(self, name: bytes) -> tuple[int, int]:
        found = self.ask(Opcode.LOOKUP, wire.ROOT_ID, name + b"\0")
        nodeid = wire.ENTRY_OUT.unpack(found)[0]
        opened = self.ask(Opcode.OPEN, nodeid, wire.OPEN_IN.pack(os.O_RDWR, 0))
        return nodeid, wire.OPEN_OUT.unpack(opened)[0]

    def read(self, file: tuple[int, int], status: int = 0) -> int:
        nodeid, number = file
        body = wire.READ_IN.pack(number, 0, 4, wire.READ_LOCKOWNER, 1, status, 0)
        return self.send(Opcode.READ, nodeid, body)

    def interrupt(self, unique: int) -> None:
        self.send(Opcode.INTERRUPT, 0, wire.INTERRUPT_IN.pack(unique))

    def poll(self, file: tuple[int, int], *, notify: bool = True) -> int:
        nodeid, number = file
        answer = self.ask(Opcode.POLL, nodeid, wire.POLL_IN.pack(number, KEY, notify, IN))
        events: int = wire.POLL_OUT.unpack(answer)[0]
        return events

    def release(self, file: tuple[int, int]) -> None:
        nodeid, number = file
        self.ask(Opcode.RELEASE, nodeid, wire.RELEASE_IN.pack(number, 0, 0, 0))

    def silent(self) -> bool:
        """Nothing came behind the answer to one more request."""
        self.ask(Opcode.STATFS, wire.ROOT_ID, b"")
        return not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.socket.close()
        assert self.connection.wait_closed(5)
        self.coherence.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_a_read_waits_and_others_go_on(kernel: Kernel) -> None:
    file = kernel.open(b"slow")
    waiting = kernel.read(file)
    assert kernel.silent()
    kernel.slow.end.come()
    assert kernel.receive() == (0, waiting, b"done")
    assert not kernel.connection._waiting


def test_a_signal_ends_one_read_only(kernel: Kernel) -> None:
    file = kernel.open(b"slow")
    first, second = kernel.read(file), kernel.read(file)
    kernel.interrupt(first)
    assert kernel.receive() == (errno.EINTR, first, b"")
    assert kernel.silent()
    kernel.interrupt(first)  # answered already
    kernel.interrupt(4711)
    assert kernel.silent()
    kernel.slow.end.come()
    assert kernel.receive() == (0, second, b"done")
    assert kernel.silent()


def test_who_must_not_wait_is_told(kernel: Kernel) -> None:
    """O_NONBLOCK of the moment, which fcntl(2) may have set."""
    file = kernel.open(b"slow")
    unique = kernel.read(file, os.O_NONBLOCK)
    assert kernel.receive() == (errno.EAGAIN, unique, b"")
    kernel.slow.end.come()
    unique = kernel.read(file, os.O_NONBLOCK)
    assert kernel.receive() == (0, unique, b"done")


def test_an_interrupt_without_a_number_is_passed_over(kernel: Kernel) -> None:
    kernel.send(Opcode.INTERRUPT, 0, b"short")
    assert kernel.silent()


def test_poll_is_told_of_the_end(kernel: Kernel) -> None:
    file = kernel.open(b"slow")
    assert kernel.poll(file, notify=False) == 0
    assert kernel.poll(file) == kernel.poll(file) == 0
    kernel.slow.end.come()
    assert kernel.receive() == (wire.Notify.POLL, 0, struct.pack("<Q", KEY))
    assert kernel.silent(), "one wake-up for a file, however often it was polled"
    assert kernel.poll(file) == IN


def test_poll_of_a_file_that_never_waits(kernel: Kernel) -> None:
    file = kernel.open(b"text")
    assert kernel.poll(file) == select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM  # fmt: skip


def test_the_end_of_a_file_is_told_to_its_node(kernel: Kernel) -> None:
    first, second = kernel.open(b"slow"), kernel.open(b"slow")
    assert kernel.slow.open_files == 2
    kernel.release(first)
    assert kernel.slow.open_files == 1
    kernel.release(second)
    assert kernel.slow.open_files == 0


def test_a_mount_that_goes_takes_what_waits_along() -> None:
    kernel = Kernel()
    kernel.read(kernel.open(b"slow"))
    assert kernel.silent()
    kernel.close()
    assert not kernel.connection._waiting
    assert kernel.slow.open_files == 0
    kernel.slow.end.come()
