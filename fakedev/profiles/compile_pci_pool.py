"""Shares of bridge windows, and the free room that they are taken from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fakedev.model.ranges import Range
from fakedev.profiles.context import Path

_NOWHERE = 1 << 65


@dataclass(slots=True)
class Share:
    """A BAR or a window: `size` bytes at `start`, or (None) where they fit below `limit`.

    `inside` names the kinds of windows that it may lie in, best first: io, mem, pref.
    """

    label: str
    path: Path
    inside: tuple[str, ...]
    size: int
    align: int
    limit: int
    start: int | None = None

    @property
    def span(self) -> Range:
        """Where it is; what has no place yet is at 0."""
        return Range(self.start or 0, self.size)

    @property
    def io(self) -> bool:
        """Ports, not memory."""
        return self.inside[0] == "io"


class Pool:
    """Free stretches of windows, sorted; first fit from the bottom."""

    def __init__(self, windows: Iterable[Range], busy: Iterable[Range]) -> None:
        self.gaps = list(_gaps(sorted(windows), sorted(busy)))
        self._lowest: dict[tuple[int, int, int], int] = {}

    def take(self, share: Share) -> int | None:
        """The first address that fits, which is then no longer free."""
        key = (share.size, share.align, share.limit)
        # Where this size did not fit once it does not fit later.
        lowest = self._lowest.get(key, 0)
        first = bisect_right(self.gaps, lowest, key=lambda gap: gap[1])
        for index in range(first, len(self.gaps)):
            start, end = self.gaps[index]
            at = -(-start // share.align) * share.align
            if at + share.size > min(end, share.limit):
                continue
            rest = [(start, at)] if at > start else []
            if at + share.size < end:
                rest.append((at + share.size, end))
            self.gaps[index : index + 1] = rest
            self._lowest[key] = at
            return at
        self._lowest[key] = _NOWHERE
        return None


def _gaps(windows: list[Range], busy: list[Range]) -> Iterator[tuple[int, int]]:
    """What of the windows (sorted, apart) no busy range (sorted by start) touches."""
    index, reached = 0, 0
    for window in windows:
        start = max(window.start, reached)
        while index < len(busy) and busy[index].start < window.end:
            span = busy[index]
            if span.start > start:
                yield start, span.start
            start = max(start, span.end)
            index += 1
        reached = start
        if start < window.end:
            yield start, window.end


def assign(
    shares: Iterable[Share], pools: Callable[[Share], list[Pool]]
) -> Iterator[tuple[Share, list[Pool]]]:
    """Give each share without an address one out of its pools, largest alignment first.

    Yields those that fit nowhere, with the pools that were tried.
    """
    waiting = [share for share in shares if share.start is None]
    for share in sorted(waiting, key=lambda one: (-one.align, -one.size)):
        tried = pools(share)
        for pool in tried:
            share.start = pool.take(share)
            if share.start is not None:
                break
        else:
            yield share, tried


def packed(shares: Iterable[Share]) -> int:
    """How many bytes they need when the largest alignment comes first."""
    size = 0
    for share in sorted(shares, key=lambda one: (-one.align, -one.size)):
        size = -(-size // share.align) * share.align + share.size
    return size
