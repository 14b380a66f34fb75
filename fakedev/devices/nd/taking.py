"""How drivers take memory and let it go: each step as the kernel makes it, and undone if it fails."""

import errno

from fakedev.devices.nd.core import NdCore
from fakedev.devices.nd.dax import DaxDevice, Life, kmem_span
from fakedev.devices.nd.region import Namespace, Region
from fakedev.model.errors import ControlError, FakedevError
from fakedev.model.flags import (
    IORES_DESC_PERSISTENT_MEMORY,
    IORESOURCE_BUSY,
    IORESOURCE_SYSRAM_DRIVER_MANAGED,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

KMEM, PMEM = "System RAM (kmem)", "Persistent Memory"


class Taking(NdCore):
    """Claims of namespaces and dax devices."""

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
        """The driver's remove, after `kill` and the last pin: claims end, or leak with RAM in use."""
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
            dax.leaked = False
        elif dax.node is not None:
            self.host.release(dax.node.span)
            dax.node = None
        dax.driver = ""
        dax.life = None
        self.host.record("unbind", f"{dax.name} unbound from {driver}", dax.span)

    # -- namespaces ---------------------------------------------------------------------------

    def start(self, namespace: Namespace, mode: str) -> None:
        """Use a namespace in a mode: it has none now. All or nothing; ControlError, EBUSY or EINVAL."""
        if mode in {"devdax", "kmem"}:
            self._start_dax(namespace, mode)
        elif namespace.region.plan.listed:
            namespace.node = self.claim(namespace.span, namespace.name)
        if mode in {"raw", "fsdax"}:
            namespace.life = Life(namespace.name)
        if mode == "fsdax":
            namespace.holder = namespace.region.take_seed("pfn")
        namespace.mode = mode

    def _start_dax(self, namespace: Namespace, mode: str) -> None:
        region = namespace.region
        dax = self.dax_of(namespace)
        driver = "kmem" if mode == "kmem" else "device_dax"
        self.check_driver(dax, driver)
        span = namespace.span
        if region.plan.listed:
            namespace.node = self.claim(Range(span.start, namespace.metadata), namespace.name)
        try:
            self.take(dax, driver)
        except FakedevError:
            self._release(namespace)
            raise
        namespace.dax = dax
        namespace.holder = dax.path.rpartition("/")[2]
        region.take_seed("dax")

    def dax_of(self, namespace: Namespace) -> DaxDevice:
        """The device-dax that a namespace would have; nothing is claimed."""
        region = namespace.region
        if namespace.data.size <= 0:
            raise ControlError(f"{namespace.name} is too small for devdax", errno=errno.EINVAL)
        holder = f"dax{region.number}.{region.seeds['dax']}"
        return DaxDevice(
            region.number, namespace.data, path=f"{self.bus_path}/{region.name}/{holder}",
            align=namespace.plan.align, numa_node=region.plan.numa_node,
            target_node=region.plan.target_node, listed=region.plan.listed,
            index=namespace.index,
        )  # fmt: skip

    @property
    def bus_path(self) -> str:
        """The directory of `ndbus0`."""
        return f"{self.plan.path}/ndbus0"

    @staticmethod
    def end_lives(namespace: Namespace) -> None:
        """Nothing can be opened or mapped any more; what is mapped is for the caller to revoke."""
        for life in _lives(namespace):
            life.alive = False

    @staticmethod
    def drain(namespace: Namespace) -> None:
        """After the revoke: no store through a mapping is under way."""
        for life in _lives(namespace):
            life.drained = True

    def kill_namespace(self, namespace: Namespace) -> None:
        """Everything that is open in a namespace or maps it dies."""
        if namespace.life is not None:
            namespace.life.alive = False
            self.host.revoke(namespace.span, f"{namespace.name} is gone")
            namespace.life.drained = True
        if namespace.dax is not None:
            self.kill(namespace.dax)

    def stop(self, namespace: Namespace) -> None:
        """The drivers' remove, after `kill_namespace`; the namespace has no mode then, or its RAM leaks."""
        dax = namespace.dax
        if dax is not None:
            self.let_go(dax)
            if not dax.leaked:
                namespace.dax = None
        self._release(namespace)
        namespace.life = None
        namespace.holder = ""

    def _release(self, namespace: Namespace) -> None:
        if namespace.node is not None:
            self.host.release(namespace.node.span)
            namespace.node = None

    # -- regions ------------------------------------------------------------------------------

    def find(self, region: Region) -> None:
        """The kernel finds a region: `Persistent Memory` in the tree, namespaces as the labels say."""
        if region.plan.listed and not self._mapped_by_firmware(region.span):
            region.node = self.insert(region.span, PMEM, IORES_DESC_PERSISTENT_MEMORY)
        region.known = True
        for namespace in region.namespaces:
            try:
                self.start(namespace, namespace.plan.mode)
            except FakedevError as error:
                self.host.record("error", f"{namespace.name}: {error}", namespace.span)

    def discover(self, region: Region) -> None:
        """As `find`, after boot: where something is in the way the driver goes on without the region."""
        try:
            self.find(region)
        except FakedevError as error:
            self.host.record("error", f"{region.name}: {error}", region.span)

    def _mapped_by_firmware(self, span: Range) -> bool:
        """`acpi_nfit_insert_resource` adds nothing where the memory map has persistent memory."""
        around = self.tree.root.descend(span.start, span.end - 1)
        return any(n.name == PMEM and n.contains(span.start, span.end - 1) for n in around)

    def lose(self, region: Region) -> None:
        """Take the region's own node away, with what is left below it; leaked RAM stays."""
        region.known = False
        region.burned = any(n.dax is not None and n.dax.leaked for n in region.namespaces)
        if region.node is not None and not region.burned:
            if region.node.parent is not None:
                self.host.drop_resource(region.node)
            region.node = None


def _lives(namespace: Namespace) -> list[Life]:
    """Of the block device, and of the dax device on it."""
    found = (namespace.life, namespace.dax.life if namespace.dax else None)
    return [life for life in found if life is not None]
