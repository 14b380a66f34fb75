"""`virtio_mem:` to plans, and to the memory behind the regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from fakedev.devices.memory.virtio_mem_plan import FIRST_RELEASE, VirtioMemPlan
from fakedev.model.errors import FakedevError
from fakedev.model.kernel import KernelRules
from fakedev.model.ranges import Range
from fakedev.profiles.compile_memory import Area
from fakedev.profiles.context import Context

if TYPE_CHECKING:
    from fakedev.profiles.schema import Document
    from fakedev.profiles.schema_virtio_mem import VirtioMemEntry

SECTION = "virtio_mem"
Rules = Mapping[str, str | int | bool]


def regions(document: Document, context: Context) -> list[Area]:
    """The memory behind the regions: all of it decodes, plugged or not."""
    return [
        Area(Range(entry.addr, entry.region_size), f"virtio-mem {name}", (SECTION, name, "addr"))
        for name, entry in document.virtio_mem.items()
        if _fits(name, entry, context)
    ]


def _fits(name: str, entry: VirtioMemEntry, context: Context) -> bool:
    """Addresses and sizes are made of whole blocks, and inside each other."""
    before = len(context.problems)
    block = entry.block_size
    sizes = {
        "addr": entry.addr,
        "region_size": entry.region_size,
        "requested_size": entry.requested_size,
        "usable_size": entry.usable_size or 0,
    }
    for key, value in sizes.items():
        if value % block:
            near = value // block * block
            context.report(
                f"{key} {value:#x} is not a multiple of the block size {block:#x}; {near:#x} would be",
                SECTION, name, key,
            )  # fmt: skip
    if not entry.region_size:
        context.report("a region of 0 bytes has no room for a block", SECTION, name, "region_size")
    if entry.addr + entry.region_size > 1 << 64:
        context.report(
            f"the region ends beyond 64 bits; region_size is {entry.region_size:#x}",
            SECTION, name, "region_size",
        )  # fmt: skip
    for key in ("requested_size", "usable_size"):
        if sizes[key] > entry.region_size:
            context.report(
                f"{key} {sizes[key]:#x} exceeds the region, which has {entry.region_size:#x} bytes",
                SECTION, name, key,
            )  # fmt: skip
    return len(context.problems) == before


def plans(document: Document, rules: Rules, context: Context) -> tuple[VirtioMemPlan, ...]:
    """One plan a device. What the kernel of the profile could not have is reported."""
    if not document.virtio_mem:
        return ()
    _check_kernel(document, rules, context)
    return tuple(
        VirtioMemPlan(
            name,
            entry.addr,
            entry.region_size,
            entry.block_size,
            entry.node,
            entry.requested_size,
            entry.usable_size,
            function,
            entry.loaded,
            entry.force_bbm,
            entry.bbm_block_size or 0,
            entry.unmovable,
        )
        for (name, entry), function in zip(
            document.virtio_mem.items(), _functions(document, context), strict=True
        )
    )


def _check_kernel(document: Document, given: Rules, context: Context) -> None:
    try:
        rules = KernelRules.preset(**dict(given))  # type: ignore[arg-type] # values of the schema
    except FakedevError:
        return  # reported already
    if rules.has_exclusive_system_ram and rules.devmem and not rules.strict_devmem:
        context.report(
            "VIRTIO_MEM depends on EXCLUSIVE_SYSTEM_RAM since Linux 5.16, which depends on "
            "!DEVMEM || STRICT_DEVMEM: this kernel could not have the driver; "
            "set kernel.strict_devmem to true, or kernel.devmem to false",
            SECTION, key=True,
        )  # fmt: skip
    limit = 1 << rules.physical_address_bits
    for name, entry in document.virtio_mem.items():
        if entry.loaded and rules.release < FIRST_RELEASE:
            context.report(
                f"the driver came with Linux 5.8, and this is {rules.version}; take `loaded` out",
                SECTION, name, "loaded",
            )  # fmt: skip
        if entry.addr + entry.region_size > limit:
            context.report(
                f"the region ends at {entry.addr + entry.region_size - 1:#x}, beyond the "
                f"{rules.physical_address_bits} address bits of this CPU",
                SECTION, name, "addr",
            )  # fmt: skip


def _functions(document: Document, context: Context) -> Iterator[str]:
    """The PCI function of each device, as `0000:00:01.0`; empty where it has none."""
    users: dict[str, str] = {}
    for name, entry in document.virtio_mem.items():
        function = _function(entry.pci, document, context, name) if entry.pci else ""
        if function and function in users:
            context.report(f"{function} is the function of {users[function]}", SECTION, name, "pci")
        users[function] = name
        yield function


def _function(text: str, document: Document, context: Context, name: str) -> str:
    from fakedev.devices.pci.bdf import Bdf  # noqa: PLC0415 - for machines that have PCI

    known, written = [], document.pci.functions if document.pci else ()
    for at in written:
        with suppress(FakedevError):  # reported where it stands
            known.append(str(Bdf.parse(at)))
    try:
        function = str(Bdf.parse(text))
    except FakedevError as error:
        context.report(str(error), SECTION, name, "pci")
        return ""
    if function not in known and len(known) == len(written):
        there = ", ".join(known[:8]) or "none"
        context.report(
            f"there is no function {function} in `pci:`; there are {there}", SECTION, name, "pci"
        )
    return function
