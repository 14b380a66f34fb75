"""Finding bytes in memory without looking at what nobody stored to."""

from collections.abc import Callable, Iterator

from fakedev.model.segment import Layout

_BLOCK = 1 << 20
_Span = tuple[int, int]


def search(
    layout: Layout, read: Callable[[int, int], bytes], needle: bytes, low: int, high: int
) -> Iterator[int]:
    """Yield the addresses in `low`..`high` where all of `needle` lies in memory; may overlap."""
    for stretch in _stretches(layout, low, high):
        for first, last in _windows(layout, stretch, reach=len(needle) - 1):
            yield from _scan(read, needle, first, last)


def _stretches(layout: Layout, low: int, high: int) -> Iterator[_Span]:
    """Return the runs of addresses without a gap."""
    start: int | None = None
    end = low
    for piece in layout.pieces(low, high):
        if piece.segment is None:
            if start is not None:
                yield start, end
            start = None
        else:
            start = piece.low if start is None else start
            end = piece.high
    if start is not None:
        yield start, end


def _windows(layout: Layout, stretch: _Span, *, reach: int) -> Iterator[_Span]:
    """Return what to read: existing data, and `reach` bytes around it, inside the stretch."""
    low, high = stretch
    pending: _Span | None = None
    for piece in layout.pieces(low, high):
        assert piece.segment is not None  # noqa: S101  # a stretch has no gap
        for a, b in piece.segment.backing.extents(piece.low, piece.high):
            first, last = max(a - reach, low), min(b + reach, high)
            if pending is not None and first <= pending[1]:
                pending = (pending[0], max(last, pending[1]))
                continue
            if pending is not None:
                yield pending
            pending = (first, last)
    if pending is not None:
        yield pending


def _scan(read: Callable[[int, int], bytes], needle: bytes, low: int, high: int) -> Iterator[int]:
    """Look through `low`..`high` block by block; a match may cross into the next block."""
    while high - low >= len(needle):
        data = read(low, min(_BLOCK + len(needle) - 1, high - low))
        at = data.find(needle)
        while at >= 0:
            yield low + at
            at = data.find(needle, at + 1)
        low += _BLOCK
