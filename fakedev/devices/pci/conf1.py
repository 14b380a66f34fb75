"""Configuration mechanism 1: an address at port 0xcf8, the data at 0xcfc."""

from typing import TYPE_CHECKING

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.fabric import Fabric

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PORT = 0xCF8
SIZE = 8
_DATA = 4
_ENABLE = 1 << 31
# reserved bits and the two lowest read as zeros
_LATCHED = 0x80FFFFFC


class Conf1:
    """Target of eight ports: the address register, four bytes wide only, and the window behind it.

    Accesses of a byte or a word to the address register do not reach it (other chips have ports
    there): they read ones, and writes are lost. Without the enable bit the data reads ones.
    """

    __slots__ = ("_address", "_fabric")

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._address = 0

    def buffers(self, address: int, size: int) -> list[memoryview]:
        """Read ports."""
        found = bytearray(b"\xff" * size)
        if address == 0 and size >= _DATA:
            found[:_DATA] = self._address.to_bytes(_DATA, "little")
        first = max(address, _DATA)
        if first < address + size and self._address & _ENABLE:
            bdf, register = self._target()
            data = self._fabric.config_read(bdf, register + first - _DATA, address + size - first)
            found[first - address :] = data
        return [memoryview(bytes(found))]

    def write(self, address: int, data: "ReadableBuffer") -> None:
        """Write ports."""
        given = bytes(memoryview(data).cast("B"))
        if address == 0 and len(given) >= _DATA:
            self._address = int.from_bytes(given[:_DATA], "little") & _LATCHED
        first = max(address, _DATA)
        rest = given[first - address :]
        if rest and self._address & _ENABLE:
            bdf, register = self._target()
            self._fabric.config_write(bdf, register + first - _DATA, rest)

    def reset(self) -> None:
        """Forget the address."""
        self._address = 0

    @property
    def selected(self) -> Bdf | None:
        """The function whose registers the data is; None without the enable bit."""
        return self._target()[0] if self._address & _ENABLE else None

    def _target(self) -> tuple[Bdf, int]:
        bdf = Bdf.of(0, self._address >> 16 & 0xFF, self._address >> 8 & 0xFF)
        return bdf, self._address & 0xFC
