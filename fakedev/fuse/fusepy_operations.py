"""The callbacks of libfuse's high-level interface, answered by the views.

No rule lives here: what is allowed and which errno says no comes from `fakedev.views`. mfusepy
calls these methods on threads of libfuse; they raise OSError, which it turns into an errno.
"""

import errno
import functools
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, ParamSpec, TypeVar

from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.owners import Alias
from fakedev.fuse.rangeset import RangeSet
from fakedev.model.ranges import Range, page_round
from fakedev.views.devmem import DevMem, DevMemHandle
from fakedev.views.node import (
    Attr,
    Buffers,
    Directory,
    Handle,
    Node,
    Opener,
    Refused,
    Symlink,
)
from fakedev.views.tree import Tree

P = ParamSpec("P")
T = TypeVar("T")
# What root of the host is in a machine where it does not count as root.
NOBODY = 65534


def _refusing(method: Callable[P, T]) -> Callable[P, T]:
    """Raise OSError for what the views refuse."""

    @functools.wraps(method)
    def refusing(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except Refused as error:
            raise OSError(error.errno, os.strerror(error.errno)) from None

    return refusing


class _File(NamedTuple):
    node: Node
    handle: Handle
    alias: Alias | None


@dataclass(slots=True)
class Operations:
    """Callbacks for one mount of `tree`.

    `caller` tells (uid, gid, pid) of the request that a thread works on; `root_uid` is the caller
    that counts as root in the machine, or None when nobody does. `drop(path, span)` makes the
    kernel forget cached bytes of a file; it blocks and is called by the notifier thread only.
    `refused(pid, what, span, error)` hears of accesses that were refused.
    """

    tree: Tree
    coherence: Coherence
    root_uid: int | None
    caller: Callable[[], tuple[int, int, int]]
    drop: Callable[[str, Range], None]
    refused: Callable[[int, str, Range, Refused], None]
    started: Callable[[], None]
    ended: Callable[[], None]
    use_ns: bool = True  # mfusepy: times are integers
    _files: dict[int, _File] = field(default_factory=dict)
    _aliases: dict[str, Alias] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _born: int = field(default_factory=lambda: int(time.time()) * 10**9)

    # -- the mount ----------------------------------------------------------------------------

    def init(self, _path: str) -> None:
        """The kernel and libfuse have agreed."""
        self.started()

    def destroy(self, _path: str) -> None:
        """The session is about to be freed."""
        self.ended()

    def statfs(self, _path: str) -> dict[str, int]:
        """An empty file system with names of up to 255 bytes."""
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}

    # -- names --------------------------------------------------------------------------------

    def _node(self, path: str) -> Node:
        node: Node | None = self.tree.root
        for name in filter(None, path.split("/")):
            node = node.lookup(name) if isinstance(node, Directory) else None
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def _uid(self) -> int:
        uid = self.caller()[0]
        return 0 if uid == self.root_uid else uid or NOBODY

    @_refusing
    def getattr(self, path: str, _fi: Any = None) -> dict[str, int]:
        """`struct stat` by field names; libfuse puts its own inode number in."""
        attr = self._node(path).attr()
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), self._born)
        owner = {"st_uid": os.geteuid(), "st_gid": os.getegid()}
        return {**_stat(attr), **times, **owner}

    @_refusing
    def access(self, path: str, mask: int) -> int:
        """access(2) and chdir(2)."""
        self._node(path).permit(Opener(0, self._uid(), 0), mask)
        return 0

    @_refusing
    def readlink(self, path: str) -> str:
        """The text of a symbolic link."""
        node = self._node(path)
        if not isinstance(node, Symlink):
            raise Refused(errno.EINVAL)
        return os.fsdecode(node.target)

    @_refusing
    def readdir(self, path: str, _fh: int) -> list[tuple[str, int, int]]:
        """Names in order, with their modes."""
        node = self._node(path)
        if not isinstance(node, Directory):
            raise Refused(errno.ENOTDIR)
        dots = [(name, stat.S_IFDIR, 0) for name in (".", "..")]
        return dots + [(name, child.attr().mode, 0) for name, child in node.entries().items()]

    # Like a character device or a sysfs file: modes, owners and times stay, a size cannot be set.

    @_refusing
    def truncate(self, _path: str, _length: int, _fh: Any = None) -> int:
        """EINVAL."""
        raise Refused(errno.EINVAL)

    def chmod(self, _path: str, _mode: int) -> int:
        """Nothing changes."""
        return 0

    def chown(self, _path: str, _uid: int, _gid: int) -> int:
        """Nothing changes."""
        return 0

    def utimens(self, _path: str, _times: Any = None) -> int:
        """Nothing changes."""
        return 0

    # -- files --------------------------------------------------------------------------------

    @_refusing
    def open(self, path: str, fi: Any) -> int:
        """Fill in `fi`. Memory goes through the page cache, or it could not be mapped."""
        node = self._node(path)
        handle = node.open(Opener(self.caller()[2], self._uid(), fi.flags))
        alias = self._alias(path, node) if isinstance(node, DevMem) else None
        if alias is not None:
            self.coherence.opened(alias)
        fi.fh = next(self._numbers)
        fi.direct_io = alias is None
        self._files[fi.fh] = _File(node, handle, alias)
        return 0

    def _alias(self, path: str, node: DevMem) -> Alias:
        with self._lock:
            return self._aliases.setdefault(path, self._new_alias(path, node))

    def _new_alias(self, path: str, node: DevMem) -> Alias:
        def invalidate(span: Range) -> None:
            start = max(span.start, node.base)
            if span.end > start:
                self.drop(path, Range(start - node.base, span.end - start))

        def expire() -> None:  # libfuse gives a path one inode: what it lost comes back to it
            alias.lost = RangeSet()
            alias.expired = False

        alias = Alias(invalidate=invalidate, expire=expire)
        return alias

    def release(self, _path: str, fi: Any) -> int:
        """The last descriptor and the last mapping of an open are gone."""
        file = self._files.pop(fi.fh)
        released = getattr(file.handle, "released", None)
        if released is not None:
            released()
        if file.alias is not None:
            self.coherence.released(file.alias)
        return 0

    @_refusing
    def fsync(self, _path: str, _datasync: int, fi: Any) -> int:
        """`/dev/mem` has no fsync; msync and fsync answer EINVAL."""
        if self._files[fi.fh].alias is not None:
            raise Refused(errno.EINVAL)
        return 0

    @_refusing
    def read(self, _path: str, size: int, offset: int, fi: Any) -> bytes:
        """Bytes for read(2), or pages for the page cache: of memory, the kernel asks for pages only."""
        _, handle, alias = self._files[fi.fh]
        if alias is None or not isinstance(handle, DevMemHandle):
            return b"".join(handle.read(offset, size))
        try:
            return b"".join(self._fault(alias, handle, offset, size))
        except Refused as error:
            self.refused(self.caller()[2], "read", handle.span(offset, size), error)
            # A page that is lost is EIO to whoever maps it; who reads it is told why.
            raise Refused((error.verdict and error.verdict.errno) or error.errno) from None

    def _fault(self, alias: Alias, handle: DevMemHandle, offset: int, size: int) -> Buffers:
        try:
            return self.coherence.fault(alias, handle, offset, size)
        except Deferred as deferred:  # libfuse has no answer that comes later
            buffers: Buffers = deferred.wait()
            return buffers

    @_refusing
    def write(self, path: str, data: bytes, offset: int, fi: Any) -> int:
        """write(2), or pages that the kernel writes back from a mapping."""
        view = memoryview(data)
        if fi.writepage:
            return self._write_back(path, offset, view)
        _, handle, alias = self._files[fi.fh]
        if alias is None or not isinstance(handle, DevMemHandle):
            return handle.write(offset, view)
        try:
            taken = handle.write(offset, view)
        except Refused as error:
            self.refused(self.caller()[2], "write", handle.span(offset, len(data)), error)
            raise
        self._check_cache(alias, handle, offset, data)
        return taken

    def _write_back(self, path: str, offset: int, data: memoryview) -> int:
        """Stores through a mapping. The kernel may pick any descriptor of the file."""
        node = self._node(path)
        if not isinstance(node, DevMem):
            raise Refused(errno.EIO)
        node.stored(offset, data)
        return len(data)

    def _check_cache(self, alias: Alias, handle: DevMemHandle, offset: int, data: bytes) -> None:
        """The kernel's page cache now shows `data`: where the memory does not, have it dropped."""
        try:
            if b"".join(handle.fault(offset, len(data))) == data:
                self._fault(alias, handle, offset, len(data))  # as if the kernel had asked
                return
        except Refused:
            pass
        span = page_round(handle.span(offset, len(data)))
        self.coherence.submit(lambda: alias.invalidate(span))


def _stat(attr: Attr) -> dict[str, int]:
    blocks = attr.size + 511 >> 9 if stat.S_ISREG(attr.mode) else 0
    return {
        "st_mode": attr.mode,
        "st_nlink": attr.nlink,
        "st_size": attr.size,
        "st_blocks": blocks,
        "st_blksize": 4096,
        "st_rdev": attr.rdev,
    }
