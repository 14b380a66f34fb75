"""Attributes of a function that an administrator writes (`drivers/pci/pci-sysfs.c`)."""

import errno
from collections.abc import Iterator

from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.parsing import kstrtoint, kstrtoul, streq
from fakedev.devices.pci.probing import Probing
from fakedev.model.ranges import Range

_LIMIT = 4095
RESET_METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")
"""What `reset_method` takes (`pci_reset_fn_methods`); a function supports some of them."""


class Knobs(Probing):
    """Each takes the text that was written, without NUL, and raises PciError with the kernel's errno."""

    def set_enable(self, device: PciDevice, text: str) -> None:
        """`enable_store`: EBUSY while bound, EIO when it is not enabled."""
        value = kstrtoul(text)
        with self.verb():
            self.alive(device)
            if device.driver is not None:
                raise PciError(f"{device.name} is bound to {device.driver.name}", errno=errno.EBUSY)
            if value:
                self.enable(device)
            elif device.enable_count:
                self.disable(device)
            else:
                raise PciError(f"{device.name} is not enabled", errno=errno.EIO)

    def set_driver_override(self, device: PciDevice, text: str) -> None:
        """`driver_set_override`: cut at the newline; nothing clears it; EINVAL beyond a page."""
        if len(text.encode(errors="surrogateescape")) >= _LIMIT:
            raise PciError("driver_override: too long")
        with self.verb():
            self.alive(device)
            device.driver_override = text.partition("\n")[0] or None

    def set_numa_node(self, device: PciDevice, text: str) -> None:
        """`numa_node_store`: -1 or a node that is online, else EINVAL."""
        node = kstrtoint(text)
        with self.verb():
            self.alive(device)
            if node != -1 and node not in self.settings.numa_nodes:
                raise PciError(f"numa_node: node {node} is not online")
            device.numa_node = node

    def set_msi_bus(self, device: PciDevice, text: str) -> None:
        """`msi_bus_store`: for a bridge it is about what is behind it."""
        self._flag(device, "msi_bus", text)

    def set_broken_parity_status(self, device: PciDevice, text: str) -> None:
        """`broken_parity_status_store`."""
        self._flag(device, "broken_parity_status", text)

    def set_d3cold_allowed(self, device: PciDevice, text: str) -> None:
        """`d3cold_allowed_store`."""
        self._flag(device, "d3cold_allowed", text)

    def _flag(self, device: PciDevice, name: str, text: str) -> None:
        try:
            value = bool(kstrtoul(text))
        except PciError as error:
            raise PciError(f"{name}: {error}") from None
        with self.verb():
            self.alive(device)
            setattr(device, name, value)

    def set_rom(self, device: PciDevice, text: str) -> None:
        """`pci_write_rom` of 6.1: exactly "0" and one more byte disables, anything else enables."""
        with self.verb():
            self.alive(device)
            device.rom_enabled = not (len(text) == 2 and text[0] == "0")

    # -- resets -----------------------------------------------------------------------------

    def reset_function(self, device: PciDevice, text: str) -> None:
        """`reset_store`: 1, else EINVAL; ENOTTY without a reset method."""
        if kstrtoul(text) != 1:
            raise PciError("reset: only 1 resets")
        with self.verb():
            self.alive(device)
            if not device.reset_methods:
                raise PciError(f"{device.name} has no reset method", errno=errno.ENOTTY)
            self._reset([device.function])
            self.log("reset-function", f"{device.name} reset ({device.reset_methods[0]})")

    def reset_subordinate(self, device: PciDevice, text: str) -> None:
        """`reset_subordinate_store`: 1 resets everything behind a bridge."""
        if kstrtoul(text) != 1:
            raise PciError("reset_subordinate: only 1 resets")
        with self.verb():
            self.alive(device)
            behind = [f for f in self.fabric.below(device.bdf) if self.fabric.at(f.bdf) is f]
            self._reset(behind)
            self.log(
                "reset-function", f"{device.name}: secondary bus reset, {len(behind)} functions"
            )

    def _reset(self, functions: list[Function]) -> None:
        spans = [span for function in functions for span in self._cached(function)]

        def act() -> None:
            for function in functions:
                self.fabric.reset_function(function)

        self.quietly(spans, act)

    def _cached(self, function: Function) -> Iterator[Range]:
        yield from self.ecam_pages(function.bdf)
        for window in self.fabric.decoded(function.bdf):
            if window.kind == "mem":
                yield Range(window.start, window.size)

    def set_reset_method(self, device: PciDevice, text: str) -> None:
        """`reset_method_store`: names in order of preference, "" for none, "default"; else EINVAL."""
        if len(text) >= _LIMIT:
            raise PciError("reset_method: too long")
        supported = device.function.reset_methods
        if streq(text, "") or streq(text, "default"):
            chosen = supported if text.startswith("d") else ()
        else:
            chosen = tuple(_methods(text, supported))
        with self.verb():
            self.alive(device)
            device.reset_methods = chosen


def _methods(text: str, supported: tuple[str, ...]) -> Iterator[str]:
    for part in text.split(" "):
        name = part.strip()
        if not name:
            continue
        if name not in RESET_METHODS:
            raise PciError(f"Invalid reset method '{name}'")
        if name not in supported:
            raise PciError(f"Unsupported reset method '{name}'")
        yield name
