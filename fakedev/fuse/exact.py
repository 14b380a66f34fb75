"""The files of one mount for whoever answers system calls before the kernel does (`fakedev.sandbox.exact`)."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from fakedev.fuse.credentials import Callers
from fakedev.fuse.denials import REPEATED
from fakedev.fuse.inodes import Inode
from fakedev.fuse.mappers import comm_of
from fakedev.fuse.session import Session
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.calls import Answer, Shown
from fakedev.views.node import Attr, Node

_Answered = tuple[int, str, Answer]
_LOOKS = ("fstat", "newfstatat", "statx")
_MOST = 256  # answers that are known to be in the trace, and events that are looked through


@dataclass(slots=True)
class ExactFile:
    """One file; its descriptors may belong to several inodes."""

    session: Session
    ino: int
    node: Node
    _shown: tuple[Attr | None, tuple[Shown, Answer] | None] = None, None

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
    def worn(self) -> Collection[int]:
        """Generations of its inodes that lost pages which can be mapped again."""
        return [one.generation for one in self.inodes if one.alias and one.alias.expired]

    def look(self) -> tuple[Shown, Answer] | None:
        """What stat shows where that is not what the kernel has in its inode, and the rule."""
        attr, shown = self.node.look(), self._shown
        if attr != shown[0]:
            shown = self._shown = attr, self._as_shown(attr)
        return shown[1]

    def _as_shown(self, attr: Attr | None) -> tuple[Shown, Answer] | None:
        if attr is None:
            return None
        uid, gid, born = self.session.owner
        shown = Shown(self.ino, attr.mode, attr.nlink, uid, gid, attr.rdev, attr.size, born)
        number = f"{os.major(attr.rdev)}:{os.minor(attr.rdev)}"
        what = f"{stat.filemode(attr.mode)}, device {number}, {attr.size} bytes"
        return shown, Answer(0, f"generic_fillattr: {what}")


class ExactFiles:
    """Finds files by inode number, and records what was answered."""

    __slots__ = ("_file", "_given", "_last", "_looked", "_machine", "_seen", "_session", "discard")

    def __init__(self, session: Session, machine: Machine) -> None:
        self.discard: Callable[[Range], None] = lambda _: None
        self._session = session
        self._machine = machine
        self._given: _Answered | None = None
        self._last: _Answered | None = None  # that was no look
        self._looked: dict[_Answered, None] = {}  # what is known to be in the trace
        self._seen = 0
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
        us = threading.get_native_id()
        self._session.again[us] = tid
        try:
            yield
        finally:
            del self._session.again[us]

    def file(self, ino: int) -> ExactFile | None:
        """The file with this inode number; it is open, so the kernel has not forgotten it."""
        last = self._file
        if last is None or last.ino != ino:  # no number is ever given to another file
            inodes = self._session.numbered(ino)
            if not inodes:
                return None
            last = self._file = ExactFile(self._session, ino, inodes[0].node)
        return last

    def answered(
        self, tid: int, call: str, answer: Answer, comm_of: Callable[[int], str] = comm_of
    ) -> None:
        """Record an answer and its rule; once, where a thread asks the same again and again.

        `ls -lR` and its like ask for what they have been told of among other calls: that is known until
        something else happens than answers and refusals.
        """
        given = tid, call, answer
        if given == self._given and self._machine.now == self._seen:
            return
        self._given = given
        if self._is_known(given):
            return
        who = f"{comm_of(tid)}[{tid}]"
        self._machine.record(
            "exact", f"{who}: {call} {_result(answer.value)}: {answer.rule}", answer.span
        )

    def _is_known(self, given: _Answered) -> bool:
        if given[1] not in _LOOKS:
            before, self._last = self._last, given
            return before == given and self._machine.events[-1].kind in REPEATED
        if not self._is_quiet() or len(self._looked) >= _MOST:
            self._looked.clear()
        if given in self._looked:
            return True
        self._looked[given] = None
        return False

    def _is_quiet(self) -> bool:
        """Whether nothing else has happened since this was asked last."""
        now = self._machine.now
        new, self._seen = now - self._seen, now
        # A tuple is made at once, without other threads between.
        since = tuple(islice(reversed(self._machine.events), min(new, _MOST))) if new else ()
        return new < _MOST and all(event.kind in REPEATED for event in since)

    def stays(self, tid: int, fd: int, why: str) -> None:
        """Record that a descriptor keeps an inode that lost pages: what it maps is dead."""
        text = f"{comm_of(tid)}[{tid}]: descriptor {fd} lost pages, and stays as it is: {why}"
        self._machine.record("exact", text)

    def spared(self, pid: int, span: Range, why: str) -> None:
        """Record that a process keeps private copies of a claimed range."""
        text = f"{comm_of(pid)}[{pid}] keeps private copies of {span}: {why}"
        self._machine.record("exact", text, span)

    def failed(self, error: BaseException) -> None:
        """Record a fault of the exact layer."""
        self._machine.record("error", f"exact: {error!r}")


def _result(value: int) -> str:
    if -4095 <= value < 0:
        return errno.errorcode.get(-value, str(value))
    return f"gives {value:#x}"
