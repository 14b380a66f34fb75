"""`memory:` and the memory behind `e820:` to segments and placements."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from fakedev.model.ranges import PAGE_MASK, PAGE_SIZE, Range, page_round
from fakedev.profiles.blobs import BLOB_LIMIT
from fakedev.profiles.context import Context, Path
from fakedev.profiles.plan import Fill, Placement, SegmentPlan
from fakedev.profiles.schema_memory import Content, Memory, Segment

_SPARSE_PAGES = 32
# The model stores contents up to this size at once; larger ones are made page by page when touched.
_SMALL = 1 << 16
_WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class Area(NamedTuple):
    """Memory and the place in the profile that makes it.

    A `window` belongs to a device, which brings what answers there; `memory` is false for registers.
    """

    span: Range
    name: str
    path: Path
    fill: Fill = Fill()
    readonly: bool = False
    window: bool = False
    memory: bool = True


def overlaps(
    areas: list[Area], context: Context, *, what: str, compared: Container[str] = ()
) -> None:
    """Report each area that shares bytes with one that starts before it, naming both places.

    Areas of a section in `compared` have been compared with each other before.
    """
    ordered = sorted(areas, key=lambda area: area.span)
    widest: Area | None = None
    for area in ordered:
        section = str(area.path[0])
        known = widest is not None and section == widest.path[0] and section in compared
        if widest is not None and not known and area.span.start < widest.span.end:
            context.report(
                f"{what} {area.span} ({area.name}) overlaps {widest.span} ({widest.name}) "
                f"of {context.place(*widest.path)}; move or shorten one of them",
                *area.path,
            )
        if widest is None or area.span.end > widest.span.end:
            widest = area


class MemoryMap:
    """The memory that decodes, as sorted areas and as runs without a gap."""

    def __init__(self, areas: list[Area]) -> None:
        ordered = sorted(areas, key=lambda area: area.span)
        self.areas = [area for area in ordered if area.memory]
        self.registers = [area for area in ordered if not area.memory]
        self.runs: list[Range] = []
        for area in self.areas:
            last = self.runs[-1] if self.runs else None
            if last is not None and area.span.start <= last.end:
                self.runs[-1] = Range(last.start, max(last.end, area.span.end) - last.start)
            else:
                self.runs.append(area.span)

    def room(self, address: int) -> int:
        """How many bytes decode from `address` on, without a gap; 0 where nothing does."""
        index = bisect_right(self.runs, address, key=lambda run: run.start) - 1
        return max(self.runs[index].end - address, 0) if index >= 0 else 0

    def check(self, span: Range, context: Context, *path: int | str, what: str = "") -> bool:
        """True where `span` is wholly memory; else a problem that says what is there."""
        room = self.room(span.start)
        if room >= span.size:
            return True
        block = next((area for area in self.registers if span.overlaps(area.span)), None)
        if block is not None:
            context.report(f"{block.name} answers at {block.span} with registers, which hold no content; "
                           "give the registers their values", *path)  # fmt: skip
            return False
        if room == 0:
            text = f"nothing decodes at {span.start:#x}{self._near(span.start)}"
        else:
            text = (f"{span} is {span.size:,} bytes long, and there is memory for {room:,} "
                    f"(up to {span.start + room - 1:#x})")  # fmt: skip
        prefix = f"{what}: " if what else ""
        context.report(f"{prefix}{text}; add a segment or RAM around it", *path)
        return False

    def _near(self, address: int) -> str:
        index = bisect_right(self.runs, address, key=lambda run: run.start) - 1
        around = [str(run) for run in self.runs[max(index, 0) : index + 2]]
        return (
            f" (memory near it: {' and '.join(around)})"
            if around
            else " (there is no memory at all)"
        )


def memory_map(
    own: list[Area], ram: Sequence[Range], entries: list[Area], windows: list[Area],
    context: Context,
) -> MemoryMap:  # fmt: skip
    """All memory: `ram` (what the chips of the e820 map answer), segments, and memory of devices.

    `entries` are the e820 entries behind `ram`, as the profile writes them.
    """
    overlaps([*own, *entries, *windows], context, what="memory", compared=("firmware", "pci"))
    chips = [Area(span, "System RAM", ("firmware", "e820")) for span in ram]
    return MemoryMap([*own, *chips, *windows])


def segment_areas(memory: Memory, context: Context) -> list[Area]:
    """What `segments:` says."""
    return [_segment_area(segment, index, context) for index, segment in enumerate(memory.segments)]


def _segment_area(segment: Segment, index: int, context: Context) -> Area:
    path: Path = ("memory", "segments", index)
    span = segment.span
    if span.start & PAGE_MASK or span.end & PAGE_MASK:
        context.report(f"the range {span} is misaligned: a segment is made of whole pages of 4096 "
                       f"bytes; {page_round(span)} would be right", *path, "range")  # fmt: skip
    fill = segment.fill._replace(seed=segment.seed or 0)
    return Area(span, segment.name or "segment", (*path, "range"), fill, segment.readonly)


def segments(mapped: MemoryMap) -> tuple[SegmentPlan, ...]:
    """The segments to build, by address."""
    return tuple(
        SegmentPlan(area.span.start, area.span.size, area.name, area.fill, area.readonly)
        for area in mapped.areas
        if not area.window
    )


def placements(memory: Memory, mapped: MemoryMap, context: Context) -> tuple[Placement, ...]:
    """The contents, in their order; those that do not fit are reported."""
    found: list[Placement] = []
    for index, content in enumerate(memory.contents):
        placement = _placement(content, ("memory", "contents", index), mapped, context)
        if placement is not None:
            found.extend(sparse(placement))
    return tuple(found)


def sparse(placement: Placement) -> Iterator[Placement]:
    """A large content whose pages are mostly equal as one fill and the pages that differ.

    Nothing of the fill exists until somebody looks at it.
    """
    pages = [placement.data[at : at + PAGE_SIZE] for at in range(0, len(placement.data), PAGE_SIZE)]
    if len(pages) < _SPARSE_PAGES:
        yield placement
        return
    common, count = Counter(pages).most_common(1)[0]
    if count * 2 < len(pages) or len(common) != PAGE_SIZE:
        yield placement
        return
    pattern = Fill("bytes", common) if common.strip(b"\0") else Fill()
    yield Placement(placement.start, placement.size, fill=pattern)
    for index, page in enumerate(pages):
        if page != common:
            yield Placement(placement.start + index * PAGE_SIZE, len(page), page)


def _placement(
    content: Content, path: Path, mapped: MemoryMap, context: Context
) -> Placement | None:
    start = content.span.start if content.span else content.at or 0
    made = _payload(content, start, path, mapped, context)
    if made is None:
        return None
    if content.span and made.size > content.span.size:
        context.report(f"the content is {made.size:,} bytes long, and its range {content.span} has "
                       f"room for {content.span.size:,}", *path)  # fmt: skip
        return None
    if made.size == 0:
        context.report("the content is empty; write at least one byte", *path)
        return None
    if not mapped.check(Range(start, made.size), context, *path):
        return None
    return made


def _payload(
    content: Content, start: int, path: Path, mapped: MemoryMap, context: Context
) -> Placement | None:
    if content.fill is not None and content.span is not None:
        size = content.span.size
        if content.fill.kind == "address" and size <= _SMALL:
            return Placement(start, size, _addresses(start, size))
        return Placement(start, size, fill=content.fill._replace(seed=content.seed or 0))
    if content.file is not None:
        room = content.span.size if content.span else mapped.room(start)
        blob = context.blob(
            content.file, *path, "file",
            offset=content.offset, size=content.size, room=room or BLOB_LIMIT,
        )  # fmt: skip
        if blob is None:
            return None
        return Placement(start, blob.size, blob.data, "" if blob.data else blob.path, blob.offset)
    data = _bytes(content)
    return Placement(start, len(data), data)


def _addresses(start: int, size: int) -> bytes:
    """`fill: address` made here: the model would import numpy for it."""
    first = start & ~7
    words = b"".join(at.to_bytes(8, "little") for at in range(first, start + size, 8))
    return words[start - first : start - first + size]


def _bytes(content: Content) -> bytes:
    if content.text is not None:
        return content.text.encode()
    for direct in (content.hex, content.base64):
        if direct is not None:
            return direct
    for name, width in _WIDTHS.items():
        values = getattr(content, name)
        if values is not None:
            return b"".join(value.to_bytes(width, "little") for value in values)
    return b""
