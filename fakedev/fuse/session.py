"""One mount, without I/O: requests in, replies out. Policy lives in the views; errnos come from them."""

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.inodes import Inode, Inodes, OpenFile
from fakedev.fuse.owners import Alias
from fakedev.fuse.wire import Opcode, Request
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.views.devmem import DevMem, DevMemHandle
from fakedev.views.node import (
    Buffers,
    Directory,
    Node,
    Opener,
    Refused,
    Symlink,
    check_access,
)
from fakedev.views.tree import Tree

MAX_TRANSFER = 1 << 20
# Seconds that the kernel may trust what it was told: whatever changes is invalidated.
LIFETIME = 3600
LOCK_OWNER = wire.READ_LOCKOWNER
WANTED = (
    wire.ASYNC_READ | wire.ATOMIC_O_TRUNC | wire.BIG_WRITES | wire.DO_READDIRPLUS
    | wire.PARALLEL_DIROPS | wire.MAX_PAGES | wire.EXPLICIT_INVAL_DATA
    | wire.INIT_EXT | wire.DIRECT_IO_ALLOW_MMAP
)  # fmt: skip
Body = Sequence[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Options:
    """How one mount is served.

    `uid`, `gid`: the owner that files show. `root_uid`: the caller that counts as root in the
    machine, or None when nobody does. `cached`: do without mappable direct I/O. `readahead`: bytes.
    """

    uid: int = 0
    gid: int = 0
    root_uid: int | None = 0
    cached: bool = False
    readahead: int = 128 << 10


@dataclass(slots=True)
class Session:
    """State of one mount. `handle` may be called by several workers at once.

    `notify` writes a message to the kernel (only the notifier thread calls it, through aliases).
    """

    tree: Tree
    coherence: Coherence
    options: Options
    notify: Callable[[bytes], None]
    refused: Callable[[int, str, Range, Refused], None] = lambda *_: None
    direct: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    _inodes: Inodes = field(init=False)
    _files: dict[int, OpenFile] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _born: int = field(default_factory=lambda: int(time.time()))
    _operations: dict[int, Callable[[Request], Body]] = field(init=False)

    def __post_init__(self) -> None:
        self._inodes = Inodes(self.tree.root)
        self._operations = {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.RELEASE: self._release,
            Opcode.FLUSH: lambda _: [],
            Opcode.FSYNC: self._fsync,
            Opcode.STATFS: self._statfs,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._release,
            Opcode.ACCESS: self._access,
            Opcode.LSEEK: _refuse(errno.EINVAL),
            Opcode.IOCTL: _refuse(errno.ENOTTY),
            Opcode.FALLOCATE: _refuse(errno.ENODEV),
            Opcode.COPY_FILE_RANGE: _refuse(errno.EINVAL),
            Opcode.DESTROY: lambda _: [],
        }

    def handle(self, request: Request) -> Body:
        """The body of the reply. Raises Refused with the errno, or Deferred; never anything else."""
        operation = self._operations.get(request.opcode)
        if operation is None:
            raise Refused(errno.ENOSYS)
        try:
            return operation(request)
        except wire.WireError:
            raise Refused(errno.EINVAL) from None

    def open_files(self) -> int:
        """Descriptors that the kernel has not released."""
        return len(self._files)

    def close(self) -> None:
        """The mount is gone: so are its descriptors and mappings."""
        with self._lock:
            files, self._files = list(self._files.values()), {}
        for file in files:
            self._let_go(file)

    # -- set-up -------------------------------------------------------------------------------

    def _init(self, request: Request) -> Body:
        major, minor, readahead, low = wire.unpack(wire.INIT_IN_SHORT, request.body)
        if major != wire.KERNEL_VERSION or minor < wire.MINIMUM_MINOR:
            raise Refused(errno.EPROTO)
        high = 0
        if low & wire.INIT_EXT:
            high = wire.unpack(wire.INIT_IN, request.body)[4]  # flags2
        flags = (low | high << 32) & WANTED
        if self.options.cached:
            flags &= ~wire.DIRECT_IO_ALLOW_MMAP
        self.direct = bool(flags & wire.DIRECT_IO_ALLOW_MMAP)
        self.ready.set()
        # Without direct I/O the kernel locks the pages of a read or write in its cache; a request that
        # waits for a recall may hold one page, never two.
        transfer = MAX_TRANSFER if self.direct else PAGE_SIZE
        readahead = min(readahead, self.options.readahead) if self.direct else 0
        return [
            wire.INIT_OUT.pack(
                wire.KERNEL_VERSION, min(minor, wire.KERNEL_MINOR_VERSION), readahead,
                flags & 0xFFFFFFFF, 32, 24, transfer, 1, transfer // PAGE_SIZE, 0, flags >> 32, b"",
            )
        ]  # fmt: skip

    # -- names --------------------------------------------------------------------------------

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
        return [self._entry(request.nodeid, name, node)]

    def _entry(self, parent: int, name: str, node: Node) -> bytes:
        with self._lock:
            inode = self._inodes.of(node)
            inode.lookups += 1
            if isinstance(node, DevMem) and inode.alias is None:
                inode.alias = self._alias(inode.nodeid, node, parent, os.fsencode(name))
        return wire.ENTRY_OUT.pack(inode.nodeid, 0, LIFETIME, LIFETIME, 0, 0, self._attr(inode))

    def _alias(self, nodeid: int, node: DevMem, parent: int, name: bytes) -> Alias:
        def invalidate(span: Range) -> None:
            start = max(span.start - node.base, 0)
            end = min(span.end - node.base, wire.OFFSET_LIMIT)  # no file offset is beyond
            if end > start:
                self.notify(wire.inval_inode(nodeid, start, end - start))

        return Alias(
            invalidate=invalidate, expire=lambda: self.notify(wire.inval_entry(parent, name))
        )

    def _attr(self, inode: Inode) -> bytes:
        attr = inode.node.attr()
        blocks = attr.size + 511 >> 9 if stat.S_ISREG(attr.mode) else 0
        born = self._born
        return wire.ATTR.pack(
            inode.ino, attr.size, blocks, born, born, born, 0, 0, 0, attr.mode, attr.nlink,
            self.options.uid, self.options.gid, attr.rdev, 4096, 0,
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
        """Like a character device or a sysfs file: times and modes stay, a size cannot be set."""
        valid = wire.unpack(wire.SETATTR_IN, request.body)[0]
        if valid & wire.FATTR_SIZE:
            raise Refused(errno.EINVAL)
        return self._getattr(request)

    def _readlink(self, request: Request) -> Body:
        node = self._inode(request).node
        if not isinstance(node, Symlink):
            raise Refused(errno.EINVAL)
        return [node.target]

    def _access(self, request: Request) -> Body:
        mask, _ = wire.unpack(wire.ACCESS_IN, request.body)
        check_access(self._inode(request).node.attr(), self._uid(request), mask)
        return []

    def _statfs(self, request: Request) -> Body:
        return [wire.KSTATFS.pack(0, 0, 0, len(self._inodes), 0, 4096, 255, 4096, 0, b"")]

    # -- files --------------------------------------------------------------------------------

    def _uid(self, request: Request) -> int:
        """The caller's uid as the machine sees it."""
        if request.uid == self.options.root_uid:
            return 0
        return request.uid or 65534

    def _open(self, request: Request) -> Body:
        flags, _ = wire.unpack(wire.OPEN_IN, request.body)
        inode = self._inode(request)
        handle = inode.node.open(Opener(request.pid, self._uid(request), flags))
        device = handle if isinstance(handle, DevMemHandle) else None
        if inode.alias is not None:
            self.coherence.opened(inode.alias)
        cached = inode.alias is not None and not self.direct
        return self._new_file(
            OpenFile(inode, handle, device), 0 if cached else wire.FOPEN_DIRECT_IO
        )

    def _new_file(self, file: OpenFile, flags: int) -> Body:
        number = next(self._numbers)
        self._files[number] = file
        return [wire.OPEN_OUT.pack(number, flags, 0)]

    def _file(self, number: int) -> OpenFile:
        file = self._files.get(number)
        if file is None:
            raise Refused(errno.EBADF)
        return file

    def read(self, pid: int, number: int, offset: int, size: int, flags: int) -> Buffers:
        """READ: a read(2), or pages for the page cache. Raises as `handle`."""
        file = self._files.get(number)
        if file is None or file.handle is None:
            raise Refused(errno.EBADF)
        size = min(size, MAX_TRANSFER)
        alias, device = file.inode.alias, file.device
        try:
            if alias is None or device is None:
                return file.handle.read(offset, size)
            # The kernel names a lock owner in a read(2), and none when it fills its page cache.
            if flags & LOCK_OWNER and self.direct:
                return self.coherence.read(alias, device, offset, size)
            return self.coherence.fault(alias, device, offset, size)
        except Refused as error:
            self.refused(pid, "read", Range(offset, max(size, 1)), error)
            raise

    def _read(self, request: Request) -> Body:
        number, offset, size, flags, _, _, _ = wire.unpack(wire.READ_IN, request.body)
        return list(self.read(request.pid, number, offset, size, flags))

    def _write(self, request: Request) -> Body:
        number, offset, size, flags, _, _, _ = wire.unpack(wire.WRITE_IN, request.body)
        data = request.body[wire.WRITE_IN.size : wire.WRITE_IN.size + size]
        if len(data) < size:
            raise Refused(errno.EINVAL)
        if flags & wire.WRITE_CACHE:
            return self._write_back(request, offset, data)
        file = self._file(number)
        alias, handle, device = file.inode.alias, file.handle, file.device
        if handle is None:
            raise Refused(errno.EBADF)
        try:
            if alias is not None and device is not None:
                write = self.coherence.write if self.direct else self.coherence.write_through
                taken = write(alias, device, offset, data)
            else:
                taken = handle.write(offset, data)
        except Refused as error:
            self.refused(request.pid, "write", Range(offset, max(size, 1)), error)
            raise
        except Deferred as deferred:
            raise deferred.mapped(lambda taken: [wire.WRITE_OUT.pack(taken, 0)]) from None
        return [wire.WRITE_OUT.pack(taken, 0)]

    def _write_back(self, request: Request, offset: int, data: memoryview) -> Body:
        """Stores through a mapping. The kernel may pick any descriptor of the inode, even none."""
        node = self._inode(request).node
        if not isinstance(node, DevMem):
            raise Refused(errno.EIO)
        node.stored(offset, data)
        return [wire.WRITE_OUT.pack(len(data), 0)]

    def _fsync(self, request: Request) -> Body:
        """`/dev/mem` has no fsync; msync and fsync answer EINVAL."""
        node = self._inode(request).node
        if isinstance(node, DevMem):
            raise Refused(errno.EINVAL)
        return []

    def _release(self, request: Request) -> Body:
        number = wire.unpack(wire.RELEASE_IN, request.body)[0]
        file = self._files.pop(number, None)
        if file is not None:
            self._let_go(file)
        return []

    def _let_go(self, file: OpenFile) -> None:
        if file.device is not None and file.inode.alias is not None:
            self.coherence.released(file.inode.alias)

    # -- directories --------------------------------------------------------------------------

    def _opendir(self, request: Request) -> Body:
        self._directory(request)
        return self._new_file(OpenFile(self._inode(request)), 0)

    def _listing(self, request: Request, number: int, offset: int) -> list[tuple[str, Node | None]]:
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
            entry = wire.dirent(1, at, _dtype(node), os.fsencode(name))
            if len(out) + len(entry) > size:
                break
            out += entry
        return [bytes(out)]

    def _readdirplus(self, request: Request) -> Body:
        number, offset, size, *_ = wire.unpack(wire.READ_IN, request.body)
        out = bytearray()
        for at, (name, node) in enumerate(self._listing(request, number, offset), offset + 1):
            entry = wire.dirent(1, at, _dtype(node), os.fsencode(name))
            if len(out) + wire.ENTRY_OUT.size + len(entry) > size:
                break
            if node is None:
                out += bytes(wire.ENTRY_OUT.size)
            else:
                out += self._entry(request.nodeid, name, node)
            out += entry
        return [bytes(out)]


def _refuse(number: int) -> Callable[[Request], Body]:
    def refuse(_: Request) -> Body:
        raise Refused(number)

    return refuse


def _dtype(node: Node | None) -> int:
    return stat.S_IFMT(node.attr().mode if node else stat.S_IFDIR) >> 12
