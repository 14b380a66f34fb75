"""The bytes behind segments: anonymous memory made at the first store, or a mapped file.

A backing covers a stretch of physical addresses and is addressed by them; several segments may
share one (that is how carving works). Everything that is counted in pages is counted in physical
pages, so a segment, its backing and the files that show it agree on what a page is.
"""

import mmap
from collections.abc import Iterator

from fakedev.model.chunk import CHUNK_SHIFT, Chunk, by_chunk, zeros
from fakedev.model.contents import ZERO, Content
from fakedev.model.ranges import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

Saved = bytes | None  # a page as a snapshot keeps it; None: nothing was stored to it


class Backing:
    """Base of both kinds. Addresses given to the methods must lie inside `start`..`end`.

    `direct` is a read-only view of all bytes from `start` on, where one exists; `chunks` are the
    pieces of anonymous memory by `address >> CHUNK_SHIFT`; `blank` says that bytes without a chunk
    are zeros. `shared`: a store is a store into somebody's file.
    """

    __slots__ = ("blank", "chunks", "direct", "end", "kind", "label", "shared", "start")

    def __init__(self, start: int, end: int, *, kind: str, label: str) -> None:
        self.start = start
        self.end = end
        self.kind = kind
        self.label = label
        self.shared = False
        self.blank = False
        self.direct: memoryview | None = None
        self.chunks: dict[int, Chunk] = {}

    def buffers(self, low: int, high: int) -> Iterator[memoryview]:
        """Return the bytes of `low`..`high`, without copying what is stored."""
        raise NotImplementedError

    def reserve(self, low: int, high: int) -> None:
        """Get the host's memory for a store, so that the store itself cannot fail."""

    def store(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes. MemoryLayoutError, with nothing stored, when the host has no memory."""
        raise NotImplementedError

    def save_page(self, page: int) -> Saved:
        """Return a copy of a physical page for `put_page`."""
        raise NotImplementedError

    def put_page(self, page: int, saved: Saved) -> None:
        """Make a page what it was when `save_page` returned `saved`."""
        raise NotImplementedError

    def page_bytes(self, page: int, saved: Saved) -> bytes:
        """Return what `saved` means as bytes (the part of the page that this backing covers)."""
        raise NotImplementedError

    def page_start(self, page: int) -> int:
        """Return the address of the first byte of `page_bytes`."""
        return max(page << PAGE_SHIFT, self.start)

    def extents(self, low: int, high: int, *, coarse: bool = False) -> Iterator[tuple[int, int]]:
        """Where `low`..`high` may hold anything but zeros; `coarse`: now or at any time before."""
        yield low, high


class AnonymousBacking(Backing):
    """Memory of our own with a content below it."""

    __slots__ = ("content", "origin")

    def __init__(
        self, start: int, end: int, content: Content, *, described: Content | None = None
    ) -> None:
        shown = described or content
        super().__init__(
            start & ~PAGE_MASK, (end + PAGE_MASK) & ~PAGE_MASK, kind=shown.kind, label=str(shown)
        )
        self.content = content
        self.origin = start
        self.blank = content == ZERO

    def buffers(self, low: int, high: int) -> Iterator[memoryview]:
        """Return the stored bytes as views, the others as the content makes them."""
        for number, first, last in by_chunk(low, high):
            chunk = self.chunks.get(number)
            if chunk is None:
                yield from self._made(first, last)
            elif self.blank:  # pages that nobody stored to are zeros in the mapping, too
                yield chunk.readonly[first - chunk.start : last - chunk.start]
            else:
                yield from self._mixed(chunk, first, last)

    def _made(self, low: int, high: int) -> Iterator[memoryview]:
        if self.blank:
            return zeros(high - low)
        return iter((memoryview(self.content.generate(low, high - low, origin=self.origin)),))

    def _mixed(self, chunk: Chunk, low: int, high: int) -> Iterator[memoryview]:
        for stored, first, last in chunk.runs(low, high):
            if stored:
                yield chunk.readonly[first - chunk.start : last - chunk.start]
            else:
                yield from self._made(first, last)

    def _chunk(self, number: int) -> Chunk:
        chunk = self.chunks.get(number)
        if chunk is None:
            start = max(number << CHUNK_SHIFT, self.start)
            end = min((number + 1) << CHUNK_SHIFT, self.end)
            chunk = self.chunks[number] = Chunk(start, end)
        return chunk

    def reserve(self, low: int, high: int) -> None:
        """Make the chunks of `low`..`high`; their pages still count as not stored to."""
        for number in range(low >> CHUNK_SHIFT, ((high - 1) >> CHUNK_SHIFT) + 1):
            self._chunk(number)

    def store(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes; pages of a pattern that are covered in part are made first."""
        high = address + len(data)
        chunk = self.chunks.get(address >> CHUNK_SHIFT)
        if chunk is not None and high <= chunk.end:
            self._put(chunk, address, high, data)
            return
        self.reserve(address, high)
        view = memoryview(data)
        for number, first, last in by_chunk(address, high):
            self._put(self.chunks[number], first, last, view[first - address : last - address])

    def _put(self, chunk: Chunk, low: int, high: int, data: bytes | memoryview) -> None:
        """Store into one chunk."""
        if not self.blank:
            self._materialise(chunk, low)
            self._materialise(chunk, high)
        first, last = low - chunk.start, high - chunk.start
        chunk.view[first:last] = data
        page, end = first >> PAGE_SHIFT, ((last - 1) >> PAGE_SHIFT) + 1
        if end - page == 1:
            chunk.marks[page] = 1
        else:
            chunk.marks[page:end] = b"\1" * (end - page)

    def _materialise(self, chunk: Chunk, edge: int) -> None:
        """Put the content into the page that a store cuts at `edge`, if nothing is stored there."""
        index = (edge - chunk.start) >> PAGE_SHIFT
        if edge & PAGE_MASK and not chunk.marks[index]:
            start = edge & ~PAGE_MASK
            page = self.content.generate(start, PAGE_SIZE, origin=self.origin)
            chunk.view[start - chunk.start : start - chunk.start + PAGE_SIZE] = page
            chunk.marks[index] = 1

    def _find_page(self, page: int) -> tuple[Chunk, int] | None:
        """Return the chunk and the index of a stored page; None for one that nobody stored to."""
        chunk = self.chunks.get(page >> (CHUNK_SHIFT - PAGE_SHIFT))
        if chunk is None:
            return None
        index = page - (chunk.start >> PAGE_SHIFT)
        return (chunk, index) if chunk.marks[index] else None

    def save_page(self, page: int) -> Saved:
        """Return the stored bytes, or None."""
        found = self._find_page(page)
        if found is None:
            return None
        chunk, index = found
        return chunk.view[index << PAGE_SHIFT : (index + 1) << PAGE_SHIFT].tobytes()

    def put_page(self, page: int, saved: Saved) -> None:
        """Store the bytes back, or let the content show again."""
        found = self._find_page(page)
        if saved is not None:
            self.store(page << PAGE_SHIFT, saved)
        elif found is not None:
            found[0].drop(found[1])

    def page_bytes(self, page: int, saved: Saved) -> bytes:
        """Return the saved bytes, or what the content makes."""
        if saved is not None:
            return saved
        return self.content.generate(page << PAGE_SHIFT, PAGE_SIZE, origin=self.origin)

    def extents(self, low: int, high: int, *, coarse: bool = False) -> Iterator[tuple[int, int]]:
        """Zeros: the stored pages, or (`coarse`) the chunks. Another content: everything."""
        if not self.blank:
            yield low, high
            return
        for number in sorted(self.chunks):
            chunk = self.chunks[number]
            first, last = max(low, chunk.start), min(high, chunk.end)
            if first >= last:
                continue
            if coarse:
                yield first, last
            else:
                yield from ((a, b) for stored, a, b in chunk.runs(first, last) if stored)


class FileBacking(Backing):
    """`size` bytes of a mapped file from byte `skip` of the mapping, at physical `start`."""

    __slots__ = ("_view",)

    def __init__(
        self, start: int, size: int, mapping: mmap.mmap, *, skip: int, shared: bool, label: str
    ) -> None:
        super().__init__(start, start + size, kind="file", label=label)
        self._view = memoryview(mapping)[skip : skip + size]
        self.direct = self._view.toreadonly()
        self.shared = shared

    def buffers(self, low: int, high: int) -> Iterator[memoryview]:
        """One slice of the mapping."""
        assert self.direct is not None  # noqa: S101  # for the type checker
        yield self.direct[low - self.start : high - self.start]

    def store(self, address: int, data: bytes | memoryview) -> None:
        """Store into the mapping."""
        at = address - self.start
        self._view[at : at + len(data)] = data

    def save_page(self, page: int) -> Saved:
        """Return the bytes of the page that the mapping covers."""
        low = self.page_start(page)
        high = min((page + 1) << PAGE_SHIFT, self.end)
        return self._view[low - self.start : high - self.start].tobytes()

    def put_page(self, page: int, saved: Saved) -> None:
        """Store the bytes back."""
        self.store(self.page_start(page), saved or b"")

    def page_bytes(self, page: int, saved: Saved) -> bytes:
        """Return the saved bytes themselves."""
        return saved or b""
