"""One node of the resource tree, `struct resource`."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from fakedev.model.flags import (
    IORES_DESC_NONE,
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_MEM,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.ranges import Range

_START = attrgetter("start")
_END = attrgetter("end")
_EXCLUSIVE_RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_EXCLUSIVE


class Resource:
    """One node: `start` to `end` (inclusive), a name, flags and a descriptor.

    `since` is the number of the event that made it (0: it was there from the start).
    """

    __slots__ = ("children", "desc", "end", "flags", "name", "parent", "since", "start")

    def __init__(
        self,
        start: int,
        end: int,
        name: str,
        flags: int = IORESOURCE_MEM,
        desc: int = IORES_DESC_NONE,
        *,
        since: int = 0,
    ) -> None:
        self.start = start
        self.end = end
        self.name = name
        self.flags = flags
        self.desc = desc
        self.since = since
        self.parent: Resource | None = None
        self.children: list[Resource] = []

    def __str__(self) -> str:
        return f"{self.name} ({self.start:08x}-{self.end:08x})"

    def __repr__(self) -> str:
        return f"<Resource {self} flags={self.flags:#x} desc={self.desc}>"

    @property
    def span(self) -> Range:
        """The same bytes as start and size."""
        return Range(self.start, self.end + 1 - self.start)

    @property
    def busy(self) -> bool:
        """True when a driver, or the kernel itself, has claimed it."""
        return bool(self.flags & IORESOURCE_BUSY)

    def contains(self, start: int, end: int) -> bool:
        """Tell if `start` to `end` (inclusive) lies wholly inside."""
        return self.start <= start and end <= self.end

    def matches(self, flags: int, desc: int = IORES_DESC_NONE) -> bool:
        """Tell if all of `flags` are set and the descriptor is `desc` unless that is NONE."""
        return self.flags & flags == flags and desc in (IORES_DESC_NONE, self.desc)

    def overlapping(self, start: int, end: int) -> Sequence["Resource"]:
        """Return the direct children that touch `start` to `end` (inclusive), in order."""
        first = bisect_left(self.children, start, key=_END)
        return self.children[first : bisect_right(self.children, end, first, key=_START)]

    def first_overlap(self, start: int, end: int) -> "Resource | None":
        """Return the lowest direct child that shares a byte with `start` to `end` (inclusive)."""
        first = bisect_left(self.children, start, key=_END)
        if first < len(self.children) and self.children[first].start <= end:
            return self.children[first]
        return None

    def adopt(self, child: "Resource") -> None:
        """Put `child` among the children. The caller knows that its place is free."""
        child.parent = self
        self.children.insert(bisect_left(self.children, child.start, key=_START), child)

    def index(self, child: "Resource") -> int:
        """Return the place of a child."""
        return bisect_left(self.children, child.start, key=_START)

    def descend(self, start: int, end: int) -> "Iterator[Resource]":
        """Yield all descendants that overlap `start` to `end` (inclusive), parents first."""
        stack = [iter(self.overlapping(start, end))]
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                continue
            yield node
            if node.children:
                stack.append(iter(node.overlapping(start, end)))


def is_exclusive(
    resource: Resource, *, strict_checks: bool, io_strict: bool, exclusive_system_ram: bool
) -> bool:
    """Make the tests of `resource_is_exclusive` on one node, in the kernel's order."""
    flags = resource.flags
    if exclusive_system_ram and flags & _EXCLUSIVE_RAM == _EXCLUSIVE_RAM:
        return True
    if not strict_checks or not flags & IORESOURCE_BUSY:
        return False
    return io_strict or bool(flags & IORESOURCE_EXCLUSIVE)


def conflict_text(conflict: Resource, start: int, end: int) -> str:
    """Say why `conflict` stands in the way of `start` to `end` (inclusive)."""
    since = f" since event {conflict.since}" if conflict.since else ""
    if end < start:
        return "the range is empty or wraps"
    if not conflict.contains(start, end) and (start <= conflict.start and conflict.end <= end):
        return f"it contains {conflict}{since}"
    if not conflict.contains(start, end):
        return f"it straddles the edge of {conflict}{since}"
    return f"{conflict} is {'BUSY' if conflict.busy else 'in the way'}{since}"


def conflict_below(parent: Resource, start: int, end: int) -> Resource | None:
    """Do `__request_resource` without the insertion: the conflict, or None."""
    if end < start or not parent.contains(start, end):
        return parent
    return parent.first_overlap(start, end)
