"""Persistent memory, dax devices and CXL of one machine: boot and reset."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from fakedev.devices.memory.nodes import NodeSettings
from fakedev.devices.nd.dax import DaxDevice
from fakedev.devices.nd.modules import ALL
from fakedev.devices.nd.removal import Removal
from fakedev.model.errors import FakedevError
from fakedev.model.flags import IORES_DESC_CXL
from fakedev.model.ranges import Range


class NdBus(Removal):
    """`machine.nd`: what a machine asks of its persistent memory, its dax devices and CXL."""

    def boot(self) -> None:
        """What the firmware and the drivers of the boot make of the plan."""
        self.modules = set(ALL) if self.plan.loaded else set()
        for number, window in enumerate(self.plan.cxl.windows if self.plan.cxl else ()):
            if window.listed:
                self.insert(
                    Range(window.start, window.size), f"CXL Window {number}", IORES_DESC_CXL
                )
        for dax, plan in zip(self.hmem, self.hmem_plans(), strict=True):
            if plan.listed and plan.parent:
                self.insert(Range(plan.start, plan.size), plan.parent)
            if not dax.driver:
                self.take(dax, "kmem" if plan.mode == "kmem" else "device_dax")
        for region in self.regions if self.plan.loaded else ():
            if not region.known:
                self.find(region)
        self._touched = set()
        self.catalog = self.describe()

    def hmem_plans(self) -> list[Any]:
        """Plans of the dax devices that are no namespace, in the order of `hmem`."""
        windows = self.plan.cxl.windows if self.plan.cxl else ()
        return [*self.plan.hmem, *(region for window in windows for region in window.regions)]

    def attach(self, machine: Any) -> None:
        """From now on verbs work through the machine."""
        self.host = machine
        machine.nd = self
        self._settle_nodes()

    def _settle_nodes(self) -> None:
        """RAM that kmem had added when the memory blocks were made is on its device's node."""
        for dax in self.dax_devices() if self.blocks is not None else ():
            for block in self.blocks.within(dax.ram) if dax.ram and dax.target_node >= 0 else ():
                block.nid = dax.target_node
                self.blocks.nodes.setdefault(block.nid, NodeSettings(block.nid))

    # -- reset --------------------------------------------------------------------------------

    def reset(self) -> None:
        """Everything as at boot; called inside a verb, before claims are dropped and memory restored.

        What nobody has touched stays as it is, with the files that are open in it.
        """
        self.pins.drop_all()
        self._era += 1  # who waits for a pin finds everything as at boot
        self._ending.clear()
        self.all_plugged()
        regions = [r for r in self.regions if r.name in self._touched]
        lone = [dax for dax in self.hmem if dax.name in self._touched]
        self._offline_kmem([*(n.dax for r in regions for n in r.namespaces if n.dax), *lone])
        for region in regions:
            for namespace in region.namespaces:
                self.kill_namespace(namespace)
                self.stop(namespace)
            self.lose(region)
            region.present, region.parked = True, ()
            region.relabel()
        for dax in lone:
            self.kill(dax)
            if dax.driver or dax.ram is not None:
                self.let_go(dax)

    def _offline_kmem(self, devices: Iterable[DaxDevice]) -> None:
        """What a reboot does to RAM of kmem: nobody uses it any more, and a leak ends."""
        for dax in devices:
            dax.leaked = False
            for block in self.blocks.within(dax.ram) if dax.ram and self.blocks else ():
                if block.state != "offline":
                    with suppress(FakedevError):
                        self.blocks.offline(block.number)

    def reboot(self) -> None:
        """After `reset` and the machine's own: the boot again, and what changed by it is told."""
        before, self.rebooting = self.catalog, True
        try:
            self.boot()
        finally:
            self.rebooting = False
        self._settle_nodes()
        self.host.publish(*self.catalog.changes(before), *self.device_nodes())
