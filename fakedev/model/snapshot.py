"""Snapshots: what pages held before the first store after a moment, and what differs since.

Taking one keeps the layout (which is never changed, only replaced) and an empty table. The first
store into a page afterwards puts the old page into the table of every snapshot that has none for
it, so a page that the newest snapshot has is in all older ones, too: stores ask the newest only.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from fakedev.model.backing import AnonymousBacking, Backing, Saved
from fakedev.model.errors import MemoryLayoutError
from fakedev.model.ranges import PAGE_SHIFT, PAGE_SIZE, Range, page_round
from fakedev.model.segment import Layout, Segment

_BLOCK = 1 << 20


class Tracker:
    """The layout of a moment, and the pages that changed since."""

    __slots__ = ("layout", "saved")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.saved: dict[Backing, dict[int, Saved]] = {}

    def read(self, backing: Backing, low: int, high: int) -> bytes:
        """Return the bytes of `low`..`high` as they were."""
        data = bytearray(b"".join(backing.buffers(low, high)))
        pages = self.saved.get(backing, {})
        for page in sorted(_pages_within(pages, low, high)):
            start = backing.page_start(page)
            old = backing.page_bytes(page, pages[page])
            first, last = max(start, low), min(start + len(old), high)
            data[first - low : last - low] = old[first - start : last - start]
        return bytes(data)


class Snapshot:
    """A moment of a PhysicalMemory.

    `close`, the end of a `with` block, or the last reference to it stop the copying of pages.
    """

    __slots__ = ("__weakref__", "_finalizer", "_undecoded", "tracker")

    def __init__(
        self, tracker: Tracker, forget: Callable[[Tracker], None], *, undecoded: int
    ) -> None:
        self.tracker = tracker
        self._undecoded = undecoded
        self._finalizer = weakref.finalize(self, forget, tracker)
        self._finalizer.atexit = False

    @property
    def closed(self) -> bool:
        """True when it can no longer be restored or compared."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Stop the tracking and free the saved pages. Closing twice is fine."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, address: int, size: int) -> bytes:
        """Return the bytes as they were. MemoryLayoutError when the snapshot is closed."""
        if self.closed:
            raise MemoryLayoutError("the snapshot is closed")
        parts = []
        for low, high, segment in self.tracker.layout.pieces(address, address + size):
            if segment is None:
                parts.append(bytes([self._undecoded]) * (high - low))
            else:
                parts.append(self.tracker.read(segment.backing, low, high))
        return b"".join(parts)


class _Both(NamedTuple):
    """A stretch of addresses with its segment in an old and in a new layout."""

    low: int
    high: int
    old: Segment | None
    new: Segment | None


def compare_layouts(old: Layout, new: Layout) -> Iterator[_Both]:
    """Both layouts side by side, by address; stretches that neither has are left out."""
    top = max(old.top, new.top)
    left = old.pieces(0, top)
    right = new.pieces(0, top)
    a, b, low = next(left, None), next(right, None), 0
    while a is not None and b is not None:
        high = min(a.high, b.high)
        if a.segment is not None or b.segment is not None:
            yield _Both(low, high, a.segment, b.segment)
        low = high
        a = next(left, None) if a.high == high else a
        b = next(right, None) if b.high == high else b


def _same_memory(both: _Both) -> bool:
    """Tell whether both layouts show the same bytes of the same backing."""
    return both.old is not None and both.new is not None and both.old.backing is both.new.backing


def go_back(
    tracker: Tracker, now: Layout, before: Callable[[Backing, int, int], None]
) -> list[Range]:
    """Put all pages of a moment back; return those that changed, and those of other segments.

    `before` is called with the backing and the addresses of a page before it changes, for the
    snapshots that came later. The layout itself is left to the caller.
    """
    changed: list[Range] = []
    backings: dict[Backing, None] = {}
    for both in compare_layouts(tracker.layout, now):
        if both.old is not None:
            backings[both.old.backing] = None
        if not _same_memory(both):
            changed.append(page_round(Range(both.low, both.high - both.low)))
    for backing in backings:
        changed.extend(_put_back(tracker, backing, before))
    return coalesce(changed)


def _put_back(
    tracker: Tracker, backing: Backing, before: Callable[[Backing, int, int], None]
) -> Iterator[Range]:
    pages = tracker.saved.get(backing, {})
    for page in sorted(pages):
        old, current = pages[page], backing.save_page(page)
        if current == old:
            continue
        whole = Range(page << PAGE_SHIFT, PAGE_SIZE)
        before(backing, whole.start, whole.end)
        backing.put_page(page, old)
        if backing.page_bytes(page, current) != backing.page_bytes(page, old):
            yield whole


def differences(tracker: Tracker, now: Layout) -> Iterator[Range]:
    """Return the exact byte ranges that differ between the moment and now; may touch each other."""
    for both in compare_layouts(tracker.layout, now):
        low, high, old, new = both
        if old is None or new is None:
            yield Range(low, high - low)
        elif old.backing is new.backing:
            yield from _changed_pages(tracker, old.backing, low, high)
        else:
            yield from _changed_blocks(tracker, both)


def _changed_pages(tracker: Tracker, backing: Backing, low: int, high: int) -> Iterator[Range]:
    pages = tracker.saved.get(backing, {})
    for page in sorted(_pages_within(pages, low, high)):
        old = backing.page_bytes(page, pages[page])
        new = backing.page_bytes(page, backing.save_page(page))
        for run in differing_runs(old, new, backing.page_start(page)):
            first, last = max(run.start, low), min(run.end, high)
            if first < last:
                yield Range(first, last - first)


def _changed_blocks(tracker: Tracker, both: _Both) -> Iterator[Range]:
    """Compare two backings block by block; what is zeros in both is skipped."""
    old, new = both.old, both.new
    if old is None or new is None or _same_content(tracker, old.backing, new.backing):
        return
    spans = [
        Range(a, b - a)
        for s in (old, new)
        for a, b in s.backing.extents(both.low, both.high, coarse=True)
    ]
    for span in coalesce(spans):
        for low in range(span.start, span.end, _BLOCK):
            high = min(low + _BLOCK, span.end)
            then = tracker.read(old.backing, low, high)
            yield from differing_runs(then, b"".join(new.backing.buffers(low, high)), low)


def _same_content(tracker: Tracker, old: Backing, new: Backing) -> bool:
    """Tell whether two backings are equal by their contents, without a store."""
    return (
        isinstance(old, AnonymousBacking)
        and isinstance(new, AnonymousBacking)
        and (old.content, old.origin) == (new.content, new.origin)
        and not (old.chunks or new.chunks or tracker.saved.get(old))
    )


def _pages_within(pages: dict[int, Saved], low: int, high: int) -> Iterator[int]:
    """Return the keys of `pages` that lie in `low`..`high`, whichever way is shorter."""
    first, last = low >> PAGE_SHIFT, (high - 1) >> PAGE_SHIFT
    if last - first < len(pages):
        return (page for page in range(first, last + 1) if page in pages)
    return (page for page in pages if first <= page <= last)


def differing_runs(old: bytes, new: bytes, base: int) -> Iterator[Range]:
    """Yield the runs of bytes in which two blocks of one length differ; `base` is their address."""
    if old == new:
        return
    import numpy as np  # noqa: PLC0415  # not before two blocks differ

    unequal = np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8)
    edges = np.flatnonzero(np.diff(unequal, prepend=False, append=False))
    for first, last in edges.reshape(-1, 2).tolist():
        yield Range(base + first, last - first)


def coalesce(ranges: list[Range]) -> list[Range]:
    """Sorted, with ranges that touch or overlap made one."""
    merged: list[Range] = []
    for item in sorted(ranges):
        if merged and item.start <= merged[-1].end:
            last = merged[-1]
            merged[-1] = Range(last.start, max(last.end, item.end) - last.start)
        else:
            merged.append(item)
    return merged
