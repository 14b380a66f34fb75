"""The names of one mount, without I/O: inodes, attributes, links, directories."""

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.credentials import Callers
from fakedev.fuse.inodes import Inode, Inodes, OpenFile
from fakedev.fuse.intent import opens
from fakedev.fuse.mappers import Mapped
from fakedev.fuse.owners import Alias
from fakedev.fuse.wire import Request
from fakedev.model.ranges import Range
from fakedev.views.devmem import DevMem
from fakedev.views.live import LiveDirectory
from fakedev.views.node import Directory, Node, Opener, Refused, Symlink
from fakedev.views.physical import PhysicalFile
from fakedev.views.tree import Tree

# Seconds that the kernel may trust what it was told: whatever changes is invalidated.
LIFETIME = 3600
Body = Sequence[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Options:
    """How one mount is served.

    `uid`, `gid`: the owner that files show. `root_uid`: the caller that counts as root in the
    machine, or None when nobody does. `cached`: do without mappable direct I/O. `readahead`: bytes.
    `exact`: somebody answers for what the kernel does not ask us, so files may look like what they are.
    `callers`: who they are, where that is more than a uid.
    """

    uid: int = 0
    gid: int = 0
    root_uid: int | None = 0
    cached: bool = False
    readahead: int = 128 << 10
    exact: bool = False
    callers: Callers | None = None


@dataclass(slots=True)
class Names:
    """Inodes and open files of one mount, and what is asked about names.

    `again`: threads of ours that open a file for a thread that has it open, and for which.
    """

    tree: Tree
    coherence: Coherence
    options: Options
    notify: Callable[[bytes], None]
    again: dict[int, int] = field(init=False, default_factory=dict)
    _inodes: Inodes = field(init=False)
    _files: dict[int, OpenFile] = field(init=False, default_factory=dict)
    _numbers: "itertools.count[int]" = field(init=False, default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _born: int = field(init=False, default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._inodes = Inodes(self.tree.root)

    @property
    def owner(self) -> tuple[int, int, int]:
        """The ids that files show, and the time in seconds that they do."""
        return self.options.uid, self.options.gid, self._born

    def numbered(self, ino: int) -> list[Inode]:
        """Inodes with this number."""
        with self._lock:
            return self._inodes.numbered(ino)

    def path(self, inode: Inode) -> str:
        """Where an inode was found last; empty where it has gone."""
        with self._lock:
            return self._inodes.path(inode)

    def _inode(self, request: Request) -> Inode:
        inode = self._inodes.get(request.nodeid)
        if inode is None:
            raise Refused(errno.ESTALE)
        return inode

    def _directory(self, request: Request) -> Directory:
        node = self._inode(request).node
        if not isinstance(node, Directory):
            raise Refused(errno.ENOTDIR)
        return node

    def _lookup(self, request: Request) -> Body:
        name = wire.name_in(request.body)
        directory = self._directory(request)
        node = directory.lookup(name)
        if node is None:
            return [wire.ENTRY_OUT.pack(0, 0, LIFETIME, LIFETIME, 0, 0, b"")]
        if self._has_look(node):
            if not opens(request.pid):
                return [self._look(node)]
            with self._lock:
                self._inodes.keep_number(node)
            return [self._entry(request.nodeid, name, node, 0)]
        return [self._entry(request.nodeid, name, node)]

    def _has_look(self, node: Node) -> bool:
        return self.options.exact and node.look() is not None

    def _look(self, node: Node) -> bytes:
        """What stat finds behind a name; the kernel asks again each time, because open finds something else."""
        with self._lock:
            inode = self._inodes.look_of(node)
            inode.lookups += 1
        return wire.ENTRY_OUT.pack(inode.nodeid, 0, 0, LIFETIME, 0, 0, self._attr(inode))

    def _entry(self, parent: int, name: str, node: Node, lifetime: int = LIFETIME) -> bytes:
        with self._lock:
            inode = self._inodes.of(node)
            inode.lookups += 1
            inode.parent, inode.name = parent, name
            if isinstance(node, PhysicalFile) and inode.alias is None:
                inode.alias = self._alias(inode.nodeid, node, parent, os.fsencode(name))
                inode.alias.file = Mapped(inode.ino, node.name, node.base, node.attr().size)
                inode.alias.shared = node.shared
        return wire.ENTRY_OUT.pack(inode.nodeid, 0, lifetime, LIFETIME, 0, 0, self._attr(inode))

    def _alias(self, nodeid: int, node: PhysicalFile, parent: int, name: bytes) -> Alias:
        def invalidate(span: Range) -> None:
            start = max(span.start - node.base, 0)
            end = min(span.end - node.base, wire.OFFSET_LIMIT)  # no file offset is beyond
            if end > start:
                self.notify(wire.inval_inode(nodeid, start, end - start))

        return Alias(
            invalidate=invalidate,
            expire=lambda: self.notify(wire.inval_entry(parent, name)),
            revocable=node.revocable,
            mappable=node.mappable,
        )

    def _attr(self, inode: Inode) -> bytes:
        attr = inode.node.attr()
        if inode.look:
            attr = inode.node.look() or attr
        blocks = attr.size + 511 >> 9 if stat.S_ISREG(attr.mode) else 0
        born = self._born
        return wire.ATTR.pack(
            inode.ino, attr.size, blocks, born, born, born, 0, 0, inode.generation, attr.mode,
            attr.nlink, self.options.uid, self.options.gid, attr.rdev, 4096, 0,
        )  # fmt: skip

    def _forget(self, request: Request) -> Body:
        (count,) = wire.unpack(wire.FORGET_IN, request.body)
        with self._lock:
            self._inodes.forget(request.nodeid, count)
        return []

    def _batch_forget(self, request: Request) -> Body:
        count, _ = wire.unpack(wire.BATCH_FORGET_IN, request.body)
        one = wire.FORGET_ONE
        body = request.body[wire.BATCH_FORGET_IN.size :]
        with self._lock:
            for index in range(min(count, len(body) // one.size)):
                self._inodes.forget(*one.unpack_from(body, index * one.size))
        return []

    def _getattr(self, request: Request) -> Body:
        inode = self._inode(request)
        return [wire.ATTR_OUT.pack(LIFETIME, 0, 0, self._attr(inode))]

    def _setattr(self, request: Request) -> Body:
        """Permission bits and owner can be set; times and size stay.

        A character device refuses a size (EINVAL), sysfs takes no notice of it.
        """
        fields = wire.unpack(wire.SETATTR_IN, request.body)
        node = self._inode(request).node
        if fields[0] & wire.FATTR_SIZE and isinstance(node, DevMem):
            raise Refused(errno.EINVAL)
        if fields[0] & (wire.FATTR_UID | wire.FATTR_GID) and self.options.callers is not None:
            uid = fields[wire.SETATTR_UID] if fields[0] & wire.FATTR_UID else -1
            gid = fields[wire.SETATTR_GID] if fields[0] & wire.FATTR_GID else -1
            node.chown(self._caller(request), uid, gid)
        if fields[0] & wire.FATTR_MODE:
            node.chmod(self._caller(request), stat.S_IMODE(fields[wire.SETATTR_MODE]))
        return self._getattr(request)

    def _readlink(self, request: Request) -> Body:
        node = self._inode(request).node
        if not isinstance(node, Symlink):
            raise Refused(errno.EINVAL)
        return [node.target]

    def _access(self, request: Request) -> Body:
        mask, _ = wire.unpack(wire.ACCESS_IN, request.body)
        self._inode(request).node.permit(self._caller(request, real=True), mask)
        return []

    def _statfs(self, request: Request) -> Body:
        return [wire.KSTATFS.pack(0, 0, 0, len(self._inodes), 0, 4096, 255, 4096, 0, b"")]

    def stale(self, path: str, names: Sequence[str]) -> list[bytes]:
        """Forget entries of a directory; returns what the kernel has to be told (`FUSE_NOTIFY_INVAL_ENTRY`)."""
        directory = self.tree.known(path)
        if directory is None:
            return []
        with self._lock:
            messages = list(self._stale(directory, names))
        if isinstance(directory, LiveDirectory):
            directory.forget(names)
        return messages

    def _stale(self, directory: Directory, names: Sequence[str]) -> Iterator[bytes]:
        """Deepest first: what is open below a directory that goes stays in the kernel's cache."""
        inode = self._inodes.known(directory)
        for name in names:
            node = directory.known(name) if isinstance(directory, LiveDirectory) else None
            if isinstance(node, LiveDirectory):
                yield from self._stale(node, node.known_names())
            if inode is not None:
                yield wire.inval_entry(inode.nodeid, os.fsencode(name))

    def _caller(self, request: Request, flags: int = 0, *, real: bool = False) -> Opener:
        """Who asks, as the machine sees it; `real`: by its real ids."""
        again = self.again.get(request.pid)
        if again is not None:
            return Opener(again, 0, flags, again=True)
        uid = 0 if request.uid == self.options.root_uid else request.uid or 65534
        callers = self.options.callers
        if callers is None:
            return Opener(request.pid, uid, flags)
        return callers.opener(request.pid, uid, flags, real=real)

    def _new_file(self, file: OpenFile, flags: int) -> Body:
        number = next(self._numbers)
        self._files[number] = file
        return [wire.OPEN_OUT.pack(number, flags, 0)]

    def _file(self, number: int) -> OpenFile:
        file = self._files.get(number)
        if file is None:
            raise Refused(errno.EBADF)
        return file

    # -- directories --------------------------------------------------------------------------

    def _opendir(self, request: Request) -> Body:
        self._directory(request)
        return self._new_file(OpenFile(self._inode(request)), 0)

    def _listing(
        self, request: Request, number: int, offset: int
    ) -> Sequence[tuple[str, Node | None]]:
        """Names with their nodes from `offset` on; fixed when read from the start."""
        file = self._file(number)
        if offset == 0 or not file.names:
            entries: list[tuple[str, Node | None]] = [(".", None), ("..", None)]
            file.names = entries + list(self._directory(request).entries().items())
        return file.names[offset:]

    def _readdir(self, request: Request) -> Body:
        number, offset, size, *_ = wire.unpack(wire.READ_IN, request.body)
        out = bytearray()
        for at, (name, node) in enumerate(self._listing(request, number, offset), offset + 1):
            entry = wire.dirent(1, at, self._dtype(node), os.fsencode(name))
            if len(out) + len(entry) > size:
                break
            out += entry
        return [bytes(out)]

    def _readdirplus(self, request: Request) -> Body:
        number, offset, size, *_ = wire.unpack(wire.READ_IN, request.body)
        directory = self._directory(request)
        out = bytearray()
        for at, (name, node) in enumerate(self._listing(request, number, offset), offset + 1):
            entry = wire.dirent(1, at, self._dtype(node), os.fsencode(name))
            if len(out) + wire.ENTRY_OUT.size + len(entry) > size:
                break
            # What is gone since the listing began is listed; the kernel must not keep it as a name.
            if node is None or (offset and directory.lookup(name) is not node):
                out += bytes(wire.ENTRY_OUT.size)
            elif self._has_look(node):
                out += self._look(node)
            else:
                out += self._entry(request.nodeid, name, node)
            out += entry
        return [bytes(out)]

    def _dtype(self, node: Node | None) -> int:
        if node is None:
            return stat.S_IFDIR >> 12
        look = node.look() if self.options.exact else None
        return stat.S_IFMT((look or node.attr()).mode) >> 12
