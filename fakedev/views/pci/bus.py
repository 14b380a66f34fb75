"""`/sys/bus/pci`: devices, drivers, and the verbs of the whole bus (`drivers/pci/pci-driver.c`)."""

from collections.abc import Callable, Iterable

from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.driver import PciDriver
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.node import Node, Opener
from fakedev.views.pci.device import DRIVERS
from fakedev.views.pci.places import BUS
from fakedev.views.pci.site import Site, made
from fakedev.views.pci.slots import slots_directory
from fakedev.views.sysfs import link, take_uevent

Makers = dict[str, Callable[[], Node]]


def bus_directory(site: Site) -> LiveDirectory:
    """`/sys/bus/pci`."""
    bus = site.bus
    alignment = _Alignment()
    makers: Makers = {
        "devices": lambda: _devices(site),
        "drivers": lambda: _drivers(site),
        "slots": lambda: slots_directory(site),
        "rescan": lambda: _verb(lambda text, _: bus.rescan(text)),
        "drivers_probe": lambda: _verb(lambda text, _: bus.drivers_probe(text)),
        "drivers_autoprobe": lambda: Attribute(
            lambda: f"{int(bus.autoprobe)}\n",
            lambda text, _: bus.set_autoprobe(text),
            mode=0o644,
            verb=True,
        ),
        "resource_alignment": lambda: Attribute(alignment.show, alignment.store, mode=0o644),
        "uevent": lambda: Attribute(None, take_uevent, mode=0o200),
    }
    return site.fixed(BUS, makers)


class _Alignment:
    """`resource_alignment`: kept as it is written, without effect on rescans."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = ""

    def show(self) -> str:
        return f"{self._text}\n" if self._text else ""

    def store(self, text: str, _: Opener) -> None:
        self._text = text.partition("\n")[0]


def _verb(store: Callable[[str, Opener], None]) -> Attribute:
    return Attribute(None, store, mode=0o200, verb=True)


def _devices(site: Site) -> LiveDirectory:
    path = f"{BUS}/devices"

    def names() -> Iterable[str]:
        with site.machine.lock:
            return list(site.bus.devices)

    def make(name: str) -> Node | None:
        device = site.bus.devices.get(name)
        return link(path, device.path) if device is not None else None

    return site.directory(path, names, make)


# -- drivers ------------------------------------------------------------------------------------


def _drivers(site: Site) -> LiveDirectory:
    def names() -> Iterable[str]:
        with site.machine.lock:
            return list(site.bus.drivers)

    def make(name: str) -> Node | None:
        driver = site.bus.drivers.get(name)
        return _driver(site, driver) if driver is not None else None

    return site.directory(DRIVERS, names, make)


def _driver(site: Site, driver: PciDriver) -> LiveDirectory:
    """The directory of a loaded driver; links lead to the functions that it has."""
    bus, name = site.bus, driver.name
    path = f"{DRIVERS}/{name}"
    makers: Makers = {
        "bind": lambda: _verb(lambda text, _: bus.bind(name, text)),
        "unbind": lambda: _verb(lambda text, _: bus.unbind(name, text)),
        "new_id": lambda: _verb(lambda text, _: bus.new_id(name, text)),
        "remove_id": lambda: _verb(lambda text, _: bus.remove_id(name, text)),
        "uevent": lambda: Attribute(None, take_uevent, mode=0o200),
    }
    if driver.module and not driver.builtin:
        module = f"/sys/module/{driver.module.replace('-', '_')}"
        makers["module"] = lambda: link(path, module)

    def has(device: PciDevice) -> bool:
        return device.driver is not None and device.driver.name == name

    def names() -> Iterable[str]:
        with site.machine.lock:
            bound = [device.name for device in bus.devices.values() if has(device)]
        return [*makers, *bound]

    def make(wanted: str) -> Node | None:
        device = bus.devices.get(wanted)
        if device is None:
            return made(makers, wanted)
        return link(path, device.path) if has(device) else None

    return site.directory(path, names, make)
