"""Reading `/proc/iomem`: text into nested entries, entries into a ResourceTree."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from textwrap import dedent

from fakedev.model.errors import RangeError
from fakedev.model.flags import IORES_DESC_NONE
from fakedev.model.iomem_names import standard_flags
from fakedev.model.ranges import ADDRESS_LIMIT
from fakedev.model.resources import Resource, ResourceTree

_LINE = re.compile(r"( *)([0-9a-fA-F]+)-([0-9a-fA-F]+) : ?(.*)")
# The kernel stops indenting here (5 levels; 8 since 7.0); deeper nodes print at the same indent.
_DEPTH_CAPS = (5, 8)

FlagsOf = Callable[["IomemEntry", str], tuple[int, int]]


@dataclass(slots=True)
class IomemEntry:
    """One line: `start` to `end` (inclusive), its name, what is below it, its line number."""

    start: int
    end: int
    name: str
    line: int
    children: list["IomemEntry"] = field(default_factory=list)

    def holds(self, other: "IomemEntry") -> bool:
        """Tell if `other` lies wholly inside."""
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"{self.name} ({self.start:08x}-{self.end:08x})"


def parse_iomem(text: str) -> list[IomemEntry]:
    """Read the text of `/proc/iomem` into nested entries, in the order of the text.

    A common indentation is ignored, and so are empty lines. Raises RangeError with the line number.
    """
    top: list[IomemEntry] = []
    path: list[IomemEntry] = []
    total = nonzero = 0
    for number, line in enumerate(dedent(text.expandtabs()).splitlines(), 1):
        if line.strip():
            depth, entry = _parse_line(line, number)
            total, nonzero = total + 1, nonzero + bool(entry.start or entry.end)
            _attach(entry, depth, top, path)
    if total and not nonzero:
        raise RangeError(
            "line 1: every address is zero: this /proc/iomem was captured without root; "
            "capture it again with sudo"
        )
    _check_siblings(top)
    return top


def _parse_line(line: str, number: int) -> tuple[int, IomemEntry]:
    match = _LINE.fullmatch(line.rstrip())
    if match is None:
        raise RangeError(f"line {number}: not `START-END : NAME` in hexadecimal: {line.strip()!r}")
    indent, start, end, name = match.groups()
    entry = IomemEntry(int(start, 16), int(end, 16), name, number)
    if len(indent) % 2:
        raise RangeError(f"line {number}: indented by {len(indent)}; each level is two spaces")
    if entry.end < entry.start:
        raise RangeError(f"line {number}: {start}-{end}: the end lies before the start")
    if entry.end >= ADDRESS_LIMIT:
        raise RangeError(f"line {number}: {start}-{end} ends beyond 64 bits")
    return len(indent) // 2, entry


def _attach(entry: IomemEntry, depth: int, top: list[IomemEntry], path: list[IomemEntry]) -> None:
    """Put an entry below the last one that is indented less; `path` leads to the last entry."""
    if depth > len(path):
        raise RangeError(
            f"line {entry.line}: indented by {depth} levels, at most {len(path)} fit here"
        )
    if depth in _DEPTH_CAPS and len(path) > depth:
        while len(path) > depth and not path[-1].holds(entry):
            path.pop()
    else:
        del path[depth:]
    parent = path[-1] if path else None
    if parent is not None and not parent.holds(entry):
        raise RangeError(f"line {entry.line}: {entry} lies outside of its parent {parent}")
    (parent.children if parent else top).append(entry)
    path.append(entry)


def _check_siblings(entries: Iterable[IomemEntry]) -> None:
    stack = [list(entries)]
    while stack:
        ordered = sorted(stack.pop(), key=lambda entry: entry.start)
        for low, high in pairwise(ordered):
            if high.start <= low.end:
                later, earlier = (high, low) if high.line > low.line else (low, high)
                raise RangeError(
                    f"line {later.line}: {later} overlaps {earlier} of line {earlier.line}"
                )
        stack.extend(entry.children for entry in ordered if entry.children)


def _standard(entry: IomemEntry, parent: str) -> tuple[int, int]:
    return standard_flags(
        entry.name,
        entry.start,
        entry.end,
        parent=parent,
        children=[child.name for child in entry.children],
    )


def build_tree(
    entries: Iterable[IomemEntry], *, flags_of: FlagsOf = _standard, root: Resource | None = None
) -> ResourceTree:
    """Make a tree of this shape; `flags_of(entry, parent_name)` gives (flags, desc)."""
    tree = ResourceTree(root)
    _fill(tree.root, "", entries, flags_of)
    tree.generation += 1
    return tree


def _fill(root: Resource, name: str, entries: Iterable[IomemEntry], flags_of: FlagsOf) -> None:
    work = [(root, name, list(entries))]
    while work:
        parent, parent_name, below = work.pop()
        for entry in sorted(below, key=lambda entry: entry.start):
            flags, desc = flags_of(entry, parent_name)
            node = Resource(entry.start, entry.end, entry.name, flags, desc or IORES_DESC_NONE)
            parent.adopt(node)
            work.append((node, entry.name, entry.children))
