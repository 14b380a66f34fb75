"""How large the windows of a bridge must be (`pbus_size_io`, `pbus_size_mem`)."""

from collections.abc import Iterable
from typing import NamedTuple

from fakedev.devices.pci import header
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.device import ROM, WINDOWS, PciDevice, PciResource
from fakedev.model.flags import (
    IORESOURCE_IO,
    IORESOURCE_MEM,
    IORESOURCE_MEM_64,
    IORESOURCE_PREFETCH,
)

_IO_UNIT, _MEMORY_UNIT, _MEMORY_SHIFT = 0x1000, 0x10_0000, 20
_ISA_LIMIT = 0x400
_HOTPLUG_IO, _HOTPLUG_MEMORY = 256, 0x20_0000
_WIDE = IORESOURCE_PREFETCH | IORESOURCE_MEM_64


class Wish(NamedTuple):
    """A resource that wants an address. `least` is what it can live with, `size` what it would like."""

    device: PciDevice
    number: int
    size: int
    least: int
    align: int

    @property
    def resource(self) -> PciResource:
        """The line of `resource` that it will be."""
        return self.device.resources[self.number]


def bar_wishes(device: PciDevice) -> list[Wish]:
    """BARs and the ROM of a function that have no place yet."""
    return [
        Wish(device, index, resource.size, resource.size, resource.size)
        for index, resource in enumerate(device.resources[: ROM + 1])
        if resource.flags and not resource.assigned
    ]


def window_wishes(bridge: PciDevice, inside: Iterable[Wish]) -> list[Wish]:
    """Windows of a bridge that have no place yet, large enough for what wants a place behind it.

    A window keeps at least the size that its registers hold. A hot-plug port asks for room to spare
    when it needs a window at all.
    """
    wanted = list(inside)
    config = bridge.function.config
    prefetch = _prefetch_flags(config)
    found = []
    for index, flags in enumerate((IORESOURCE_IO, IORESOURCE_MEM, prefetch), WINDOWS):
        resource = bridge.resources[index]
        if resource.assigned or not _has_window(config, index):
            continue
        mine = [wish for wish in wanted if _belongs(wish.resource.flags, flags, prefetch)]
        old = resource.size
        size, align = _io_size(mine) if flags & IORESOURCE_IO else _memory_size(mine)
        unit = _IO_UNIT if flags & IORESOURCE_IO else _MEMORY_UNIT
        least = _up(max(size, old), unit)
        if not least:
            continue
        best = least
        if bridge.function.hotplug_port:
            spare = _HOTPLUG_IO if flags & IORESOURCE_IO else _HOTPLUG_MEMORY
            best = max(least, _up(spare, unit))
        resource.flags = resource.flags or flags
        resource.start, resource.end = 0, best - 1
        found.append(Wish(bridge, index, best, least, align))
    return found


def _has_window(config: ConfigSpace, index: int) -> bool:
    register = {WINDOWS: header.IO_BASE, WINDOWS + 1: header.MEMORY_BASE}
    at = register.get(index, header.PREFETCH_BASE)
    return any(config.writable[at : at + 2])


def _prefetch_flags(config: ConfigSpace) -> int:
    flags = IORESOURCE_MEM | IORESOURCE_PREFETCH
    low = config.data[header.PREFETCH_BASE] & 0xF
    return flags | IORESOURCE_MEM_64 | low if low == 1 else flags


def _belongs(flags: int, window: int, prefetch: int) -> bool:
    """Which of the windows a resource goes to: 64-bit prefetchable windows take only their like."""
    if flags & IORESOURCE_IO or window & IORESOURCE_IO:
        return bool(flags & window & IORESOURCE_IO)
    special = bool(flags & IORESOURCE_PREFETCH)
    if prefetch & IORESOURCE_MEM_64:
        special = flags & _WIDE == _WIDE
    return special == bool(window & IORESOURCE_PREFETCH)


def _io_size(wishes: list[Wish]) -> tuple[int, int]:
    small = sum(wish.size for wish in wishes if wish.size < _ISA_LIMIT)
    large = sum(wish.size for wish in wishes if wish.size >= _ISA_LIMIT)
    # `calculate_iosize` with CONFIG_ISA: small ones lie in the first 256 bytes of each KiB.
    size = (small & 0xFF) + ((small & ~0xFF) << 2) + large
    return size, max([_IO_UNIT, *(wish.align for wish in wishes)])


def _memory_size(wishes: list[Wish]) -> tuple[int, int]:
    """The sum, and the smallest alignment that still lets everything fit (`calculate_mem_align`)."""
    by_order: dict[int, int] = {}
    for wish in wishes:
        order = max((wish.align - 1).bit_length() - _MEMORY_SHIFT, 0)
        by_order[order] = by_order.get(order, 0) + wish.size
    align = least = 0
    for order in range(max(by_order, default=-1) + 1):
        step = _MEMORY_UNIT << order
        if not align:
            least = step
        elif _up(align + least, least) < step:
            least = step >> 1
        align += by_order.get(order, 0)
    return sum(by_order.values()), max(least, _MEMORY_UNIT)


def _up(value: int, unit: int) -> int:
    return value + unit - 1 & -unit
