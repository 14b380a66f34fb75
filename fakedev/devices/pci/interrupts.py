"""Message signalled interrupts: which numbers a function gets, and the bits that say so."""

from heapq import heappop, heappush
from typing import Any, Literal

from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.driver import PciDriver
from fakedev.devices.pci.state import BusState

CAP_MSI, CAP_MSIX = 0x05, 0x11
_CONTROL = 2
_MSI_ENABLE, _MSI_COUNT = 0x1, 0x70
_MSIX_ENABLE, _MSIX_SIZE = 0x8000, 0x7FF
_INTX_OFF = 0x400


class Interrupts(BusState):
    """`pci_alloc_irq_vectors` and its opposite. The lowest free numbers go first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._used: set[int] = set()
        self._freed: list[int] = []
        self._next = 0

    def enable_msi(self, device: PciDevice, driver: PciDriver) -> None:
        """Turn on what the driver asks for; MSI-X falls back to MSI, and that to the pin."""
        kind, count = self._offer(device, driver)
        if not kind:
            return
        self._number(device, kind, count)
        at = device.function.capability(CAP_MSIX if kind == "msix" else CAP_MSI)
        if at is not None:
            control = device.function.config.get(at + _CONTROL, 2)
            if kind == "msix":
                control |= _MSIX_ENABLE
            else:
                control = control & ~_MSI_COUNT | (count.bit_length() - 1) << 4 | _MSI_ENABLE
            self.kernel_write(device, at + _CONTROL, control, 2)
        self.command(device, on=_INTX_OFF)

    def disable_msi(self, device: PciDevice) -> None:
        """Turn it off, and the pin on."""
        if not device.msi:
            return
        msix = device.msi == "msix"
        at = device.function.capability(CAP_MSIX if msix else CAP_MSI)
        if at is not None:
            control = device.function.config.get(at + _CONTROL, 2)
            off = _MSIX_ENABLE if msix else _MSI_ENABLE
            self.kernel_write(device, at + _CONTROL, control & ~off, 2)
        self._free(device)
        self.command(device, off=_INTX_OFF)

    def number_msi(self, device: PciDevice, driver: PciDriver) -> None:
        """Only the numbers: the bits are those of the firmware's or profile's making."""
        kind, count = self._offer(device, driver)
        if kind:
            self._number(device, kind, len(device.facts.msi_irqs) or count)

    def _offer(
        self, device: PciDevice, driver: PciDriver
    ) -> tuple[Literal["", "msi", "msix"], int]:
        """What there is of what the driver wants, and how many vectors."""
        function = device.function
        if not (driver.msi and device.msi_bus):
            return "", 0
        msix, msi = function.capability(CAP_MSIX), function.capability(CAP_MSI)
        if driver.msi == "msix" and msix is not None:
            size = function.config.get(msix + _CONTROL, 2) & _MSIX_SIZE
            return "msix", max(1, min(driver.vectors, size + 1))
        if msi is None:
            return "", 0
        most = 1 << (function.config.get(msi + _CONTROL, 2) >> 1 & 7)
        return "msi", 1 << max(min(driver.vectors, most), 1).bit_length() - 1

    def _number(self, device: PciDevice, kind: Literal["msi", "msix"], count: int) -> None:
        numbers = [at for at in device.facts.msi_irqs if at not in self._used][:count]
        if numbers:
            self._freed = sorted(set(self._freed).difference(numbers))  # a heap still
        while len(numbers) < count:
            number = heappop(self._freed) if self._freed else self._fresh()
            if number not in self._used:
                numbers.append(number)
        self._used.update(numbers)
        device.msi, device.msi_irqs = kind, numbers

    def _fresh(self) -> int:
        self._next = max(self._next, self.settings.first_msi) + 1
        return self._next - 1

    def _free(self, device: PciDevice) -> None:
        for number in device.msi_irqs:
            self._used.discard(number)
            heappush(self._freed, number)
        device.msi, device.msi_irqs = "", []
