"""A driver takes a function and lets it go (`really_probe`, `pci_device_remove`)."""

import errno
from collections.abc import Iterable, Iterator
from typing import Literal

from fakedev.devices.pci import header, nodes
from fakedev.devices.pci.allocate import Allocation
from fakedev.devices.pci.device import BARS, ROM, Claim, PciDevice, PciResource
from fakedev.devices.pci.driver import PciDriver
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.interrupts import Interrupts
from fakedev.devices.pci.state import in_tree
from fakedev.devices.pci.texts import resource_name, resource_text
from fakedev.devices.pci.uio import Uio
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.flags import (
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_IO,
    IORESOURCE_MEM,
    IORESOURCE_ROM_ENABLE,
    IORESOURCE_UNSET,
)
from fakedev.model.resource import Resource


class Probing(Allocation, Interrupts, Uio):
    """Enable counts, claims, bindings."""

    # -- enabling ---------------------------------------------------------------------------

    def enable(self, device: PciDevice) -> None:
        """`pci_enable_device`. PciError (EINVAL) while a BAR has no address."""
        device.enable_count += 1
        if device.enable_count > 1:
            return
        try:
            self._enable_bridges(device)
            wanted = self._decoded_kinds(device)
        except PciError:
            device.enable_count -= 1
            raise
        device.power_state = "D0"
        if device.facts.gsi is not None:
            device.irq = device.facts.gsi
        self.command(device, on=wanted)

    def _enable_bridges(self, device: PciDevice) -> None:
        bridge = device.parent
        if bridge is None:
            return
        if not bridge.enable_count:
            self.enable(bridge)
        self.command(bridge, on=header.COMMAND_MASTER)

    @staticmethod
    def _decoded_kinds(device: PciDevice) -> int:
        """`pci_enable_resources`: the command bits that its resources ask for."""
        wanted = 0
        for index, resource in enumerate(device.resources):
            flags = resource.flags
            if not flags & (IORESOURCE_IO | IORESOURCE_MEM):
                continue
            if index == ROM and not flags & IORESOURCE_ROM_ENABLE:
                continue
            if flags & IORESOURCE_UNSET or not resource.assigned:
                text = resource_text(resource.start, resource.end, flags)
                raise PciError(
                    f"{device.name}: can't enable device: {resource_name(index)} {text} not assigned"
                )
            wanted |= header.COMMAND_IO if resource.is_io else header.COMMAND_MEMORY
        return wanted

    def disable(self, device: PciDevice) -> None:
        """`pci_disable_device`: the last one takes the bus master bit away, decoding stays."""
        device.enable_count = max(device.enable_count - 1, 0)
        if not device.enable_count:
            self.command(device, off=header.COMMAND_MASTER)

    # -- claims -----------------------------------------------------------------------------

    def request_regions(self, device: PciDevice, driver: PciDriver) -> tuple[Claim, ...]:
        """`pci_request_regions`: BAR by BAR, each revokes at once.

        On a conflict the earlier ones are released. Raises PciError (EBUSY).
        """
        taken: list[Claim] = []
        for index, resource in self._wanted(device, driver):
            try:
                taken.append(self._request(resource, driver))
            except ResourceConflictError as error:
                self.release_regions(reversed(taken))
                text = resource_text(resource.start, resource.end, resource.flags)
                raise PciError(
                    f"{driver.name} {device.name}: {resource_name(index)}: can't reserve {text}: {error}",
                    errno=errno.EBUSY,
                    denied=error.denied,
                ) from error
        return tuple(taken)

    @staticmethod
    def _wanted(device: PciDevice, driver: PciDriver) -> Iterator[tuple[int, PciResource]]:
        for index in driver.claimed_bars():
            if index in BARS and device.resources[index].flags:
                yield index, device.resources[index]

    def _request(self, resource: PciResource, driver: PciDriver) -> Claim:
        span, name = resource.span, driver.claim_name
        if resource.is_io:
            return Claim("io", span, self.host.claim_port(span, name))
        return Claim("mem", span, self.host.claim(span, name, exclusive=driver.exclusive))

    def release_regions(self, claims: Iterable[Claim]) -> None:
        """`pci_release_regions`. What somebody else has released already is left alone."""
        for claim in claims:
            if not in_tree(claim.node, self.ioports if claim.kind == "io" else self.iomem):
                continue
            try:
                if claim.kind == "io":
                    self.host.release_port(claim.span)
                else:
                    self.host.release(claim.span)
            except ControlError as error:
                self.log("error", str(error))

    # -- binding ----------------------------------------------------------------------------

    def probe(self, driver: PciDriver, device: PciDevice) -> None:
        """Bind. Raises PciError with the errno of the probe; nothing stays claimed then."""
        enabled = False
        claims: tuple[Claim, ...] = ()
        try:
            if driver.enables:
                self.enable(device)
                enabled = True
            claims = self.request_regions(device, driver)
            _check_probe(driver, device)
        except PciError as error:
            self.release_regions(reversed(claims))
            if enabled:
                self.disable(device)
            self.log("probe", str(error))
            raise
        self._bound(driver, device, claims)
        self.log("bind", f"{device.name} bound to {driver.name}")
        self.tell(nodes.of_binding(device, driver))
        self.register_uio(device, driver)
        for listener in self.binding_listeners:
            listener(device, driver, bound=True)

    def _bound(self, driver: PciDriver, device: PciDevice, claims: tuple[Claim, ...]) -> None:
        if driver.bus_master and driver.enables:
            self.command(device, on=header.COMMAND_MASTER)
        self.enable_msi(device, driver)
        if driver.dma_mask_bits:
            device.dma_mask_bits = device.consistent_dma_mask_bits = driver.dma_mask_bits
        with self.host.lock:
            device.claims = claims
            device.driver = driver

    def release_driver(self, device: PciDevice) -> None:
        """Unbind (`device_release_driver`): claims go, interrupts, then the enable count."""
        driver = device.driver
        if driver is None:
            return
        for listener in self.binding_listeners:
            listener(device, driver, bound=False)
        self.unregister_uio(device)
        claims = device.claims
        with self.host.lock:
            device.driver = None
            device.claims = ()
        self.release_regions(reversed(claims))
        self.disable_msi(device)
        if driver.enables:
            self.disable(device)
        self.log("unbind", f"{device.name} unbound from {driver.name}")
        self.tell(nodes.of_binding(device, driver))

    def attach_any(self, device: PciDevice) -> bool:
        """`device_attach`: the first loaded driver that matches and whose probe works."""
        for driver in list(self.drivers.values()):
            if driver.match(device):
                try:
                    self.probe(driver, device)
                except PciError:
                    continue
                return True
        return False

    def attach_driver(self, driver: PciDriver) -> list[str]:
        """`driver_attach`: every function that it matches and nobody has.

        Returns the refusals of `deny-claim`.
        """
        denied = []
        for device in list(self.devices.values()):
            if device.driver is None and driver.match(device):
                try:
                    self.probe(driver, device)
                except PciError as error:  # it is in the log; the kernel goes on to the next one
                    denied += [str(error)] if error.denied else []
        return denied

    # -- at boot ----------------------------------------------------------------------------

    def bind_as_at_boot(self, device: PciDevice) -> None:
        """Bind what is bound at boot; configuration space has the driver's traces already."""
        wanted = device.facts.driver
        if wanted is None:
            matching = (driver for driver in self.drivers.values() if driver.match(device))
            driver = next(matching, None)
        else:
            driver = self.drivers.get(wanted)
        if driver is None or driver.probe_error:
            return
        claims: list[Claim] = []
        try:
            for _, resource in self._wanted(device, driver):
                claims.append(self._claim_as_at_boot(resource, driver))
        except ResourceConflictError as error:
            self.release_regions(reversed(claims))
            self.log("probe", f"{driver.name} {device.name}: {error}")
            return
        self.set_bound_defaults(device, driver)
        self.number_msi(device, driver)
        with self.host.lock:
            device.claims = tuple(claims)
            device.driver = driver
        self.tell(nodes.of_binding(device, driver))
        self.register_uio(device, driver)

    @staticmethod
    def set_bound_defaults(device: PciDevice, driver: PciDriver) -> None:
        """What a binding of boot has changed, unless the profile says otherwise."""
        facts = device.facts
        if facts.enabled is None and driver.enables:
            device.enable_count = 1
        if facts.power_state is None and driver.enables:
            device.power_state = "D0"
        if facts.dma_mask_bits is None and driver.dma_mask_bits:
            device.dma_mask_bits = device.consistent_dma_mask_bits = driver.dma_mask_bits

    def _claim_as_at_boot(self, resource: PciResource, driver: PciDriver) -> Claim:
        """A claim that no `reset` of the machine takes away; the profile may list it already."""
        from_list = self.listed_claim(resource, driver)
        kind: Literal["io", "mem"] = "io" if resource.is_io else "mem"
        if from_list is not None:
            return Claim(kind, resource.span, from_list)
        flags = IORESOURCE_BUSY | (IORESOURCE_EXCLUSIVE if driver.exclusive else 0)
        flags |= IORESOURCE_IO if resource.is_io else IORESOURCE_MEM
        node = Resource(resource.start, resource.end, driver.claim_name, flags)
        parent, conflict = self.tree_of(resource).placement(resource.start, resource.end)
        if conflict is not None:
            raise ResourceConflictError(
                f"cannot place {node}: {conflict} is there", conflict=conflict
            )
        self.host.insert_resource(parent, node)
        if kind == "mem":
            self.host.revoke(resource.span, f"claimed by {driver.claim_name}")
        return Claim(kind, resource.span, node)

    def listed_claim(self, resource: PciResource, driver: PciDriver) -> Resource | None:
        """The BUSY node that a profile lists for a claim."""
        tree = self.tree_of(resource)
        node = tree.busy_target(resource.start, resource.end)
        same = (resource.start, resource.end, driver.claim_name)
        return node if node and (node.start, node.end, node.name) == same else None


def _check_probe(driver: PciDriver, device: PciDevice) -> None:
    code = driver.probe_error
    if code:
        raise PciError(
            f"{driver.name}: probe of {device.name} failed with error -{code}", errno=code
        )
