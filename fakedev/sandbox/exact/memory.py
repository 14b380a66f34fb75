"""Calls on addresses: madvise, mremap, mlock... of mappings of device memory (`fakedev.views.mappings`).

Allocators make such calls all the time. Until somebody has mapped a file of ours they cost a flag; then
a look at what the process has mapped in the range.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from fakedev.model.ranges import ADDRESS_LIMIT, PAGE_MASK, PAGE_SIZE
from fakedev.sandbox.exact.areas import Area, areas
from fakedev.sandbox.exact.hand import Hand
from fakedev.sandbox.exact.listener import Notification
from fakedev.sandbox.exact.numbers import AARCH64, I386, X86_64, Arch
from fakedev.sandbox.exact.rules import ALL_ONES
from fakedev.views import mappings
from fakedev.views.calls import Answer, MapCall
from fakedev.views.kinds import MAP_SHARED, PROT_READ, PROT_WRITE, whole_pages
from fakedev.views.mappings import Mapping, Remap

_TASK_SIZE = 1 << 47
_MOST_SEGMENTS = 16
_MLOCK_ONFAULT = 1
_MCL_ALL = 7
_SPLICE_F_ALL = 0xF


class _Call(NamedTuple):
    waiting: Notification
    arch: Arch
    name: str

    @property
    def tid(self) -> int:
        return self.waiting.tid

    @property
    def arguments(self) -> tuple[int, ...]:
        return self.waiting.arguments


class Mappings:
    """Answers for mappings of our files, once one may have been made. For one thread."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._shared = hand.shared
        self._listener = hand.listener
        self._statuses = hand.statuses
        self._memory = hand.memory
        self._files = hand.shared.files
        self._calls = {
            (arch.audit, number): (arch, name, getattr(self, name))
            for arch in (X86_64, I386, AARCH64)
            for name, number in arch.memory.items()
        }

    def handle(self, waiting: Notification) -> bool:
        """Answer a call; False where the kernel is to do it."""
        if not self._shared.mapped:
            return False
        found = self._calls.get((waiting.audit, waiting.number))
        if found is None:
            return False
        arch, name, handler = found
        if arch.bits == 32:
            waiting = waiting.narrow()
        answer: Answer | None = handler(_Call(waiting, arch, name))
        if answer is None:
            return False
        self._hand.record(waiting.tid, name, answer)
        self._listener.answer(waiting.id, answer.value)
        return True

    # -- whose memory it is

    def _ours(self, tid: int, start: int, end: int) -> Iterator[tuple[Area, Mapping]]:
        """Mappings of device memory in a range, cut to it."""
        for area in areas(tid, start, end, files=True):
            if area.device != self._statuses.device:
                continue
            file = self._files.file(area.ino)
            if file is None or not file.node.pfnmap:
                continue
            first, last = max(area.start, start), min(area.end, end)
            offset = area.offset + first - area.start
            yield area, Mapping(file.node, offset, last - first, area.shared, area.writable)

    def _first(self, tid: int, start: int, size: int) -> Mapping | None:
        """The first of them; None as well where the range wraps, which is EINVAL for everybody."""
        if start + size > ADDRESS_LIMIT:
            return None
        return next((found for _, found in self._ours(tid, start, start + size)), None)

    # -- calls

    def madvise(self, call: _Call) -> Answer | None:
        """madvise(2)."""
        start, size, advice, *_ = call.arguments
        found = None if start & PAGE_MASK else self._first(call.tid, start, whole_pages(size))
        return found and mappings.madvise(advice & ALL_ONES, found)

    def mremap(self, call: _Call) -> Answer | None:
        """mremap(2)."""
        remap = Remap(*call.arguments[:5])
        found = self._first(call.tid, remap.address, 1)
        return found and mappings.mremap(remap, shared=found.shared)

    def mlock(self, call: _Call) -> Answer | None:
        """mlock(2); the host's kernel would ask for pages, and never end where one is refused."""
        start, size = call.arguments[0] & ~PAGE_MASK, call.arguments[1]
        end = start + whole_pages(size + (call.arguments[0] & PAGE_MASK))
        if self._first(call.tid, start, end - start) is None:
            return None
        return mappings.UNLOCKED if _is_mapped(call.tid, start, end) else mappings.NOT_ALL_MAPPED

    def mlock2(self, call: _Call) -> Answer | None:
        """mlock2(2)."""
        return None if call.arguments[2] & ALL_ONES & ~_MLOCK_ONFAULT else self.mlock(call)

    def mlockall(self, call: _Call) -> Answer | None:
        """mlockall(2) of what is mapped now: nothing of the process is locked then."""
        wrong = call.arguments[0] & ALL_ONES & ~_MCL_ALL
        found = None if wrong else self._first(call.tid, 0, _TASK_SIZE)
        return found and mappings.UNLOCKED

    def mincore(self, call: _Call) -> Answer | None:
        """mincore(2) of a range that is nothing else."""
        start, size, room, *_ = call.arguments
        end = start + whole_pages(size)
        if start & PAGE_MASK or start == end:
            return None
        at = start
        for area, _ in self._ours(call.tid, start, end):
            if area.start > at:
                return None
            at = area.end
        if at < end or not self._listener.waits(call.waiting.id):
            return None
        return self._clear(call.tid, room, mappings.pages(size))

    def _clear(self, tid: int, address: int, size: int) -> Answer | None:
        step = self._memory.SIZE
        for at in range(0, size, step):
            if not self._memory.write(tid, address + at, bytes(min(step, size - at))):
                return None  # EFAULT
        return mappings.NO_PAGES_CACHED

    def remap_file_pages(self, call: _Call) -> Answer | None:
        """remap_file_pages(2): a new mapping of another part of the file, in the place of the old one."""
        start, size, prot, page, _ = call.arguments[:5]
        found = self._first(call.tid, start, 1)
        if found is None or prot or not found.shared:
            return None
        access = PROT_READ | (PROT_WRITE if found.writable else 0)
        offset = page * PAGE_SIZE
        size &= ~PAGE_MASK
        return found.node.mmap(MapCall(offset, size, access, MAP_SHARED, os.O_RDWR, {}))

    def vmsplice(self, call: _Call) -> Answer | None:
        """vmsplice(2) to a pipe."""
        fd, vector, count, flags = call.arguments[:4]
        fd, flags = fd & ALL_ONES, flags & ALL_ONES
        if flags & ~_SPLICE_F_ALL or self._statuses.access(call.tid, fd) in (None, os.O_RDONLY):
            return None
        if not os.readlink(f"/proc/{call.tid}/fd/{fd}").startswith("pipe:"):  # noqa: PTH115
            return None
        return self._unpinned(call.tid, self._segment(call, vector, count))

    def process_vm_readv(self, call: _Call) -> Answer | None:
        """process_vm_readv(2)."""
        pid, vector, count, remote, remote_count, flags = call.arguments
        if flags or self._segment(call, vector, count) is None:
            return None
        return self._unpinned(pid & ALL_ONES, self._segment(call, remote, remote_count))

    process_vm_writev = process_vm_readv

    def _segment(self, call: _Call, vector: int, count: int) -> int | None:
        """Where the first bytes of an iovec are; None where there are none, or it cannot be read."""
        layout = struct.Struct("=II" if call.arch.bits == 32 else "=QQ")
        count = min(count, _MOST_SEGMENTS)
        data = self._memory.read(call.tid, vector, layout.size * count) if count else None
        return next((at for at, size in layout.iter_unpack(data or b"") if size), None)

    def _unpinned(self, tid: int, address: int | None) -> Answer | None:
        if address is None or self._first(tid, address, 1) is None:
            return None
        return mappings.NO_PAGES_TO_PIN


def _is_mapped(tid: int, start: int, end: int) -> bool:
    """Whether there is something at every address."""
    for area in areas(tid, start, end):
        if area.start > start:
            return False
        start = area.end
    return start >= end
