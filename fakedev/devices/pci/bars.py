"""Base address registers: what they ask for, and what stands behind them."""

from dataclasses import dataclass, field
from typing import Literal

from fakedev.devices.pci import header
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.errors import PciError
from fakedev.model.segment import human_size
from fakedev.model.window import Target

ROM_INDEX = 6
# IORESOURCE_*: the low four bits are those of the register
_IO, _MEM, _PREFETCH, _READONLY = 0x100, 0x200, 0x2000, 0x4000
_SIZEALIGN, _MEM_64 = 0x40000, 0x100000
_SMALLEST = {"io": 4, "mem": 16}
_SMALLEST_ROM = 2048


@dataclass(frozen=True, slots=True)
class Bar:
    """A BAR, or with index 6 the expansion ROM: `size` bytes of `target` at a place software picks.

    `bridge` says that the header is one of type 1 (the ROM register lies elsewhere there). PciError
    for a size that is no power of two or too small, an index that is none, a 64-bit BAR without
    room for its upper half.
    """

    index: int
    kind: Literal["io", "mem"]
    size: int
    target: Target = field(repr=False, compare=False)
    width: Literal[32, 64] = 32
    prefetch: bool = False
    bridge: bool = False

    def __post_init__(self) -> None:
        last = 1 if self.bridge else 5
        name = self.name
        if self.index != ROM_INDEX and not 0 <= self.index <= last:
            raise PciError(f"BAR {self.index}: this header has BARs 0 to {last}")
        smallest = _SMALLEST_ROM if self.index == ROM_INDEX else _SMALLEST[self.kind]
        if self.size < smallest or self.size & (self.size - 1):
            raise PciError(
                f"{name}: {human_size(self.size)} is no power of two from {smallest} bytes on"
            )
        if self.kind == "io" and (self.width != 32 or self.prefetch or self.index == ROM_INDEX):
            raise PciError(f"{name}: I/O is 32 bits wide, not prefetchable and no ROM")
        if self.width == 64 and self.index >= last:
            raise PciError(f"{name}: a 64-bit BAR needs the register behind it")
        if self.size > 1 << (63 if self.width == 64 else 16 if self.kind == "io" else 31):
            raise PciError(f"{name}: {human_size(self.size)} is more than the register can ask for")

    @property
    def name(self) -> str:
        """`BAR 0`, or `ROM`."""
        return "ROM" if self.index == ROM_INDEX else f"BAR {self.index}"

    @property
    def register(self) -> int:
        """Offset of the register in configuration space."""
        if self.index == ROM_INDEX:
            return header.BRIDGE_ROM if self.bridge else header.ROM
        return header.BARS + 4 * self.index

    @property
    def register_size(self) -> int:
        """4 or 8 bytes."""
        return self.width // 8

    @property
    def low_bits(self) -> int:
        """The read-only bits of the register: I/O, 64 bits, prefetchable."""
        if self.kind == "io":
            return 1
        if self.index == ROM_INDEX:
            return 0
        return (4 if self.width == 64 else 0) | (8 if self.prefetch else 0)

    @property
    def flags(self) -> int:
        """IORESOURCE_* as `resource` in sysfs shows them (pci_read_bases)."""
        if self.index == ROM_INDEX:
            return _SIZEALIGN | _MEM | _PREFETCH | _READONLY
        flags = _SIZEALIGN | self.low_bits | (_IO if self.kind == "io" else _MEM)
        return flags | (_PREFETCH if self.prefetch else 0) | (_MEM_64 if self.width == 64 else 0)

    def install(self, config: ConfigSpace) -> None:
        """Set the masks and the read-only bits; the address bits keep what is there.

        Writing ones then reads back the size: the address bits below it are read-only zeros.
        """
        bits = 8 * self.register_size
        mask = (1 << bits) - self.size
        enable = 1 if self.index == ROM_INDEX else 0
        config.declare(self.register, self.register_size, writable=mask | enable)
        value = config.get(self.register, self.register_size)
        config.put(self.register, self.register_size, value & (mask | enable) | self.low_bits)

    def place(self, config: ConfigSpace, address: int) -> None:
        """Program the address. PciError when it is not aligned or does not fit the register."""
        if address % self.size:
            raise PciError(f"{self.name}: {address:#x} is not aligned to {human_size(self.size)}")
        if address + self.size > 1 << self.width:
            raise PciError(f"{self.name}: {address:#x} does not fit in {self.width} bits")
        enable = config.get(self.register, 1) & 1 if self.index == ROM_INDEX else 0
        config.put(self.register, self.register_size, address | self.low_bits | enable)

    def address(self, data: bytes | bytearray) -> int:
        """Return the address in the register, whether it is decoded or not."""
        value = int.from_bytes(data[self.register : self.register + self.register_size], "little")
        return value & -self.size

    def decoded(self, data: bytes | bytearray) -> int | None:
        """Return where the BAR answers with this configuration; None where it does not.

        The enable bits count (COMMAND, and that of the ROM). A BAR at 0 or at the end of its
        space, as during sizing, answers nowhere.
        """
        enable = header.COMMAND_IO if self.kind == "io" else header.COMMAND_MEMORY
        if not data[header.COMMAND] & enable:
            return None
        if self.index == ROM_INDEX and not data[self.register] & 1:
            return None
        address = self.address(data)
        top = 1 << (16 if self.kind == "io" else self.width)
        return address if address and address + self.size < top else None
