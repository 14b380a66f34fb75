"""Where persistent memory, dax devices and CXL windows may lie, and the memory that they bring."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from fakedev.devices.memory.boot import BLOCK_SIZE
from fakedev.devices.nd.dax import kmem_span
from fakedev.model.flags import IORESOURCE_SYSTEM_RAM
from fakedev.model.poisoned import without
from fakedev.model.ranges import PAGE_MASK, Range
from fakedev.model.resource import Resource
from fakedev.profiles.compile_memory import Area
from fakedev.profiles.context import Context, Path

if TYPE_CHECKING:
    from fakedev.model.resources import ResourceTree

_SET_ASIDE = frozenset({"Persistent Memory", "Soft Reserved"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the profile has otherwise: the memory it brings, the resources, the CPU and its kernel.

    `bits` is the address width of the CPU, `block` the size of a memory block in bytes.
    """

    known: list[Area]
    tree: ResourceTree
    bits: int
    block: int = BLOCK_SIZE
    lists_soft_reserved: bool = True


@dataclass(slots=True)
class Places:
    """Checks each range against the others; `areas` and `files` are those of `NdParts`."""

    around: Surroundings
    context: Context
    areas: list[Area] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)
    _taken: list[tuple[Range, Path]] = field(default_factory=list)
    _windows: list[tuple[Range, Path]] = field(default_factory=list)

    def take(self, span: Range, name: str, path: Path, *, listed: bool, file: str | None) -> None:
        """Whole pages, apart from the others; memory is made for what no segment covers."""
        where = (*path, "range")
        if span.start & PAGE_MASK or span.end & PAGE_MASK:
            self.context.report(f"{name}: {span} is not made of whole pages", *where)
        free = self._apart(span, name, where, self._taken)
        self._taken.append((span, path))
        if not (listed and free):
            return
        checks = (self._reaches, self._free, self._nests)
        if all(check(span, name, where) for check in checks):
            self._back(span, name, path, file)

    def window(self, span: Range, name: str, path: Path) -> None:
        """A CXL window is apart from the others, and cuts no resource in two."""
        where = (*path, "range")
        free = self._apart(span, name, where, self._windows)
        if free and self._reaches(span, name, where):
            self._nests(span, name, where)
        self._windows.append((span, path))

    def kmem(self, data: Range, node: int, name: str, path: Path, owner: Path) -> None:
        """What kmem takes has a whole memory block, and a node (`dev_dax_kmem_probe`)."""
        block = self.around.block
        if block and kmem_span(data, block) is None:
            self.context.report(f"{name}: {data} has no whole memory block of {block >> 20} MiB for mode kmem",
                                *path)  # fmt: skip
        if node < 0:
            self.context.report(f"{name}: mode kmem needs a target_node from 0 on", *owner,
                                "target_node")  # fmt: skip

    def _apart(self, span: Range, name: str, where: Path, others: list[tuple[Range, Path]]) -> bool:
        for other, place in others:
            if other.overlaps(span):
                self.context.report(f"{name}: {span} overlaps {other} of {self.context.place(*place)}; "
                                    "move or shorten one of them", *where)  # fmt: skip
                return False
        return True

    def _reaches(self, span: Range, name: str, where: Path) -> bool:
        if span.end <= 1 << self.around.bits:
            return True
        self.context.report(f"{name}: {span} ends beyond the {self.around.bits} address bits of this CPU",
                            *where)  # fmt: skip
        return False

    def _nests(self, span: Range, name: str, where: Path) -> bool:
        """False, and a problem, where a resource or a CXL window is cut in two, or is System RAM around it."""
        for other, place in self._windows:
            if _cuts(other, span):
                self.context.report(f"{name}: {span} straddles the edge of {other} of "
                                    f"{self.context.place(*place)}", *where)  # fmt: skip
                return False
        conflict = _conflict(self.around.tree, span)
        if conflict is None:
            return True
        how = (
            "lies inside"
            if conflict.contains(span.start, span.end - 1)
            else "straddles the edge of"
        )
        self.context.report(f"{name}: {span} {how} {conflict}; nodes nest or lie apart", *where)
        return False

    def _free(self, span: Range, name: str, where: Path) -> bool:
        """False, and a problem, where memory is that is no persistent memory, nor set aside for it."""
        for area in self._covering(span):
            firmware = area.path[0] == "firmware"
            if area.path[0] == "virtio_mem" or (firmware and area.name not in _SET_ASIDE):
                self.context.report(f"{name}: {span} overlaps {area.name} ({area.span}) of "
                                    f"{self.context.place(*area.path)}", *where)  # fmt: skip
                return False
        return True

    def _back(self, span: Range, name: str, path: Path, file: str | None) -> None:
        """The memory behind a range: a file, what the profile brings there, or new memory."""
        covering = self._covering(span)
        if file is not None:
            medium = str(FilePath(self.context.resolve(file, *path, "file")).absolute())
            if medium in self.files.values():
                self.context.report(
                    f"{name}: {file!r} is the medium of another region", *path, "file"
                )
            self.files[span.start] = medium
        if file is not None or not covering:
            self.areas.append(Area(span, name, (*path, "range")))
        elif sum(_common(area.span, span) for area in covering) < span.size:
            self.context.report(f"{name}: only a part of {span} has memory: {covering[0].name} "
                                f"({covering[0].span})", *path, "range")  # fmt: skip

    def _covering(self, span: Range) -> list[Area]:
        return [area for area in self.around.known if area.span.overlaps(span)]


@dataclass(slots=True)
class NdMemory:
    """The memory that no segment gives yet, and the files behind regions, by address."""

    areas: list[Area]
    files: dict[int, str]

    def beside(self, spans: tuple[Range, ...]) -> tuple[Range, ...]:
        """What is left of ranges where files are: these, not chips, answer there."""
        for area in self.areas:
            spans = without(spans, area.span) if area.span.start in self.files else spans
        return spans

    def beside_areas(self, areas: list[Area]) -> list[Area]:
        """As `beside`, of areas; what is no chip of persistent memory stays whole."""
        kept = [area for area in areas if area.name not in _SET_ASIDE]
        cut = [area for area in areas if area.name in _SET_ASIDE]
        return kept + [a._replace(span=s) for a in cut for s in self.beside((a.span,))]


def _conflict(tree: ResourceTree, span: Range) -> Resource | None:
    """A resource that a range cannot nest with."""
    place = tree.root
    while True:
        touching = place.overlapping(span.start, span.end - 1)
        around = next((one for one in touching if one.contains(span.start, span.end - 1)), None)
        if around is None:
            return next((one for one in touching if _cuts(one.span, span)), None)
        if around.matches(IORESOURCE_SYSTEM_RAM):
            return around
        place = around


def _cuts(one: Range, other: Range) -> bool:
    """Whether two ranges share some bytes, and each has some of its own."""
    first, second = sorted((one, other))
    return first.start < second.start < first.end < second.end


def _common(one: Range, other: Range) -> int:
    return max(min(one.end, other.end) - max(one.start, other.start), 0)
