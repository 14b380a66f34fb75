"""What a bound driver adds: links of classes into a function's directory, and what they lead to."""

from collections.abc import Mapping

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.device import PciDevice
from fakedev.views.live import LiveDirectory
from fakedev.views.node import Directory, Node
from fakedev.views.pci.site import Site
from fakedev.views.sysfs import link


def serves(device: PciDevice) -> bool:
    """Tell whether the driver that a function has is one of its own, not a stub that was told to take it."""
    driver = device.driver
    if driver is None:
        return False
    if device.facts.driver == driver.name:
        return True
    return any(entry.matches(device.numbers) for entry in driver.ids)


def class_links(site: Site) -> dict[str, dict[str, tuple[Bdf, str]]]:
    """Directory and name of every class link, with its function and where in its directory it leads."""
    found: dict[str, dict[str, tuple[Bdf, str]]] = {}
    for bdf, facts in site.bus.settings.facts.items():
        for path, inside in facts.links:
            directory, _, name = path.rpartition("/")
            found.setdefault(directory, {})[name] = (bdf, inside)
    return found


def class_directory(site: Site, path: str, links: Mapping[str, tuple[Bdf, str]]) -> LiveDirectory:
    """A class such as `/sys/class/nvme`: a link for each function whose own driver is bound."""

    def make(name: str) -> Node | None:
        if name not in links:
            return None
        bdf, inside = links[name]
        device = site.bus.devices.get(str(bdf))
        if device is None or not serves(device):
            return None
        return link(path, f"{device.path}/{inside}")

    return site.directory(path, lambda: links, make)


class DriverExtras(Directory):
    """The profile's own files of a function; those of its driver show while the driver is bound."""

    __slots__ = ("_all", "_device", "_hidden")

    def __init__(self, extras: Directory, device: PciDevice) -> None:
        super().__init__()
        self._all = extras
        self._device = device
        self._hidden = {inside.partition("/")[0] for _, inside in device.facts.links}

    def entries(self) -> Mapping[str, Node]:
        return {name: node for name, node in self._all.entries().items() if self._shows(name)}

    def lookup(self, name: str) -> Node | None:
        """The node behind a name."""
        return self._all.lookup(name) if self._shows(name) else None

    def add(self, name: str, node: Node) -> None:
        """Put or replace an entry."""
        self._all.add(name, node)

    def _shows(self, name: str) -> bool:
        return name not in self._hidden or serves(self._device)
