"""`e820:` and `iomem:` to the resource tree, with the line of whatever stands in the way."""

from __future__ import annotations

from functools import reduce
from operator import or_

from fakedev.model.errors import ResourceConflictError
from fakedev.model.flags import (
    FLAG_NAMES,
    IORESOURCE_BUSY,
    IORESOURCE_MEM,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.iomem_names import standard_flags
from fakedev.model.ranges import PAGE_MASK
from fakedev.model.resource import Resource, conflict_text
from fakedev.model.resources import ResourceTree
from fakedev.profiles.context import Context, Path
from fakedev.profiles.plan import ResourcePlan
from fakedev.profiles.schema_memory import IomemEntry


class TreeBuilder:
    """Puts the entries of `iomem:` on top of a tree that holds the e820 map."""

    def __init__(self, tree: ResourceTree, origins: dict[Resource, Path], context: Context) -> None:
        self.tree = tree
        self.context = context
        self.origins = origins

    def add_all(self, entries: list[IomemEntry]) -> None:
        """Parents before children, in the order of the file."""
        for index, entry in enumerate(entries):
            self._add(entry, self.tree.root, ("iomem", index))

    def _add(self, entry: IomemEntry, parent: Resource, path: Path) -> None:
        node = self._present(entry, parent) or self._insert(entry, parent, path)
        if node is None:
            return
        for index, child in enumerate(entry.children):
            self._add(child, node, (*path, "children", index))

    def _present(self, entry: IomemEntry, parent: Resource) -> Resource | None:
        """The resource that is there already and that this entry means."""
        start, end = entry.span.start, entry.span.end - 1
        for node in parent.overlapping(start, end):
            if (node.start, node.end, node.name) == (start, end, entry.name):
                if entry.flags is not None:
                    node.flags = _flags(entry.flags)
                return node
        return None

    def _insert(self, entry: IomemEntry, parent: Resource, path: Path) -> Resource | None:
        start, end = entry.span.start, entry.span.end - 1
        flags, desc = standard_flags(
            entry.name, start, end,
            parent="" if parent is self.tree.root else parent.name,
            children=[child.name for child in entry.children],
        )  # fmt: skip
        if entry.flags is not None:
            flags = _flags(entry.flags)
        new = Resource(start, end, entry.name, flags, desc)
        try:
            self.tree.insert_resource(new, parent)
        except ResourceConflictError as error:
            self._report(new, error.conflict, path)
            return None
        self.origins[new] = path
        return new

    def _report(self, new: Resource, conflict: Resource, path: Path) -> None:
        origin = self.origins.get(conflict)
        where = f" of {self.context.place(*origin)}" if origin else ""
        outside = conflict is new.parent or conflict.contains(new.start, new.end)
        why = conflict_text(conflict, new.start, new.end)
        if not outside and not (conflict.end < new.start or conflict.start > new.end):
            text = f"{new} is in conflict: {why}{where}; nodes nest or lie apart"
        else:
            text = f"{new} does not lie inside its parent {conflict}{where}"
        self.context.report(text, *path)


def _flags(names: list[str]) -> int:
    return reduce(or_, (FLAG_NAMES[name] for name in names), IORESOURCE_MEM)


def flatten(tree: ResourceTree) -> tuple[ResourcePlan, ...]:
    """The tree in pre-order."""
    return tuple(
        ResourcePlan(depth, node.start, node.end, node.name, node.flags, node.desc)
        for depth, node in tree.walk()
    )


def top_of_ram(e820_top: int, tree: ResourceTree) -> int:
    """The end of the last RAM, at any depth: `high_memory` as a physical address, whole pages."""
    busy = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
    ends = [node.end + 1 for _, node in tree.walk() if node.matches(busy)]
    return max(ends, default=e820_top) & ~PAGE_MASK
