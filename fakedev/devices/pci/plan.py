"""PCI as plain values: what a profile's `pci:` compiles to and `build` makes functions of.

Only numbers, texts, bytes and tuples, so that a compiled profile can be kept in a cache.
"""

from typing import Any, NamedTuple

ROM = 6
"""The index of the expansion ROM among the BARs."""


class RegisterPlan(NamedTuple):
    """One register of a block; `access` is ro, rw, w1c, wo or rc."""

    name: str
    offset: int
    width: int
    access: str
    reset: int = 0


class BarPlan(NamedTuple):
    """One BAR (0..5) or the ROM (6), where the firmware put it.

    `registers`: a register block answers, else memory does. `fill` and `contents` say what that
    memory holds; only the profile knows how to read them. `listed`: the kernel shows a node.
    `enabled`: the enable bit of a ROM.
    """

    number: int
    kind: str
    width: int
    prefetch: bool
    size: int
    start: int
    listed: bool = True
    enabled: bool = False
    registers: tuple[RegisterPlan, ...] = ()
    fill: Any = None
    contents: tuple[Any, ...] = ()


class BridgePlan(NamedTuple):
    """Header type 1: bus numbers, and the windows as (start, size), or None for a closed one."""

    primary: int
    secondary: int
    subordinate: int
    io: tuple[int, int] | None = None
    memory: tuple[int, int] | None = None
    prefetch: tuple[int, int] | None = None
    windows_listed: bool = True


class CapabilityPlan(NamedTuple):
    """One member of a chain at its place, header and pointer included; the masks are as long as `data`."""

    at: int
    data: bytes
    writable: bytes
    clear: bytes


class LinkPlan(NamedTuple):
    """What the link files of sysfs say instead of what the PCIe capability says."""

    speed: str | None = None
    width: int | None = None
    max_speed: str | None = None
    max_width: int | None = None


class FunctionPlan(NamedTuple):
    """One function. `capabilities`: its chains, linked. `config`: raw bytes on top.

    `driver`: None leaves it to the id tables, "" keeps it unbound. `reset`: its reset methods in
    the kernel's order. Nones of the last fields mean "what the kernel finds out by itself".
    """

    domain: int
    bus: int
    device: int
    function: int
    vendor: int
    device_id: int
    class_code: int
    revision: int = 0
    subvendor: int = 0
    subdevice: int = 0
    cache_line: int = 0
    latency: int = 0
    bist: int = 0
    multifunction: bool = False
    command: int = 0
    status: int = 0
    config_size: int = 256
    pin: int = 0
    line: int = 0
    irq: int | None = None
    gsi: int | None = None
    numa_node: int = -1
    bars: tuple[BarPlan, ...] = ()
    bridge: BridgePlan | None = None
    capabilities: tuple[CapabilityPlan, ...] = ()
    config: tuple[tuple[int, bytes], ...] = ()
    slot: str | None = None
    driver: str | None = None
    reset: tuple[str, ...] = ()
    on_unplug: str = "sigbus"
    msi_irqs: tuple[int, ...] = ()
    power_state: str | None = None
    dma_mask_bits: int | None = None
    consistent_dma_mask_bits: int | None = None
    enabled: int | None = None
    d3cold_allowed: bool | None = None
    link: LinkPlan | None = None
    links: tuple[tuple[str, str], ...] = ()


class IdPlan(NamedTuple):
    """One entry of a driver's id table (`struct pci_device_id`)."""

    vendor: int
    device: int
    subvendor: int
    subdevice: int
    class_: int = 0
    mask: int = 0


class DriverPlan(NamedTuple):
    """A driver; `claims` None: every BAR. `probe_error`: the errno of its probe, 0 when it works."""

    name: str
    ids: tuple[IdPlan, ...] = ()
    claims: tuple[int, ...] | None = None
    claim_name: str = ""
    exclusive: bool = False
    module: str = ""
    loaded: bool = True
    builtin: bool = False
    msi: str = ""
    vectors: int = 1
    probe_error: int = 0
    enables: bool = True
    bus_master: bool | None = None
    override_only: bool = False
    dma_mask_bits: int | None = None
    uio: bool = False


class PortPlan(NamedTuple):
    """A node of /proc/ioports in pre-order; `end` is inclusive, `depth` 0 is a child of the root."""

    depth: int
    start: int
    end: int
    name: str
    flags: int


class EcamPlan(NamedTuple):
    """Configuration space in memory: bus N of `first` to `last` lies at `base + (N << 20)`."""

    domain: int
    base: int
    first: int = 0
    last: int = 255


class PciPlan(NamedTuple):
    """Everything below `pci:`; functions are sorted by address.

    `ecam_padding` is the byte that ECAM reads behind the registers of a conventional function.
    """

    sysfs: str = "replace"
    ecam: tuple[EcamPlan, ...] = ()
    conf1: bool = False
    cpus: str = "0"
    ports: tuple[PortPlan, ...] = ()
    functions: tuple[FunctionPlan, ...] = ()
    drivers: tuple[DriverPlan, ...] = ()
    ecam_padding: int = 0xFF
