"""The address of a function: domain, bus, device, function."""

import re
from typing import NamedTuple

from fakedev.devices.pci.errors import PciError

_FORM = re.compile(
    r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE | re.ASCII
)
_DEVICES = 32


class Bdf(NamedTuple):
    """Where a function sits; sorts as `lspci` lists and prints as sysfs names it."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> "Bdf":
        """Read `00:1f.2` or `0000:00:1f.2`, hexadecimal. Raises PciError for anything else."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise PciError(
                f"not the address of a PCI function: {text!r}; write 00:1f.2 or 0000:00:1f.2"
            )
        domain, bus, device, function = (int(part or "0", 16) for part in match.groups())
        if device >= _DEVICES:
            raise PciError(f"{text.strip()}: device {device:#x} is beyond 1f")
        return cls(domain, bus, device, function)

    @classmethod
    def of(cls, domain: int, bus: int, devfn: int) -> "Bdf":
        """Take device and function from one byte, as the kernel keeps them (PCI_SLOT, PCI_FUNC)."""
        return cls(domain, bus, devfn >> 3, devfn & 7)

    @property
    def devfn(self) -> int:
        """Device and function in one byte (PCI_DEVFN)."""
        return self.device << 3 | self.function

    @property
    def slot_name(self) -> str:
        """`0000:00:1f`: the address without the function, as slots show it."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}"

    @property
    def ecam(self) -> int:
        """Offset of the function's 4 KiB in the ECAM window of its domain."""
        return self.bus << 20 | self.devfn << 12

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function:x}"
