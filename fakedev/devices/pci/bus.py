"""The PCI bus as the kernel has it: what was found, which drivers are loaded, who holds what.

Theory of operation
-------------------
`Fabric` is the hardware; here is what Linux makes of it. `boot` takes over what the firmware has set
up, before there is a machine. After `attach` every verb holds `machine.verb()` for its whole
length and `machine.lock` for changes of state only; effects are published without it. A
`PciDevice` that was removed is gone for ever: a rescan makes another one, with new addresses.

Tables (`devices`, `drivers`, `children`) are replaced as a whole, so readers take no lock.
"""

from fakedev.devices.pci import nodes
from fakedev.devices.pci.binding import Binding
from fakedev.devices.pci.device import Claim, PciDevice
from fakedev.devices.pci.driver import PciDriver
from fakedev.devices.pci.hotplug import Hotplug
from fakedev.devices.pci.identity import set_defaults
from fakedev.devices.pci.knobs import Knobs
from fakedev.devices.pci.probing import Probing
from fakedev.devices.pci.slots import Slot
from fakedev.devices.pci.state import RootBus, in_tree
from fakedev.model.effects import Changed
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

__all__ = ["PciBus", "RootBus", "Slot"]


class PciBus(Hotplug, Binding, Knobs, Probing):
    """All PCI of a machine. Texts of verbs are what is written to the file in sysfs, without NUL.

    Verbs raise PciError with the kernel's errno; `modprobe` and `rmmod` raise ControlError.
    """

    _loaded_at_boot: tuple[str, ...] = ()
    _at_boot: dict[PciDevice, tuple[PciDriver | None, tuple[Claim, ...]]]

    def boot(self) -> None:
        """Find everything, give it its nodes, and bind what is bound at boot; nothing is logged.

        Afterwards the fabric remembers this moment.
        """
        bound = {facts.driver for facts in self.settings.facts.values()}
        self._loaded_at_boot = tuple(
            name for name, driver in self.known_drivers.items() if driver.loaded or name in bound
        )
        self.drivers = {name: self.known_drivers[name] for name in self._loaded_at_boot}
        self.find_roots()
        self._start()
        self.find_slots()
        self.fabric.freeze()

    def _start(self) -> list[PciDevice]:
        fresh = self.scan(boot=True)
        self.claim_firmware(fresh)
        for device in self.devices.values():
            if device.driver is None:
                self.bind_as_at_boot(device)
        self._at_boot = {d: (d.driver, d.claims) for d in self.devices.values()}
        return fresh

    @property
    def conf1(self) -> bool:
        """Configuration space is reached through ports CF8 and CFC as well."""
        return self.settings.conf1

    def attach(self, machine: Machine) -> None:
        """From now on verbs work through the machine: with claims, effects and events."""
        self.host = machine

        def moved(span: Range) -> None:
            if not self._quiet:  # a store that went past the verbs, through the ECAM
                machine.posted(Changed(span))

        self.fabric.moved = moved
        self.fabric.failed = self.model_raised

    # -- configuration space ----------------------------------------------------------------

    def config_read(self, device: PciDevice, offset: int, size: int) -> bytes:
        """Bytes of configuration space over the bus: all-ones when it does not answer. ENODEV."""
        self.alive(device)
        return self.fabric.config_read(device.bdf, offset, size)

    def config_write(self, device: PciDevice, offset: int, data: bytes) -> None:
        """Write over the bus. What a model raises goes through. ENODEV when removed."""
        with self.verb():
            self.alive(device)
            self.write_config(device.bdf, offset, data)

    # -- reset ------------------------------------------------------------------------------

    def reset(self, device: PciDevice | None = None, text: str = "1") -> None:
        """Write to the file `reset` of a function; without one, everything is as at boot."""
        if device is None:
            self.reset_all()
        else:
            self.reset_function(device, text)

    def reset_all(self) -> None:
        """Everything as at boot: hardware, drivers, bindings. What was removed comes back as new.

        Functions that are where they were stay the same objects: open files of theirs live on.
        """
        with self.verb():
            for claim in self.host.claims:
                if in_tree(claim, self.iomem):
                    self.host.release(claim.span)
            self._let_go()
            foreign = [d for d in self.devices.values() if d not in self._at_boot]
            self.forget(foreign, "reset")
            self._reset_hardware()
            if str(self._vga) not in self.devices:
                self._vga = None
            for device in self.devices.values():
                set_defaults(device, boot=True)
                if device.driver is not None:
                    self.set_bound_defaults(device, device.driver)
            entries = self._reload()
            self.autoprobe = True
            fresh = self._start()
            self.tell([*entries, *(entry for d in fresh for entry in nodes.of_device(d))])

    def _let_go(self) -> None:
        """Unbind everything that is not bound as it was at boot."""
        for device in reversed(list(self.devices.values())):
            kept = self._at_boot.get(device) == (device.driver, device.claims)
            trees = {"io": self.ioports, "mem": self.iomem}
            if not kept or not all(in_tree(c.node, trees[c.kind]) for c in device.claims):
                self.release_driver(device)

    def _reset_hardware(self) -> None:
        for slot in self._all_slots.values():
            slot.held = ()
        everything = [Range(0, self.fabric.memory.top)] if not self.booting else []
        self.quietly(everything, self.fabric.reset)

    def _reload(self) -> list[nodes.Entry]:
        """The drivers of boot are loaded, without ids that were added."""
        changed = set(self.drivers) ^ set(self._loaded_at_boot)
        with self.host.lock:
            self.drivers = {name: self.known_drivers[name] for name in self._loaded_at_boot}
        for driver in self.known_drivers.values():
            driver.dynamic_ids.clear()
        return [entry for name in changed for entry in nodes.of_driver(self.known_drivers[name])]
