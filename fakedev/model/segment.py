"""Segments: which backing answers for which physical addresses, and the sorted list of them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fakedev.model.backing import AnonymousBacking, Backing
from fakedev.model.contents import ZERO
from fakedev.model.errors import MemoryLayoutError
from fakedev.model.ranges import ADDRESS_LIMIT, Range

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """`size` bytes of memory from physical address `start`; `end` is the first address behind.

    A `rom` drops stores that come over the bus; `place`, `fill` and `load` still set its bytes.
    """

    start: int
    size: int
    name: str
    backing: Backing = field(repr=False)
    rom: bool = False
    end: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", self.start + self.size)

    @property
    def kind(self) -> str:
        """What was under the first store: zero, pattern, address, random, bytes or file."""
        return self.backing.kind

    @property
    def range(self) -> Range:
        """The addresses as a Range."""
        return Range(self.start, self.size)

    def cut(self, low: int, high: int) -> "Segment":
        """Return the part from `low` to `high`, on the same backing."""
        return Segment(low, high - low, self.name, self.backing, self.rom)

    def describe(self) -> str:
        """One line: `00100000-3fffffff : ram (1023 MiB, zero)`."""
        name = f" : {self.name}" if self.name else " :"
        return f"{self.range}{name} ({human_size(self.size)}, {self.backing.label})"


class Piece(NamedTuple):
    """A part of a range that one segment answers for; `segment` is None where nothing decodes."""

    low: int
    high: int
    segment: Segment | None


# Sorts before every address, so that a bisect always lands on a segment.
_GUARD = Segment(-ADDRESS_LIMIT, 0, "", AnonymousBacking(0, 0, ZERO))


class Layout:
    """A sorted list of disjoint segments. Never changed: `replace` makes a new one."""

    __slots__ = ("starts", "table")

    def __init__(self, starts: list[int] | None = None, table: list[Segment] | None = None) -> None:
        self.starts = [_GUARD.start] if starts is None else starts
        self.table = [_GUARD] if table is None else table

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments by address."""
        return tuple(self.table[1:])

    @property
    def top(self) -> int:
        """The end of the last segment; 0 when there is none."""
        return max(self.table[-1].end, 0)

    def pieces(self, low: int, high: int) -> Iterator[Piece]:
        """Cut `low`..`high` into segments and gaps, by address, without a byte left out."""
        index = bisect_right(self.starts, low) - 1
        while low < high:
            segment = self.table[index]
            if low < segment.end:
                end = min(high, segment.end)
                yield Piece(low, end, segment)
                low = end
            index += 1
            start = self.starts[index] if index < len(self.starts) else high
            if low < min(start, high):
                yield Piece(low, min(start, high), None)
                low = min(start, high)

    def covered(self, low: int, high: int) -> int:
        """How many bytes from `low` on lie in segments without a gap."""
        for piece in self.pieces(low, high):
            if piece.segment is None:
                return piece.low - low
        return high - low

    def replace(self, low: int, high: int, new: Iterable[Segment]) -> "Layout":
        """Return the layout with `new` in the place of everything in `low`..`high`."""
        first = bisect_right(self.starts, low) - 1
        if self.table[first].end <= low:
            first += 1
        last = bisect_right(self.starts, high - 1)
        inner = list(new)
        if first < last:
            left, right = self.table[first], self.table[last - 1]
            if left.start < low:
                inner.insert(0, left.cut(left.start, low))
            if right.end > high:
                inner.append(right.cut(high, right.end))
        starts = self.starts[:first] + [s.start for s in inner] + self.starts[last:]
        return Layout(starts, self.table[:first] + inner + self.table[last:])


def check_range(start: int, size: int) -> int:
    """Return the end of a range. MemoryLayoutError if it is empty or leaves the 64-bit space."""
    if size <= 0:
        raise MemoryLayoutError(f"{start:#x}: a range needs a size, not {size}")
    if start < 0 or start + size > ADDRESS_LIMIT:
        raise MemoryLayoutError(f"{start:#x}+{size:#x} leaves the 64-bit address space")
    return start + size


def human_size(size: int) -> str:
    """`4 KiB`, `1023 MiB`, `100 bytes`: the largest unit that divides the size."""
    unit = 0
    while size and size % 1024 == 0 and unit < len(_UNITS) - 1:
        size, unit = size // 1024, unit + 1
    return f"{size} {_UNITS[unit]}"
