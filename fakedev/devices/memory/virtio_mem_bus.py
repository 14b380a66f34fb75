"""The virtio-mem devices of a machine, and the module that drives them (`machine.virtio_mem`)."""

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fakedev.devices.memory.blocks import MemoryBlocks
from fakedev.devices.memory.virtio_mem import VirtioMemDevice
from fakedev.devices.memory.virtio_mem_driver import VirtioMemDriver, release_region
from fakedev.devices.memory.virtio_mem_plan import FIRST_RELEASE, VirtioMemPlan
from fakedev.model.contents import ZERO
from fakedev.model.errors import ClaimDeniedError, ControlError
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.model.machine import Machine

MODULE = "virtio_mem"
TRANSPORT = "virtio_pci"
VIRTIO_VENDOR = 0x1AF4


class VirtioMem:
    """Devices by name, and the driver of each that has one.

    A device of PCI is there while a driver `virtio-pci` has its function; the others always are.
    Verbs raise ControlError. They run under `machine.verb()`.
    """

    machine: "Machine"

    def __init__(self, plans: Iterable[VirtioMemPlan]) -> None:
        self.devices = {plan.name: VirtioMemDevice(plan) for plan in plans}
        self.drivers: dict[str, VirtioMemDriver] = {}
        self.loaded = False
        self._numbers: dict[str, int] = {}  # of virtio devices, by function or name
        self._leaked: list[Resource] = []

    # -- the machine ------------------------------------------------------------------------

    def attach(self, machine: "Machine") -> None:
        """Become `machine.virtio_mem`, as it is after boot."""
        self.machine = machine
        machine.virtio_mem = self
        if machine.blocks is None:
            blocks = MemoryBlocks(machine.rules.arch)
            blocks.boot(machine.tree)
            blocks.attach(machine)
        for device in self.devices.values():
            device.discard = self._discard
        if machine.pci is not None:
            machine.pci.binding_listeners.append(self._function_changed)
        self._boot()

    def _boot(self) -> None:
        self._numbers.clear()
        for name, device in self.devices.items():
            if not device.plan.pci:
                self._register(name)
        for function in tuple(self.machine.pci.devices.values()) if self.machine.pci else ():
            if function.driver is not None and _is_transport(function.driver):
                self._function_changed(function, function.driver, bound=True)
        if any(device.plan.loaded for device in self.devices.values()):
            self.modprobe()

    def reset(self) -> None:
        """As after boot: called inside a verb, after PCI and the memory blocks are as they were."""
        for driver in self.drivers.values():
            driver.forget()
            self._leaked.append(driver.parent)
        self.drivers.clear()
        for parent in self._leaked:
            release_region(self.machine, parent)
        self._leaked.clear()
        self.loaded = False
        for device in self.devices.values():
            device.power_on()
        self._boot()

    def _discard(self, span: Range) -> None:
        """What was unplugged reads as zeros from now on."""
        memory = self.machine.memory
        self.machine.settle(
            span, self.machine.locked(lambda: memory.fill(span.start, span.size, ZERO))
        )

    # -- virtio devices ---------------------------------------------------------------------

    def _function_changed(self, function: Any, driver: Any, *, bound: bool) -> None:
        """A driver has taken a PCI function, or is about to let it go."""
        if not _is_transport(driver) or function.vendor != VIRTIO_VENDOR:
            return
        mine = [n for n, d in self.devices.items() if d.plan.pci == function.name]
        if bound:
            self._register(function.name)
            for name in mine:
                self.devices[name].reset()
                self._probe(name)
            return
        for name in mine:
            self._unbind(name)
        self._numbers.pop(function.name, None)

    def _register(self, key: str) -> None:
        """`register_virtio_device`: the lowest number that is free."""
        taken = set(self._numbers.values())
        self._numbers[key] = next(n for n in range(len(taken) + 1) if n not in taken)

    def virtio_name(self, name: str) -> str | None:
        """`virtio0`, or None while nobody drives the function of the device."""
        number = self._numbers.get(self.devices[name].plan.pci or name)
        return None if number is None else f"virtio{number}"

    def _probe(self, name: str) -> str:
        """Bind a device, if there is one and nobody has it; returns the refusal of `deny-claim`."""
        virtio = self.virtio_name(name)
        if not self.loaded or virtio is None or name in self.drivers:
            return ""
        try:
            driver = VirtioMemDriver(self.machine, self.devices[name], virtio)
        except ControlError as error:
            denied = isinstance(error.__cause__, ClaimDeniedError)
            return str(error) if denied else ""  # it is in the log; the kernel goes on
        self.drivers[name] = driver
        driver.configuration_changed()
        return ""

    def _unbind(self, name: str) -> None:
        driver = self.drivers.pop(name, None)
        if driver is not None and not driver.remove():
            self._leaked.append(driver.parent)

    # -- verbs ------------------------------------------------------------------------------

    def modprobe(self) -> None:
        """Load the module: it takes every device.

        ENOENT before Linux 5.8, which has no such driver. Under `deny-claim` EBUSY, and it is not
        loaded, where it gets no device because processes map a region.
        """
        with self.machine.verb():
            release = self.machine.rules.release
            if release < FIRST_RELEASE:
                version = ".".join(map(str, release))
                raise ControlError(
                    f"there is no driver {MODULE} in Linux {version}; it came with 5.8",
                    errno=errno.ENOENT,
                )
            if self.loaded:
                return
            self.loaded = True
            self.machine.record("module", f"{MODULE} loaded")
            denied = [why for name in self.devices if (why := self._probe(name))]
            if denied and not self.drivers:
                self.loaded = False
                self.machine.record("module", f"{MODULE} unloaded")
                raise ControlError(f"{MODULE} is not loaded: {denied[0]}", errno=errno.EBUSY)

    def rmmod(self) -> None:
        """Unload it. A region with memory in it leaks. ENOENT: it is not loaded."""
        with self.machine.verb():
            if not self.loaded:
                raise ControlError(f"module {MODULE} is not loaded", errno=errno.ENOENT)
            for name in reversed(list(self.drivers)):
                self._unbind(name)
            self.loaded = False
            self.machine.record("module", f"{MODULE} unloaded")

    def request(self, name: str, size: int) -> VirtioMemDevice:
        """The hypervisor asks for another size; returns when the driver can go no further.

        Raises ControlError, with nothing changed: no such device, or a size that it cannot have.
        """
        with self.machine.verb():
            device = self.device(name)
            device.request(size)
            self.machine.record(
                "virtio-mem", f"{name}: requested size is {size >> 20} MiB", device.span
            )
            if name in self.drivers:
                self.drivers[name].configuration_changed()
            return device

    def device(self, name: str) -> VirtioMemDevice:
        """A device by name. Raises ControlError (ENODEV)."""
        found = self.devices.get(name)
        if found is None:
            known = ", ".join(self.devices)
            raise ControlError(f"there is no virtio-mem device {name!r}; there are {known}",
                               errno=errno.ENODEV)  # fmt: skip
        return found

    def hidden(self) -> list[Range]:
        """Pages that System RAM lists, and that were never plugged or are no more."""
        return [span for d in tuple(self.drivers.values()) for span in d.mode.hidden()]

    def reaches(self, span: Range) -> bool:
        """Whether a range has bytes of a device's region."""
        return any(device.span.overlaps(span) for device in self.devices.values())

    def is_leaked(self, name: str) -> bool:
        """Whether the region of a device was left behind by a driver that is gone."""
        span = self.devices[name].span
        return name not in self.drivers and any(parent.span == span for parent in self._leaked)


def _is_transport(driver: Any) -> bool:
    return bool(driver.name.replace("-", "_") == TRANSPORT)
