"""How drivers of dax take memory and let it go: each step as the kernel makes it, and undone if it fails."""

import errno

from fakedev.devices.nd.core import NdCore
from fakedev.devices.nd.dax import DaxDevice, Life, kmem_span
from fakedev.model.errors import ControlError, FakedevError
from fakedev.model.flags import (
    IORESOURCE_BUSY,
    IORESOURCE_SYSRAM_DRIVER_MANAGED,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

KMEM = "System RAM (kmem)"


class Taking(NdCore):
    """Claims of dax devices."""

    # -- dax devices --------------------------------------------------------------------------

    def check_driver(self, dax: DaxDevice, driver: str) -> Range:
        """What a driver would claim of a device. ControlError: EBUSY, EINVAL."""
        if dax.leaked or dax.driver:
            why = f"{dax.name} is {'leaked until the next boot' if dax.leaked else dax.driver + chr(39) + 's'}"
            raise ControlError(f"{why} (EBUSY)", errno=errno.EBUSY)
        if driver != "kmem":
            return dax.span
        if dax.target_node < 0:
            raise ControlError(f"{dax.name}: rejecting DAX region with invalid node "
                               f"{dax.target_node} (EINVAL)", errno=errno.EINVAL)  # fmt: skip
        span = kmem_span(dax.span, self.block_size)
        if span is None:
            raise ControlError(
                f"{dax.name}: {dax.span} has no whole memory block of {self.block_size >> 20} MiB "
                "(EINVAL)", errno=errno.EINVAL,
            )  # fmt: skip
        return span

    def take(self, dax: DaxDevice, driver: str) -> None:
        """`dax_bus_probe`: device_dax claims the range, kmem adds it as RAM. All or nothing."""
        span = self.check_driver(dax, driver)
        if dax.listed and driver == "kmem":
            dax.node = self._kmem_node(span, dax)
            dax.ram = span
        elif dax.listed:
            dax.node = self.claim(span, dax.name)
        dax.driver = driver
        self.modules.add(driver)  # daxctl has loaded it before it writes to its directory
        dax.life = Life(dax.name) if driver == "device_dax" else None
        self.host.record("bind", f"{dax.name} bound to {driver}", dax.span)

    def _kmem_node(self, span: Range, dax: DaxDevice) -> Resource:
        if self.blocks is None:
            return self._boot_kmem(span, dax.name)
        node: Resource = self.host.claim_container(span, dax.name, exclusive=False)
        try:
            self.blocks.add_memory(
                span, name=KMEM, nid=dax.target_node, parent=node, driver_managed=True
            )
        except FakedevError:
            self.host.drop_resource(node)
            raise
        if self.rebooting:
            self.blocks.adopt(span)
        return node

    def _boot_kmem(self, span: Range, name: str) -> Resource:
        """Before there are blocks: what is BUSY System RAM now becomes blocks at boot, online."""
        node: Resource = self.host.claim(span, name)
        node.flags = IORESOURCE_SYSTEM_RAM
        flags = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY | IORESOURCE_SYSRAM_DRIVER_MANAGED
        self.host.insert_resource(node, Resource(node.start, node.end, KMEM, flags))
        return node

    def kmem_online(self, dax: DaxDevice) -> list[str]:
        """The blocks of a device that keep kmem from removing them."""
        if dax.ram is None or self.blocks is None:
            return []
        return [b.name for b in self.blocks.within(dax.ram) if b.state != "offline"]

    def kill(self, dax: DaxDevice) -> None:
        """`kill_dax`: nothing new comes in, and every mapping dies."""
        if dax.life is not None:
            dax.life.alive = False
            self.host.revoke(dax.span, f"{dax.name} is gone")
            dax.life.drained = True

    def let_go(self, dax: DaxDevice) -> None:
        """The driver's remove, after `kill` and the last pin: claims end, or leak with RAM in use.

        What has leaked stays until the next boot, in use or not: nobody has it who would remove it.
        """
        if dax.leaked:
            return
        driver = dax.driver
        busy = self.kmem_online(dax)
        if busy and dax.ram is not None:
            dax.leaked = True
            why = f"{dax.ram} cannot be hotremoved until the next reboot: {busy[0]} is not offline"
            self.host.record("error", f"kmem {dax.name}: mapping0: {why}", dax.ram)
        elif dax.ram is not None:
            if self.blocks is not None:
                self.blocks.remove_memory(dax.ram)
            if dax.node is not None:
                self.host.drop_resource(dax.node)
            dax.ram = dax.node = None
        elif dax.node is not None:
            self.host.release(dax.node.span)
            dax.node = None
        dax.driver = ""
        dax.life = None
        self.host.record("unbind", f"{dax.name} unbound from {driver}", dax.span)
