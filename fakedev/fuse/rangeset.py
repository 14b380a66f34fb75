"""A small set of byte ranges that merge where they touch."""

from fakedev.model.ranges import Range


class RangeSet:
    """Ranges of addresses, kept apart and sorted. Few members: a list scan is enough."""

    __slots__ = ("_ranges", "empty")

    def __init__(self) -> None:
        self._ranges: list[Range] = []
        self.empty = True  # an attribute: it is asked for at every page fault

    def add(self, span: Range) -> None:
        """Unite with `span`."""
        start, end = span.start, span.end
        apart: list[Range] = []
        for held in self._ranges:
            if held.end < start or end < held.start:
                apart.append(held)
            else:
                start, end = min(start, held.start), max(end, held.end)
        self._ranges = sorted([*apart, Range(start, end - start)])
        self.empty = False

    def overlaps(self, span: Range) -> bool:
        """True where a byte of `span` is in the set."""
        return any(held.overlaps(span) for held in self._ranges)
