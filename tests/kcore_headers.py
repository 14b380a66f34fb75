"""The program headers of a kcore, as a reader finds them."""

import struct

from pci_tree import read

from fakedev.views.kcore import Kcore

Header = tuple[int, ...]


def headers(data: bytes) -> list[Header]:
    """The program headers: type, flags, and the six numbers."""
    start, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    assert (start, size) == (64, 56)
    return [struct.unpack_from("<IIQQQQQQ", data, start + n * size) for n in range(count)]


def text_or_ram(node: Kcore, paddr: int) -> int:
    return next(h[2] for h in headers(read(node)) if h[4] == paddr)
