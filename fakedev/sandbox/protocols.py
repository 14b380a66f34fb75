"""What the sandbox needs of the tree it shows and of the server behind it, and nothing more."""

import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import NamedTuple, Protocol

from fakedev.fuse.credentials import Callers
from fakedev.model.ranges import Range
from fakedev.views.calls import Answer, Shown
from fakedev.views.node import Node


class Kind(StrEnum):
    """What a virtual path is."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"


class HostEntry(NamedTuple):
    """One entry of a host directory, as a merged directory has to show it.

    `mode` is like `st_mode` with its type bits, `target` the text of a symlink. The permission bits
    of a directory or a regular file may be made up: only the type of a placeholder is ever seen.
    """

    name: str
    mode: int
    rdev: int = 0
    target: str = ""

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory itself, not a link to one."""
        return stat.S_ISDIR(self.mode)


class Entry(Protocol):
    """One virtual path of a tree."""

    @property
    def kind(self) -> str:
        """One of the values of `Kind`."""
        ...

    @property
    def opaque(self) -> bool:
        """Whether it is a directory that replaces the host's as a whole.

        Its content need not be listed, and may come and go. Host links into it from other
        directories of /sys are left out, unless the listing has what they lead to.
        """
        ...

    @property
    def merge(self) -> bool:
        """Whether it is a directory that shows the host's entries beside its own; below it as well.

        The listing has every name that can ever be one of its own, opaque where it is a directory
        of its own as a whole: the host's entries of these names are not shown.
        """
        ...


class ExactFile(Protocol):
    """A file of the tree as the exact layer sees it."""

    @property
    def ino(self) -> int:
        """Its number in the mount."""
        ...

    @property
    def node(self) -> Node:
        """What answers for it."""
        ...

    @property
    def path(self) -> str:
        """Where it was found last; empty where it has gone."""
        ...

    @property
    def worn(self) -> Collection[int]:
        """Generations of its inodes that lost pages which can be mapped again."""
        ...

    def look(self) -> tuple[Shown, Answer] | None:
        """What stat shows where that is not what the kernel has in its inode, and the rule."""
        ...


class ExactFiles(Protocol):
    """The files of one mount, found without the kernel, and the trace of what was answered."""

    #: Called, on the thread of the verb, when private copies of a physical range are to go.
    discard: Callable[[Range], None]

    @property
    def callers(self) -> Callers:
        """Who the callers are."""
        ...

    def file(self, ino: int) -> ExactFile | None:
        """The file with this inode number."""
        ...

    def again(self, tid: int) -> AbstractContextManager[None]:
        """What this thread opens meanwhile, it opens for thread `tid`, which has it open already."""
        ...

    def answered(self, tid: int, call: str, answer: Answer, comm_of: Callable[[int], str]) -> None:
        """Record an answer and its rule."""
        ...

    def stays(self, tid: int, fd: int, why: str) -> None:
        """Record that a descriptor keeps an inode that lost pages: what it maps is dead."""
        ...

    def spared(self, pid: int, span: Range, why: str) -> None:
        """Record that a process keeps private copies of a claimed range."""
        ...

    def failed(self, error: BaseException) -> None:
        """Record a fault of the exact layer; the call went on as if nobody had looked."""
        ...


class Connection(Protocol):
    """One FUSE mount that is being served."""

    @property
    def files(self) -> ExactFiles:
        """What the exact layer asks."""
        ...

    def close(self) -> None:
        """Stop serving; returns when the threads have ended."""
        ...

    def wait_closed(self, timeout: float) -> bool:
        """Wait until the kernel has ended the connection (the mount is gone); False on timeout."""
        ...


class Service(Protocol):
    """A tree of virtual files, and the server that serves it to any number of mounts."""

    def tree_listing(self) -> Mapping[str, Entry]:
        """Return all virtual paths, absolute as the tool sees them; parents may be left out."""
        ...

    def shadow(self, path: str, entries: tuple[HostEntry, ...], *, mode: int) -> None:
        """Serve the directory `path` merged with what the host has there.

        `entries` are the host's entries that no virtual entry replaces: links are served as links,
        everything else as a placeholder of the same type, mode and device number, which the
        sandbox covers with the host's own. `mode` are the permission bits of the directory. Called
        again for a path, it replaces the entries of the call before.
        """
        ...

    def prepare(self) -> None:
        """Make ready what the next `attach` needs: called before the fork, where time is cheaper."""
        ...

    def attach(
        self,
        fuse_fd: int,
        *,
        as_root: bool,
        uid: int,
        gid: int,
        namespace: str = "",
        exact: bool = False,
    ) -> Connection:
        """Take over `fuse_fd` and start threads that serve it; returns at once.

        `exact`: a supervisor answers for the files of this mount, which show what they stand for.

        `uid` and `gid` are the only ids that exist inside the mount's user namespace: every
        attribute must carry them, or the kernel refuses writes (EACCES). `namespace` is the name of
        that, for what depends on capabilities.
        """
        ...
