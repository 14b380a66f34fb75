"""What is written below `/sys/bus/pci`: bind, unbind, new_id, probing; and modules."""

import errno

from fakedev.devices.pci import nodes
from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.parsing import dynamic_id
from fakedev.devices.pci.probing import Probing
from fakedev.model.errors import ControlError
from fakedev.model.words import closest

_ALL_FIELDS = 7
# Seconds after close(2) until the file system hears of it.
CLOSING = 0.1
_TRUE, _FALSE = frozenset("yt1"), frozenset("nf0")


class Binding(Probing):
    """Verbs of drivers. Each raises PciError with the kernel's errno."""

    def bind(self, driver_name: str, text: str) -> None:
        """`bind_store`: ENODEV for an unknown or other function, EBUSY, or what the probe says."""
        with self.verb():
            driver = self._loaded(driver_name)
            device = self._matching(driver, text)
            if device.driver is not None:
                raise PciError(
                    f"{device.name} is bound to {device.driver.name} already", errno=errno.EBUSY
                )
            self.probe(driver, device)

    def unbind(self, driver_name: str, text: str) -> None:
        """`unbind_store`: ENODEV for what this driver does not have."""
        with self.verb():
            driver = self._loaded(driver_name)
            device = self.named(text)
            if device is None or device.driver is not driver:
                raise PciError(f"{driver_name} has no function {text.strip()}", errno=errno.ENODEV)
            self.release_driver(device)

    def new_id(self, driver_name: str, text: str) -> None:
        """`new_id_store`: EEXIST for an id that is there, EINVAL; then everything it matches is probed."""
        with self.verb():
            driver = self._loaded(driver_name)
            entry, fields = dynamic_id(text)
            if fields != _ALL_FIELDS and driver.match_numbers(_as_function(entry)):
                raise PciError(f"{driver_name} has that id already", errno=errno.EEXIST)
            if driver.ids and all(entry.data != known.data for known in driver.ids):
                raise PciError(f"{driver_name}: no entry of its table has data {entry.data:#x}")
            driver.dynamic_ids.append(entry)
            self.attach_driver(driver)

    def remove_id(self, driver_name: str, text: str) -> None:
        """`remove_id_store`: the first dynamic id that fits, else ENODEV."""
        with self.verb():
            driver = self._loaded(driver_name)
            wanted, _ = dynamic_id(text)
            for entry in driver.dynamic_ids:
                if wanted.matches(entry):
                    driver.dynamic_ids.remove(entry)
                    return
            raise PciError(f"{driver_name} has no such dynamic id", errno=errno.ENODEV)

    def drivers_probe(self, text: str) -> None:
        """`drivers_probe_store`: ENODEV for an unknown function; that no driver takes it is no error."""
        with self.verb():
            device = self.named(text)
            if device is None:
                raise PciError(f"there is no function {text.strip()}", errno=errno.ENODEV)
            if device.driver is None:
                self.attach_any(device)

    def set_autoprobe(self, text: str) -> None:
        """`drivers_autoprobe_store`: 0 switches off, anything else on."""
        with self.verb():
            self.autoprobe = not text.startswith("0")

    # -- modules ----------------------------------------------------------------------------

    def modprobe(self, name: str) -> None:
        """Load a driver by its own or its module's name.

        ControlError: there is none such (ENOENT). Under `deny-claim` its init fails, and it is not
        loaded, where processes map what it would claim, so that it gets no function (EBUSY).
        """
        with self.verb():
            new = [d for d in self._by_module(name) if d.name not in self.drivers]
            denied = [why for driver in new for why in self._register(driver)]
            if denied and not any(device.driver in new for device in self.devices.values()):
                for driver in reversed(new):
                    self._unregister(driver)
                raise ControlError(f"{name} is not loaded: {denied[0]}", errno=errno.EBUSY)

    def rmmod(self, name: str) -> None:
        """Unload it, from all its functions.

        ControlError: not loaded (ENOENT), built in (EBUSY), in use (EAGAIN).
        """
        with self.verb():
            loaded = [d for d in self._by_module(name) if d.name in self.drivers]
            if not loaded:
                raise ControlError(f"module {name} is not loaded", errno=errno.ENOENT)
            if any(driver.builtin for driver in loaded):
                raise ControlError(f"module {name} is builtin", errno=errno.EBUSY)
            if not all(driver.users.gone(CLOSING) for driver in loaded):
                raise ControlError(
                    f"module {name} is in use: a file of its devices is open or mapped",
                    errno=errno.EAGAIN,
                )
            for driver in reversed(loaded):
                self._unregister(driver)

    def _register(self, driver: PciDriver) -> list[str]:
        """Add a driver, and offer it the functions that it matches; returns as `attach_driver`."""
        driver.dynamic_ids.clear()
        with self.host.lock:
            self.drivers = {**self.drivers, driver.name: driver}
        self.log("module", f"{driver.name} loaded")
        self.tell(nodes.of_driver(driver))
        return self.attach_driver(driver) if self.autoprobe else []

    def _unregister(self, driver: PciDriver) -> None:
        for device in reversed(list(self.devices.values())):
            if device.driver is driver:
                self.release_driver(device)
        driver.dynamic_ids.clear()
        with self.host.lock:
            self.drivers = {n: d for n, d in self.drivers.items() if d is not driver}
        self.log("module", f"{driver.name} unloaded")
        self.tell(nodes.of_driver(driver))

    def _by_module(self, name: str) -> list[PciDriver]:
        wanted = name.replace("-", "_")
        found = [
            driver
            for driver in self.known_drivers.values()
            if wanted in (driver.name.replace("-", "_"), driver.module.replace("-", "_"))
        ]
        if not found:
            near = closest(name, self.known_drivers)
            hint = f"; did you mean {near}?" if near else ""
            known = ", ".join(sorted(self.known_drivers)) or "none"
            raise ControlError(
                f"there is no driver {name!r}{hint} (known: {known})", errno=errno.ENOENT
            )
        return found

    def _loaded(self, name: str) -> PciDriver:
        driver = self.drivers.get(name)
        if driver is None:
            raise PciError(f"driver {name} is not loaded", errno=errno.ENODEV)
        return driver

    def _matching(self, driver: PciDriver, text: str) -> PciDevice:
        device = self.named(text)
        if device is None:
            raise PciError(f"there is no function {text.strip()}", errno=errno.ENODEV)
        if not driver.match(device):
            raise PciError(f"{driver.name} does not match {device.name}", errno=errno.ENODEV)
        return device


def _as_function(entry: PciId) -> PciId:
    """The id as the numbers of a function, 16 bits wide where a function's are."""
    vendor, device, subvendor, subdevice = (value & 0xFFFF for value in entry[:4])
    return PciId(vendor, device, subvendor, subdevice, entry.class_)
