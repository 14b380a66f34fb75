"""The bytes of a physical address space.

`PhysicalMemory` is a sorted list of segments over 64 bits of addresses (`segment`), each on a
backing (`backing`): anonymous memory that exists from the first store on, above a content that is a
pure function of the address (`contents`), or a mapped file (`hostfile`). Carving, filling and
loading replace segments; nothing is copied. `snapshot` keeps pages that change, `search` finds
bytes.

Nothing here locks: whoever shares a memory between threads holds a lock around every call. The
views that `buffers` returns may be read after the lock is dropped; a store made meanwhile may or
may not be seen in them.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fakedev.model.backing import Backing
from fakedev.model.chunk import CHUNK_SHIFT, ZEROS, constant
from fakedev.model.contents import ZERO, Content
from fakedev.model.errors import MemoryLayoutError
from fakedev.model.hostfile import HostFile
from fakedev.model.ranges import ADDRESS_LIMIT, PAGE_SHIFT, Range
from fakedev.model.search import search
from fakedev.model.segment import Layout, Piece, Segment, check_range, human_size
from fakedev.model.snapshot import (
    Snapshot,
    Tracker,
    coalesce,
    differences,
    go_back,
)
from fakedev.model.sources import anonymous, as_content, byte_view, check_fits, file_patches
from fakedev.model.window import Target, WindowBacking, shows

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["PhysicalMemory", "Segment", "Snapshot"]

_BLOCK = 1 << 20
_GAP_BLOCK = 1 << 18
# Up to this size, new contents are stored into the memory that is there instead of carving it.
_SMALL = 1 << 16


class PhysicalMemory:
    """Sparse physical memory; an address that no segment has reads as the byte `undecoded`."""

    def __init__(self, *, undecoded: int = 0xFF) -> None:
        if not 0 <= undecoded <= 0xFF:
            raise MemoryLayoutError(f"undecoded is a byte, not {undecoded:#x}")
        self.undecoded = undecoded
        self._gap = ZEROS if undecoded == 0 else memoryview(b"")
        self._trackers: tuple[Tracker, ...] = ()
        self._install(Layout())

    def _install(self, layout: Layout) -> None:
        self._layout = layout
        self._starts = layout.starts
        self._table = layout.table

    # Layout

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments by address."""
        return self._layout.segments

    @property
    def top(self) -> int:
        """The first address behind the last segment; 0 without segments."""
        return self._layout.top

    def add(
        self,
        start: int,
        size: int,
        content: Content | bytes = ZERO,
        *,
        name: str = "",
        rom: bool = False,
    ) -> Segment:
        """Add memory; `rom` drops what `write` stores there.

        MemoryLayoutError when it overlaps a segment or leaves the 64-bit space.
        """
        self._check_free(start, size, name)
        return self._add(Segment(start, size, name, anonymous(start, size, content), rom))

    def add_file(
        self,
        start: int,
        path: str | os.PathLike[str],
        *,
        offset: int = 0,
        size: int | None = None,
        shared: bool = False,
        name: str = "",
    ) -> Segment:
        """Add memory that is a file, from byte `offset` on: stores stay private unless `shared`.

        The file must not become shorter while it is in use: touching a page behind its new end is
        a SIGBUS of this process, as with every mapped file. Raises MemoryLayoutError as `add`
        does, and with the path and the reason when the file cannot be used, or is shared by another
        machine.
        """
        with HostFile(path, writable=shared) as file:
            size = file.part(offset, size)
            if shared:
                file.lock()
            self._check_free(start, size, name or str(path))
            backing = file.backing(start, offset=offset, size=size, shared=shared)
        return self._add(Segment(start, size, name, backing))

    def _check_free(self, start: int, size: int, name: str) -> None:
        for piece in self._layout.pieces(start, check_range(start, size)):
            if piece.segment is not None:
                what = f"{Range(start, size)}{f' ({name})' if name else ''}"
                raise MemoryLayoutError(f"{what} overlaps {piece.segment.describe()}")

    def _add(self, segment: Segment) -> Segment:
        self._install(self._layout.replace(segment.start, segment.end, [segment]))
        return segment

    def remove(self, start: int, size: int) -> None:
        """Take memory away; segments that lie there in part are cut. Gaps are no error."""
        self._install(self._layout.replace(start, check_range(start, size), []))

    def detach(self, start: int, size: int) -> tuple[Segment, ...]:
        """Take memory away and return it, in parts that `reattach` puts back with their bytes."""
        end = check_range(start, size)
        pieces = [(max(p.low, start), min(p.high, end), p.segment)
                  for p in self._layout.pieces(start, end)]  # fmt: skip
        self.remove(start, size)
        return tuple(segment.cut(low, high) for low, high, segment in pieces if segment)

    def reattach(self, segments: tuple[Segment, ...]) -> None:
        """Put back what `detach` returned. MemoryLayoutError when something is there now."""
        for segment in segments:
            self._check_free(segment.start, segment.size, segment.name)
        for segment in segments:
            self._add(segment)

    # Windows

    def map_window(
        self, start: int, size: int, target: Target, *, name: str = "", offset: int = 0
    ) -> bool:
        """Let `target` answer from its byte `offset` on, wherever nothing else does yet.

        What is there already keeps its place, as the first of two devices at one address does.
        True when all of the range is the target's now.
        """
        end = check_range(start, size)
        whole = True
        for low, high, segment in list(self._layout.pieces(start, end)):
            if segment is None:
                backing = WindowBacking(low, high - low, target, base=low - start + offset)
                self._add(Segment(low, high - low, name, backing))
            elif not shows(segment, target):
                whole = False
        return whole

    def unmap_window(self, target: Target, within: Range | None = None) -> list[Range]:
        """Take every window of `target` (`within` a range) away; returns where they were."""
        low, high = (0, ADDRESS_LIMIT) if within is None else (within.start, within.end)
        near = [segment for _, _, segment in self._layout.pieces(low, high) if segment is not None]
        gone = [segment.range for segment in near if shows(segment, target)]
        for span in gone:
            self._install(self._layout.replace(span.start, span.end, []))
        return gone

    def extents(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Return where `low`..`high` may hold anything but zeros."""
        for first, last, segment in self._layout.pieces(low, high):
            if segment is not None:
                yield from segment.backing.extents(first, last)

    # Contents

    def fill(self, start: int, size: int, content: Content | bytes) -> None:
        """Give existing memory a new content; names stay. Zeros follow bytes that are too few.

        A file mapped as shared is stored to. MemoryLayoutError when a part of the range has no
        memory.
        """
        self._check_inside(start, size)
        if size <= _SMALL:
            check_fits(start, size, content)
            data = as_content(content).generate(start, size, origin=start)
            self._store_pieces(start, memoryview(data))
        else:
            self._overlay(start, size, [(start, start + size, anonymous(start, size, content))])

    def load(
        self,
        address: int,
        path: str | os.PathLike[str],
        *,
        offset: int = 0,
        size: int | None = None,
    ) -> int:
        """Put a raw file over existing memory; returns the number of bytes.

        The data of a large file is mapped, privately (see `add_file` about files that shrink); its
        holes of 1 MiB and more become zero memory that costs nothing. MemoryLayoutError when the
        file cannot be read, is empty, or is longer than the memory at `address`.
        """
        with HostFile(path) as file:
            size = file.part(offset, size)
            self._check_inside(address, size, what=f"{path}: ")
            if size <= _SMALL:
                self._store_pieces(address, memoryview(file.read(offset, size)))
            else:
                self._overlay(address, size, file_patches(file, address, offset, size))
        return size

    def place(self, address: int, data: "ReadableBuffer") -> None:
        """Store bytes. MemoryLayoutError, and nothing stored, unless memory has room for all."""
        view = byte_view(data)
        if len(view):
            self._check_inside(address, len(view))
            self._store_pieces(address, view)

    def _check_inside(self, start: int, size: int, *, what: str = "") -> None:
        check_range(start, size)
        there = self._layout.covered(start, start + size)
        if there < size:
            raise MemoryLayoutError(
                f"{what}{human_size(size)} ({size:#x}) do not fit at {start:#x}: "
                f"memory ends after {human_size(there)} ({there:#x}), at {start + there:#x}"
            )

    def _overlay(self, start: int, size: int, patches: list[tuple[int, int, Backing]]) -> None:
        """Show new backings in a range that is all memory; `patches` cover it in order."""
        new: list[Segment] = []
        stores: list[tuple[int, int, Backing]] = []
        for low, high, backing in patches:
            for first, last, old in self._layout.pieces(low, high):
                if old is None:
                    continue
                if old.backing.shared:
                    stores.append((first, last, backing))
                    new.append(old.cut(first, last))
                else:
                    new.append(Segment(first, last - first, old.name, backing, old.rom))
        self._install(self._layout.replace(start, start + size, new))
        for first, last, backing in stores:
            self._copy_in(first, last, backing)

    def _copy_in(self, low: int, high: int, source: Backing) -> None:
        while low < high:
            stop = min(low + _BLOCK, high)
            self._store_pieces(low, memoryview(b"".join(source.buffers(low, stop))))
            low = stop

    # Data path

    def buffers(self, address: int, size: int) -> list[memoryview]:
        """Return the bytes as read-only views, in order; their lengths add up to `size`.

        Nothing stored is copied: it comes as one view per 2 MiB chunk, a file as one view, other
        zeros and gaps as slices of constant blocks; bytes of a pattern are made for the call.
        MemoryLayoutError beyond 64 bits.
        """
        layout = self._layout  # once: a reader needs no lock
        segment = layout.table[bisect_right(layout.starts, address) - 1]
        end = address + size
        if end <= segment.end and size > 0:
            backing = segment.backing
            if backing.direct is not None:
                return [backing.direct[address - backing.start : end - backing.start]]
            if backing.blank:
                chunk = backing.chunks.get(address >> CHUNK_SHIFT)
                if chunk is not None:
                    if end <= chunk.end:
                        return [chunk.readonly[address - chunk.start : end - chunk.start]]
                elif size <= _BLOCK and (end - 1) >> CHUNK_SHIFT == address >> CHUNK_SHIFT:
                    return [ZEROS[:size]]
        return self._buffers(address, size)

    def _buffers(self, address: int, size: int) -> list[memoryview]:
        if size == 0:
            return []
        found: list[memoryview] = []
        for low, high, segment in self._layout.pieces(address, check_range(address, size)):
            if segment is None:
                found.extend(constant(self._gap_block(), high - low))
            else:
                found.extend(segment.backing.buffers(low, high))
        return found

    def _gap_block(self) -> memoryview:
        if not self._gap:
            self._gap = memoryview(bytes([self.undecoded]) * _GAP_BLOCK)
        return self._gap

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of the bytes."""
        found = self.buffers(address, size)
        return found[0].tobytes() if len(found) == 1 else b"".join(found)

    def write(self, address: int, data: "ReadableBuffer") -> None:
        """Store bytes; what goes to a ROM or to addresses without memory is lost, as on a bus."""
        view = data if type(data) is bytes else byte_view(data)
        size = len(view)
        segment = self._table[bisect_right(self._starts, address) - 1]
        if address + size <= segment.end and size and not segment.rom:
            if self._trackers:
                self._save(segment.backing, address, address + size)
            segment.backing.store(address, view)
        else:
            self._store_pieces(address, memoryview(view), keep_roms=True)

    def _store_pieces(self, address: int, view: memoryview, *, keep_roms: bool = False) -> None:
        if not len(view):
            return
        end = check_range(address, len(view))
        pieces = [p for p in self._layout.pieces(address, end) if p.segment is not None]
        if keep_roms:
            pieces = [p for p in pieces if not (p.segment and p.segment.rom)]
        for low, high, segment in pieces:  # what can fail comes before the first store
            assert segment is not None  # noqa: S101  # for the type checker
            segment.backing.reserve(low, high)
        for piece in pieces:
            self._store_piece(piece, view[piece.low - address : piece.high - address])

    def _store_piece(self, piece: Piece, view: memoryview) -> None:
        assert piece.segment is not None  # noqa: S101  # for the type checker
        backing = piece.segment.backing
        if self._trackers:
            self._save(backing, piece.low, piece.high)
        backing.store(piece.low, view)

    # Snapshots

    def snapshot(self) -> Snapshot:
        """Remember this moment: layout and bytes. Costs nothing until pages are stored to."""
        tracker = Tracker(self._layout)
        self._trackers = (*self._trackers, tracker)
        return Snapshot(tracker, self._forget, undecoded=self.undecoded)

    def _forget(self, tracker: Tracker) -> None:
        self._trackers = tuple(t for t in self._trackers if t is not tracker)
        tracker.saved = {}

    def _save(self, backing: Backing, low: int, high: int) -> None:
        """Give the pages that are about to change to the snapshots that have them not yet."""
        if isinstance(backing, WindowBacking):
            return  # no snapshot has its bytes, and a device moves from window to window
        trackers = self._trackers
        newest = trackers[-1].saved.get(backing) if trackers else None
        for page in range(low >> PAGE_SHIFT, ((high - 1) >> PAGE_SHIFT) + 1):
            if newest is not None and page in newest:
                continue
            old = backing.save_page(page)
            for tracker in trackers:
                tracker.saved.setdefault(backing, {}).setdefault(page, old)

    def _tracker(self, snapshot: Snapshot) -> Tracker:
        if snapshot.closed:
            raise MemoryLayoutError("the snapshot is closed")
        if all(tracker is not snapshot.tracker for tracker in self._trackers):
            raise MemoryLayoutError("the snapshot belongs to another memory")
        return snapshot.tracker

    def restore(self, snapshot: Snapshot) -> list[Range]:
        """Go back to a moment, layout included; returns the whole pages whose bytes changed by it.

        Where a segment was added, removed or replaced since, all its pages count as changed. Other
        snapshots, older and later ones, stay valid. A file mapped as shared gets its old bytes
        back. MemoryLayoutError for a snapshot that is closed or of another memory.
        """
        tracker = self._tracker(snapshot)
        changed = go_back(tracker, self._layout, self._save)
        self._install(tracker.layout)
        if (
            tracker is self._trackers[-1]
        ):  # older ones keep theirs: they have every page of this one
            tracker.saved = {}
        return changed

    def diff(self, snapshot: Snapshot) -> list[Range]:
        """Return the exact byte ranges that differ from a moment, sorted.

        Addresses that have memory now and had none then, or the reverse, differ whatever they
        read as. MemoryLayoutError for a snapshot that is closed or of another memory.
        """
        return coalesce(list(differences(self._tracker(snapshot), self._layout)))

    def find(self, needle: bytes, *, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Every address in `start`..`end` where `needle` begins and lies wholly inside memory.

        Zero memory that nobody stored to is skipped, so a needle of zeros is found beside stored
        bytes only. Patterns and files are looked through byte by byte. MemoryLayoutError for an
        empty needle.
        """
        if not needle:
            raise MemoryLayoutError("nothing to find: the needle is empty")
        stop = ADDRESS_LIMIT if end is None else min(end, ADDRESS_LIMIT)
        return search(self._layout, self.read, bytes(needle), max(start, 0), stop)
