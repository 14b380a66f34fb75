"""Questions to the resource tree: those of `kernel/resource.c`, and those that people ask."""

from collections.abc import Iterator
from enum import Enum

from fakedev.model.flags import IORES_DESC_NONE
from fakedev.model.ranges import ADDRESS_LIMIT
from fakedev.model.resource import Resource, is_exclusive


class Region(Enum):
    """What `region_intersects` answers: REGION_DISJOINT, REGION_INTERSECTS, REGION_MIXED."""

    DISJOINT = "DISJOINT"
    INTERSECTS = "INTERSECTS"
    MIXED = "MIXED"


class ResourceQueries:
    """The part of ResourceTree that changes nothing."""

    __slots__ = ("root",)

    def __init__(self, root: Resource) -> None:
        self.root = root

    def region_intersects(
        self, start: int, size: int, flags: int, desc: int = IORES_DESC_NONE, *, look_below: bool
    ) -> Region:
        """Tell how a range relates to nodes of one kind.

        `look_below`: matches below the top level count too (6.12).
        """
        end = start + size - 1
        matched = other = False
        for top in self.root.overlapping(start, end):
            if top.matches(flags, desc):
                matched = True
                continue
            found, covered = _cover(top, start, end, flags, desc) if look_below else (False, False)
            matched |= found
            other |= not covered
        if not matched:
            return Region.DISJOINT
        return Region.MIXED if other else Region.INTERSECTS

    def resource_is_exclusive(
        self,
        start: int,
        size: int,
        *,
        strict_checks: bool,
        io_strict: bool,
        exclusive_system_ram: bool,
    ) -> Resource | None:
        """Return the first node, parents first, that makes a range exclusive, or None.

        At the very top of the address space `start + size` wraps and the kernel finds nothing.
        """
        if start + size >= ADDRESS_LIMIT:
            return None
        for node in self.root.descend(start, start + size - 1):
            if is_exclusive(
                node,
                strict_checks=strict_checks,
                io_strict=io_strict,
                exclusive_system_ram=exclusive_system_ram,
            ):
                return node
        return None

    def walk(self) -> Iterator[tuple[int, Resource]]:
        """Yield (depth, node) for all but the root, parents first; depth 0 is below the root."""
        stack = [iter(self.root.children)]
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                continue
            yield len(stack) - 1, node
            if node.children:
                stack.append(iter(node.children))

    def lookup(self, address: int) -> Resource | None:
        """Return the deepest node that holds an address."""
        found = None
        node = self.root.first_overlap(address, address)
        while node is not None:
            found, node = node, node.first_overlap(address, address)
        return found

    def find(self, start: int, end: int, name: str | None = None) -> Resource | None:
        """Return the outermost node of exactly this range (and name, if given)."""
        for node in self.root.descend(start, end):
            if (node.start, node.end) == (start, end) and name in (None, node.name):
                return node
        return None

    def named(self, name: str) -> Iterator[Resource]:
        """Yield every node with this name, in address order."""
        return (node for _, node in self.walk() if node.name == name)

    def iomem_text(self, *, privileged: bool, depth_cap: int = 5) -> str:
        """Write `/proc/iomem` (or `/proc/ioports`); without privilege all numbers are 0."""
        width = 4 if self.root.end < 0x10000 else 8
        zero = f"{0:0{width}x}-{0:0{width}x}"
        return "".join(
            f"{'':{2 * min(depth, depth_cap)}}"
            f"{f'{node.start:0{width}x}-{node.end:0{width}x}' if privileged else zero}"
            f" : {node.name}\n"
            for depth, node in self.walk()
        )


def _cover(top: Resource, start: int, end: int, flags: int, desc: int) -> tuple[bool, bool]:
    """Tell if a node below `top` matches, and if matches cover the overlap without a gap."""
    matched = False
    reached, last = max(start, top.start), min(end, top.end)
    for node in top.descend(start, end):
        if not node.matches(flags, desc):
            continue
        matched = True
        if node.start > reached:
            return True, False
        if node.end >= last:
            return True, True
        reached = max(reached, node.end + 1)
    return matched, False
