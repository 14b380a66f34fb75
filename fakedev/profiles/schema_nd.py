"""Schema of `nvdimm:`, `dax:` and `cxl:`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from fakedev.profiles.fields import (
    LooseText,
    Mode,
    Number,
    Numbers,
    Part,
    RangeText,
    refuse,
)
from fakedev.profiles.nodes import kind

NODE_SCHEMA = {"type": "integer", "minimum": -1}
UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
MODULE = r"^nmem[0-9]{1,4}$"
REGION_LIMIT = 1024


def to_node(value: object) -> int:
    """A NUMA node, -1 for none."""
    text = str(value).strip()
    if not text.removeprefix("-").isdigit() or not -1 <= int(text) <= 1023:
        refuse("a node is a number from 0 to 1023, or -1 for none")
    return int(text)


def to_uuid(value: object) -> str | None:
    """A UUID in lower case, as sysfs shows it."""
    if value is None:
        return None
    text = str(value).lower()
    if not re.fullmatch(UUID, text):
        refuse(f"not a UUID: {kind(value)}; write 8-4-4-4-12 hexadecimal digits")
    return text


NodeId = Annotated[int, BeforeValidator(to_node), WithJsonSchema(NODE_SCHEMA)]
Use = Literal["raw", "fsdax", "devdax", "kmem"]
Identity = Annotated[
    str | None, BeforeValidator(to_uuid), WithJsonSchema({"type": "string", "pattern": UUID})
]


class Dimm(Part):
    """A module (`nmemN`): what `nfit/` says of it."""

    handle: Number = Field(1, description="NFIT device handle")
    phys_id: Number = Field(0, description="SMBIOS handle")
    id: LooseText | None = Field(None, description="unique id: vendor-location-date-serial")
    vendor: Number = Field(0x8089, description="vendor id, as the file prints it")
    device: Number = 0x5141
    rev_id: Number = 0
    subsystem_vendor: Number = 0x8089
    subsystem_device: Number = 0x097A
    subsystem_rev_id: Number = 0x18
    serial: Number = 0x1234
    format: Number = 0x0301
    family: Number = 0
    dsm_mask: Number = 0xFFFF
    nfit_flags: LooseText = Field("", description="nfit/flags")
    commands: str = "smart set_config get_config get_size"
    flags: LooseText = Field("", description="label, lock")
    state: Literal["active", "idle"] = "active"
    available_slots: Number = 250


class NdFile(Part):
    """Files of the file system on an fsdax namespace; they follow each other unless `at` says else."""

    name: str = Field(min_length=1, description="%d is the number, with `count`")
    size: Number = Field(4096, ge=1, description="bytes")
    at: Number | None = Field(None, description="offset in the namespace's data, whole pages")
    count: Number = Field(1, ge=1, le=100_000)
    mode: Mode = 0o644


class NdNamespace(Part):
    """A namespace; the first one starts where its region does."""

    size: Number | None = Field(None, ge=4096, description="bytes (not given: what is left)")
    mode: Use = "raw"
    uuid: Identity = None
    alt_name: LooseText = ""
    sector_size: Number = 512
    sector_sizes: Numbers = Field([512, 4096])
    align: Number = Field(2 << 20, description="alignment of mappings in mode devdax")
    metadata: Number | None = Field(None, description="bytes before the data (not given: as ndctl)")
    label: bool = Field(True, description="false: no label, so no uuid and no names (type 4)")
    files: list[NdFile] = Field([])


class NdMapping(Part):
    """The bytes of a module that a region uses."""

    dimm: str = Field("nmem0", pattern=MODULE)
    offset: Number = 0
    size: Number | None = Field(None, description="bytes (not given: the share of each module)")
    position: Number = 0


class NdRegion(Part):
    """A region of persistent memory, `regionN` by its place in the list."""

    span: RangeText = Field(alias="range", description="where it lies")
    file: str | None = Field(
        None, description="the file that is its medium, made if it is not there: bytes stay"
    )
    mappings: list[NdMapping] | None = None
    set_cookie: Number = 0
    align: Number = 16 << 20
    persistence_domain: Literal["cpu_cache", "memory_controller", "unknown"] = "memory_controller"
    numa_node: NodeId = 0
    target_node: NodeId = 0
    read_only: bool = False
    deep_flush: bool = True
    range_index: Number = 1
    listed: bool = Field(True, description="false: only sysfs shows it, no memory is behind it")
    on_unplug: Literal["sigbus", "all-ones", "poison"] = Field(
        "sigbus", description="what mappings see after a surprise removal"
    )
    namespaces: list[NdNamespace] = Field([])


class Nvdimm(Part):
    """Persistent memory."""

    path: str = Field(
        "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00",
        pattern=r"^/sys/devices/[^/].*[^/]$",
        description="the directory that ndbus0 is in",
    )
    provider: str = "ACPI.NFIT"
    loaded: bool = Field(True, description="false: `fakedev ctl modprobe nfit` finds the regions")
    dimms: dict[str, Dimm] = Field({}, max_length=REGION_LIMIT)
    regions: list[NdRegion] = Field([], max_length=REGION_LIMIT)


class DaxMemory(Part):
    """Memory that firmware reserves for special use (EFI_MEMORY_SP), as `/dev/daxR.0`."""

    span: RangeText = Field(alias="range", description="where it lies")
    mode: Literal["devdax", "kmem"] = "devdax"
    align: Number = 2 << 20
    numa_node: NodeId = 0
    target_node: NodeId = 0
    path: str | None = Field(None, pattern=r"^/sys/devices/[^/].*[^/]$")
    listed: bool = Field(True, description="false: only sysfs shows it, no memory is behind it")


class CxlWindow(Part):
    """A CXL window: a root decoder, with the regions in it."""

    span: RangeText = Field(alias="range", description="where it lies")
    targets: Numbers = Field([0])
    granularity: Number = 4096
    capabilities: list[Literal["ram", "pmem", "type2", "type3"]] = Field(["ram", "pmem", "type3"])
    qos_class: Number = 0
    regions: list[DaxMemory] = Field([])
    listed: bool = True


class CxlMemdev(Part):
    """A CXL memory device, `memN` by its place in the list."""

    path: str = Field(pattern=r"^/sys/devices/[^/].*[^/]$", description="directory of its function")
    ram_size: Number = 0
    pmem_size: Number = 0
    serial: Number = 0
    numa_node: NodeId = 0
    payload_max: Number = 4096
    label_storage_size: Number = 0
    firmware_version: str = ""
    port: Number = Field(0, description="the target (host bridge) of the window it is behind")


class Cxl(Part):
    """CXL memory."""

    path: str = Field("/sys/devices/platform/ACPI0017:00", pattern=r"^/sys/devices/[^/].*[^/]$")
    windows: list[CxlWindow] = Field([])
    memdevs: list[CxlMemdev] = Field([])
