"""What the files of PCI share: the machine, its bus, and a profile's own files that live beside them."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.device import PciDevice
from fakedev.model.machine import Machine
from fakedev.views.live import Alive, LiveDirectory, always
from fakedev.views.node import Node
from fakedev.views.sysfs import Place

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

_BUS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2})")


class Site(Place):
    """One machine's PCI files in one tree."""

    __slots__ = ("bus",)

    def __init__(self, tree: "Tree", machine: Machine) -> None:
        super().__init__(tree, machine)
        self.bus: PciBus = machine.pci

    def fixed(
        self, path: str, makers: Mapping[str, Callable[[], Node]], *, alive: Alive = always
    ) -> LiveDirectory:
        """A directory whose names never change; each node is made when somebody asks for it."""
        return self.directory(path, lambda: makers, lambda name: made(makers, name), alive=alive)

    def devices(self) -> list[PciDevice]:
        """Every function that the kernel knows, by address."""
        with self.machine.lock:
            return list(self.bus.devices.values())

    def buses(self) -> list[str]:
        """The name (`DDDD:BB`) of every bus that the kernel knows: root buses, and those of bridges."""
        bridges = [device.secondary_name for device in self.devices() if device.is_bridge]
        return [*(root.name for root in self.bus.roots), *bridges]

    def owner(self, bus: str) -> str | None:
        """The directory of the host bridge or bridge that leads to a bus, None for an unknown bus."""
        match = _BUS.fullmatch(bus)
        if match is None:
            return None
        for root in self.bus.roots:
            if root.name == bus:
                return root.path
        bridge = self.bus.fabric.upstream(Bdf(int(match[1], 16), int(match[2], 16), 0, 0))
        device = self.bus.devices.get(str(bridge.bdf)) if bridge is not None else None
        return device.path if device is not None else None


def made(makers: Mapping[str, Callable[[], Node]], name: str) -> Node | None:
    """The node of a fixed name, or None."""
    make = makers.get(name)
    return make() if make is not None else None
