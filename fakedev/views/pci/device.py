"""The directory of a function in sysfs, and that of a bus below a bridge."""

import re
from collections.abc import Callable, Iterable

from fakedev.devices.pci.device import BARS, ROM, PciDevice
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.node import Node
from fakedev.views.pci import link as pcie_link
from fakedev.views.pci.attributes import SPECS
from fakedev.views.pci.binary import ConfigFile, IoResourceFile, RomFile, VpdFile
from fakedev.views.pci.classes import DriverExtras
from fakedev.views.pci.pci_bus import buses_directory
from fakedev.views.pci.power import power_directory
from fakedev.views.pci.resource import ResourceFile
from fakedev.views.pci.site import Site
from fakedev.views.pci.spec import Specs
from fakedev.views.pci.subject import Subject
from fakedev.views.pci.uio_tree import uio_directory
from fakedev.views.sysfs import link

_RESOURCE = re.compile(r"resource([0-5])(_wc)?")
_PME_SUPPORT = 0xF800
_PREFETCH = 0x2000
DRIVERS = "/sys/bus/pci/drivers"


class DeviceDirectory(LiveDirectory):
    """`/sys/devices/.../DDDD:BB:dd.f`. What it must know of the function is found at its first use."""

    __slots__ = ("_device", "_site", "_subject")

    def __init__(self, site: Site, device: PciDevice) -> None:
        super().__init__(
            self._list,
            self._node,
            extras=DriverExtras(site.extras(device.path), device),
            alive=lambda: not device.gone,
        )
        self._site = site
        self._device = device
        self._subject: Subject | None = None

    def _get_subject(self) -> Subject:
        if self._subject is None:
            self._subject = Subject(self._site, self._device)
        return self._subject

    def _list(self) -> Iterable[str]:
        subject, device = self._get_subject(), self._device
        with subject.machine.lock:
            names = [name for name, spec in SPECS.items() if spec.when(subject)]
            names += [name for name, (there, _) in _ENTRIES.items() if there(subject)]
            return [*names, *_resource_names(device), *device.children]

    def _node(self, name: str) -> Node | None:
        spec = SPECS.get(name)
        if spec is not None:
            subject = self._get_subject()
            return spec.node(subject) if spec.when(subject) else None
        entry = _ENTRIES.get(name)
        if entry is not None:
            subject = self._get_subject()
            there, make = entry
            return make(subject) if there(subject) else None
        child = self._device.children.get(name)
        if child is not None:
            return DeviceDirectory(self._site, child)
        match = _RESOURCE.fullmatch(name)
        return _resource(self._get_subject(), int(match[1]), bool(match[2])) if match else None


def spec_directory(site: Site, path: str, specs: Specs, subject: Subject) -> LiveDirectory:
    """A directory of attributes."""

    def names() -> Iterable[str]:
        return [name for name, spec in specs.items() if spec.when(subject)]

    def make(name: str) -> Node | None:
        spec = specs.get(name)
        return spec.node(subject) if spec is not None and spec.when(subject) else None

    return site.directory(path, names, make, alive=subject.alive)


# -- BARs ---------------------------------------------------------------------------------------


def _resource_names(device: PciDevice) -> Iterable[str]:
    for index in BARS:
        resource = device.resources[index]
        if resource.size:
            yield f"resource{index}"
            if _write_combines(device, index):
                yield f"resource{index}_wc"


def _write_combines(device: PciDevice, index: int) -> bool:
    """Prefetchable memory can be mapped write-combined (`pci_create_attr`)."""
    resource = device.resources[index]
    return resource.is_memory and bool(resource.flags & _PREFETCH)


def _resource(subject: Subject, index: int, combined: bool) -> Node | None:  # noqa: FBT001
    device = subject.device
    with subject.machine.lock:
        if not device.resources[index].size or (combined and not _write_combines(device, index)):
            return None
        if device.resources[index].is_io:
            return IoResourceFile(subject, index)
        return ResourceFile(subject.machine, device, index, wc=combined)


# -- links and directories ----------------------------------------------------------------------


def _driver_link(subject: Subject) -> Node | None:
    driver = subject.device.driver
    return link(subject.device.path, f"{DRIVERS}/{driver.name}") if driver else None


def _power(subject: Subject) -> Node:
    config = subject.device.function.config
    wakes = bool(subject.pm and config.get(subject.pm + 2, 2) & _PME_SUPPORT)
    path = f"{subject.device.path}/power"
    return power_directory(subject.site, path, runtime=True, wakeup=wakes, alive=subject.alive)


def _msi_irqs(subject: Subject) -> Node:
    """`msi_irqs/`: a file for each vector that is in use."""
    device = subject.device

    def names() -> Iterable[str]:
        return [str(number) for number in device.msi_irqs] if device.msi else []

    def make(name: str) -> Node | None:
        if name not in names():
            return None
        return Attribute(lambda: f"{device.msi}\n", alive=subject.alive)

    return subject.site.directory(f"{device.path}/msi_irqs", names, make, alive=subject.alive)


def _pci_bus(subject: Subject) -> Node:
    device = subject.device
    return buses_directory(subject.site, device.path, device.secondary_name, device)


_Entry = tuple[Callable[[Subject], bool], Callable[[Subject], Node | None]]


def _always(_: Subject) -> bool:
    return True


_ENTRIES: dict[str, _Entry] = {
    "config": (_always, ConfigFile),
    "rom": (lambda s: s.device.resources[ROM].size > 0, RomFile),
    "vpd": (lambda s: s.vpd > 0, VpdFile),
    "subsystem": (_always, lambda s: link(s.device.path, "/sys/bus/pci")),
    "driver": (lambda s: s.device.driver is not None, _driver_link),
    "power": (_always, _power),
    "link": (
        _always,
        lambda s: spec_directory(s.site, f"{s.device.path}/link", pcie_link.STATES, s),
    ),
    "msi_irqs": (lambda s: bool(s.device.msi), _msi_irqs),
    "pci_bus": (lambda s: s.device.is_bridge, _pci_bus),
    "uio": (lambda s: s.device.uio is not None, uio_directory),
}
