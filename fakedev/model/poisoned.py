"""Pages that failed: which of them an access meets, and what it is told. State, without verbs.

The table is a tuple of page-aligned ranges, sorted and apart from each other; empty is false, so a
machine without poison pays one test an access.
"""

import errno
from bisect import bisect_right
from collections.abc import Iterable

from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.model.verdict import Access, Verdict

Table = tuple[Range, ...]


def united(table: Iterable[Range], span: Range) -> Table:
    """The table with the pages of `span` in it."""
    start, end = span.start, span.end
    apart: list[Range] = []
    for held in table:
        if held.end < start or end < held.start:
            apart.append(held)
        else:
            start, end = min(start, held.start), max(end, held.end)
    return tuple(sorted([*apart, Range(start, end - start)]))


def without(table: Iterable[Range], span: Range) -> Table:
    """The table without the pages of `span`."""
    left: list[Range] = []
    for held in table:
        if held.start < span.start:
            left.append(Range(held.start, min(held.end, span.start) - held.start))
        if held.end > span.end:
            start = max(held.start, span.end)
            left.append(Range(start, held.end - start))
    return tuple(left)


def within(table: Table, span: Range) -> Table:
    """The parts of the table that lie in `span`."""
    parts = []
    for held in table:
        start, end = max(held.start, span.start), min(held.end, span.end)
        if start < end:
            parts.append(Range(start, end - start))
    return tuple(parts)


def first_in(table: Table, address: int, size: int) -> int | None:
    """The first byte of `size` bytes at `address` that lies on such a page."""
    index = bisect_right(table, address, key=_start) - 1
    if index >= 0 and address < table[index].end and size > 0:
        return address
    if index + 1 < len(table) and table[index + 1].start < address + size:
        return table[index + 1].start
    return None


def verdict_at(table: Table, address: int) -> Verdict:
    """The answer to an access to a page of the table: EIO, which a mapping meets as SIGBUS."""
    held = table[bisect_right(table, address, key=_start) - 1]
    page = address & -PAGE_SIZE
    rule = f"memory_failure: page {page:#x} is poisoned (HWPoison)"
    return Verdict(False, errno.EIO, rule, None, Access.FAULT, held.start, held.end)


def _start(span: Range) -> int:
    return span.start
