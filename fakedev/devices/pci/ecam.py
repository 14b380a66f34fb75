"""ECAM: the configuration spaces of a domain as memory (MCFG, PCI MMCONFIG)."""

from typing import TYPE_CHECKING

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.config import EXTENDED
from fakedev.devices.pci.fabric import Fabric
from fakedev.model.window import all_ones

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SHIFT = 12
_LAST = (1 << 28) - 1


class Ecam:
    """Target: 4 KiB a function, at bus << 20 | device << 15 | function << 12.

    Absent functions read all-ones, and so does what is behind the 256 bytes of a conventional function,
    where no register answers; `padding` is that byte.
    A window that starts at another bus than 0 is mapped with the offset of that bus.
    """

    __slots__ = ("_domain", "_fabric", "_padding")

    def __init__(self, fabric: Fabric, *, domain: int = 0, padding: int = 0xFF) -> None:
        self._fabric = fabric
        self._domain = domain
        self._padding = memoryview(bytes([padding]) * EXTENDED)

    def buffers(self, address: int, size: int) -> list[memoryview]:
        """Return views of the configuration spaces, and constant blocks where there is none."""
        end = address + size
        found: list[memoryview] = []
        ones = address  # where the run of all-ones began that `low` is in
        low = address
        while low < end:
            high = min((low | EXTENDED - 1) + 1, end)
            function = self._fabric.at(self._bdf(low))
            if function is not None:
                found += all_ones(low - ones)
                found += self._views(function.config.data, low % EXTENDED, high - low)
                ones = high
            low = high
        return found + all_ones(end - ones)

    def write(self, address: int, data: "ReadableBuffer") -> None:
        """Write to configuration spaces, cut into aligned pieces of at most 4 bytes."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            at = address + done
            size = min(EXTENDED - at % EXTENDED, len(view) - done)
            piece = bytes(view[done : done + size])
            self._fabric.config_write(self._bdf(at), at % EXTENDED, piece)
            done += size

    def extents(self, low: int, high: int) -> list[tuple[int, int]]:
        """Everything may hold something: absent functions are not zero."""
        return [(low, high)]

    def _bdf(self, address: int) -> Bdf:
        return Bdf.of(self._domain, address >> 20, address >> _SHIFT & 0xFF)

    def _views(self, data: bytearray, offset: int, size: int) -> list[memoryview]:
        there = memoryview(data).toreadonly()[offset : offset + size]
        missing = size - len(there)
        views = [there] if len(there) else []
        return [*views, self._padding[:missing]] if missing else views
