"""Refused pages that the host's kernel would ask for again and again: `__mm_populate`.

mlock(2), MAP_LOCKED and MAP_POPULATE fault pages in, and try for ever where a file system fails: the
second try is never told to be the last (FAULT_FLAG_TRIED), and only SIGKILL ends it. Such a thread gets
a page of zeros, which is recalled at once: it goes on, and the next touch is SIGBUS as before.
"""

import platform
from collections.abc import Callable, Iterator

from fakedev.fuse import wire
from fakedev.fuse.intent import system_call
from fakedev.model.ranges import PAGE_MASK, PAGE_SIZE
from fakedev.views.node import Buffers

# mmap mremap mlock mlockall mlock2, and those of i386.
_X86 = frozenset({"9", "25", "149", "151", "325", "192", "163", "150", "152", "376"})
_GENERIC = frozenset({"222", "216", "228", "230", "284"})
POPULATING = _X86 if platform.machine() == "x86_64" else _GENERIC
_ZEROS = memoryview(bytes(PAGE_SIZE))


class Populating:
    """Pages of one mount that are passed over. `submit` does a job on the notifier thread."""

    __slots__ = ("_notify", "_passing", "_submit")

    def __init__(
        self, submit: Callable[[Callable[[], None]], None], notify: Callable[[bytes], None]
    ) -> None:
        self._submit = submit
        self._notify = notify
        self._passing: list[tuple[int, int]] = []

    def pass_over(self, tid: int, nodeid: int, offset: int, size: int) -> Buffers | None:
        """What a refused READ of a page gets if its thread would never stop asking."""
        if size > PAGE_SIZE or not self._populates(tid):
            return None
        page = nodeid, offset & ~PAGE_MASK
        self._passing.append(page)
        self._submit(lambda: self._recall(page))
        return [_ZEROS]

    @staticmethod
    def _populates(tid: int) -> bool:
        words = system_call(tid)
        return bool(words) and words[0] in POPULATING

    def _recall(self, page: tuple[int, int]) -> None:
        try:
            self._notify(wire.inval_inode(*page, PAGE_SIZE))
        finally:
            self._passing.remove(page)

    def kept(self, nodeid: int, offset: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """What is written back, without stores into such pages: no memory is there."""
        if not self._passing:
            yield offset, data
            return
        for at in range(0, len(data), PAGE_SIZE):
            if (nodeid, offset + at & ~PAGE_MASK) not in self._passing:
                yield offset + at, data[at : at + PAGE_SIZE]
