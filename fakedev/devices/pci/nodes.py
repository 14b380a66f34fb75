"""Which directories change when a function, a driver or a binding comes or goes."""

from collections.abc import Iterable, Iterator

from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.driver import PciDriver
from fakedev.model.effects import NodesChanged

BUS = "/sys/bus/pci"
PROC = "/proc/bus/pci"
Entry = tuple[str, str]


def proc_bus(domain: int, bus: int) -> str:
    """Name of a bus below `/proc/bus/pci`: `01`, or `0001:01` in another domain than 0."""
    return f"{domain:04x}:{bus:02x}" if domain else f"{bus:02x}"


def of_device(device: PciDevice) -> Iterator[Entry]:
    """Where a function appears or vanishes, as pairs of directory and name."""
    bdf = device.bdf
    yield device.path.rpartition("/")[0], device.name
    yield f"{BUS}/devices", device.name
    bus = proc_bus(bdf.domain, bdf.bus)
    yield f"{PROC}/{bus}", f"{bdf.device:02x}.{bdf.function:x}"
    if device.is_bridge:
        yield PROC, proc_bus(bdf.domain, device.secondary)
        yield "/sys/class/pci_bus", device.secondary_name
    if device.function.slot:
        yield f"{BUS}/slots", device.function.slot
    yield from _links(device)


def of_binding(device: PciDevice, driver: PciDriver) -> Iterator[Entry]:
    """Where a driver's taking or leaving of a function shows."""
    yield device.path, "driver"
    yield device.path, "msi_irqs"
    yield device.path, "waiting_for_supplier"
    yield f"{BUS}/drivers/{driver.name}", device.name
    yield from _links(device)


def of_driver(driver: PciDriver) -> Iterator[Entry]:
    """Where loading and unloading shows."""
    yield f"{BUS}/drivers", driver.name
    if driver.module:
        yield "/sys/module", driver.module.replace("-", "_")


def _links(device: PciDevice) -> Iterator[Entry]:
    for path, inside in device.facts.links:
        directory, _, name = path.rpartition("/")
        yield directory, name
        yield device.path, inside.partition("/")[0]


def changes(entries: Iterable[Entry]) -> list[NodesChanged]:
    """One effect a directory, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for directory, name in entries:
        found.setdefault(directory, {})[name] = None
    return [NodesChanged(directory, tuple(names)) for directory, names in found.items()]
