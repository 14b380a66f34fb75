"""Which flags a name in `/proc/iomem` stands for.

The text shows names only; whether a range is BUSY decides what `/dev/mem` allows. These are the
flags that the x86 code which makes each entry gives to it (kernel-semantics 2.3, 3.5, 5.2, 6.1).
"""

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from fakedev.model.flags import (
    IORES_DESC_ACPI_NV_STORAGE,
    IORES_DESC_ACPI_TABLES,
    IORES_DESC_CRASH_KERNEL,
    IORES_DESC_CXL,
    IORES_DESC_NONE,
    IORES_DESC_PERSISTENT_MEMORY,
    IORES_DESC_PERSISTENT_MEMORY_LEGACY,
    IORES_DESC_RESERVED,
    IORES_DESC_SOFT_RESERVED,
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_MEM,
    IORESOURCE_READONLY,
    IORESOURCE_SIZEALIGN,
    IORESOURCE_SYSRAM_DRIVER_MANAGED,
    IORESOURCE_SYSTEM_RAM,
    IORESOURCE_WINDOW,
)

_LOW_1M = 0x10_0000
_MEM_BUSY = IORESOURCE_MEM | IORESOURCE_BUSY
_RAM_BUSY = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY


class _Rule(NamedTuple):
    pattern: str
    flags: int
    desc: int = IORES_DESC_NONE


# Types of the e820 map. What starts below 1 MiB is always made BUSY (do_mark_busy).
_E820 = (
    _Rule(r"System RAM", _RAM_BUSY),
    _Rule(r"Reserved", IORESOURCE_MEM, IORES_DESC_RESERVED),
    _Rule(r"Soft Reserved", IORESOURCE_MEM, IORES_DESC_SOFT_RESERVED),
    _Rule(r"Persistent Memory", IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY),
    _Rule(r"Persistent Memory \(legacy\)", IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY_LEGACY),
    _Rule(r"ACPI Tables", _MEM_BUSY, IORES_DESC_ACPI_TABLES),
    _Rule(r"ACPI Non-volatile Storage", _MEM_BUSY, IORES_DESC_ACPI_NV_STORAGE),
    _Rule(r"Unusable memory|Unknown E820 type", _MEM_BUSY),
)

_OTHERS = (
    _Rule(r"System RAM \(.+\)", _RAM_BUSY | IORESOURCE_SYSRAM_DRIVER_MANAGED),
    _Rule(r"Kernel (code|rodata|data|bss)", _RAM_BUSY),
    _Rule(r"Crash kernel", _RAM_BUSY, IORES_DESC_CRASH_KERNEL),
    _Rule(r"RAM buffer", _MEM_BUSY),
    _Rule(r"(System|Video|Adapter|Extension) ROM", _MEM_BUSY | IORESOURCE_READONLY),
    _Rule(r"PCI (MMCONFIG|ECAM) .*", _MEM_BUSY),
    _Rule(r"IOAPIC \d+|Local APIC|dmar\d+|amd_iommu", _MEM_BUSY),
    _Rule(r"HPET \d+|pnp \S+", IORESOURCE_MEM),
    _Rule(r"PCI Bus \S+", IORESOURCE_MEM | IORESOURCE_WINDOW),
    _Rule(r"CXL Window \d+", IORESOURCE_MEM, IORES_DESC_CXL),
    _Rule(r"namespace\d+\.\d+|dax\d+\.\d+", _MEM_BUSY),
)

_PCI_DEVICE = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ACPI_DEVICE = re.compile(r"[A-Z0-9]{4,8}:[0-9a-f]{2,}")
_VIRTIO_MEM = re.compile(r"virtio\d+")
_DAX = re.compile(r"dax\d+\.\d+")


def _compiled(rules: tuple[_Rule, ...]) -> list[tuple[Callable[[str], object], _Rule]]:
    return [(re.compile(rule.pattern).fullmatch, rule) for rule in rules]


_E820_MATCHERS = _compiled(_E820)
_OTHER_MATCHERS = _compiled(_OTHERS)


def standard_flags(
    name: str, start: int, end: int, *, parent: str = "", children: Collection[str] = ()
) -> tuple[int, int]:
    """Return (flags, desc) of the entry `name` at `start` to `end` (inclusive).

    `parent` and `children` are names: a name that nobody knows directly below a PCI BAR or an ACPI
    device is a driver's claim and BUSY; a device whose memory was added as System RAM is a
    SYSTEM_RAM container that is not BUSY.
    """
    del end
    for matches, rule in _E820_MATCHERS:
        if matches(name):
            return rule.flags | (IORESOURCE_BUSY if start < _LOW_1M else 0), rule.desc
    if (flags := _device_flags(name, parent, children)) is not None:
        return flags, IORES_DESC_NONE
    for matches, rule in _OTHER_MATCHERS:
        if matches(name):
            return rule.flags, rule.desc
    if _PCI_DEVICE.fullmatch(parent) or _ACPI_DEVICE.fullmatch(parent):
        return _MEM_BUSY, IORES_DESC_NONE
    return IORESOURCE_MEM, IORES_DESC_NONE


def _device_flags(name: str, parent: str, children: Collection[str]) -> int | None:
    """Return the flags of what a device driver owns, where they depend on the neighbours."""
    if _PCI_DEVICE.fullmatch(name) and not _PCI_DEVICE.fullmatch(parent):
        return IORESOURCE_MEM | IORESOURCE_SIZEALIGN
    if _VIRTIO_MEM.fullmatch(name) and not parent:
        return IORESOURCE_SYSTEM_RAM | IORESOURCE_EXCLUSIVE
    if _DAX.fullmatch(name) and any(child.startswith("System RAM (") for child in children):
        return IORESOURCE_SYSTEM_RAM
    return None
