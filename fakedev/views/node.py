"""The nodes of the served tree. Adapters (the wire server, mfusepy) translate; they hold no rule."""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from fakedev.model.verdict import Verdict

Buffers = list[memoryview]
_MASKS = {os.O_RDONLY: os.R_OK, os.O_WRONLY: os.W_OK}


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """An operation that the kernel would refuse. `errno` is positive; `verdict` explains it."""

    def __init__(self, number: int, verdict: Verdict | None = None) -> None:
        super().__init__(os.strerror(number))
        self.errno = number
        self.verdict = verdict


class Opener(NamedTuple):
    """Who opens a file: privileges are those of the opener, for as long as the handle lives."""

    pid: int
    uid: int
    flags: int

    @property
    def privileged(self) -> bool:
        """CAP_SYS_ADMIN and CAP_SYS_RAWIO in the machine's initial user namespace."""
        return self.uid == 0


class Attr(NamedTuple):
    """What stat shows. `mode` has the type bits."""

    mode: int
    size: int = 0
    rdev: int = 0
    nlink: int = 1


class Handle(Protocol):
    """An open file."""

    def read(self, offset: int, size: int) -> Buffers:
        """Bytes for read(2); short at the end of the file. Raises Refused."""

    def write(self, offset: int, data: memoryview) -> int:
        """Bytes taken by write(2). Raises Refused."""


class Node:
    """One inode of the tree."""

    __slots__ = ()

    def attr(self) -> Attr:
        """What stat shows now."""
        raise NotImplementedError

    def chmod(self, mode: int) -> None:
        """Set the permission bits, where the file has any of its own."""

    def open(self, opener: Opener) -> Handle:
        """A handle, or Refused (EISDIR, ELOOP, ENXIO for what cannot be opened)."""
        raise Refused(errno.ENXIO)


class Directory(Node):
    """A directory with named entries, in sorted order."""

    __slots__ = ("_entries", "_mode")

    def __init__(self, mode: int = 0o755) -> None:
        self._entries: dict[str, Node] = {}
        self._mode = stat.S_IFDIR | mode

    def attr(self) -> Attr:
        return Attr(self._mode, nlink=2)

    def entries(self) -> Mapping[str, Node]:
        """Name to node, sorted by name."""
        return dict(sorted(self._entries.items()))

    def lookup(self, name: str) -> Node | None:
        """The node behind a name."""
        return self._entries.get(name)

    def add(self, name: str, node: Node) -> None:
        """Put or replace an entry."""
        self._entries[name] = node

    def set_mode(self, mode: int) -> None:
        """Change the permission bits."""
        self._mode = stat.S_IFDIR | mode

    def open(self, opener: Opener) -> Handle:
        raise Refused(errno.EISDIR)


class Symlink(Node):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, target: bytes) -> None:
        self.target = target

    def attr(self) -> Attr:
        return Attr(stat.S_IFLNK | 0o777, len(self.target))

    def open(self, opener: Opener) -> Handle:
        raise Refused(errno.ELOOP)


class Placeholder(Node):
    """A name with a type, to be covered by a bind mount: it can be seen, never opened."""

    __slots__ = ("_attr",)

    def __init__(self, attr: Attr) -> None:
        self._attr = attr

    def attr(self) -> Attr:
        return self._attr


class BytesHandle:
    """Reads from a text made at open; writes are refused with EIO as for a file without a writer."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, offset: int, size: int) -> Buffers:
        return [self._data[offset : offset + size]]

    def write(self, offset: int, data: memoryview) -> int:
        raise Refused(errno.EIO)


class TextFile(Node):
    """A file whose content is made at each open, for its opener. `size` is what stat shows."""

    __slots__ = ("_mode", "_produce", "_size")

    def __init__(
        self, produce: Callable[[Opener], bytes], *, mode: int = 0o444, size: int = 0
    ) -> None:
        self._produce = produce
        self._mode = stat.S_IFREG | mode
        self._size = size

    def attr(self) -> Attr:
        return Attr(self._mode, self._size)

    def open(self, opener: Opener) -> Handle:
        check_access(self.attr(), opener.uid, access_mask(opener.flags))
        return BytesHandle(self._produce(opener))


def access_mask(flags: int) -> int:
    """R_OK | W_OK for the flags of open(2)."""
    return _MASKS.get(flags & os.O_ACCMODE, os.R_OK | os.W_OK)


def check_access(attr: Attr, uid: int, mask: int) -> None:
    """DAC for files that root owns: root passes, others have the rights of `other`. EACCES."""
    if uid == 0:
        executable = stat.S_ISDIR(attr.mode) or attr.mode & 0o111
        if mask & os.X_OK and not executable:
            raise Refused(errno.EACCES)
        return
    if mask & ~(attr.mode & 0o7):
        raise Refused(errno.EACCES)
