"""Anonymous memory in chunks, and constant blocks for what needs none.

Memory is kept in chunks of 2 MiB, each an anonymous private mapping that appears with the first
store into it. An address without a chunk costs nothing at all, not even the page tables that
reading the zero page would fill, and needs no overcommit: a segment may be as large as the 64-bit
space.
"""

import contextlib
import mmap
import sys
from collections.abc import Iterator

from fakedev.model.errors import MemoryLayoutError
from fakedev.model.ranges import PAGE_SHIFT, PAGE_SIZE

CHUNK_SHIFT = 21
CHUNK_SIZE = 1 << CHUNK_SHIFT
_ZERO_BLOCK = 1 << 20  # the largest read that FUSE asks for
ZEROS = memoryview(bytes(_ZERO_BLOCK))
ZERO_PAGE = bytes(PAGE_SIZE)

# Python names MAP_NORESERVE since 3.13; 0x4000 is its value on the architectures of asm-generic.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000) if sys.platform == "linux" else 0
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
_NOHUGEPAGE: int | None = getattr(mmap, "MADV_NOHUGEPAGE", None)


def zeros(size: int) -> Iterator[memoryview]:
    """Yield `size` zero bytes as slices of one constant block."""
    return constant(ZEROS, size)


def constant(block: memoryview, size: int) -> Iterator[memoryview]:
    """Yield `size` bytes as slices of `block`, whose bytes are all equal."""
    while size > 0:
        yield block[:size]
        size -= len(block)


class Chunk:
    """Up to 2 MiB of anonymous memory, from physical address `start` to `end` (whole pages)."""

    __slots__ = ("_pages", "end", "marks", "readonly", "start", "view")

    def __init__(self, start: int, end: int) -> None:
        try:
            self._pages = mmap.mmap(-1, end - start, flags=_ANONYMOUS)
        except (OSError, ValueError) as error:
            raise MemoryLayoutError(f"the host gives no memory for {start:#x}: {error}") from None
        if _NOHUGEPAGE is not None:  # one stored byte must not cost a huge page
            with contextlib.suppress(OSError):
                self._pages.madvise(_NOHUGEPAGE)
        self.start = start
        self.end = end
        self.view = memoryview(self._pages)
        self.readonly = self.view.toreadonly()
        self.marks = bytearray((end - start) >> PAGE_SHIFT)

    def drop(self, index: int) -> None:
        """Make page `index` a page that nobody stored to; gives its memory back to the host."""
        self.marks[index] = 0
        at = index << PAGE_SHIFT
        if sys.platform == "linux" and mmap.PAGESIZE == PAGE_SIZE:
            self._pages.madvise(mmap.MADV_DONTNEED, at, PAGE_SIZE)
        else:  # elsewhere, DONTNEED may keep the bytes
            self.view[at : at + PAGE_SIZE] = ZERO_PAGE

    def runs(self, low: int, high: int) -> Iterator[tuple[bool, int, int]]:
        """Cut `low`..`high` into stretches of (stored, low, high)."""
        marks, stop = self.marks, ((high - 1 - self.start) >> PAGE_SHIFT) + 1
        while low < high:
            page = (low - self.start) >> PAGE_SHIFT
            stored = marks[page] != 0
            turn = marks.find(0 if stored else 1, page, stop)
            end = high if turn < 0 else self.start + (turn << PAGE_SHIFT)
            yield stored, low, end
            low = end


def by_chunk(low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Cut `low`..`high` at the borders of chunks: (number, low, high)."""
    while low < high:
        number = low >> CHUNK_SHIFT
        end = min(high, (number + 1) << CHUNK_SHIFT)
        yield number, low, end
        low = end
