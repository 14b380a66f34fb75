"""What other threads than the workers write to a mount, against a socket that stands for the kernel."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from machines import small_machine

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.connection import Connection
from fakedev.fuse.wire import Opcode, Request
from fakedev.views.live import LiveDirectory
from fakedev.views.node import TextFile
from fakedev.views.tree import Tree


class Mount:
    """A connection, and the other end of it."""

    def __init__(self) -> None:
        tree = Tree(small_machine())
        live = LiveDirectory(lambda: ["a"], lambda _: TextFile(lambda _: b"1\n"))
        tree.root.add("bus", live)
        server, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fd = server.detach()
        self.coherence = Coherence(tree.machine)
        self.connection = Connection(self.fd, tree, self.coherence)

    def lookup(self, name: bytes) -> int:
        request = Request(Opcode.LOOKUP, 1, wire.ROOT_ID, 0, 0, 1, memoryview(name + b"\0"))
        nodeid: int = wire.ENTRY_OUT.unpack(self.connection.session.handle(request)[0])[0]
        return nodeid

    def unmount(self) -> None:
        self.kernel.close()
        assert self.connection.wait_closed(5)


@pytest.fixture
def mount() -> Iterator[Mount]:
    mount = Mount()
    yield mount
    mount.unmount()
    mount.coherence.close()


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


def test_names_are_dropped_while_the_notifier_is_busy(mount: Mount) -> None:
    """The kernel waits for who lists the directory, who may wait for a page, so for the notifier."""
    bus = mount.lookup(b"bus")
    free = threading.Event()
    mount.coherence.submit(lambda: assert_set(free))
    telling = threading.Thread(target=mount.connection.names_changed, args=("/bus", ["a"]))
    telling.start()
    telling.join(5)
    told = not telling.is_alive()
    free.set()
    telling.join()
    assert told
    assert mount.kernel.recv(4096) == wire.inval_entry(bus, b"a")


def test_the_descriptor_is_not_given_away_while_somebody_writes(mount: Mount) -> None:
    assert mount.connection._hold()
    mount.unmount()
    os.fstat(mount.fd)
    assert not mount.connection._hold()
    mount.connection._let_go()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(mount.fd)
    mount.connection.names_changed("/", ["bus"])
