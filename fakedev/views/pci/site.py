"""What the files of PCI share: the machine, its bus, and a profile's own files that live beside them."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.device import PciDevice
from fakedev.model.machine import Machine
from fakedev.views.live import Alive, LiveDirectory, always
from fakedev.views.node import Directory, Node, Symlink

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

_BUS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2})")


class Site:
    """One machine's PCI files in one tree."""

    __slots__ = ("_tree", "bus", "machine")

    def __init__(self, tree: "Tree", machine: Machine) -> None:
        self._tree = tree
        self.machine = machine
        self.bus: PciBus = machine.pci

    def extras(self, path: str) -> Directory:
        """What the profile adds to the directory at a path."""
        return self._tree.extras(path)

    def directory(
        self,
        path: str,
        names: Callable[[], Iterable[str]],
        make: Callable[[str], Node | None],
        *,
        mode: int = 0o755,
        alive: Alive = always,
    ) -> LiveDirectory:
        """A live directory at a path, with the profile's own files in it."""
        return LiveDirectory(names, make, mode=mode, extras=self.extras(path), alive=alive)

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


def link(directory: str, target: str) -> Symlink:
    """A relative link to `target`, for the directory at `directory`; both are paths below `/sys`."""
    depth = directory.count("/") - 1
    return Symlink(("../" * depth + target.removeprefix("/sys/")).encode())
