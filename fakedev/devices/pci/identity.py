"""What the kernel reads out of a function when it finds it (`pci_setup_device`)."""

from fakedev.devices.pci import header
from fakedev.devices.pci.device import BARS, ROM, WINDOWS, PciDevice, PciResource
from fakedev.devices.pci.driver import PciId
from fakedev.devices.pci.settings import PciSettings
from fakedev.devices.pci.texts import cpu_mask
from fakedev.model.flags import (
    IORESOURCE_IO,
    IORESOURCE_MEM,
    IORESOURCE_MEM_64,
    IORESOURCE_PREFETCH,
    IORESOURCE_ROM_ENABLE,
    IORESOURCE_ROM_SHADOW,
)

CAP_PM, CAP_SSVID = 0x01, 0x0D
CLASS_VGA = 0x0300
_PCI_FIXED = 0x10
_SHADOW = (0xC0000, 0xDFFFF, IORESOURCE_MEM | IORESOURCE_ROM_SHADOW | _PCI_FIXED)
_VGA_ENABLE = 0x08
_IOV = 6
_NOTHING = PciResource()  # shared: what does not exist never changes


def identify(device: PciDevice, settings: PciSettings, *, boot: bool) -> None:
    """Fill in what configuration space and profile say. `boot`: the firmware has set it up."""
    config = device.function.config
    device.facts = settings.facts_of(device.bdf)
    device.vendor, device.device = config.get(header.VENDOR, 2), config.get(header.DEVICE, 2)
    device.class_, device.revision = config.get(header.CLASS, 3), config.get(header.REVISION, 1)
    device.subvendor, device.subdevice = _subsystem(device)
    device.numbers = PciId(
        device.vendor, device.device, device.subvendor, device.subdevice, device.class_
    )
    device.local_cpulist = settings.cpus
    device.local_cpus = cpu_mask(settings.cpus)
    read_bars(device)
    set_defaults(device, boot=boot)


def set_defaults(device: PciDevice, *, boot: bool) -> None:
    """What a verb may change later, as it is when the function is found."""
    facts, config = device.facts, device.function.config
    line = config.get(header.INTERRUPT_LINE, 1) if config.get(header.INTERRUPT_PIN, 1) else 0
    device.irq = facts.irq if boot and facts.irq is not None else line
    device.numa_node = facts.numa_node
    device.reset_methods = device.function.reset_methods
    has_pm = device.function.capability(CAP_PM) is not None
    device.d3cold_allowed = has_pm if facts.d3cold_allowed is None else facts.d3cold_allowed
    device.dma_mask_bits = facts.dma_mask_bits or 32
    device.consistent_dma_mask_bits = facts.consistent_dma_mask_bits or facts.dma_mask_bits or 32
    device.enable_count = (facts.enabled or 0) if boot else 0
    device.power_state = (facts.power_state or "unknown") if boot else "D0"
    device.driver_override = None
    device.msi_bus, device.broken_parity_status, device.rom_enabled = True, False, False


def _subsystem(device: PciDevice) -> tuple[int, int]:
    config = device.function.config
    at: int | None = header.SUBSYSTEM
    if device.is_bridge:
        found = device.function.capability(CAP_SSVID)
        at = None if found is None else found + 4
    return (0, 0) if at is None else (config.get(at, 2), config.get(at + 2, 2))


def read_bars(device: PciDevice) -> None:
    """`pci_read_bases` and `pci_read_bridge_bases`: what the registers say, without a place in the trees."""
    function, unlisted = device.function, device.facts.unlisted
    data = function.config.data
    resources = [_NOTHING] * (len(BARS) + 1 + _IOV)
    for bar in function.bars.values():
        start, flags = bar.address(data), bar.flags
        if bar.index == ROM and data[bar.register] & 1:
            flags |= IORESOURCE_ROM_ENABLE
        resources[bar.index] = PciResource(
            start, start + bar.size - 1, flags, None, bar, bar.index in unlisted
        )
    if function.is_bridge:
        resources += [*_windows(data), PciResource()]
        for index in range(WINDOWS, WINDOWS + 3):
            resources[index].unlisted = index in unlisted
    device.resources = resources


def _windows(data: bytes | bytearray) -> list[PciResource]:
    io, memory, prefetch = header.bridge_windows(data)
    wide = data[header.PREFETCH_BASE] & 0xF
    flags = (
        IORESOURCE_IO | data[header.IO_BASE] & 0xF,
        IORESOURCE_MEM,
        IORESOURCE_MEM | IORESOURCE_PREFETCH | wide | (IORESOURCE_MEM_64 if wide == 1 else 0),
    )
    return [
        PciResource(span.start, span.end, bits) if span else PciResource()
        for span, bits in zip((io, memory, prefetch), flags, strict=True)
    ]


def routed_vga(device: PciDevice) -> bool:
    """A VGA function that decodes something, behind bridges that pass VGA on."""
    if device.class_ >> 8 != CLASS_VGA:
        return False
    if not device.function.config.get(header.COMMAND, 1) & 3:
        return False
    bridge = device.parent
    while bridge is not None:
        if not bridge.function.config.get(header.BRIDGE_CONTROL, 1) & _VGA_ENABLE:
            return False
        bridge = bridge.parent
    return True


def shadow_rom(device: PciDevice) -> None:
    """`pci_fixup_video`: the ROM of the boot VGA function is the copy below 1 MiB."""
    rom = device.resources[ROM]
    rom.start, rom.end, rom.flags = _SHADOW
    rom.node, rom.unlisted = None, True
