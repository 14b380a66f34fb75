"""The drivers of the nd bus: what `bind` and `unbind` below `/sys/bus/nd/drivers` do (`bus.c`, `region.c`)."""

import errno
from typing import TypeAlias

from fakedev.devices.nd.core import refusal
from fakedev.devices.nd.ending import Ending
from fakedev.devices.nd.region import SEEDS, Namespace, Personality, Region
from fakedev.devices.nd.stacking import DRIVERS
from fakedev.model.errors import FakedevError
from fakedev.model.flags import IORES_DESC_PERSISTENT_MEMORY
from fakedev.model.ranges import Range

Device: TypeAlias = Region | Namespace | Personality
PMEM = "Persistent Memory"
ND_DRIVERS = {"nd_region": "libnvdimm", "nd_pmem": "nd_pmem", "dax_pmem": "dax_pmem"}
"""Drivers that can be bound, with their modules."""


class Driving(Ending):
    """Regions, namespaces and personalities get their drivers, and lose them."""

    # -- bind and unbind ----------------------------------------------------------------------

    def nd_bind(self, driver: str, text: str) -> None:
        """Write to `bind`. ENODEV: no such device, or not for this driver. The probe: EBUSY, ENXIO..."""
        with self.change():
            device = self._nd_device(text.strip())
            if driver != _driver_for(device):
                raise refusal(f"{driver} is no driver for {device.name}", errno.ENODEV)
            if _driver_of(device):
                raise refusal(f"{device.name} has a driver", errno.EBUSY)
            if self.ending(device.span):
                raise refusal(f"{device.name} is ending", errno.EBUSY)
            self._touched.add(_region_of(device).name)
            self._nd_probe(device)
            self.host.record("bind", f"{device.name} bound to {driver}", device.span)

    def _nd_probe(self, device: Device) -> None:
        if isinstance(device, Region):
            self.enable(device)
        elif isinstance(device, Namespace):
            self.probe_namespace(device)
        else:
            self.probe(device)

    def nd_unbind(self, driver: str, text: str) -> None:
        """Write to `unbind`: mappings die, pins are waited for. ENODEV for what the driver does not have."""
        device = self._nd_device(text.strip())
        region = _region_of(device)

        def die() -> None:
            if _driver_of(device) != driver:
                raise refusal(f"{driver} has no {device.name}", errno.ENODEV)
            self._touched.add(region.name)
            for namespace in _namespaces_of(device):
                self.kill_namespace(namespace)

        def end() -> None:
            for namespace in _namespaces_of(device):
                self.stop(namespace)
            if isinstance(device, Region):
                self.disable(device)
            self.host.record("unbind", f"{device.name} unbound from {driver}", device.span)

        self._end(device.name, device.span, die, end)

    def _nd_device(self, name: str) -> Device:
        regions = [region for region in self.regions if region.known]
        stacks = [one for region in regions if region.enabled for one in region.stack]
        devices: list[Device] = [*regions, *self.namespaces(), *stacks]
        for device in devices:
            if device.name == name:
                return device
        raise refusal(f"there is no device {name!r} on the nd bus", errno.ENODEV)

    # -- regions ------------------------------------------------------------------------------

    def find(self, region: Region) -> None:
        """The kernel finds a region (`acpi_nfit_register_region`): `Persistent Memory` in the tree."""
        if region.plan.listed and not self._mapped_by_firmware(region.span):
            region.node = self.insert(region.span, PMEM, IORES_DESC_PERSISTENT_MEMORY)
        region.known = True
        self.enable(region)

    def discover(self, region: Region) -> None:
        """As `find`, after boot: where something is in the way the driver goes on without the region."""
        try:
            self.find(region)
        except FakedevError as error:
            self.host.record("error", f"{region.name}: {error}", region.span)

    def enable(self, region: Region) -> None:
        """`nd_region_probe`: namespaces as the labels say, drivers for them, seeds."""
        region.enabled = True
        for namespace in region.namespaces:
            if namespace.dax is not None or not namespace.span.size:
                continue  # its RAM leaked and is in the way until the next boot; or it has no space
            try:
                self._first_use(namespace)
            except FakedevError as error:
                if namespace.claim is None:
                    self.host.record("error", f"{namespace.name}: {error}", namespace.span)
        region.provisioned = True
        for kind in SEEDS:
            region.seed(kind)

    def _first_use(self, namespace: Namespace) -> None:
        """As the profile says when it is found for the first time; later, as the medium says."""
        mode = namespace.plan.mode
        if mode != "raw" and not namespace.region.provisioned:
            self.start(namespace, mode)
        elif "nd_pmem" in self.modules:
            self.probe_namespace(namespace)

    def disable(self, region: Region) -> None:
        """`nd_region_remove`, after the namespaces have stopped: all that is below it is unregistered."""
        region.enabled = False
        leaked = {n.index: n.dax for n in region.namespaces if n.dax is not None}
        region.renew()
        for index, dax in leaked.items():
            region.namespaces[index].dax = dax
        region.burned = bool(leaked)

    def lose(self, region: Region) -> None:
        """Take the region's own node away, with what is left below it; leaked RAM stays."""
        region.known = region.enabled = False
        region.burned = any(n.dax is not None and n.dax.leaked for n in region.namespaces)
        if region.node is not None and not region.burned:
            if region.node.parent is not None:
                self.host.drop_resource(region.node)
            region.node = None

    def _mapped_by_firmware(self, span: Range) -> bool:
        """`acpi_nfit_insert_resource` adds nothing where the memory map has persistent memory."""
        around = self.tree.root.descend(span.start, span.end - 1)
        return any(n.name == PMEM and n.contains(span.start, span.end - 1) for n in around)


def _region_of(device: Device) -> Region:
    return device if isinstance(device, Region) else device.region


def _namespaces_of(device: Device) -> list[Namespace]:
    """What ends with a device."""
    if isinstance(device, Region):
        return device.namespaces
    if isinstance(device, Namespace):
        return [device]
    return [device.namespace] if device.namespace is not None else []


def _driver_for(device: Device) -> str:
    """The driver that matches (`nvdimm_bus_match`)."""
    if isinstance(device, Region):
        return "nd_region"
    return DRIVERS[device.kind] if isinstance(device, Personality) else "nd_pmem"


def _driver_of(device: Device) -> str:
    if isinstance(device, Region):
        return "nd_region" if device.enabled else ""
    return device.driver
