"""First fit in the windows of a bus, as `allocate_resource` and `pci_bus_alloc_resource` do it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fakedev.devices.pci.device import PciResource
from fakedev.model.flags import (
    IORESOURCE_IO,
    IORESOURCE_MEM,
    IORESOURCE_MEM_64,
    IORESOURCE_PREFETCH,
    IORESOURCE_TYPE_BITS,
)

MIN_IO, MIN_MEMORY = 0x1000, 0x10_0000
_ISA_ALIAS, _ISA_STEP = 0x300, 0x400
_BIOS = (0xFFE0_0000, 0xFFFF_FFFF)
_4G = 1 << 32
_WIDE = IORESOURCE_PREFETCH | IORESOURCE_MEM_64
_TYPES = IORESOURCE_TYPE_BITS & ~IORESOURCE_PREFETCH

Taken = Sequence[tuple[int, int]]
"""Occupied ranges, ends inclusive, sorted and disjoint."""


class Area(NamedTuple):
    """A window of a bus, and what lies in it."""

    window: PciResource
    taken: Taken


def find(areas: Sequence[Area], flags: int, size: int, align: int) -> tuple[Area, int] | None:
    """`__pci_assign_resource`: where a resource goes, or None when it fits nowhere.

    First windows of exactly its kind, then (64-bit prefetchable) those that are prefetchable, then
    any of its type; 64-bit resources look above 4 GiB first each time.
    """
    masks = [_WIDE]
    if flags & _WIDE == _WIDE:
        masks.append(IORESOURCE_PREFETCH)
    if flags & _WIDE:
        masks.append(0)
    regions = [(0, _4G - 1)]
    if flags & IORESOURCE_MEM_64:
        regions = [(_4G, (1 << 64) - 1), (0, (1 << 64) - 1)]
    for mask in masks:
        for region in regions:
            for area in areas:
                if _fits_kind(area.window, flags, mask):
                    start = _in_window(area, region, flags, size, align)
                    if start is not None:
                        return area, start
    return None


def _fits_kind(window: PciResource, flags: int, mask: int) -> bool:
    if (flags ^ window.flags) & (mask | _TYPES):
        return False
    return not window.flags & IORESOURCE_PREFETCH or bool(flags & IORESOURCE_PREFETCH)


def _in_window(
    area: Area, region: tuple[int, int], flags: int, size: int, align: int
) -> int | None:
    low = max(area.window.start, region[0])
    high = min(area.window.end, region[1])
    if low == 0:
        low = MIN_IO if flags & IORESOURCE_IO else MIN_MEMORY
    for first, last in _gaps(area.taken, low, high):
        if flags & IORESOURCE_MEM:
            first, last = _without_bios(first, last)  # noqa: PLW2901 - what is left of the gap
        start = _aligned(max(first, low), flags, align)
        if first <= last and start + size - 1 <= last:
            return start
    return None


def _gaps(taken: Taken, low: int, high: int) -> Iterator[tuple[int, int]]:
    at = low
    for first, last in taken:
        if first > high:
            break
        if first > at:
            yield at, first - 1
        at = max(at, last + 1)
    if at <= high:
        yield at, high


def _aligned(start: int, flags: int, align: int) -> int:
    """`pcibios_align_resource` of x86: no I/O that aliases ISA, no memory below 1 MiB."""
    start = start + align - 1 & -align
    if flags & IORESOURCE_IO:
        return start + _ISA_STEP - 1 & -_ISA_STEP if start & _ISA_ALIAS else start
    return max(start, MIN_MEMORY + align - 1 & -align)


def _without_bios(first: int, last: int) -> tuple[int, int]:
    """`arch_remove_reservations`: the larger part beside the 2 MiB below 4 GiB."""
    if last < _BIOS[0] or first > _BIOS[1]:
        return first, last
    below, above = max(_BIOS[0] - first, 0), max(last - _BIOS[1], 0)
    return (first, _BIOS[0] - 1) if below > above else (_BIOS[1] + 1, last)


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ranges sorted, overlaps joined."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found
