"""One function as its files see it: its capabilities, found once, and reads of its configuration."""

from collections.abc import Iterator

from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.device import PciDevice
from fakedev.views.pci.site import Site

PM, VPD, EXPRESS = 0x01, 0x03, 0x10
AER, SRIOV, L1SS = 0x0001, 0x0010, 0x001E
_EXTENDED = 0x100
_EXTENDED_LIMIT = (4096 - 256) // 8


class Subject:
    """A function, and where its capabilities are (0: it has none of that kind).

    `resettable` is fixed when the function is found: an emptied `reset_method` hides no file.
    """

    __slots__ = (
        "aer", "bus", "device", "express", "l1ss", "machine", "pm", "resettable", "site", "sriov",
        "vpd",
    )  # fmt: skip

    def __init__(self, site: Site, device: PciDevice) -> None:
        self.site = site
        self.machine = site.machine
        self.bus = site.bus
        self.device = device
        config = device.function.config
        extended = dict(_extended(config))
        self.pm = device.function.capability(PM) or 0
        self.vpd = device.function.capability(VPD) or 0
        self.express = device.function.capability(EXPRESS) or 0
        self.aer = extended.get(AER, 0)
        self.sriov = extended.get(SRIOV, 0)
        self.l1ss = extended.get(L1SS, 0)
        self.resettable = bool(device.function.reset_methods)

    def alive(self) -> bool:
        """Whether the function has not been removed."""
        return not self.device.gone

    def get(self, offset: int, width: int) -> int:
        """A register over the bus: all-ones when the function does not answer."""
        with self.machine.lock:
            data = self.bus.fabric.config_read(self.device.bdf, offset, width)
        return int.from_bytes(data, "little")

    @property
    def version(self) -> int:
        """Version of the PCIe capability."""
        return self.device.function.config.get(self.express + 2, 1) & 0xF


def _extended(config: ConfigSpace) -> Iterator[tuple[int, int]]:
    """Pairs of id and offset, the last of each kind first (so that a dict keeps the first)."""
    if config.size <= _EXTENDED or not config.get(_EXTENDED, 4):
        return
    found: list[tuple[int, int]] = []
    at = _EXTENDED
    while at >= _EXTENDED and len(found) < _EXTENDED_LIMIT:
        head = config.get(at, 4)
        found.append((head & 0xFFFF, at))
        at = head >> 20 & 0xFFC
    yield from reversed(found)
