"""`remove` and `rescan`: the kernel forgets functions, and finds them again as new ones."""

import errno
from collections.abc import Iterable

from fakedev.devices.pci import nodes
from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.parsing import kstrtoul
from fakedev.devices.pci.probing import Probing
from fakedev.devices.pci.state import RootBus


class Removal(Probing):
    """Functions leave the tables and come back."""

    # -- verbs ------------------------------------------------------------------------------

    def remove(self, device: PciDevice, text: str) -> None:
        """Write to `remove`: a number other than 0 removes the function and what is behind it."""
        with self.verb():
            self.alive(device)
            if kstrtoul(text):
                self.forget([device], "remove")

    def rescan(self, text: str) -> None:
        """Write to `/sys/bus/pci/rescan`: look for functions on every bus."""
        with self.verb():
            if kstrtoul(text):
                for root in self.roots:
                    self.discover(root)

    def rescan_bus(self, name: str, text: str) -> None:
        """Write to `pci_bus/DDDD:BB/rescan`. `name` is the bus; PciError (ENODEV) when it is gone."""
        with self.verb():
            owner = self.bus_named(name)
            if kstrtoul(text):
                self.discover(owner)

    def rescan_device(self, device: PciDevice, text: str) -> None:
        """Write to a function's `rescan`: its bus is looked at."""
        with self.verb():
            self.alive(device)
            if kstrtoul(text):
                self.discover(device.parent or self.root_of(device))

    # -- how --------------------------------------------------------------------------------

    def bus_named(self, name: str) -> RootBus | PciDevice:
        """The root bus, or the bridge, that a bus such as `0000:01` belongs to. PciError (ENODEV)."""
        for root in self.roots:
            if root.name == name:
                return root
        for device in self.devices.values():
            if device.is_bridge and device.secondary_name == name:
                return device
        raise PciError(f"there is no bus {name}", errno=errno.ENODEV)

    def forget(self, devices: Iterable[PciDevice], kind: str, why: str = "") -> None:
        """`pci_stop_and_remove_bus_device`: unbind, then let nodes, files and the functions go."""
        family = [device for device in self.subtree(devices) if not device.gone]
        for device in reversed(family):
            self.release_driver(device)
        entries = [entry for device in family for entry in nodes.of_device(device)]
        with self.host.lock:
            names = {device.name for device in family}
            self.devices = {k: v for k, v in self.devices.items() if k not in names}
            for device in family:
                device.gone = True
                self._leave(device)
        for device in reversed(family):
            for resource in device.resources:
                if resource.flags and resource.assigned and not resource.is_io:
                    self.host.file_removed(resource.span)
                self.unplace(resource)
        for device in family:
            self.log(kind, f"{device.name} removed{why}")
        self.tell(entries)

    def _leave(self, device: PciDevice) -> None:
        """Take it from its bus; what is behind it keeps its place below it."""
        if device.parent is not None:
            device.parent.children = _without(device.parent.children, device)
        else:
            root = self.root_of(device)
            root.children = _without(root.children, device)

    def discover(self, owner: RootBus | PciDevice) -> list[PciDevice]:
        """`pci_rescan_bus`: find what is new, give it addresses, then drivers."""
        if isinstance(owner, RootBus):
            fresh = self.scan_bus(owner.domain, owner.bus)
        else:
            fresh = self.scan_bus(owner.bdf.domain, owner.function.secondary)
        messages = self.assign(owner) if isinstance(owner, RootBus) else self.assign_behind(owner)
        for device in fresh:
            what = f"[{device.vendor:04x}:{device.device:04x}] class {device.class_:#08x}"
            mine = [
                m.removeprefix(f"{device.name}: ") for m in messages if m.startswith(device.name)
            ]
            self.log("rescan", f"{device.name} found: {what}" + "".join(f"; {m}" for m in mine))
        self.tell(entry for device in fresh for entry in nodes.of_device(device))
        for device in fresh:
            if self.autoprobe and not device.gone:
                self.attach_any(device)
        return fresh


def _without(devices: dict[str, PciDevice], device: PciDevice) -> dict[str, PciDevice]:
    return {name: other for name, other in devices.items() if other is not device}
