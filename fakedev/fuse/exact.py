"""The files of one mount for whoever answers system calls before the kernel does (`fakedev.sandbox.exact`)."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fakedev.fuse.credentials import Callers
from fakedev.fuse.denials import REPEATED
from fakedev.fuse.inodes import Inode
from fakedev.fuse.mappers import comm_of
from fakedev.fuse.session import Session
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.calls import Answer, Shown
from fakedev.views.node import Attr, Node


@dataclass(slots=True)
class ExactFile:
    """One file; its descriptors may belong to several inodes."""

    session: Session
    ino: int
    node: Node
    _shown: tuple[Attr | None, Shown | None] = None, None

    @property
    def inodes(self) -> list[Inode]:
        """Those that there are now."""
        return self.session.numbered(self.ino)

    @property
    def path(self) -> str:
        """Where it was found last; empty where it has gone."""
        found = (self.session.path(one) for one in reversed(self.inodes) if not one.look)
        return next(filter(None, found), "")

    @property
    def stale(self) -> bool:
        """Whether descriptors of it may belong to an inode that lost pages."""
        return any(one.alias is not None and one.alias.expired for one in self.inodes)

    def look(self) -> Shown | None:
        """What stat shows where that is not what the kernel has in its inode."""
        attr = self.node.look()
        if attr != self._shown[0]:
            self._shown = attr, self._as_shown(attr)
        return self._shown[1]

    def _as_shown(self, attr: Attr | None) -> Shown | None:
        if attr is None:
            return None
        uid, gid, born = self.session.owner
        return Shown(self.ino, attr.mode, attr.nlink, uid, gid, attr.rdev, attr.size, born)


class ExactFiles:
    """Finds files by inode number, and records what was answered."""

    __slots__ = ("_file", "_last", "_machine", "_session", "comm_of", "discard")

    def __init__(self, session: Session, machine: Machine) -> None:
        self.discard: Callable[[Range], None] = lambda _: None
        self.comm_of = comm_of
        self._session = session
        self._machine = machine
        self._last: tuple[int, str, Answer] | None = None
        self._file: ExactFile | None = None

    @property
    def callers(self) -> Callers:
        """Who the callers are."""
        callers = self._session.options.callers
        if callers is None:
            raise ValueError("only a sandbox has an exact layer")
        return callers

    @contextmanager
    def again(self, tid: int) -> Iterator[None]:
        """What this thread opens meanwhile, it opens for thread `tid`, which has it open already."""
        self._session.again = threading.get_native_id(), tid
        try:
            yield
        finally:
            self._session.again = None

    def file(self, ino: int) -> ExactFile | None:
        """The file with this inode number; it is open, so the kernel has not forgotten it."""
        last = self._file
        if last is None or last.ino != ino:  # no number is ever given to another file
            inodes = self._session.numbered(ino)
            if not inodes:
                return None
            last = self._file = ExactFile(self._session, ino, inodes[0].node)
        return last

    def answered(self, tid: int, call: str, answer: Answer) -> None:
        """Record an answer and its rule; once, where a thread asks the same again and again."""
        if self._last == (tid, call, answer) and self._machine.events[-1].kind in REPEATED:
            return
        self._last = tid, call, answer
        who = f"{self.comm_of(tid)}[{tid}]"
        self._machine.record(
            "exact", f"{who}: {call} {_result(answer.value)}: {answer.rule}", answer.span
        )

    def spared(self, pid: int, span: Range, why: str) -> None:
        """Record that a process keeps private copies of a claimed range."""
        text = f"{comm_of(pid)}[{pid}] keeps private copies of {span}: {why}"
        self._machine.record("exact", text, span)

    def failed(self, error: Exception) -> None:
        """Record a fault of the exact layer."""
        self._machine.record("error", f"exact: {error!r}")


def _result(value: int) -> str:
    if -4095 <= value < 0:
        return errno.errorcode.get(-value, str(value))
    return f"gives {value:#x}"
