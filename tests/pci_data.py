"""What the tests of bundled machines ask of a PCI bus: texts and dumps of its functions."""

from fakedev.devices.pci.device import PciDevice
from fakedev.model.machine import Machine


def space_of(machine: Machine, name: str) -> bytes:
    """The whole configuration space of a function."""
    device = machine.pci.devices[name]
    data: bytes = machine.pci.config_read(device, 0, device.function.config.size)
    return data


def resource_text(device: PciDevice) -> str:
    """The file `resource`."""
    return "".join(f"{r.start:#018x} {r.end:#018x} {r.flags:#018x}\n" for r in device.resources)


def driver_of(device: PciDevice) -> str | None:
    """The name of the driver that is bound, None without one."""
    return device.driver.name if device.driver else None


def lspci_dump(machine: Machine) -> str:
    """All configuration spaces as `lspci -x` prints them, for `lspci -F`."""
    parts = []
    for name in machine.pci.devices:
        data = space_of(machine, name)
        rows = (f"{at:02x}: {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))
        parts.append("\n".join([f"{name} dump", *rows, ""]))
    return "\n".join(parts)
