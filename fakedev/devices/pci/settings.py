"""What the kernel knows of a bus and its functions beside their configuration spaces: plain values."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from fakedev.devices.pci.bdf import Bdf


class EcamWindow(NamedTuple):
    """Configuration space in memory: bus N of `first` to `last` starts at `base + (N << 20)`."""

    domain: int
    base: int
    first: int = 0
    last: int = 255


class Facts(NamedTuple):
    """What the kernel says of one function at boot, where its configuration space does not say it.

    None means "as the kernel finds out by itself". `irq` is what `irq` shows (default: the interrupt
    line), `gsi` what it shows once the function was enabled. `driver` names what is bound at boot,
    "" for none. `unlisted` are indexes of resources without a node in the trees (0-5 BARs, 6 ROM,
    13-15 windows of a bridge). `links` are class links: a path, and where in the function's directory it leads.
    """

    irq: int | None = None
    gsi: int | None = None
    numa_node: int = -1
    driver: str | None = None
    enabled: int | None = None
    power_state: str | None = None
    dma_mask_bits: int | None = None
    consistent_dma_mask_bits: int | None = None
    d3cold_allowed: bool | None = None
    msi_irqs: tuple[int, ...] = ()
    unlisted: frozenset[int] = frozenset()
    link_speed: str | None = None
    link_width: int | None = None
    max_link_speed: str | None = None
    max_link_width: int | None = None
    links: tuple[tuple[str, str], ...] = ()


NO_FACTS = Facts()


class PciSettings(NamedTuple):
    """Settings of a bus: the CPUs near it, NUMA nodes that are online, where MSI numbers start.

    `ecam` and `conf1` say how configuration space is reached beside sysfs; `replace_sysfs`: the
    host's own functions are not shown beside.
    """

    cpus: str = "0"
    numa_nodes: frozenset[int] = frozenset({0})
    first_msi: int = 24
    ecam: tuple[EcamWindow, ...] = ()
    facts: Mapping[Bdf, Facts] = MappingProxyType({})
    conf1: bool = False
    replace_sysfs: bool = True

    def facts_of(self, bdf: Bdf) -> Facts:
        """What is known of a function; nothing special by default."""
        return self.facts.get(bdf, NO_FACTS)
