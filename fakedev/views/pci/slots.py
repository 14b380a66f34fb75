"""`/sys/bus/pci/slots`: places where cards sit (`drivers/pci/slot.c`, `hotplug/pci_hotplug_core.c`)."""

import errno
import re
from collections.abc import Callable, Iterable

from fakedev.devices.pci import express
from fakedev.devices.pci.bus import Slot
from fakedev.devices.pci.function import CAP_PCIE, Function
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.node import Node, Opener, Refused
from fakedev.views.pci.link import speed_text
from fakedev.views.pci.site import Site, made
from fakedev.views.sysfs import link

PATH = "/sys/bus/pci/slots"
_MODULE = "/sys/module/pciehp"
_INDICATOR = 0x00C0  # attention indicator control
_LATCH = 0x0020  # MRL sensor state


def slots_directory(site: Site) -> LiveDirectory:
    """Every physical slot by its name."""

    def names() -> Iterable[str]:
        with site.machine.lock:
            return list(site.bus.slots)

    def make(name: str) -> Node | None:
        slot = site.bus.slots.get(name)
        return _slot(site, slot) if slot is not None else None

    return site.directory(PATH, names, make)


def _slot(site: Site, slot: Slot) -> LiveDirectory:
    path = f"{PATH}/{slot.name}"
    port = slot.function
    makers: dict[str, Callable[[], Node]] = {
        "address": lambda: Attribute(lambda: f"{slot.address}\n"),
        "cur_bus_speed": lambda: Attribute(lambda: f"{_speed(port, express.LINK_STATUS)}\n"),
        "max_bus_speed": lambda: Attribute(lambda: f"{_speed(port, express.LINK_CAPS)}\n"),
    }
    if slot.hotplug:
        makers |= _hotplug(site, slot) | {"module": lambda: link(path, _MODULE)}

    def make(name: str) -> Node | None:
        if name == "module" and site.extras(path).lookup(name) is not None:
            return None  # the profile names another driver
        return made(makers, name)

    return site.directory(path, lambda: makers, make)


def _hotplug(site: Site, slot: Slot) -> dict[str, Callable[[], Node]]:
    """What a hot-plug driver adds: power, presence, latch and attention light."""
    port = slot.function

    def power(text: str, _: Opener) -> None:
        site.bus.slot_power(slot.name, text)

    return {
        "power": lambda: Attribute(lambda: f"{int(slot.powered)}\n", power, mode=0o644, verb=True),
        "adapter": lambda: Attribute(lambda: f"{int(slot.adapter)}\n"),
        "latch": lambda: Attribute(lambda: f"{_latch(port)}\n"),
        "attention": lambda: Attribute(
            lambda: f"{_attention(port)}\n", lambda text, _: _attend(port, text), mode=0o644
        ),
    }


def _get(port: Function, offset: int) -> int:
    at = port.capability(CAP_PCIE)
    return port.config.get(at + offset, 2) if at is not None else 0


def _speed(port: Function, offset: int) -> str:
    """`pcie_link_speed` of the bus behind the port."""
    return speed_text(_get(port, offset) & 0xF)


def _latch(port: Function) -> int:
    return int(bool(_get(port, express.SLOT_STATUS) & _LATCH))


def _attention(port: Function) -> int:
    """`pciehp_get_attention_status`: 1 on, 2 blinks, 0 off."""
    return {1: 1, 2: 2}.get((_get(port, express.SLOT_CONTROL) & _INDICATOR) >> 6, 0)


def _attend(port: Function, text: str) -> None:
    """`attention_store`: the digits at the start count (simple_strtoul)."""
    match = re.match(r"[0-9]+", text)
    number = int(match[0]) & 0xFF if match else 0
    at = port.capability(CAP_PCIE)
    if number > 2:
        raise Refused(errno.EINVAL)
    if at is not None:
        control = port.config.get(at + express.SLOT_CONTROL, 2) & ~_INDICATOR
        setting = {0: 3, 1: 1, 2: 2}[number] << 6
        port.config.put(at + express.SLOT_CONTROL, 2, control | setting)
