"""The nodes of the served tree. Adapters (the wire server, mfusepy) translate; they hold no rule."""

import errno
import os
import stat
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar, NamedTuple, Protocol

from fakedev.model.verdict import Verdict
from fakedev.views.calls import Answer, IoctlCall, MapCall, SeekCall
from fakedev.views.kinds import HOST, REGULAR, FileKind, do_mmap

Buffers = list[memoryview]
_MASKS = {os.O_RDONLY: os.R_OK, os.O_WRONLY: os.W_OK}
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER = 0, 1, 2, 3
CAP_SYS_RAWIO, CAP_SYS_ADMIN = 17, 21


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """An operation that the kernel would refuse. `errno` is positive; `verdict` explains it."""

    def __init__(self, number: int, verdict: Verdict | None = None) -> None:
        super().__init__(os.strerror(number))
        self.errno = number
        self.verdict = verdict


class Partly(Refused):
    """A read or write that begins with something that is allowed.

    `before`: how many bytes the driver moves before it refuses (those of a write are stored); none
    where it is a test of the whole range that fails. `data`: what was to be written.
    """

    def __init__(
        self, number: int, verdict: Verdict, before: int, data: memoryview | bytes = b""
    ) -> None:
        super().__init__(number, verdict)
        self.before = before
        self.data = data


class Until(Protocol):
    """Something that ends."""

    def call(self, key: object, action: Callable[[], None]) -> None:
        """Call `action` at the end, or at once behind it; in the place of an earlier one with this key."""

    def forget(self, key: object) -> None:
        """Call nothing."""


class Waits(Refused):
    """A read that has nothing to give before an end, when it is tried again; EAGAIN for who cannot wait."""

    def __init__(self, until: Until) -> None:
        super().__init__(errno.EAGAIN)
        self.until = until


class Opener(NamedTuple):
    """Who opens a file: `uid` and `groups` are those for files, `flags` those of open(2).

    `effective` looks up the capabilities in the machine's initial user namespace, as a mask; without
    it root has them all. `again`: it is open already, and nothing is asked that was asked then.
    """

    pid: int
    uid: int
    flags: int
    groups: Collection[int] = ()
    effective: Callable[[], int] | None = None
    again: bool = False

    def capable(self, capability: int) -> bool:
        """`capable`; at open it is `file_ns_capable`. Costs a look at /proc."""
        if self.effective is None:
            return self.uid == 0
        return bool(self.effective() >> capability & 1)

    def as_of_now(self) -> "Opener":
        """With the capabilities of this moment: those of the file, whoever uses it later (`f_cred`)."""
        if self.effective is None:
            return self
        mask = self.effective()
        return self._replace(effective=lambda: mask)


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
    """One inode of the tree. `kind` says what the kernel makes of a file like it.

    `mode`: the permission bits, where the file has any of its own.
    """

    __slots__ = ("__weakref__", "_owner", "mode")
    kind: FileKind = HOST
    #: Mappings of it are of device memory: VM_PFNMAP (`fakedev.views.mappings`).
    pfnmap: ClassVar[bool] = False
    mode: int
    _owner: tuple[int, int]

    def attr(self) -> Attr:
        """What stat shows now."""
        raise NotImplementedError

    @property
    def owner(self) -> tuple[int, int]:
        """User and group; root's, unless chown said otherwise."""
        return getattr(self, "_owner", (0, 0))

    def chmod(self, caller: Opener, mode: int) -> None:
        """Set the permission bits. EPERM for who neither owns the file nor has CAP_FOWNER."""
        if caller.uid != self.owner[0] and not caller.capable(CAP_FOWNER):
            raise Refused(errno.EPERM)
        self.mode = mode & 0o777

    def chown(self, caller: Opener, uid: int, gid: int) -> None:
        """Set user and group (-1: stays). EPERM by `chown_ok` and `chgrp_ok`."""
        owner, group = self.owner
        new = (owner if uid < 0 else uid, group if gid < 0 else gid)
        mine = caller.uid == owner and new[0] == owner and new[1] in (group, *caller.groups)
        if not mine and not caller.capable(CAP_CHOWN):
            raise Refused(errno.EPERM)
        self._owner = new

    def permit(self, opener: Opener, mask: int | None = None) -> None:
        """DAC for what is opened, or for `mask` of access(2). Raises Refused (EACCES)."""
        wanted = access_mask(opener.flags) if mask is None else mask
        check_access(self.attr(), self.owner, opener, wanted)

    def open(self, opener: Opener) -> Handle:
        """A handle, or Refused (EISDIR, ELOOP, ENXIO for what cannot be opened)."""
        raise Refused(errno.ENXIO)

    # Calls that the host's kernel does not ask about; None: it answers as for a regular file.

    def look(self) -> Attr | None:
        """What stat shows, where that is not what can be opened: a device node, another size."""
        return None

    def mmap(self, call: MapCall) -> Answer | None:
        """mmap(2): None where the mapping is to be made, or is refused by the host anyway."""
        return do_mmap(call, self.kind, self.driver_mmap)

    def mapped_through(self, call: MapCall) -> str | None:
        """The path of the file that is to be mapped in the place of this one."""
        return None

    def stands_for(self, other: "Node") -> bool:
        """Whether a descriptor of this one may take the place of one of `other`: it is the same device."""
        return other is self

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """`f_op->mmap`, after the tests that are the same for all files of the kind."""
        return self.kind.mmap

    def seek(self, call: SeekCall) -> Answer | None:
        """lseek(2)."""
        return self.kind.seek(call, self.attr().size)

    def ioctl(self, call: IoctlCall) -> Answer | None:
        """ioctl(2)."""
        return self.kind.ioctl(call)

    def empty(self, offset: int) -> Answer | None:
        """A read or write of 0 bytes."""
        return None

    def call(self, name: str) -> Answer | None:
        """A call of which only the name matters, such as fsync."""
        return self.kind.calls.get(name)


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

    __slots__ = ("_produce", "_size", "kind")

    def __init__(
        self,
        produce: Callable[[Opener], bytes],
        *,
        mode: int = 0o444,
        size: int = 0,
        kind: FileKind = REGULAR,
    ) -> None:
        self._produce = produce
        self.mode = mode
        self._size = size
        self.kind = kind

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self._size)

    def open(self, opener: Opener) -> Handle:
        self.permit(opener)
        return BytesHandle(self._produce(opener))


def access_mask(flags: int) -> int:
    """R_OK | W_OK for the flags of open(2)."""
    return _MASKS.get(flags & os.O_ACCMODE, os.R_OK | os.W_OK)


def check_access(attr: Attr, owner: tuple[int, int], caller: Opener, mask: int) -> None:
    """`generic_permission`: the bits of the class that the caller is in, or a capability. EACCES."""
    uid, gid = owner
    shift = 6 if caller.uid == uid else 3 if gid in caller.groups else 0
    if not mask & ~(attr.mode >> shift & 0o7):
        return
    directory = stat.S_ISDIR(attr.mode)
    searches = os.R_OK | os.X_OK if directory else os.R_OK
    if not mask & ~searches and caller.capable(CAP_DAC_READ_SEARCH):
        return
    executable = directory or attr.mode & 0o111
    if (mask & os.X_OK and not executable) or not caller.capable(CAP_DAC_OVERRIDE):
        raise Refused(errno.EACCES)
