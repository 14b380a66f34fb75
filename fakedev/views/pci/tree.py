"""Where the files of PCI stand in the tree of a machine."""

from typing import TYPE_CHECKING

from fakedev.devices.pci.device import PciDevice
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.node import Node
from fakedev.views.pci.bus import bus_directory
from fakedev.views.pci.classes import class_directory, class_links
from fakedev.views.pci.device import DeviceDirectory
from fakedev.views.pci.pci_bus import buses_directory
from fakedev.views.pci.places import BUS, CLASS, IOPORTS, PORT, PROC, conf1_of, directories, paths
from fakedev.views.pci.power import power_directory
from fakedev.views.pci.proc import ioports, proc_directory
from fakedev.views.pci.site import Site, made
from fakedev.views.port import PortFile
from fakedev.views.sysfs import link, take_uevent

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

__all__ = ["directories", "install", "paths"]


def install(tree: "Tree", machine: Machine) -> None:
    """Put the files of PCI into a tree. What the profile adds below them may come later."""
    site = Site(tree, machine)
    for root in machine.pci.roots:
        tree.mount(root.path, _root_directory(site, root.path))
    tree.mount(BUS, bus_directory(site))
    tree.mount(CLASS, _class_directory(site))
    tree.mount(PROC, proc_directory(site))
    tree.mount(IOPORTS, ioports(machine))
    for path, links in class_links(site).items():
        tree.mount(path, class_directory(site, path, links))
    conf1 = conf1_of(machine)
    if conf1 is not None:

        def pages() -> list[Range]:
            selected = conf1.selected
            return site.bus.ecam_pages(selected) if selected is not None else []

        tree.mount(PORT, PortFile(machine, pages))


def _root_directory(site: Site, path: str) -> LiveDirectory:
    """`/sys/devices/pciDDDD:BB`, a host bridge: the functions of its bus, `pci_bus/`, `power/`."""
    name = path.rpartition("/pci")[2]
    makers = {
        "pci_bus": lambda: buses_directory(site, path, name, None),
        "power": lambda: power_directory(site, f"{path}/power", runtime=False),
        "uevent": lambda: Attribute(lambda: "", take_uevent, mode=0o644),
    }

    def children() -> dict[str, PciDevice]:
        return next((root.children for root in site.bus.roots if root.path == path), {})

    def make(wanted: str) -> Node | None:
        device = children().get(wanted)
        return DeviceDirectory(site, device) if device is not None else made(makers, wanted)

    return site.directory(path, lambda: [*makers, *children()], make)


def _class_directory(site: Site) -> LiveDirectory:
    """`/sys/class/pci_bus`: a link to every bus."""

    def make(name: str) -> Node | None:
        owner = site.owner(name)
        return link(CLASS, f"{owner}/pci_bus/{name}") if owner is not None else None

    return site.directory(CLASS, site.buses, make)
