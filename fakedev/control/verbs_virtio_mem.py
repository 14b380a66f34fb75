"""The verbs about virtio-mem: what the hypervisor asks for, and the driver's module."""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fakedev.control.arguments import Arguments
from fakedev.control.verbs_pci import PciVerbs
from fakedev.model.errors import ControlError

if TYPE_CHECKING:
    from fakedev.devices.memory.virtio_mem_bus import VirtioMem

MODULE = "virtio_mem"


class VirtioMemVerbs(PciVerbs):
    """Verbs of a machine that has virtio-mem devices, on top of those of PCI."""

    __slots__ = ()

    def do_virtio_mem(self, arguments: Arguments) -> dict[str, Any]:
        """Every device: region, sizes in bytes, driver, memory blocks by state."""
        arguments.finish()
        with self.machine.verb():
            found = self._virtio_mem()
            return {"devices": [_device(found, name) for name in found.devices]}

    def do_virtio_mem_request(self, arguments: Arguments) -> dict[str, Any]:
        """The hypervisor sets the requested size of a device; the driver follows before it returns."""
        name, size = arguments.take("name", str), arguments.take("size", int)
        arguments.finish()
        if size < 0:
            raise arguments.error(f"a size is 0 or more, not {size}")
        with self.machine.verb():
            found, since = self._virtio_mem(), self.machine.now
            found.request(name, size)
            steps = [e.message for e in tuple(self.machine.events) if e.number > since]
            return {**_device(found, name), "steps": steps, "event": self.machine.now}

    def modprobe(self, name: str) -> dict[str, Any]:
        """Load a driver: `virtio_mem`, or one of PCI."""
        if self._is_ours(name):
            return self._module(name, self._virtio_mem().modprobe)
        return super().modprobe(name)

    def rmmod(self, name: str) -> dict[str, Any]:
        """Unload a driver: `virtio_mem`, or one of PCI."""
        if self._is_ours(name):
            return self._module(name, self._virtio_mem().rmmod)
        return super().rmmod(name)

    def _is_ours(self, name: str) -> bool:
        return name.replace("-", "_") == MODULE and self.machine.virtio_mem is not None

    def _module(self, name: str, action: Callable[[], None]) -> dict[str, Any]:
        machine = self.machine
        with machine.verb():
            since, before = machine.now, _drivers(machine.virtio_mem)
            action()
            after = _drivers(machine.virtio_mem)
            events = [event for event in tuple(machine.events) if event.number > since]
            return {
                "driver": name,
                "removed": [],
                "added": [],
                "unbound": {n: d for n, d in before.items() if n not in after},
                "bound": {n: d for n, d in after.items() if n not in before},
                "failed": [event.message for event in events if event.kind == "probe"],
                "event": machine.now,
            }

    def _virtio_mem(self) -> "VirtioMem":
        found: VirtioMem | None = self.machine.virtio_mem
        if found is None:
            raise ControlError(
                f"{self.machine.name} has no virtio-mem device: there is no `virtio_mem:` section "
                "in its profile",
                errno=errno.ENODEV,
            )
        return found


def _drivers(found: "VirtioMem") -> dict[str, str]:
    return {driver.name: MODULE for driver in found.drivers.values()}


def _device(found: "VirtioMem", name: str) -> dict[str, Any]:
    device, driver = found.devices[name], found.drivers.get(name)
    plan = device.plan
    return {
        "name": name,
        "device": found.virtio_name(name),
        "pci": plan.pci or None,
        "range": f"{device.span.start:08x}-{device.span.end - 1:08x}",
        "block_size": plan.block_size,
        "node": plan.node,
        "requested_size": device.requested_size,
        "plugged_size": device.plugged_size,
        "usable_size": device.usable_region_size,
        "plugged": [f"{s.start:08x}-{s.end - 1:08x}" for s in device.plugged_ranges()],
        "driver": MODULE if driver else None,
        "mode": driver.mode.name if driver else None,
        "blocks": driver.mode.states() if driver else {},
        "leaked": found.is_leaked(name),
    }
