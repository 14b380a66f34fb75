"""The directory of a bus, `pci_bus/DDDD:BB`, below a host bridge or a bridge (`drivers/pci/probe.c`)."""

import errno
from collections.abc import Callable
from functools import partial

from fakedev.devices.pci.device import PciDevice
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.node import Node, Opener, Refused, Symlink
from fakedev.views.pci.power import power_directory
from fakedev.views.pci.site import Site
from fakedev.views.sysfs import link, take_uevent


def buses_directory(site: Site, path: str, name: str, bridge: PciDevice | None) -> LiveDirectory:
    """`pci_bus/` in the directory at `path`: it holds one bus, `name` (`DDDD:BB`)."""
    where = f"{path}/pci_bus"

    def alive() -> bool:
        return bridge is None or not bridge.gone

    def make(wanted: str) -> Node | None:
        return _bus(site, f"{where}/{name}", name, bridge) if wanted == name else None

    return site.directory(where, lambda: (name,), make, alive=alive)


def _bus(site: Site, path: str, name: str, bridge: PciDevice | None) -> LiveDirectory:
    def alive() -> bool:
        return bridge is None or not bridge.gone

    def rescan(text: str, _: Opener) -> None:
        site.bus.rescan_bus(name, text)

    attribute = partial(Attribute, alive=alive)
    makers: dict[str, Callable[[], Node]] = {
        "cpuaffinity": lambda: attribute(lambda: f"{_near(site, name, bridge).local_cpus}\n"),
        "cpulistaffinity": lambda: attribute(
            lambda: f"{_near(site, name, bridge).local_cpulist}\n"
        ),
        "rescan": lambda: attribute(None, rescan, mode=0o200, verb=True),
        "uevent": lambda: attribute(lambda: "", take_uevent, mode=0o644),
        "power": lambda: power_directory(site, f"{path}/power", runtime=False, alive=alive),
        "subsystem": lambda: link(path, "/sys/class/pci_bus"),
        "device": lambda: Symlink(f"../../../{path.split('/')[-3]}".encode()),
    }
    return site.fixed(path, makers, alive=alive)


def _near(site: Site, name: str, bridge: PciDevice | None) -> PciDevice:
    """Whose CPUs are those of a bus: its bridge, or any function on it."""
    near = bridge or next((d for d in site.devices() if d.bus_name == name), None)
    if near is None:
        raise Refused(errno.ENODEV)
    return near
