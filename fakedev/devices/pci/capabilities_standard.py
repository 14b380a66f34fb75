"""Standard capabilities other than PCI Express: each class is a name's options, `build` makes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fakedev.devices.pci.capability import Body, Capability, hex_bytes
from fakedev.devices.pci.errors import PciError

_MSI_VECTORS = (1, 2, 4, 8, 16, 32)
_MSI_WIDE, _MSI_MASKING, _MSI_ENABLE = 0x0080, 0x0100, 0x0001
_MSIX_ENABLE, _MSIX_MASKED, _MSIX_LARGEST = 0x8000, 0x4000, 2048
_HT_MAPPING = 0xA800


@dataclass(frozen=True)
class Pm:
    """Power management: the registers PMC and PMCSR."""

    capabilities: int = 0x0003
    control: int = 0x0008

    def build(self) -> Capability:
        """8 bytes; power state and PME enable follow writes, PME status is cleared by a one."""
        body = Body("pm", 0x01, 8)
        body.put(2, 2, self.capabilities, "capabilities")
        body.put(4, 2, self.control, "control", writable=0x1F03 | 0x0100, clear=0x8000)
        return body.done()


@dataclass(frozen=True)
class Msi:
    """Message signalled interrupts. `control` is the whole register and beats the other options."""

    vectors: int = 1
    wide: bool = True
    masking: bool = False
    enabled: bool = False
    control: int | None = None
    address: int = 0
    data: int = 0

    def build(self) -> Capability:
        """10 to 24 bytes, as the control register says."""
        control = self._control() if self.control is None else self.control
        wide, masking = bool(control & _MSI_WIDE), bool(control & _MSI_MASKING)
        at = 0x0C if wide else 0x08
        body = Body("msi", 0x05, at + (12 if masking else 2))
        body.put(2, 2, control, "control", writable=0x0071)
        size = 8 if wide else 4
        body.put(4, size, self.address, "address", writable=(1 << 8 * size) - 4)
        body.put(at, 2, self.data, "data", writable=0xFFFF)
        if masking:
            body.put(at + 4, 4, 0, writable=(1 << (1 << (control >> 1 & 7))) - 1)
        return body.done()

    def _control(self) -> int:
        if self.vectors not in _MSI_VECTORS:
            raise PciError(f"msi: vectors are 1, 2, 4, 8, 16 or 32, not {self.vectors}")
        return (
            _MSI_VECTORS.index(self.vectors) << 1
            | (_MSI_WIDE if self.wide else 0)
            | (_MSI_MASKING if self.masking else 0)
            | (_MSI_ENABLE if self.enabled else 0)
        )


@dataclass(frozen=True)
class Msix:
    """MSI-X: `vectors` entries; `table` and `pba` are pairs of a BAR and an offset in it."""

    vectors: int = 1
    table: Sequence[int] = (0, 0)
    pba: Sequence[int] = (0, 0x800)
    enabled: bool = False
    masked: bool = False
    control: int | None = None

    def build(self) -> Capability:
        """12 bytes; enable and function mask follow writes."""
        if not 1 <= self.vectors <= _MSIX_LARGEST:
            raise PciError(f"msix: vectors are 1 to {_MSIX_LARGEST}, not {self.vectors}")
        control = self.vectors - 1
        control |= (_MSIX_ENABLE if self.enabled else 0) | (_MSIX_MASKED if self.masked else 0)
        body = Body("msix", 0x11, 12)
        chosen = control if self.control is None else self.control
        body.put(2, 2, chosen, "control", writable=_MSIX_ENABLE | _MSIX_MASKED)
        body.put(4, 4, _place("table", self.table), "table")
        body.put(8, 4, _place("pba", self.pba), "pba")
        return body.done()


def _place(what: str, place: Sequence[int]) -> int:
    if len(place) != 2:
        raise PciError(f"msix: {what} is a BAR and an offset: [0, 0x2000]")
    bar, offset = place
    if not 0 <= bar <= 5 or offset % 8:
        raise PciError(
            f"msix: {what}: BAR {bar}, {offset:#x}: the BAR is 0 to 5, the offset aligned to 8"
        )
    return offset | bar


@dataclass(frozen=True)
class Vendor:
    """Vendor specific: `hex` follows the length byte."""

    hex: str | bytes = b""

    def build(self) -> Capability:
        """3 bytes of header, then the body."""
        data = hex_bytes("vendor", self.hex)
        body = Body("vendor", 0x09, 3 + len(data))
        body.put(2, 1, 3 + len(data), "length")
        body.bytes(3, data)
        return body.done()


@dataclass(frozen=True)
class Ssvid:
    """Subsystem of a bridge: `1af4:1100`."""

    subsystem: str = "0000:0000"

    def build(self) -> Capability:
        """8 bytes."""
        vendor, _, device = self.subsystem.partition(":")
        body = Body("ssvid", 0x0D, 8)
        try:
            body.put(4, 2, int(vendor, 16), "vendor")
            body.put(6, 2, int(device, 16), "device")
        except ValueError:
            raise PciError(f"ssvid: not vendor:device in hex: {self.subsystem!r}") from None
        return body.done()


@dataclass(frozen=True)
class Ht:
    """HyperTransport: an MSI mapping, or any other block with its bytes in `hex`."""

    hex: str | bytes = b""
    enabled: bool = True
    fixed: bool = True

    def build(self) -> Capability:
        """4 bytes for a mapping; the header and `hex` for another."""
        data = hex_bytes("ht", self.hex)
        body = Body("ht", 0x08, 2 + (len(data) or 2))
        if data:
            body.bytes(2, data)
        else:
            command = _HT_MAPPING | (1 if self.enabled else 0) | (2 if self.fixed else 0)
            body.put(2, 2, command, writable=1)
        return body.done()


@dataclass(frozen=True)
class Af:
    """Advanced features of a conventional function: function level reset."""

    flr: bool = True

    def build(self) -> Capability:
        """6 bytes."""
        body = Body("af", 0x13, 6)
        body.put(2, 1, 6, "length")
        body.put(3, 1, 3 if self.flr else 0)
        return body.done()


@dataclass(frozen=True)
class Raw:
    """Any standard capability: `hex` follows the pointer to the next one."""

    id: int = 0
    hex: str | bytes = b""

    def build(self) -> Capability:
        """2 bytes of header, then the body, read-only."""
        data = hex_bytes("raw", self.hex)
        body = Body("raw", self.id, 2 + len(data))
        body.bytes(2, data)
        return body.done()
