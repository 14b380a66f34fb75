"""One mount, without I/O: requests in, replies out. Policy lives in the views; errnos come from them."""

import errno
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from fakedev.fuse import wire
from fakedev.fuse.apart import apart
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.inodes import OpenFile
from fakedev.fuse.jobs import Jobs
from fakedev.fuse.mappers import comm_of
from fakedev.fuse.names import Body, Names, Options
from fakedev.fuse.pieces import after, read_in_pieces, write_in_pieces
from fakedev.fuse.populate import Populating
from fakedev.fuse.wire import Opcode, Request
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.views.devmem import DevMem
from fakedev.views.node import Buffers, Handle, Partly, Refused
from fakedev.views.physical import PhysicalFile, PhysicalHandle

MAX_TRANSFER = 1 << 20
# What the directories of sysfs have no operation for (vfs_mkdir and its like).
NO_SUCH_OPERATION = (
    Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME,
    Opcode.RENAME2, Opcode.LINK,
)  # fmt: skip
LOCK_OWNER = wire.READ_LOCKOWNER
ALWAYS_READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
WANTED = (
    wire.ASYNC_READ | wire.ATOMIC_O_TRUNC | wire.BIG_WRITES | wire.DO_READDIRPLUS
    | wire.PARALLEL_DIROPS | wire.MAX_PAGES | wire.CACHE_SYMLINKS | wire.EXPLICIT_INVAL_DATA
    | wire.INIT_EXT | wire.DIRECT_IO_ALLOW_MMAP
)  # fmt: skip


@dataclass(slots=True)
class Session(Names):
    """State of one mount. `handle` may be called by several workers at once.

    `notify` writes a message to the kernel (only the notifier thread calls it). `verbs` does writes
    that take their time; without it they are done at once.
    """

    refused: Callable[[int, str, Range, Refused], None] = lambda *_: None
    verbs: Jobs | None = None
    direct: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    _operations: dict[int, Callable[[Request], Body]] = field(init=False)
    _populating: Populating = field(init=False)

    def __post_init__(self) -> None:
        Names.__post_init__(self)
        self._populating = Populating(self.coherence.submit, self.notify)
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
            Opcode.FSYNC: self._fsync,
            Opcode.STATFS: self._statfs,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._release,
            Opcode.ACCESS: self._access,
            Opcode.CREATE: _refuse(errno.EACCES),
            **dict.fromkeys(NO_SUCH_OPERATION, _refuse(errno.EPERM)),
            Opcode.POLL: self._poll,
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

    # -- files --------------------------------------------------------------------------------

    def _open(self, request: Request) -> Body:
        flags, _ = wire.unpack(wire.OPEN_IN, request.body)
        inode = self._inode(request)
        caller = self._caller(request, flags)
        handle = inode.node.open(caller)
        device = cast("PhysicalHandle", handle) if isinstance(inode.node, PhysicalFile) else None
        file = OpenFile(inode, handle, device)
        known = True
        if inode.alias is not None:
            known = self.coherence.opened(inode.alias)
            inode.alias.openers[id(file)] = (caller.pid, comm_of(caller.pid))
        if inode.alias is None or self.direct:
            return self._new_file(file, wire.FOPEN_DIRECT_IO)
        # An open must not drop cached pages that others may have stored to, or be about to.
        return self._new_file(file, wire.FOPEN_KEEP_CACHE if known else 0)

    def read(self, pid: int, number: int, offset: int, size: int, flags: int) -> Buffers:
        """READ: a read(2), or pages for the page cache. Raises as `handle`."""
        file = self._files.get(number)
        if file is None or file.handle is None:
            raise Refused(errno.EBADF)
        size = min(size, MAX_TRANSFER)
        alias, device = file.inode.alias, file.device
        try:
            if alias is None or device is None:
                if not flags & LOCK_OWNER and self.direct:
                    self._check_mappable(file.handle)
                return self._plain_read(file.handle, offset, size)
            # The kernel names a lock owner in a read(2), and none when it fills its page cache.
            if flags & LOCK_OWNER and self.direct:
                return self.coherence.read(alias, device, offset, size)
            return self.coherence.fault(alias, device, offset, size)
        except Refused as error:
            self.refused(pid, "read", _where(file, offset, size), error)
            return self._instead(pid, file, offset, size, flags, error)
        except Deferred as late:
            if not flags & LOCK_OWNER:
                raise
            raise after(late, partial(self._reread, pid, file, offset, size)) from None

    def _instead(
        self, pid: int, file: OpenFile, offset: int, size: int, flags: int, error: Refused
    ) -> Buffers:
        """What a READ gives that was refused; or the refusal."""
        if isinstance(error, Partly):
            raise self._reread(pid, file, offset, size, error) from None
        zeros = None
        if not flags & LOCK_OWNER:
            zeros = self._populating.pass_over(pid, file.inode.nodeid, offset, size)
        if zeros is None:
            raise error
        return zeros

    def _reread(self, tid: int, file: OpenFile, offset: int, size: int, error: Partly) -> Deferred:
        """A read(2) that was refused half way."""
        read = partial(self.coherence.read, *file.physical)
        return read_in_pieces(tid, offset, size, error, read)

    def _rewrite(self, tid: int, file: OpenFile, offset: int, error: Partly) -> Deferred:
        """A write(2) that was refused half way."""
        write = partial(self.coherence.write, *file.physical)
        return write_in_pieces(tid, offset, error, write)

    @staticmethod
    def _check_mappable(handle: Handle) -> None:
        """A file without an mmap operation can be mapped nevertheless, but nothing is there to see."""
        if not getattr(handle, "mappable", True):
            raise Refused(errno.ENODEV)

    def _plain_read(self, handle: Handle, offset: int, size: int) -> Buffers:
        """A file that is not physical memory; it may show bytes that somebody has mapped."""
        if self.verbs is None or not getattr(handle, "settles", False):
            return handle.read(offset, size)
        found = self.coherence.quietly(lambda: handle.read(offset, size))
        if found is None:
            raise self.verbs.defer(lambda: handle.read(offset, size))
        return found

    def _plain_write(self, pid: int, handle: Handle, offset: int, data: memoryview) -> int:
        """A write that claims or moves something waits for the notifier, so no worker may do it."""
        if self.verbs is None or not getattr(handle, "slow", False):
            return handle.write(offset, data)
        kept = memoryview(bytes(data))
        if getattr(handle, "waits", False):
            raise apart(lambda: handle.write(offset, kept), pid)
        raise self.verbs.defer(lambda: handle.write(offset, kept))

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
                taken = self._plain_write(request.pid, handle, offset, data)
        except Refused as error:
            self.refused(request.pid, "write", _where(file, offset, size), error)
            if not (isinstance(error, Partly) and self.direct):
                raise
            late = self._rewrite(request.pid, file, offset, error)
        except Deferred as deferred:
            late = deferred
            if self.direct:
                late = after(deferred, partial(self._rewrite, request.pid, file, offset))
        else:
            return [wire.WRITE_OUT.pack(taken, 0)]
        raise late.mapped(lambda taken: [wire.WRITE_OUT.pack(taken, 0)])

    def _write_back(self, request: Request, offset: int, data: memoryview) -> Body:
        """Stores through a mapping. The kernel may pick any descriptor of the inode, even none."""
        node = self._inode(request).node
        if not isinstance(node, PhysicalFile):
            raise Refused(errno.EIO)
        for at, part in self._populating.kept(request.nodeid, offset, data):
            node.stored(at, part)
        return [wire.WRITE_OUT.pack(len(data), 0)]

    def _fsync(self, request: Request) -> Body:
        """`/dev/mem` has no fsync; msync and fsync answer EINVAL."""
        node = self._inode(request).node
        if isinstance(node, DevMem):
            raise Refused(errno.EINVAL)
        return []

    def _poll(self, request: Request) -> Body:
        """poll(2) and its like: most files are always ready (DEFAULT_POLLMASK)."""
        number, key, flags, _ = wire.unpack(wire.POLL_IN, request.body)
        handle = self._file(number).handle
        poll = getattr(handle, "poll", None)
        events = ALWAYS_READY if poll is None else poll()
        if not events and flags & wire.POLL_SCHEDULE_NOTIFY:
            cast("Any", handle).until.call(handle, lambda: self.notify(wire.poll_wakeup(key)))
        return [wire.POLL_OUT.pack(events, 0)]

    def _release(self, request: Request) -> Body:
        number = wire.unpack(wire.RELEASE_IN, request.body)[0]
        file = self._files.pop(number, None)
        if file is not None:
            self._let_go(file)
        return []

    def _let_go(self, file: OpenFile) -> None:
        alias, released = file.inode.alias, getattr(file.handle, "released", None)
        if released is not None:
            released()
        if file.device is not None and alias is not None:
            alias.openers.pop(id(file), None)
            self.coherence.released(alias)


def _where(file: OpenFile, offset: int, size: int) -> Range:
    """What an access was about: physical addresses, for a file of physical memory."""
    size = max(size, 1)
    return Range(offset, size) if file.device is None else file.device.span(offset, size)


def _refuse(number: int) -> Callable[[Request], Body]:
    def refuse(_: Request) -> Body:
        raise Refused(number)

    return refuse


__all__ = ["MAX_TRANSFER", "Body", "Options", "Session"]
