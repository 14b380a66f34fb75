"""Addresses, sizes and ranges as people write them.

A range is `ADDR+LEN` or `START-END`. `START-END` is read as `/proc/iomem` prints it: hexadecimal
(a `0x` is allowed) and END inclusive. In `ADDR+LEN`, numbers are decimal, or hexadecimal after `0x`,
with an optional binary suffix K, M, G, T, P.
"""

import re
from typing import NamedTuple

from fakedev.model.errors import RangeError

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
ADDRESS_LIMIT = 1 << 64

_SUFFIXES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
_NUMBER = re.compile(
    r"(0[xX][0-9a-fA-F]{1,32}(?:_[0-9a-fA-F]{1,32}){0,16}|[0-9]{1,32}(?:_[0-9]{1,32}){0,16})"
    r"\s*(?:([KMGTP])(?:i?B)?)?",
    re.IGNORECASE,
)


class Range(NamedTuple):
    """`size` bytes from physical address `start`."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind the range."""
        return self.start + self.size

    def overlaps(self, other: "Range") -> bool:
        """True where the two share a byte."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        """The range as `/proc/iomem` prints it."""
        return f"{self.start:08x}-{self.end - 1:08x}"


def parse_number(text: str) -> int:
    """An address or a size: `4096`, `0x1000`, `64K`, `16 MiB`. Raises RangeError."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        hint = (
            f" (hexadecimal needs 0x: 0x{text.strip()})"
            if re.fullmatch(r"\s*[0-9a-fA-F]+\s*", text)
            else ""
        )
        raise RangeError(f"not a number: {text!r}{hint}; write 4096, 0x1000 or 64K")
    digits, suffix = match.groups()
    value = int(digits, 0) if digits[:2].lower() == "0x" else int(digits, 10)
    value <<= _SUFFIXES[(suffix or "").upper()]
    if value > ADDRESS_LIMIT:
        raise RangeError(f"{text.strip()} does not fit in 64 bits")
    return value


def _parse_bound(text: str) -> int:
    try:
        return int(text.strip(), 16)
    except ValueError:
        raise RangeError(f"not a hexadecimal address: {text.strip()!r}") from None


def parse_range(text: str) -> Range:
    """A range in either form. Raises RangeError when it is empty, reversed or beyond 64 bits."""
    if "+" in text:
        first, _, second = text.partition("+")
        start, size = parse_number(first), parse_number(second)
    elif "-" in text:
        first, _, second = text.partition("-")
        start = _parse_bound(first)
        size = _parse_bound(second) + 1 - start
        if size <= 0:
            raise RangeError(f"{text.strip()}: the end lies before the start")
    else:
        raise RangeError(
            f"not a range: {text.strip()!r}; write ADDR+LEN (0xd8100000+64K) or START-END (d8100000-d810ffff)"
        )
    if size == 0:
        raise RangeError(f"{text.strip()}: the range is empty")
    if start + size > ADDRESS_LIMIT:
        raise RangeError(f"{text.strip()} ends beyond 64 bits")
    return Range(start, size)


def parse_span(text: str) -> Range:
    """A range, or the byte at an address."""
    if "+" in text or "-" in text.strip()[1:]:
        return parse_range(text)
    start = parse_number(text)
    if start >= ADDRESS_LIMIT:
        raise RangeError(f"{text} does not fit in 64 bits")
    return Range(start, 1)


def page_round(span: Range) -> Range:
    """The whole pages that `span` touches."""
    start = span.start & ~PAGE_MASK
    return Range(start, ((span.end + PAGE_MASK) & ~PAGE_MASK) - start)
