"""The resource tree of `kernel/resource.c`: who owns which addresses.

Siblings are sorted and disjoint; a child lies inside its parent; ends are inclusive. The verbs are
the kernel's, and so are their differences: `request_resource` looks at direct children only,
`request_region` walks down through containers that are not BUSY, `insert_resource` may push the new
node between a parent and its children. Where the kernel returns the resource in the way, so does
this. Nothing here revokes a mapping: that is decided in `policy.py` after a claim.
"""

import errno
from typing import Self

from fakedev.model.errors import ResourceConflictError
from fakedev.model.flags import (
    IORESOURCE_BUSY,
    IORESOURCE_EXT_TYPE_BITS,
    IORESOURCE_IO,
    IORESOURCE_MEM,
    IORESOURCE_SYSRAM_MERGEABLE,
    IORESOURCE_SYSTEM_RAM,
    IORESOURCE_TYPE_BITS,
)
from fakedev.model.ranges import ADDRESS_LIMIT
from fakedev.model.resource import Resource, conflict_below, conflict_text
from fakedev.model.resource_queries import Region, ResourceQueries

__all__ = ["Region", "Resource", "ResourceTree"]

_BUSY_RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY


class ResourceTree(ResourceQueries):
    """`iomem_resource` (default) or `ioport_resource`, and every operation on it.

    `generation` grows with each change. Methods that refuse raise ResourceConflictError, whose
    `conflict` is the resource in the way (the parent itself when the range does not fit into it).
    """

    __slots__ = ("generation",)

    def __init__(self, root: Resource | None = None) -> None:
        super().__init__(root or Resource(0, ADDRESS_LIMIT - 1, "PCI mem", IORESOURCE_MEM))
        self.generation = 0

    @classmethod
    def ioports(cls) -> Self:
        """Make the tree behind `/proc/ioports`."""
        return cls(Resource(0, 0xFFFF, "PCI IO", IORESOURCE_IO))

    # -- making nodes ---------------------------------------------------------------------------

    def request_resource(self, parent: Resource, new: Resource) -> Resource | None:
        """Place `new` below `parent`. Returns the conflict, or None when it is placed."""
        conflict = conflict_below(parent, new.start, new.end)
        if conflict is None:
            parent.adopt(new)
            self.generation += 1
        return conflict

    def placement(
        self, start: int, end: int, parent: Resource | None = None
    ) -> tuple[Resource, Resource | None]:
        """Find where `__request_region` puts a range: (parent, None), or (parent, conflict)."""
        place = parent or self.root
        while True:
            conflict = conflict_below(place, start, end)
            if conflict is None or conflict is place or conflict.busy:
                return place, conflict
            place = conflict

    def request_region(
        self,
        start: int,
        size: int,
        name: str,
        flags: int = 0,
        *,
        parent: Resource | None = None,
        since: int = 0,
    ) -> Resource:
        """`__request_region`: claim a range, BUSY, below the deepest container that is not.

        The new node inherits the type and SYSRAM bits and the descriptor of the node it ends up in.
        A conflict of two MUXED requests raises like any other: the model never sleeps.
        """
        end = start + size - 1
        place, conflict = self.placement(start, end, parent)
        if conflict is not None:
            raise ResourceConflictError(
                f"{name}: cannot claim {start:08x}-{end:08x}: "
                f"{conflict_text(conflict, start, end)}",
                conflict=conflict,
            )
        inherited = place.flags & (IORESOURCE_TYPE_BITS | IORESOURCE_EXT_TYPE_BITS)
        new = Resource(
            start, end, name, inherited | IORESOURCE_BUSY | flags, place.desc, since=since
        )
        place.adopt(new)
        self.generation += 1
        return new

    def insert_resource(self, new: Resource, parent: Resource | None = None) -> None:
        """Place `new` in the tightest node around it; nodes inside it become its children."""
        conflict = self._insert(parent or self.root, new)
        if conflict is not None:
            raise ResourceConflictError(
                f"cannot insert {new}: {conflict_text(conflict, new.start, new.end)}",
                conflict=conflict,
            )

    def insert_resource_expand_to_fit(self, new: Resource, parent: Resource | None = None) -> None:
        """As `insert_resource`, but a partial overlap makes `new` grow over the other node."""
        root = parent or self.root
        while (conflict := self._insert(root, new)) is not None:
            if conflict is root:
                raise ResourceConflictError(
                    f"cannot insert {new}: {conflict_text(conflict, new.start, new.end)}",
                    conflict=conflict,
                )
            new.start = min(new.start, conflict.start)
            new.end = max(new.end, conflict.end)

    def _insert(self, parent: Resource, new: Resource) -> Resource | None:
        while True:
            conflict = self.request_resource(parent, new)
            if conflict is None or conflict is parent:
                return conflict
            same = (conflict.start, conflict.end) == (new.start, new.end)
            if same or not conflict.contains(new.start, new.end):
                return self._insert_above(parent, new)
            parent = conflict

    def _insert_above(self, parent: Resource, new: Resource) -> Resource | None:
        """Take the children that lie inside `new` below it, unless one sticks out."""
        inside = parent.overlapping(new.start, new.end)
        for child in inside:
            if not new.contains(child.start, child.end):
                return child
        at = parent.index(inside[0])
        parent.children[at : at + len(inside)] = [new]
        new.parent = parent
        new.children = list(inside)
        for child in inside:
            child.parent = new
        self.generation += 1
        return None

    # -- taking nodes away ----------------------------------------------------------------------

    def release_resource(self, resource: Resource) -> None:
        """Unlink a node together with everything below it."""
        self._unlink(resource, [])

    def remove_resource(self, resource: Resource) -> None:
        """Unlink a node; its children take its place."""
        children, resource.children = resource.children, []
        for child in children:
            child.parent = resource.parent
        self._unlink(resource, children)

    def _unlink(self, resource: Resource, heirs: list[Resource]) -> None:
        parent = resource.parent
        if parent is None:
            raise ResourceConflictError(f"{resource} is not in the tree", errno=errno.EINVAL)
        at = parent.index(resource)
        parent.children[at : at + 1] = heirs
        resource.parent = None
        self.generation += 1

    def release_region(self, start: int, size: int) -> bool:
        """`__release_region`: free the BUSY node of exactly this range; False when there is none.

        The kernel only warns ("Trying to free nonexistent resource"). Children go with the node.
        """
        target = self.busy_target(start, start + size - 1)
        if target is None or (target.start, target.end) != (start, start + size - 1):
            return False
        self.release_resource(target)
        return True

    def busy_target(self, start: int, end: int) -> Resource | None:
        """Find the first BUSY node around `start` to `end` (inclusive), below idle ones only."""
        node: Resource | None = self.root
        while node is not None:
            node = node.first_overlap(start, end)
            if node is not None and not node.contains(start, end):
                return None
            if node is not None and node.busy:
                return node
        return None

    def release_mem_region_adjustable(self, start: int, size: int, *, reparent: bool) -> bool:
        """Take `size` bytes out of a BUSY node, as memory hot-remove does: delete, shrink or split.

        On a split, children above the hole go with the upper half if `reparent` (Linux 7.2);
        before that a child outside the lower half makes the kernel leave the node as it is.
        """
        end = start + size - 1
        target = self.busy_target(start, end)
        if target is None or not target.flags & IORESOURCE_MEM:
            return False
        if (target.start, target.end) == (start, end):
            self.release_resource(target)
            return True
        if target.start == start:
            return self._adjust(target, end + 1, target.end)
        if target.end == end:
            return self._adjust(target, target.start, start - 1)
        return self._split(target, start, end, reparent=reparent)

    def _adjust(self, resource: Resource, start: int, end: int) -> bool:
        """`__adjust_resource`, shrinking: refused while a child would fall out."""
        if any(not (start <= child.start and child.end <= end) for child in resource.children):
            return False
        resource.start, resource.end = start, end
        self.generation += 1
        return True

    def _split(self, low: Resource, start: int, end: int, *, reparent: bool) -> bool:
        moved = [child for child in low.children if reparent and child.start > end]
        kept = low.children[: len(low.children) - len(moved)]
        if any(child.end >= start for child in kept) or low.parent is None:
            return False
        high = Resource(end + 1, low.end, low.name, low.flags, low.desc, since=low.since)
        high.children, low.children = moved, kept
        for child in moved:
            child.parent = high
        low.end = start - 1
        low.parent.adopt(high)
        self.generation += 1
        return True

    def merge_system_ram_resource(self, resource: Resource) -> Resource:
        """Mark a BUSY System RAM node mergeable and join it with equal neighbours.

        Returns the node that now holds the range. The kernel compares name pointers; equal text is
        as near as Python gets, and each driver uses one string for all its blocks.
        """
        parent = resource.parent
        if parent is None or resource.flags & _BUSY_RAM != _BUSY_RAM:
            return resource
        resource.flags |= IORESOURCE_SYSRAM_MERGEABLE
        self.generation += 1
        at = parent.index(resource)
        if at + 1 < len(parent.children) and _mergeable(resource, parent.children[at + 1]):
            resource.end = parent.children.pop(at + 1).end
        if at > 0 and _mergeable(parent.children[at - 1], resource):
            parent.children[at - 1].end = resource.end
            del parent.children[at]
            return parent.children[at - 1]
        return resource


def _mergeable(low: Resource, high: Resource) -> bool:
    same = (low.flags, low.name, low.desc) == (high.flags, high.name, high.desc)
    return same and low.end + 1 == high.start and not low.children and not high.children
