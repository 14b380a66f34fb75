"""Userspace I/O: drivers that leave their device to who opens `/dev/uioN` (`drivers/uio/uio.c`)."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fakedev.devices.pci.device import PciDevice, PciResource
from fakedev.devices.pci.driver import PciDriver
from fakedev.devices.pci.nodes import Entry
from fakedev.devices.pci.state import BusState
from fakedev.model.flags import IORESOURCE_MEM, IORESOURCE_SIZEALIGN
from fakedev.model.ranges import PAGE_MASK, Range, page_round

CLASS, NUMBERS = "/sys/class/uio", "/sys/dev/char"
MAJOR = 243
VERSION = "0.01.0"
MAX_UIO_MAPS = 5


class UioMap(NamedTuple):
    """`struct uio_mem`: whole pages, of which the BAR begins `offset` bytes behind the start."""

    name: str
    offset: int
    span: Range


class End:
    """Something that ends once: `alive` until then. Safe to use from any thread."""

    __slots__ = ("_calls", "_lock", "alive")

    def __init__(self) -> None:
        self.alive = True
        self._lock = threading.Lock()
        self._calls: dict[object, Callable[[], None]] = {}

    def call(self, key: object, action: Callable[[], None]) -> None:
        """Call `action` when it ends, at once if it has; in the place of an earlier one with this key."""
        with self._lock:
            if self.alive:
                self._calls[key] = action
                return
        action()

    def forget(self, key: object) -> None:
        """Nobody waits with this key any more."""
        with self._lock:
            self._calls.pop(key, None)

    def come(self) -> None:
        """It ends now."""
        with self._lock:
            self.alive = False
            calls, self._calls = self._calls, {}
        for action in calls.values():
            action()


class UioDevice:
    """`struct uio_device`: there from the probe of its driver until that lets go, which is its `end`.

    `irq` 0: it has no interrupt. A file that is open keeps the driver's module (`driver.users`).
    """

    __slots__ = ("device", "driver", "end", "irq", "maps", "minor")

    def __init__(self, minor: int, device: PciDevice, driver: PciDriver) -> None:
        self.minor = minor
        self.device = device
        self.driver = driver
        self.irq = device.msi_irqs[0] if device.msi else device.irq
        self.maps = tuple(itertools.islice(_maps(device, driver), MAX_UIO_MAPS))
        self.end = End()

    def __repr__(self) -> str:
        return f"<UioDevice {self.name} {self.device.name}>"

    @property
    def name(self) -> str:
        """`uioN`."""
        return f"uio{self.minor}"

    @property
    def path(self) -> str:
        """Its directory in sysfs."""
        return f"{self.device.path}/uio/{self.name}"

    def entries(self) -> Iterator[Entry]:
        """Where it appears and vanishes."""
        for index in range(max(len(self.maps), 1)):
            yield "/dev", map_name(self.minor, index)
        yield CLASS, self.name
        yield NUMBERS, f"{MAJOR}:{self.minor}"
        yield self.device.path, "uio"


def map_name(minor: int, index: int) -> str:
    """The file below /dev that a map is mapped through; only that of the first is listed there."""
    return f"uio{minor}:{index}" if index else f"uio{minor}"


class Uio(BusState):
    """`uio_register_device` and `uio_unregister_device`, for whoever binds drivers."""

    def register_uio(self, device: PciDevice, driver: PciDriver) -> None:
        """A driver has taken a function: make its device, with the lowest free number."""
        if not driver.uio:
            return
        minor = next(number for number in itertools.count() if number not in self.uio)
        made = UioDevice(minor, device, driver)
        with self.host.lock:
            device.uio = made
            self.uio = {**self.uio, minor: made}
        self.tell(made.entries())

    def unregister_uio(self, device: PciDevice) -> None:
        """The driver lets go: names go, and what is open is dead. Mappings are not: nobody unmaps them."""
        gone = device.uio
        if gone is None:
            return
        with self.host.lock:
            device.uio = None
            self.uio = {minor: one for minor, one in self.uio.items() if one is not gone}
        gone.end.come()
        self.tell(gone.entries())


def _maps(device: PciDevice, driver: PciDriver) -> Iterator[UioMap]:
    """The memory BARs that a driver claims; those that uio_pci_generic takes, if it claims nothing."""
    claimed = driver.claimed_bars() or range(MAX_UIO_MAPS)
    for resource in (device.resources[index] for index in claimed):
        if resource.assigned and (resource.is_memory if driver.claims else _plain(resource)):
            offset = resource.start & PAGE_MASK
            yield UioMap(device.name, offset, page_round(resource.span))


def _plain(resource: PciResource) -> bool:
    """32 bits wide and not prefetchable: `probe` of uio_pci_generic compares all flags."""
    return resource.flags == IORESOURCE_SIZEALIGN | IORESOURCE_MEM
