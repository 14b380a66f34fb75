"""Persistent memory, soft-reserved memory and CXL as plain values, for a cache and for `build`."""

from typing import NamedTuple

MODES = ("raw", "fsdax", "devdax", "kmem")
"""What a namespace is used as; `kmem` is `system-ram` in the words of daxctl."""
ON_UNPLUG = ("sigbus", "all-ones", "poison")
"""What a surprise removal leaves of mappings."""


class DimmPlan(NamedTuple):
    """One module (`nmemN`); `nfit` are the files of its `nfit/` directory as name and text."""

    commands: str
    flags: str
    state: str
    available_slots: int
    nfit: tuple[tuple[str, str], ...]


class MappingPlan(NamedTuple):
    """Which bytes of which module a region is made of; `position` in the interleave set."""

    dimm: str
    start: int
    size: int
    position: int


class FilePlan(NamedTuple):
    """A file of an fsdax file system: `offset` in the namespace, both multiples of a page."""

    name: str
    offset: int
    size: int
    mode: int = 0o644


class NamespacePlan(NamedTuple):
    """A part of a region; `io` has no label (type 4), `metadata` bytes precede the data of devdax."""

    start: int
    size: int
    mode: str
    uuid: str
    alt_name: str = ""
    sector_size: int = 512
    sector_sizes: tuple[int, ...] = (512, 4096)
    align: int = 2 << 20
    metadata: int = 0
    io: bool = False
    files: tuple[FilePlan, ...] = ()


class RegionPlan(NamedTuple):
    """An interleave set. Not `listed`: only sysfs shows it, nothing is claimed or served of it."""

    start: int
    size: int
    mappings: tuple[MappingPlan, ...]
    namespaces: tuple[NamespacePlan, ...]
    set_cookie: int = 0
    align: int = 16 << 20
    persistence_domain: str = "memory_controller"
    numa_node: int = 0
    target_node: int = 0
    read_only: bool = False
    deep_flush: bool = True
    range_index: int = 1
    listed: bool = True
    on_unplug: str = "sigbus"


class HmemPlan(NamedTuple):
    """Memory that the firmware reserved for a device-dax driver (EFI_MEMORY_SP), or a CXL region.

    `parent` is what the device lies in; empty where that is not in `/proc/iomem`.
    """

    start: int
    size: int
    mode: str = "devdax"
    align: int = 2 << 20
    numa_node: int = 0
    target_node: int = 0
    parent: str = "Soft Reserved"
    path: str = "/sys/devices/platform/hmem.0"
    listed: bool = True


class MemdevPlan(NamedTuple):
    """A CXL memory expander (`memN`); `path` is the directory of the function that it is."""

    path: str
    ram_size: int
    pmem_size: int = 0
    serial: int = 0
    numa_node: int = 0
    payload_max: int = 4096
    label_storage_size: int = 0
    firmware_version: str = ""
    port: int = 0


class WindowPlan(NamedTuple):
    """A CXL window (a root decoder): what it may hold, and the regions in it."""

    start: int
    size: int
    targets: tuple[int, ...] = (0,)
    granularity: int = 4096
    capabilities: tuple[str, ...] = ("ram", "pmem", "type3")
    qos_class: int = 0
    regions: tuple[HmemPlan, ...] = ()
    listed: bool = True


class CxlPlan(NamedTuple):
    """The CXL topology: windows of one root, and the memory devices below its host bridges."""

    path: str = "/sys/devices/platform/ACPI0017:00"
    windows: tuple[WindowPlan, ...] = ()
    memdevs: tuple[MemdevPlan, ...] = ()


class NdPlan(NamedTuple):
    """Everything. Not `loaded`: the nvdimm drivers wait for `fakedev ctl modprobe`."""

    path: str = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00"
    provider: str = "ACPI.NFIT"
    loaded: bool = True
    dimms: tuple[tuple[str, DimmPlan], ...] = ()
    regions: tuple[RegionPlan, ...] = ()
    hmem: tuple[HmemPlan, ...] = ()
    cxl: CxlPlan | None = None
