"""Directories whose entries come and go with the machine, and the files of sysfs (`fs/kernfs`, `fs/sysfs`)."""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock

from fakedev.model.errors import FakedevError
from fakedev.views.kinds import SYSFS
from fakedev.views.node import (
    Attr,
    Buffers,
    Directory,
    Handle,
    Node,
    Opener,
    Refused,
    access_mask,
)

O_DIRECT = getattr(os, "O_DIRECT", 0)
PAGE = 4096  # the stat size of a text attribute, and the most that one call moves
Show = Callable[[], str]
Alive = Callable[[], bool]
_KEEPING = Lock()  # while nodes of a live directory are kept or forgotten


def always() -> bool:
    """A file that never dies."""
    return True


class LiveDirectory(Directory):
    """Entries are made when somebody asks for them; the same name is the same node until `forget`.

    `names` lists what is there now, `make` returns the node of a name or None. `extras` (a profile's
    own files: `Tree.extras`) are shown beside; what `make` knows wins. `alive`: when it is not, the
    directory is empty.
    """

    __slots__ = ("_alive", "_era", "_extras", "_made", "_make", "_names")

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        make: Callable[[str], Node | None],
        *,
        mode: int = 0o755,
        extras: Directory | None = None,
        alive: Alive = always,
    ) -> None:
        super().__init__(mode)
        self._names = names
        self._make = make
        self._extras = extras or Directory()
        self._alive = alive
        self._era = 0
        self._made: dict[str, Node] = {}

    def entries(self) -> Mapping[str, Node]:
        """Name to node, sorted by name."""
        if not self._alive():
            return {}
        found = {name: node for name in self._names() if (node := self._live(name)) is not None}
        return dict(sorted((dict(self._extras.entries()) | found).items()))

    def lookup(self, name: str) -> Node | None:
        """The node behind a name."""
        if not self._alive():
            return None
        return self._live(name) or self._extras.lookup(name)

    def add(self, name: str, node: Node) -> None:
        """Show a node beside the live ones."""
        self._extras.add(name, node)

    def _live(self, name: str) -> Node | None:
        node = self._made.get(name)
        if node is None:
            era = self._era
            node = self._make(name)
            if node is not None:
                with _KEEPING:  # two workers may have asked at once
                    if era == self._era:  # else it was forgotten meanwhile: served, and not kept
                        node = self._made.setdefault(name, node)
        return node

    def known(self, name: str) -> Node | None:
        """The node that was made for a name, if one was."""
        return self._made.get(name) or self._extras.lookup(name)

    def known_names(self) -> list[str]:
        """Names that nodes were made for."""
        return [*self._made, *self._extras.entries()]

    def forget(self, names: Collection[str]) -> None:
        """Let names be made anew, with everything below them."""
        with _KEEPING:
            self._era += 1
            gone = [self._made.pop(name, None) for name in names]
        if isinstance(self._extras, LiveDirectory):
            self._extras.forget(names)
        for node in gone:
            if isinstance(node, LiveDirectory):
                node.forget(node.known_names())


class SysfsNode(Node):
    """A sysfs file: `mode` are its permission bits, `size` what stat shows; dead once it is removed.

    `verb`: a write claims, revokes, removes or moves something; the server does it on a thread where
    that may take its time. `settles`: so may a read, if files of physical memory are mapped.
    """

    __slots__ = ("alive", "settles", "size", "verb")
    kind = SYSFS

    def __init__(
        self,
        *,
        mode: int,
        size: int = PAGE,
        alive: Alive = always,
        verb: bool = False,
        settles: bool = False,
    ) -> None:
        self.mode = mode
        self.size = size
        self.alive = alive
        self.verb = verb
        self.settles = settles

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.size)

    def check_open(self, opener: Opener) -> None:
        """EACCES by mode, for root too where no bit allows it; EINVAL for O_DIRECT; ENODEV when removed."""
        mask = access_mask(opener.flags)
        self.permit(opener)
        if opener.flags & O_DIRECT:
            raise Refused(errno.EINVAL)
        if (mask & os.R_OK and not self.mode & 0o444) or (mask & os.W_OK and not self.mode & 0o222):
            raise Refused(errno.EACCES)
        if not self.alive():
            raise Refused(errno.ENODEV)


class Attribute(SysfsNode):
    """A text attribute. `show` makes its text; `store` takes what is written, up to the first NUL.

    Errors of either that carry an errno become that errno.
    """

    __slots__ = ("show", "store")
    waits = False  # whether a verb may wait for somebody else

    def __init__(
        self,
        show: Show | None,
        store: Callable[[str, Opener], None] | None = None,
        *,
        mode: int = 0o444,
        alive: Alive = always,
        verb: bool = False,
    ) -> None:
        super().__init__(mode=mode, alive=alive, verb=verb)
        self.show = show
        self.store = store

    def open(self, opener: Opener) -> Handle:
        self.check_open(opener)
        return AttributeHandle(self, opener)


class AttributeHandle:
    """An open text attribute: the text is made at offset 0 and kept, as seq_file does."""

    __slots__ = ("_node", "_opener", "_text")
    settles = mappable = False

    def __init__(self, node: Attribute, opener: Opener) -> None:
        self._node = node
        self._opener = opener
        self._text: memoryview | None = None

    @property
    def slow(self) -> bool:
        """Whether a write is a verb."""
        return self._node.verb

    @property
    def waits(self) -> bool:
        """Whether that verb may wait for somebody else."""
        return self._node.waits

    def read(self, offset: int, size: int) -> Buffers:
        node = self._node
        if not node.alive():
            raise Refused(errno.ENODEV)
        if node.show is None:
            raise Refused(errno.EIO)
        if self._text is None or offset == 0:
            with kernel_errors():
                self._text = memoryview(node.show().encode("utf-8", "surrogateescape"))
        return [self._text[offset : offset + size]]

    def write(self, offset: int, data: memoryview) -> int:
        node = self._node
        if not node.alive():
            raise Refused(errno.ENODEV)
        if node.store is None:
            raise Refused(errno.EIO)
        taken = bytes(data[:PAGE])
        with kernel_errors():
            node.store(taken.partition(b"\0")[0].decode("utf-8", "surrogateescape"), self._opener)
        return len(taken)


class kernel_errors:  # noqa: N801 - used like a function
    """Errors of the model that carry an errno, as the errno of a system call."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FakedevError):
            raise Refused(getattr(error, "errno", 0) or errno.EIO) from None


class BinaryFile(SysfsNode):
    """A binary attribute. Subclasses give `load` and `save`; None of them: EIO (`sysfs_kf_bin_*`)."""

    __slots__ = ()

    def open(self, opener: Opener) -> Handle:
        self.check_open(opener)
        return BinaryHandle(self, opener)

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        """Bytes of a read that lies inside `size`. Raises Refused."""
        raise Refused(errno.EIO)

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        """Take a write that lies inside `size`; returns the bytes taken. Raises Refused."""
        raise Refused(errno.EIO)


class BinaryHandle:
    """An open binary attribute: at most a page a call, clipped to the size; writes past it are EFBIG."""

    __slots__ = ("_node", "_opener")
    mappable = False

    def __init__(self, node: BinaryFile, opener: Opener) -> None:
        self._node = node
        self._opener = opener

    @property
    def slow(self) -> bool:
        """Whether a write is a verb."""
        return self._node.verb

    @property
    def settles(self) -> bool:
        """Whether a read may have to wait for mapped pages."""
        return self._node.settles

    def read(self, offset: int, size: int) -> Buffers:
        node = self._node
        if not node.alive():
            raise Refused(errno.ENODEV)
        size = min(size, PAGE, node.size - offset) if node.size else min(size, PAGE)
        if size <= 0:
            return []
        with kernel_errors():
            return [memoryview(node.load(offset, size, self._opener))]

    def write(self, offset: int, data: memoryview) -> int:
        node = self._node
        if not node.alive():
            raise Refused(errno.ENODEV)
        if node.size and offset >= node.size:
            raise Refused(errno.EFBIG)
        end = min(PAGE, node.size - offset) if node.size else PAGE
        with kernel_errors():
            return node.save(offset, data[:end], self._opener)
