"""The driver of one virtio-mem device: probe, follow the requested size, unload.

The kernel does its work in a workqueue, and tries again after a while where memory could not be
moved. Here a verb returns when the driver can go no further; it goes on when a memory block of the
machine changes its state, or the hypervisor asks again.
"""

import errno
from typing import TYPE_CHECKING

from fakedev.devices.memory.virtio_mem import VirtioMemDevice
from fakedev.devices.memory.virtio_mem_bbm import BigBlockMode
from fakedev.devices.memory.virtio_mem_mode import PAGEBLOCK, Mode
from fakedev.devices.memory.virtio_mem_sbm import SubBlockMode
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.model.machine import Machine

_BUSY_RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY


class VirtioMemDriver:
    """`virtio_mem` bound to one device, under the name of its virtio device (`virtio0`).

    `parent` is the resource of the region, `mode` the bookkeeping of its memory.
    """

    def __init__(self, machine: "Machine", device: VirtioMemDevice, name: str) -> None:
        self.machine = machine
        self.device = device
        self.name = name
        self.parent = self._probe()
        self.mode = self._mode()
        self._following = False
        self._say_what_there_is()
        machine.blocks.listeners.append(self._notified)
        if device.plugged_size:
            device.unplug_all()  # what a driver before us has left plugged, and nobody knows

    # -- probe ------------------------------------------------------------------------------

    def _probe(self) -> Resource:
        """Reserve the region. ControlError with the errno of the probe; it is in the log then."""
        if self.device.queue_enabled:
            raise self._failed("the queue of a driver that failed is still there", errno.ENOENT)
        self.device.queue_enabled = True
        exclusive = self.machine.rules.has_exclusive_system_ram
        try:
            return self.machine.claim_container(self.device.span, self.name, exclusive=exclusive)
        except ResourceConflictError as error:
            # A kernel that denies claims lets drivers try again.
            self.device.queue_enabled = self.machine.rules.claim_policy != "deny-claim"
            why = f"could not reserve device region: {error}; reloading the driver is not supported"
            raise self._failed(why, error.errno) from error

    def _failed(self, why: str, code: int) -> ControlError:
        text = f"virtio_mem {self.name}: {why}: probe of {self.name} failed with error -{code}"
        self.machine.record("probe", text, self.device.span)
        return ControlError(text, errno=code)

    def _mode(self) -> Mode:
        plan = self.device.plan
        small = max(plan.block_size, PAGEBLOCK) < self.machine.blocks.block_size
        kind = SubBlockMode if small and not plan.force_bbm else BigBlockMode
        return kind(self.machine, self.device, self.parent)

    def _say_what_there_is(self) -> None:
        plan, mode = self.device.plan, self.mode
        unit = "subblock" if mode.name == "SBM" else "big block"
        mode.log(
            f"start address: {plan.addr:#x}, region size: {plan.region_size:#x}, device block size: "
            f"{plan.block_size:#x}, nid: {plan.node}, memory block size: "
            f"{mode.blocks.block_size:#x}, {unit} size: {mode.unit:#x}",
            self.device.span,
        )
        if plan.addr % mode.blocks.block_size or plan.region_size % mode.blocks.block_size:
            mode.log("the alignment of the region makes some of its memory unusable")

    # -- at work ----------------------------------------------------------------------------

    def configuration_changed(self) -> None:
        """The device says that its requested size is another one."""
        device = self.device
        self.mode.log(
            f"plugged size: {device.plugged_size:#x}, requested size: {device.requested_size:#x}"
        )
        self.follow()

    def follow(self) -> None:
        """Plug or unplug until the requested size is there, or nothing more can be done."""
        if self._following:
            return
        self._following = True
        try:
            missing = self.device.requested_size - self.device.plugged_size
            if missing > 0:
                self.mode.plug(missing)
            elif missing < 0:
                self.mode.unplug(-missing)
        finally:
            self._following = False

    def _notified(self, what: str, span: Range) -> None:
        """The memory notifier (`virtio_mem_memory_notifier_cb`)."""
        if what not in {"online", "offline"} or not self.device.span.overlaps(span):
            return
        self.mode.heard(what, span)
        self.follow()

    # -- unload -----------------------------------------------------------------------------

    def remove(self) -> bool:
        """`virtio_mem_remove`: True when the region was released, False when it leaks.

        While System RAM is left in it nothing can be released: the region stays exclusive until the
        next boot, and the driver cannot be loaded again.
        """
        self._following = True
        self.mode.remove_leftovers()
        self.forget()
        leaks = has_memory(self.machine, self.device)
        if leaks:
            self.mode.log("device still has system memory added", self.device.span)
        else:
            release_region(self.machine, self.parent)
            self.mode.log("region released", self.device.span)
        self.device.reset()
        return not leaks

    def forget(self) -> None:
        """Hear of no memory block any more."""
        self.machine.blocks.listeners.remove(self._notified)


def has_memory(machine: "Machine", device: VirtioMemDevice) -> bool:
    """`virtio_mem_has_memory_added`: BUSY System RAM is inside the region."""
    span = device.span
    return any(n.matches(_BUSY_RAM) for n in machine.tree.root.descend(span.start, span.end - 1))


def release_region(machine: "Machine", parent: Resource) -> None:
    """The region is nobody's again, and can be read and mapped."""
    machine.free_container(parent)
