"""mmap(2) of our files: refused by the node, or made by the kernel, from a file that has its pages."""

import functools
from pathlib import Path

from fakedev.model.ranges import PAGE_MASK
from fakedev.sandbox.exact.areas import areas
from fakedev.sandbox.exact.exchange import exchange
from fakedev.sandbox.exact.hand import Call, Hand
from fakedev.sandbox.exact.numbers import I386
from fakedev.sandbox.exact.rules import ALL_ONES
from fakedev.views.calls import MapCall
from fakedev.views.kinds import MAP_FIXED, MAP_PRIVATE, MAP_TYPE, whole_pages

_PAGE_OF_MMAP2 = 4096
_MAP_FIXED_NOREPLACE = 0x10_0000
#: Where addresses of user space end (TASK_SIZE, IA32_PAGE_OFFSET); with five levels of page tables (LA57).
_ENDS = {"x86_64": (1 << 47) - 4096, "i386": 0xFFFF_E000, "aarch64": 1 << 48}
_END_OF_FIVE_LEVELS = (1 << 56) - 4096


class Maps:
    """mmap(2). False where the kernel is to do it."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._shared = hand.shared

    def mmap(self, call: Call) -> bool:
        """mmap(2), and mmap2 of i386."""
        access = self._hand.access(call)
        if access is None:
            return False
        _, length, prot, flags, _, offset = call.waiting.arguments
        if call.arch is I386:
            offset *= _PAGE_OF_MMAP2
        state = self._hand.state(call)
        capable = functools.partial(self._capable, call.waiting.tid)
        request = MapCall(offset, length, prot & ALL_ONES, flags & ALL_ONES, access, state, capable)
        node = call.file.node
        answer = node.mmap(request)
        if answer is not None:
            return not _has_no_place(call) and self._hand.answer(call, answer)
        through = node.mapped_through(request)
        path = through or (call.file.path if self._is_stale(call) else "")
        if path:
            exchange(self._hand, call, path, worn=not through)
        self._shared.mapped = True
        self._shared.copies.any |= flags & MAP_TYPE == MAP_PRIVATE
        return False

    def _is_stale(self, call: Call) -> bool:
        """Whether the inode of this very descriptor has lost pages; others of its file may have theirs."""
        if not call.file.worn:
            return False
        generation = self._hand.statuses.generation(call.waiting.tid, call.fd)
        return generation in call.file.worn

    def _capable(self, tid: int, capability: int) -> bool:
        return self._shared.files.callers.opener(tid, 0, 0).capable(capability)


def _has_no_place(call: Call) -> bool:
    """`__get_unmapped_area`, MAP_FIXED_NOREPLACE: EINVAL, ENOMEM and EEXIST, before any file is looked at."""
    start, length, _, flags, *_ = call.waiting.arguments
    if not flags & (MAP_FIXED | _MAP_FIXED_NOREPLACE):
        return False
    end = start + whole_pages(length)
    if start & PAGE_MASK or end > _end(call.arch.name):
        return True
    taken = flags & _MAP_FIXED_NOREPLACE and next(areas(call.waiting.tid, start, end), None)
    return bool(taken)


@functools.cache
def _end(arch: str) -> int:
    if arch == "x86_64" and " la57 " in Path("/proc/cpuinfo").read_text(encoding="ascii"):
        return _END_OF_FIVE_LEVELS
    return _ENDS[arch]
