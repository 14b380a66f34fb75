"""The memory map of the BIOS: `/sys/firmware/memmap`, RAM, and the first nodes of `/proc/iomem`.

After arch/x86/kernel/e820.c: `e820__update_table` sorts and merges, `trim_bios_range` takes page 0
and 640 KiB to 1 MiB away from RAM, `e820__reserve_resources` makes the resources.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fakedev.firmware.base import Problems, nearest
from fakedev.model.errors import RangeError
from fakedev.model.files import StaticFile
from fakedev.model.ranges import PAGE_MASK, PAGE_SIZE, Range, page_round, parse_range

RAM = "System RAM"
RESERVED = "Reserved"
ACPI = "ACPI Tables"
NVS = "ACPI Non-volatile Storage"
UNUSABLE = "Unusable memory"
PMEM = "Persistent Memory"
PRAM = "Persistent Memory (legacy)"
SOFT_RESERVED = "Soft Reserved"
TYPES = (RAM, RESERVED, ACPI, NVS, UNUSABLE, PMEM, PRAM, SOFT_RESERVED)

# What memory chips answer; who answers in a reserved range, the map does not say.
BACKED = frozenset((RAM, ACPI, NVS, UNUSABLE, PMEM, PRAM, SOFT_RESERVED))
# do_mark_busy: drivers may still claim these when they lie above 1 MiB.
_CLAIMABLE = frozenset((RESERVED, SOFT_RESERVED, PMEM, PRAM))

_BIOS_BEGIN = 0xA0000
_BIOS_END = 0x100000
_16M = 1 << 24


class Entry(NamedTuple):
    """`type` from `start` to `end` (inclusive)."""

    start: int
    end: int
    type: str


class E820Resource(NamedTuple):
    """A resource of `/proc/iomem`; `busy` is IORESOURCE_BUSY as `do_mark_busy` decides it."""

    start: int
    end: int
    name: str
    busy: bool


@dataclass(frozen=True, slots=True)
class E820Map:
    """Everything that follows from the map.

    `entries`: as the firmware gave them, sorted and merged. `ram`: whole pages that memory chips
    answer (System RAM, ACPI, persistent, ...), merged. `resources`: the nodes of the iomem tree.
    `ram_buffers`: behind RAM that ends off its alignment; the kernel reserves them last, around
    everything that is there by then (`reserve_region_with_split`). `high_memory`: end of the last
    System RAM. `files`: `/sys/firmware/memmap`.
    """

    entries: tuple[Entry, ...]
    ram: tuple[Range, ...]
    resources: tuple[E820Resource, ...]
    ram_buffers: tuple[E820Resource, ...]
    high_memory: int
    files: Mapping[str, StaticFile]


def build_e820(entries: Sequence[Mapping[str, Any]]) -> E820Map:
    """The map from mappings with `range` (text or Range) and `type` (the kernel's name).

    Raises FirmwareError: unknown keys and types, empty or overlapping ranges, System RAM above
    1 MiB that is not whole pages, no RAM at all.
    """
    problems = Problems()
    given = problems.mappings(entries, ())
    read = [_entry(entry, index, problems) for index, entry in enumerate(given)]
    _check(read, problems)
    problems.stop()
    table = _merged(sorted(entry for entry in read if entry is not None))
    kernel = _merged(sorted(_trim_bios_range(table)))
    return E820Map(
        entries=tuple(table),
        ram=tuple(_ram(table)),
        resources=tuple(E820Resource(*entry, busy=_busy(entry)) for entry in kernel),
        ram_buffers=tuple(_ram_buffers(kernel)),
        high_memory=max(entry.end + 1 for entry in kernel if entry.type == RAM),
        files=memmap_files(table),
    )


def memmap_files(entries: Iterable[Entry]) -> dict[str, StaticFile]:
    """`/sys/firmware/memmap/N/{start,end,type}` as drivers/firmware/memmap.c prints them."""
    files = {}
    for index, entry in enumerate(entries):
        for name, text in zip(Entry._fields, (f"{entry.start:#x}", f"{entry.end:#x}", entry.type)):  # noqa: B905
            files[f"/sys/firmware/memmap/{index}/{name}"] = StaticFile.text(f"{text}\n")
    return files


def _entry(given: Mapping[str, Any], index: int, problems: Problems) -> Entry | None:
    path = (index,)
    problems.unknown_keys(given, ("range", "type"), path)
    kind = given.get("type", RAM)
    if kind not in TYPES:
        hint = nearest(str(kind), TYPES) or f"known: {', '.join(TYPES)}"
        problems.add((*path, "type"), f"there is no memory type {kind!r}; {hint}")
    if "range" not in given:
        problems.add(path, "a range is missing; write range: 100000-7ffdffff")
        return None
    try:
        span = (
            given["range"]
            if isinstance(given["range"], Range)
            else parse_range(str(given["range"]))
        )
    except RangeError as error:
        problems.add((*path, "range"), str(error))
        return None
    return Entry(span.start, span.end - 1, str(kind))


def _check(read: Sequence[Entry | None], problems: Problems) -> None:
    indexed = sorted((entry, index) for index, entry in enumerate(read) if entry is not None)
    for (before, _), (after, index) in itertools.pairwise(indexed):
        if after.start <= before.end:
            problems.add((index, "range"), f"{_text(after)} overlaps {_text(before)}")
    for entry, index in indexed:
        if (
            entry.type == RAM
            and entry.start >= _BIOS_END
            and (entry.start | entry.end + 1) & PAGE_MASK
        ):
            problems.add((index, "range"), f"{_text(entry)} is not whole pages of 4 KiB")
    if not any(entry.type == RAM for entry, _ in indexed) and not problems.found:
        problems.add((), f"a machine needs memory: no entry of the map is {RAM!r}")


def _text(entry: Entry) -> str:
    return f"{entry.start:08x}-{entry.end:08x} ({entry.type})"


def _merged(entries: Iterable[Entry]) -> list[Entry]:
    merged: list[Entry] = []
    for entry in entries:
        if merged and merged[-1].type == entry.type and merged[-1].end + 1 == entry.start:
            merged[-1] = merged[-1]._replace(end=entry.end)
        else:
            merged.append(entry)
    return merged


def _trim_bios_range(table: Iterable[Entry]) -> Iterable[Entry]:
    for entry in table:
        if entry.type != RAM:
            yield entry
            continue
        yield from _part(entry, 0, PAGE_SIZE, RESERVED)
        yield from _part(entry, PAGE_SIZE, _BIOS_BEGIN, RAM)
        yield from _part(entry, _BIOS_END, 1 << 64, RAM)


def _part(entry: Entry, start: int, end: int, kind: str) -> Iterable[Entry]:
    first, last = max(entry.start, start), min(entry.end, end - 1)
    if first <= last:
        yield Entry(first, last, kind)


def _busy(entry: Entry) -> bool:
    return entry.start < _BIOS_END or entry.type not in _CLAIMABLE


def _ram(table: Iterable[Entry]) -> Iterable[Range]:
    """Chips come in whole pages: the end of a page that the map splits belongs to them as well."""
    start = end = 0
    for entry in table:
        if entry.type not in BACKED:
            continue
        span = page_round(Range(entry.start, entry.end + 1 - entry.start))
        if span.start > end > start:
            yield Range(start, end - start)
            start = span.start
        elif end == start:
            start = span.start
        end = max(end, span.end)
    if end > start:
        yield Range(start, end - start)


def _ram_buffers(table: Sequence[Entry]) -> list[E820Resource]:
    """`e820__reserve_resources_late`: gaps between the end of RAM and its alignment."""
    buffers: list[E820Resource] = []
    for entry in table:
        if entry.type == RAM:
            first = entry.end + 1
            last = _round_up(first, _ram_alignment(first)) - 1
            taken = sorted([*(one[:2] for one in table), *(one[:2] for one in buffers)])
            buffers += [
                E820Resource(*gap, "RAM buffer", busy=True) for gap in _gaps(first, last, taken)
            ]
    return buffers


def _gaps(first: int, last: int, taken: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """What `taken` (sorted, ends inclusive) leaves free of first to last."""
    for start, end in taken:
        if end >= first and start <= last:
            if start > first:
                yield first, start - 1
            first = end + 1
    if first <= last:
        yield first, last


def _ram_alignment(position: int) -> int:
    if position < _BIOS_END:
        return 64 << 10
    return 1 << 20 if position < _16M else 64 << 20


def _round_up(value: int, alignment: int) -> int:
    return (value + alignment - 1) & ~(alignment - 1)
