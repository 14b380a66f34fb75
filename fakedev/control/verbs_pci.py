"""The verbs about PCI: what an administrator does through sysfs, and what happens to the hardware."""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fakedev.control.arguments import Arguments
from fakedev.control.pci_functions import device_at, function_at, table
from fakedev.devices.pci.errors import PciError
from fakedev.model.errors import ControlError
from fakedev.model.machine import Machine
from fakedev.model.words import closest

if TYPE_CHECKING:
    from fakedev.devices.pci.bus import PciBus
    from fakedev.devices.pci.device import PciDevice

_POWER = {"on": "1", "off": "0"}


class PciVerbs:
    """Verbs of a machine that has PCI.

    Those that change something answer with what changed: functions that the kernel found (`added`)
    and lost (`removed`), the driver that each was `bound` to or `unbound` from, messages of probes
    that `failed`, and the number of the last `event`.
    """

    __slots__ = ()

    machine: Machine

    def do_pci(self, arguments: Arguments) -> dict[str, Any]:
        """Every function: ids, driver, BARs, state."""
        arguments.finish()
        with self.machine.verb():
            return {"functions": table(self._bus())}

    def do_bind(self, arguments: Arguments) -> dict[str, Any]:
        """A driver takes a function: `echo BDF > /sys/bus/pci/drivers/DRIVER/bind`."""
        name, device = arguments.take("driver", str), self._device(arguments)
        bus = self._bus()
        _check_loaded(bus, name)
        return self._change(
            {"device": device.name, "driver": name},
            lambda: bus.bind(name, device.name),
            lambda code: _why_not_bound(bus, name, device, code),
        )

    def do_unbind(self, arguments: Arguments) -> dict[str, Any]:
        """A driver (default: the one it has) lets a function go."""
        name, device = arguments.take("driver", str, default=None), self._device(arguments)
        bound = device.driver.name if device.driver else None
        if bound is None or name not in {None, bound}:
            has = f"is bound to {bound}" if bound else "has no driver"
            raise ControlError(f"{device.name} {has} (ENODEV)", errno=errno.ENODEV)
        return self._change(
            {"device": device.name, "driver": bound}, lambda: self._bus().unbind(bound, device.name)
        )

    def do_modprobe(self, arguments: Arguments) -> dict[str, Any]:
        """Load a driver; it takes every function that it matches and nobody has."""
        name = arguments.take("name", str)
        arguments.finish()
        return self.modprobe(name)

    def do_rmmod(self, arguments: Arguments) -> dict[str, Any]:
        """Unload a driver; its functions have none then."""
        name = arguments.take("name", str)
        arguments.finish()
        return self.rmmod(name)

    def modprobe(self, name: str) -> dict[str, Any]:
        """Load a driver of PCI; subclasses look for theirs first."""
        return self._change({"driver": name}, lambda: self._bus().modprobe(name))

    def rmmod(self, name: str) -> dict[str, Any]:
        """Unload a driver of PCI; subclasses look for theirs first."""
        return self._change({"driver": name}, lambda: self._bus().rmmod(name))

    def do_remove(self, arguments: Arguments) -> dict[str, Any]:
        """The kernel forgets a function and what is behind it: `echo 1 > .../remove`."""
        device = self._device(arguments)
        return self._change({"device": device.name}, lambda: self._bus().remove(device, "1"))

    def do_rescan(self, arguments: Arguments) -> dict[str, Any]:
        """Look for functions: everywhere, or on the bus of a function and behind it."""
        bus, text = self._bus(), arguments.take("device", str, default=None)
        arguments.finish()
        if text is None:
            return self._change({"device": None}, lambda: bus.rescan("1"))
        device = device_at(bus, text)
        return self._change({"device": device.name}, lambda: bus.rescan_device(device, "1"))

    def do_unplug(self, arguments: Arguments) -> dict[str, Any]:
        """A function is pulled out without a word, with everything behind it."""
        name = self._function(arguments)
        return self._change({"device": name}, lambda: self._bus().unplug(name))

    def do_plug(self, arguments: Arguments) -> dict[str, Any]:
        """A function that was unplugged is put back."""
        name = self._function(arguments)
        return self._change({"device": name}, lambda: self._bus().plug(name))

    def do_slot_power(self, arguments: Arguments) -> dict[str, Any]:
        """Switch a hot-plug slot `on` or `off`: `echo 1 > /sys/bus/pci/slots/SLOT/power`."""
        slot, power = arguments.take("slot", str), arguments.take("power", str)
        arguments.finish()
        bus = self._bus()
        if power not in _POWER:
            raise arguments.error(f"power is on or off, not {power!r}")
        if slot not in bus.slots:
            known = ", ".join(bus.slots) or "none"
            raise ControlError(f"there is no slot {slot!r}; slots: {known}", errno=errno.ENODEV)
        return self._change(
            {"slot": slot, "power": power}, lambda: bus.slot_power(slot, _POWER[power])
        )

    def do_link_down(self, arguments: Arguments) -> dict[str, Any]:
        """The link below a port goes down: what is behind it reads all-ones."""
        name = self._function(arguments)
        return self._change({"device": name}, lambda: self._bus().link_down(name))

    def do_link_up(self, arguments: Arguments) -> dict[str, Any]:
        """The link below a port comes back."""
        name = self._function(arguments)
        return self._change({"device": name}, lambda: self._bus().link_up(name))

    def do_reset_function(self, arguments: Arguments) -> dict[str, Any]:
        """Reset a function: `echo 1 > .../reset`."""
        device = self._device(arguments)
        return self._change({"device": device.name}, lambda: self._bus().reset(device, "1"))

    # -- what they share --------------------------------------------------------------------

    def _bus(self) -> "PciBus":
        bus: PciBus | None = self.machine.pci
        if bus is None:
            raise ControlError(
                f"{self.machine.name} has no PCI: there is no `pci:` section in its profile",
                errno=errno.ENODEV,
            )
        return bus

    def _device(self, arguments: Arguments) -> "PciDevice":
        """The argument `device`, which the kernel must have; it is the last one."""
        bus, text = self._bus(), arguments.take("device", str)
        arguments.finish()
        return device_at(bus, text)

    def _function(self, arguments: Arguments) -> str:
        """The argument `device`, which need not be plugged; it is the last one."""
        bus, text = self._bus(), arguments.take("device", str)
        arguments.finish()
        return str(function_at(bus, text))

    def _change(
        self,
        about: dict[str, Any],
        action: Callable[[], Any],
        why: Callable[[int], str] = lambda _: "",
    ) -> dict[str, Any]:
        """Do `action`: what changed by it. `why` adds to the message of an errno what to do."""
        machine, bus = self.machine, self._bus()
        with machine.verb():
            since, before = machine.now, _drivers(bus)
            try:
                action()
            except PciError as error:
                raise ControlError(_refusal(error) + why(error.errno), errno=error.errno) from None
            events = [event for event in tuple(machine.events) if event.number > since]
            failed = [event.message for event in events if event.kind == "probe"]
            return {
                **about,
                **_changes(before, _drivers(bus)),
                "failed": failed,
                "event": machine.now,
            }


def _drivers(bus: "PciBus") -> dict[str, str | None]:
    """Which driver each function has."""
    return {n: d.driver.name if d.driver else None for n, d in tuple(bus.devices.items())}


def _changes(before: dict[str, str | None], after: dict[str, str | None]) -> dict[str, Any]:
    """What is another than before."""
    return {
        "removed": [name for name in before if name not in after],
        "added": [name for name in after if name not in before],
        "unbound": {n: d for n, d in before.items() if d and after.get(n) != d},
        "bound": {n: d for n, d in after.items() if d and before.get(n) != d},
    }


def _refusal(error: PciError) -> str:
    """The message with the name of its errno."""
    name = errno.errorcode.get(error.errno, "")
    message = str(error)
    return message if name in message else f"{message} ({name})"


def _check_loaded(bus: "PciBus", name: str) -> None:
    """Raise ControlError where no driver of that name is registered."""
    if name in bus.drivers:
        return
    if name in bus.known_drivers:
        raise ControlError(f"{name} is not loaded: fakedev ctl modprobe {name}", errno=errno.ENODEV)
    loaded = ", ".join(sorted(bus.drivers)) or "none"
    near = closest(name, bus.known_drivers)
    hint = f"; did you mean {near}?" if near else ""
    raise ControlError(f"there is no driver {name!r}{hint} (loaded: {loaded})", errno=errno.ENODEV)


def _why_not_bound(bus: "PciBus", name: str, device: "PciDevice", code: int) -> str:
    """What to do about a bind that was refused."""
    if code == errno.EBUSY and device.driver:
        return f"; {device.name} is bound to {device.driver.name}: fakedev ctl unbind {device.name}"
    if code == errno.ENODEV and device.driver is None and not bus.drivers[name].match(device):
        ids = f"{device.vendor:04x} {device.device:04x}"
        files = f"/sys/bus/pci/drivers/{name}/new_id"
        return f"; write `{ids}` to {files} first"
    return ""
