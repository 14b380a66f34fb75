"""Windows of the bus: stretches of physical addresses that something other than memory answers for.

A device's BAR, the configuration window of a host bridge, a block of registers: each is a `Target`,
addressed from 0, and a window puts it somewhere. `PhysicalMemory` is a target itself: a BAR that is
plain memory is a small one of its own.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from fakedev.model.backing import Backing, Saved
from fakedev.model.ranges import PAGE_SHIFT

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from fakedev.model.segment import Segment

_BLOCK = memoryview(b"\xff" * (1 << 20))


class Target(Protocol):
    """Whatever answers at a window. Addresses count from its own first byte."""

    def buffers(self, address: int, size: int) -> list[memoryview]:
        """Return the bytes as read-only views whose lengths add up to `size`."""

    def write(self, address: int, data: "ReadableBuffer") -> None:
        """Take a store that comes over the bus."""


class Ones:
    """Nobody answers: loads read all-ones, stores are lost."""

    __slots__ = ()

    def buffers(self, address: int, size: int) -> list[memoryview]:
        """All-ones."""
        return all_ones(size)

    def write(self, address: int, data: "ReadableBuffer") -> None:
        """Lost."""


def all_ones(size: int) -> list[memoryview]:
    """`size` bytes of 0xff, as slices of one constant block."""
    whole, rest = divmod(size, len(_BLOCK))
    return [_BLOCK] * whole + ([_BLOCK[:rest]] if rest else [])


class WindowBacking(Backing):
    """A target at a physical address. Snapshots of the memory around it do not hold its bytes."""

    __slots__ = ("_base", "target")

    def __init__(self, start: int, size: int, target: Target, *, base: int = 0) -> None:
        super().__init__(start, start + size, kind="window", label="window")
        self.target = target
        self.shared = True
        self._base = start - base

    def buffers(self, low: int, high: int) -> Iterator[memoryview]:
        """Ask the target."""
        return iter(self.target.buffers(low - self._base, high - low))

    def store(self, address: int, data: bytes | memoryview) -> None:
        """Give the bytes to the target."""
        self.target.write(address - self._base, data)

    def save_page(self, page: int) -> Saved:
        """Nothing: what a target holds is its own business."""
        return None

    def put_page(self, page: int, saved: Saved) -> None:
        """Nothing, for the same reason."""

    def page_bytes(self, page: int, saved: Saved) -> bytes:
        """Return what the target answers now."""
        low = self.page_start(page)
        high = min((page + 1) << PAGE_SHIFT, self.end)
        return b"".join(self.buffers(low, high))

    def extents(self, low: int, high: int, *, coarse: bool = False) -> Iterator[tuple[int, int]]:
        """Where the target may hold anything but zeros; nothing (`coarse`) that a snapshot compares."""
        if coarse:
            return
        known = getattr(self.target, "extents", None)
        if known is None:
            yield low, high
            return
        for first, last in known(low - self._base, high - self._base):
            yield first + self._base, last + self._base


def shows(segment: "Segment", target: Target) -> bool:
    """Tell whether a segment is a window of `target`."""
    backing = segment.backing
    return isinstance(backing, WindowBacking) and backing.target is target
