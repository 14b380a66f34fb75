"""A function as the kernel knows it, `struct pci_dev`: made when it is found, gone for ever once removed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from fakedev.devices.pci.bars import Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.settings import NO_FACTS, Facts
from fakedev.model.flags import IORESOURCE_IO, IORESOURCE_MEM
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.devices.pci.function import Function
    from fakedev.devices.pci.uio import UioDevice

BARS = range(6)
ROM = 6
"""Index of the expansion ROM among the resources (PCI_ROM_RESOURCE)."""
WINDOWS = 13
"""Index of a bridge's first window: I/O, memory, prefetchable, unused (PCI_BRIDGE_RESOURCES)."""


@dataclass(slots=True)
class PciResource:
    """One line of the file `resource`: addresses (`end` inclusive) and IORESOURCE_* flags.

    All zeros: there is nothing. `node` is its place in the tree, None without one. `unlisted`: the
    kernel never shows a node for it.
    """

    start: int = 0
    end: int = 0
    flags: int = 0
    node: Resource | None = None
    bar: Bar | None = None
    unlisted: bool = False

    @property
    def size(self) -> int:
        """Its length; 0 when there is nothing (resource_size and pci_resource_len)."""
        return self.end - self.start + 1 if self.flags else 0

    @property
    def span(self) -> Range:
        """The same as start and size."""
        return Range(self.start, self.size)

    @property
    def is_io(self) -> bool:
        """An I/O BAR or window."""
        return bool(self.flags & IORESOURCE_IO)

    @property
    def is_memory(self) -> bool:
        """A memory BAR or window."""
        return bool(self.flags & IORESOURCE_MEM)

    @property
    def assigned(self) -> bool:
        """It has an address that the kernel accepts."""
        return bool(self.flags) and (self.node is not None or self.unlisted)

    def clear(self) -> None:
        """It is nothing from now on (`reset_resource`)."""
        self.start = self.end = self.flags = 0
        self.node = None


class Claim(NamedTuple):
    """What a driver holds: the node, which tree it is in, its range as it was claimed."""

    kind: Literal["io", "mem"]
    span: Range
    node: Resource


class PciDevice:
    """One function of the bus. `path` is its directory in sysfs.

    `gone`: removed, its files answer ENODEV; a later rescan makes another object. `unplugged`: it
    was pulled out. `msi` is "", "msi" or "msix" with the numbers in `msi_irqs`; `rom_enabled` is
    `rom_attr_enabled`. `secondary` is the bus behind a bridge when it was found. `facts` are what the
    profile says about it. `uio` is there while its driver is one for user space.
    """

    __slots__ = (
        "bdf", "boot_vga", "broken_parity_status", "children", "claims", "class_",
        "consistent_dma_mask_bits", "d3cold_allowed", "device", "dma_mask_bits", "driver",
        "driver_override", "enable_count", "facts", "function", "gone", "irq", "local_cpulist",
        "local_cpus", "msi", "msi_bus", "msi_irqs", "name", "numa_node", "numbers", "parent", "path",
        "power_state", "reset_methods", "resources", "revision", "rom_enabled", "secondary",
        "subdevice", "subvendor", "uio", "unplugged", "vendor",
    )  # fmt: skip

    def __init__(self, function: "Function", parent: "PciDevice | None", directory: str) -> None:
        self.bdf: Bdf = function.bdf
        self.name = str(function.bdf)
        self.function = function
        self.secondary = function.secondary
        self.parent = parent
        self.children: dict[str, PciDevice] = {}
        self.path = f"{directory}/{self.name}"
        self.resources: list[PciResource] = []
        self.vendor = self.device = self.subvendor = self.subdevice = 0
        self.class_ = self.revision = 0
        self.numbers = PciId(0, 0)
        self.facts: Facts = NO_FACTS
        self.enable_count = 0
        self.driver: PciDriver | None = None
        self.driver_override: str | None = None
        self.claims: tuple[Claim, ...] = ()
        self.numa_node = -1
        self.irq = 0
        self.msi: Literal["", "msi", "msix"] = ""
        self.msi_irqs: list[int] = []
        self.msi_bus = True
        self.broken_parity_status = False
        self.d3cold_allowed = False
        self.power_state = "unknown"
        self.dma_mask_bits = 32
        self.consistent_dma_mask_bits = 32
        self.rom_enabled = False
        self.boot_vga = False
        self.reset_methods: tuple[str, ...] = ()
        self.local_cpus = ""
        self.local_cpulist = ""
        self.gone = False
        self.unplugged = False
        self.uio: UioDevice | None = None

    def __repr__(self) -> str:
        return f"<PciDevice {self.name}{' gone' if self.gone else ''}>"

    @property
    def is_bridge(self) -> bool:
        """It has a secondary bus (header type 1)."""
        return self.function.is_bridge

    @property
    def bars(self) -> list[PciResource]:
        """BARs and ROM that exist, by index."""
        return [resource for resource in self.resources[: ROM + 1] if resource.flags]

    @property
    def windows(self) -> list[PciResource]:
        """The windows of a bridge; empty for anything else."""
        return self.resources[WINDOWS:]

    @property
    def bus_name(self) -> str:
        """`0000:01`: the bus it is on, as directories name it."""
        return f"{self.bdf.domain:04x}:{self.bdf.bus:02x}"

    @property
    def secondary_name(self) -> str:
        """`0000:02`: the bus behind a bridge."""
        return f"{self.bdf.domain:04x}:{self.secondary:02x}"
