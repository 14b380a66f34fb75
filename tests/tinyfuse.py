"""A throw-away FUSE server: just enough of the protocol to try the sandbox on its own."""

import contextlib
import errno
import os
import select
import stat
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fakedev.fuse.credentials import Callers
from fakedev.sandbox.protocols import HostEntry, Kind

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_FORGET, _BATCH_FORGET, _INTERRUPT = 2, 42, 36
_TTL = 3600


@dataclass
class Node:
    """A file, directory or link."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    rdev: int = 0
    target: str = ""
    children: dict[str, "Node"] = field(default_factory=dict)
    opaque: bool = False
    merge: bool = False

    @property
    def kind(self) -> Kind:
        if stat.S_ISDIR(self.mode):
            return Kind.DIRECTORY
        return Kind.SYMLINK if stat.S_ISLNK(self.mode) else Kind.FILE


def directory(mode: int = 0o755) -> Node:
    return Node(stat.S_IFDIR | mode)


def make(value: Any) -> Node:
    """bytes or str: a file; `("link", target)`; None: a directory."""
    if value is None:
        return directory()
    if isinstance(value, tuple):
        return Node(stat.S_IFLNK | 0o777, target=value[1])
    data = value.encode() if isinstance(value, str) else value
    return Node(stat.S_IFREG | 0o644, bytearray(data))


class TinyService:
    """A tree from `{path: value}`, in the shape that the sandbox expects of the real one.

    `opaque` are directories of it that are opaque, `merged` those that are to merge (see `Entry`).
    """

    def __init__(
        self, files: dict[str, Any], *, opaque: Iterable[str] = (), merged: Iterable[str] = ()
    ) -> None:
        self.root = directory()
        self.listing: dict[str, Node] = {}
        self.virtual = set(files)
        for path, value in files.items():
            self.add(path, value)
        for path in opaque:
            self._directory(path).opaque = True
        for path in merged:
            self._directory(path).merge = True
        self.connections: list[TinyConnection] = []
        self.attached: list[tuple[bool, int, int]] = []

    def add(self, path: str, value: Any) -> None:
        *parents, name = path.strip("/").split("/")
        self.walk(parents).children[name] = self.listing[path] = make(value)

    def _directory(self, path: str) -> Node:
        self.listing[path] = self.walk(path.strip("/").split("/"))
        return self.listing[path]

    def walk(self, parts: list[str]) -> Node:
        node = self.root
        for part in parts:
            node = node.children.setdefault(part, directory())
        return node

    def tree_listing(self) -> dict[str, Node]:
        return self.listing

    def shadow(self, path: str, entries: tuple[HostEntry, ...], *, mode: int) -> None:
        node = self.walk(path.strip("/").split("/"))
        node.mode = stat.S_IFDIR | mode
        for entry in entries:
            node.children[entry.name] = Node(entry.mode, rdev=entry.rdev, target=entry.target)

    def prepare(self) -> None:
        pass

    def attach(
        self,
        fuse_fd: int,
        *,
        as_root: bool,
        uid: int,
        gid: int,
        namespace: str = "",
        exact: bool = False,
    ) -> "TinyConnection":
        self.attached.append((as_root, uid, gid))
        connection = TinyConnection(self.root, fuse_fd, uid, gid)
        self.connections.append(connection)
        return connection


class NoFiles:
    """Nothing to answer for."""

    callers = Callers("")

    def file(self, ino: int) -> None:
        return None

    def failed(self, error: Exception) -> None:
        raise error


class TinyConnection:
    """One thread that answers one mount."""

    files = NoFiles()

    def __init__(self, root: Node, fuse_fd: int, uid: int, gid: int) -> None:
        self._fd, self._uid, self._gid = fuse_fd, uid, gid
        self._nodes: dict[int, Node] = {1: root}
        self._ids = {id(root): 1}
        self._wake, self._stop = os.pipe2(os.O_CLOEXEC)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._stop >= 0:
            os.close(self._stop)
            self._thread.join()
            os.close(self._wake)
            os.close(self._fd)
            self._stop = -1

    def wait_closed(self, timeout: float) -> bool:
        return self._ended.wait(timeout)

    def _serve(self) -> None:
        os.set_blocking(self._fd, False)
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while all(descriptor != self._wake for descriptor, _ in poll.poll()):
            try:
                message = os.read(self._fd, 1 << 18)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    break
                continue
            self._answer(message)
        self._ended.set()

    def _answer(self, message: bytes) -> None:
        length, opcode, unique, nodeid, *_ = _IN.unpack_from(message)
        if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            return
        handler = _HANDLERS.get(opcode)
        try:
            reply = handler(self, nodeid, message[40:length]) if handler else None
            number = errno.ENOSYS if reply is None else 0
        except OSError as error:
            reply, number = None, error.errno or errno.EIO
        body = reply or b""
        with contextlib.suppress(OSError):
            os.write(self._fd, _OUT.pack(16 + len(body), -number, unique) + body)

    def _number(self, node: Node) -> int:
        number = self._ids.setdefault(id(node), len(self._ids) + 1)
        self._nodes[number] = node
        return number

    def _attr(self, node: Node) -> bytes:
        links = 2 if stat.S_ISDIR(node.mode) else 1
        size = len(node.data) or len(node.target)
        ids = (self._uid, self._gid)
        number = self._number(node)
        return _ATTR.pack(number, size, 0, *[0] * 6, node.mode, links, *ids, node.rdev, 4096, 0)

    def _entry(self, node: Node) -> bytes:
        return struct.pack("<QQQQII", self._number(node), 0, _TTL, _TTL, 0, 0) + self._attr(node)

    def init(self, _nodeid: int, body: bytes) -> bytes:
        (minor,) = struct.unpack_from("<I", body, 4)
        flags = 1 | 1 << 5 | 1 << 13  # async read, big writes, readdirplus
        head = struct.pack("<IIIIHHII", 7, min(minor, 38), 1 << 17, flags, 16, 12, 1 << 17, 1)
        return head.ljust(64, b"\0")

    def lookup(self, nodeid: int, body: bytes) -> bytes:
        found = self._nodes[nodeid].children.get(body[:-1].decode())
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "")
        return self._entry(found)

    def getattr(self, nodeid: int, _body: bytes) -> bytes:
        return struct.pack("<QII", _TTL, 0, 0) + self._attr(self._nodes[nodeid])

    def readlink(self, nodeid: int, _body: bytes) -> bytes:
        return self._nodes[nodeid].target.encode()

    def open(self, _nodeid: int, _body: bytes) -> bytes:
        return struct.pack("<QIi", 0, 0, 0)

    def read(self, nodeid: int, body: bytes) -> bytes:
        _handle, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self._nodes[nodeid].data[offset : offset + size])

    def write(self, nodeid: int, body: bytes) -> bytes:
        _handle, offset, size = struct.unpack_from("<QQI", body)
        self._nodes[nodeid].data[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)

    def readdir(self, nodeid: int, body: bytes, *, plus: bool = False) -> bytes:
        _handle, offset, size = struct.unpack_from("<QQI", body)
        out = b""
        children = sorted(self._nodes[nodeid].children.items())
        for position, (name, node) in list(enumerate(children, 1))[offset:]:
            raw = name.encode()
            head = struct.pack("<QQII", self._number(node), position, len(raw), node.mode >> 12)
            entry = (self._entry(node) if plus else b"") + head + raw
            entry += bytes(-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    def readdirplus(self, nodeid: int, body: bytes) -> bytes:
        return self.readdir(nodeid, body, plus=True)

    def done(self, _nodeid: int, _body: bytes) -> bytes:
        return b""

    def statfs(self, _nodeid: int, _body: bytes) -> bytes:
        return struct.pack("<5Q4I24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)


_HANDLERS: dict[int, Any] = {
    1: TinyConnection.lookup,
    3: TinyConnection.getattr,
    4: TinyConnection.getattr,
    5: TinyConnection.readlink,
    14: TinyConnection.open,
    15: TinyConnection.read,
    16: TinyConnection.write,
    17: TinyConnection.statfs,
    18: TinyConnection.done,
    25: TinyConnection.done,
    26: TinyConnection.init,
    27: TinyConnection.open,
    28: TinyConnection.readdir,
    29: TinyConnection.done,
    44: TinyConnection.readdirplus,
}
