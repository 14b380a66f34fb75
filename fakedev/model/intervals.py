"""The resource tree and the rules, compiled to a sorted map of page intervals.

A cell is a run of pages that the kernel treats alike. The map is canonical: neighbours differ. What
a page gets depends only on the resources that touch it, so a change of the tree needs new cells
for its own pages only; the rest of the map is copied as it is.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Self, TypeVar

from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM
from fakedev.model.kernel import KernelRules
from fakedev.model.ranges import ADDRESS_LIMIT, PAGE_MASK, PAGE_SIZE, Range
from fakedev.model.resource import Resource, is_exclusive
from fakedev.model.resource_queries import Region
from fakedev.model.resources import ResourceTree
from fakedev.model.verdict import Access, Verdict

LOW_1M = 0x10_0000
_BUSY_RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY

T = TypeVar("T")
Layer = list[tuple[int, int, T]]
"""Disjoint page runs in order: (start, end exclusive, what is there)."""


class Facts(NamedTuple):
    """What is true of every page of a cell.

    `ram`, `exclusive`: the resource that makes the page System RAM, or exclusive, or None.
    `allowed`: the answer of `devmem_is_allowed`. `data`: what read and write meet.
    """

    ram: Resource | None
    exclusive: Resource | None
    allowed: Access
    data: Access


class Cell:
    """A run of pages with the same facts; `read` and `mapped` keep verdicts once they were made."""

    __slots__ = ("end", "facts", "mapped", "read", "start")

    def __init__(self, start: int, end: int, facts: Facts) -> None:
        self.start = start
        self.end = end
        self.facts = facts
        self.read: Verdict | None = None
        self.mapped: Verdict | None = None


class IntervalMap:
    """Cells that cover the whole address space. Never changes; `replaced` makes the next one."""

    __slots__ = ("cells", "starts")

    def __init__(self, cells: list[Cell], starts: list[int] | None = None) -> None:
        self.cells = cells
        self.starts = [cell.start for cell in cells] if starts is None else starts

    def find(self, address: int) -> Cell:
        """Return the cell that holds an address."""
        return self.cells[bisect_right(self.starts, address) - 1]

    def over(self, start: int, end: int) -> Iterator[Cell]:
        """Yield the cells that touch `start` to `end` (exclusive; may be empty)."""
        if start >= end:
            return
        at = bisect_right(self.starts, start) - 1
        while at < len(self.cells) and self.starts[at] < end:
            yield self.cells[at]
            at += 1

    def replaced(self, fresh: Sequence[Cell]) -> Self:
        """Make a map with `fresh` cells in place of what was there: O(fresh) and a copy."""
        low, high = fresh[0].start, fresh[-1].end
        first = bisect_right(self.starts, max(low - 1, 0)) - 1
        last = bisect_right(self.starts, min(high, ADDRESS_LIMIT - 1)) - 1
        left, right = self.cells[first], self.cells[last]
        pieces = [Cell(left.start, low, left.facts)] if left.start < low else []
        pieces += fresh
        pieces += [Cell(high, right.end, right.facts)] if right.end > high else []
        joined = list(merged(pieces))
        cells, starts = self.cells.copy(), self.starts.copy()
        cells[first : last + 1] = joined
        starts[first : last + 1] = [cell.start for cell in joined]
        return type(self)(cells, starts)


def merged(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Join neighbours with the same facts."""
    held: Cell | None = None
    for cell in cells:
        if held is not None and _same(held.facts, cell.facts):
            held = Cell(held.start, cell.end, held.facts)
            continue
        if held is not None:
            yield held
        held = cell
    if held is not None:
        yield held


def _same(a: Facts, b: Facts) -> bool:
    return (
        a.ram is b.ram
        and a.exclusive is b.exclusive
        and a.allowed is b.allowed
        and a.data is b.data
    )


class Compiler:
    """Makes cells out of a tree, for one set of rules and memory blocks."""

    __slots__ = ("memblocks", "rules", "x86")

    def __init__(self, rules: KernelRules, memblocks: Sequence[Range]) -> None:
        self.rules = rules
        self.memblocks = memblocks
        self.x86 = rules.arch == "x86_64"

    def cells(self, tree: ResourceTree, low: int = 0, high: int = ADDRESS_LIMIT) -> list[Cell]:
        """Return the cells of the pages `low` to `high` (page aligned, exclusive)."""
        ram = self._ram(tree, low, high)
        exclusive = self._exclusive(tree, low, high)
        faults = self._faults(tree, ram, low, high)
        edges = {low, high, max(low, min(LOW_1M, high))}
        layers: tuple[Layer[Resource], ...] = (ram, exclusive)
        edges.update(edge for layer in layers for start, end, _ in layer for edge in (start, end))
        edges.update(edge for start, end, _ in faults for edge in (start, end))
        ordered = sorted(edges)
        facts = zip(
            pairwise(ordered),
            _values(ram, ordered),
            _values(exclusive, ordered),
            _values(faults, ordered),
            strict=True,
        )
        return list(
            merged(Cell(a, b, self._facts(a, r, x, fault=bool(f))) for (a, b), r, x, f in facts)
        )

    def _facts(
        self, page: int, ram: Resource | None, exclusive: Resource | None, *, fault: bool
    ) -> Facts:
        allowed = self._devmem_is_allowed(page, ram, exclusive)
        data = allowed if self.rules.strict_devmem else Access.ALLOW
        if fault and data is Access.ALLOW:
            data = Access.FAULT
        return Facts(ram, exclusive, allowed, data)

    def _devmem_is_allowed(
        self, page: int, ram: Resource | None, exclusive: Resource | None
    ) -> Access:
        """x86 looks at RAM first and spares the first MiB; the generic version denies both."""
        low = self.x86 and page < LOW_1M
        if ram is not None:
            return Access.ZEROS if low else Access.DENY
        if exclusive is not None and not low:
            return Access.DENY
        return Access.ALLOW

    def _exclusive(self, tree: ResourceTree, low: int, high: int) -> Layer[Resource]:
        """Pages for which `iomem_is_exclusive` is true; it misses the very last one (wrap)."""
        rules = self.rules
        strict, io_strict = rules.strict_iomem_checks, rules.io_strict_devmem
        ram = rules.has_exclusive_system_ram

        def match(resource: Resource) -> bool:
            return is_exclusive(
                resource, strict_checks=strict, io_strict=io_strict, exclusive_system_ram=ram
            )

        high = min(high, ADDRESS_LIMIT - PAGE_SIZE)
        return _page_runs(_outermost(tree, low, high, match), low, high)

    def _ram(self, tree: ResourceTree, low: int, high: int) -> Layer[Resource]:
        """Pages of System RAM: x86 takes any page it touches, the others need a whole BUSY one."""
        flags = IORESOURCE_SYSTEM_RAM if self.x86 else _BUSY_RAM

        def match(resource: Resource) -> bool:
            return resource.flags & flags == flags

        nested = not self.x86 or self.rules.looks_below_top_level
        found = _outermost(tree, low, high, match, nested=nested)
        return _page_runs(found, low, high, inward=not self.x86)

    def _faults(self, tree: ResourceTree, ram: Layer[Resource], low: int, high: int) -> Layer[bool]:
        """Pages that are allowed but have no translation."""
        if self.x86 and not self.rules.strict_devmem:
            return self._mixed(tree, ram)
        if self.rules.arch == "riscv64":
            return _gaps(self.memblocks, low, high)
        return []

    def _mixed(self, tree: ResourceTree, ram: Layer[Resource]) -> Layer[bool]:
        """Pages that are partly RAM, partly another resource: memremap refuses them (x86)."""
        pages = set()
        for start, end, resource in ram:
            pages |= {start, end - PAGE_SIZE} if _ragged(resource) else set()
        look_below = self.rules.looks_below_top_level
        return [
            (page, page + PAGE_SIZE, True)
            for page in sorted(pages)
            if tree.region_intersects(page, PAGE_SIZE, IORESOURCE_SYSTEM_RAM, look_below=look_below)
            is Region.MIXED
        ]


def _ragged(resource: Resource) -> bool:
    return bool(resource.start & PAGE_MASK or (resource.end + 1) & PAGE_MASK)


def _outermost(
    tree: ResourceTree,
    low: int,
    high: int,
    match: Callable[[Resource], bool],
    *,
    nested: bool = True,
) -> Iterator[Resource]:
    """Yield what matches within the pages, in address order; nothing below a match."""
    if low >= high:
        return
    stack = [iter(tree.root.overlapping(low, high - 1))]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
        elif match(node):
            yield node
        elif nested and node.children:
            stack.append(iter(node.overlapping(low, high - 1)))


def _page_runs(
    found: Iterable[Resource], low: int, high: int, *, inward: bool = False
) -> Layer[Resource]:
    """Turn resources to whole pages. A page that two share belongs to the first of them."""
    runs: Layer[Resource] = []
    reached = low
    grow, shrink = (0, PAGE_MASK) if inward else (PAGE_MASK, 0)
    for resource in found:
        start = max((resource.start + shrink) & ~PAGE_MASK, reached)
        end = min((resource.end + 1 + grow) & ~PAGE_MASK, high)
        if start < end:
            runs.append((start, end, resource))
            reached = end
    return runs


def _gaps(blocks: Sequence[Range], low: int, high: int) -> Layer[bool]:
    """Pages between memory blocks (which are sorted)."""
    runs: Layer[bool] = []
    reached = low
    for block in blocks:
        start = min((block.start + PAGE_MASK) & ~PAGE_MASK, high)
        if reached < start:
            runs.append((reached, start, True))
        reached = max(reached, block.end & ~PAGE_MASK)
    if reached < high:
        runs.append((reached, high, True))
    return runs


def _values(layer: Iterable[tuple[int, int, T]], edges: Sequence[int]) -> Iterator[T | None]:
    """Yield, for each pair of neighbouring edges, what the layer has there."""
    runs = iter(layer)
    run = next(runs, None)
    for start, _ in pairwise(edges):
        while run is not None and run[1] <= start:
            run = next(runs, None)
        yield run[2] if run is not None and run[0] <= start else None
