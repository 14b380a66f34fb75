"""What a capability is: its bytes, and what a write to each of its bits does."""

from dataclasses import dataclass

from fakedev.devices.pci.errors import PciError

STANDARD_HEADER, EXTENDED_HEADER = 2, 4


@dataclass(frozen=True, slots=True)
class Capability:
    """One member of a chain, its header included; `at` is its offset when it has to be there.

    `data`, `writable` and `clear` have the same length. The chain fills in the pointers.
    """

    name: str
    number: int
    data: bytes
    writable: bytes
    clear: bytes
    extended: bool = False
    version: int = 1
    at: int | None = None


class Body:
    """The registers of one capability while it is made; offsets count from its header.

    PciError for a value that is too large for its register, with the names of both.
    """

    def __init__(self, name: str, number: int, length: int, *, version: int | None = None) -> None:
        self._name, self._number, self._version = name, number, version
        _check(f"{name}: id", number, 1 if version is None else 2)
        if not 0 <= (version or 0) <= 0xF:
            raise PciError(f"{name}: a version has 4 bits, not {version:#x}")
        self._data = bytearray(length)
        self._writable = bytearray(length)
        self._clear = bytearray(length)

    def put(
        self, at: int, width: int, value: int, what: str = "", *, writable: int = 0, clear: int = 0
    ) -> None:
        """Add a register of `width` bytes; bits of `writable` and `clear` follow writes."""
        _check(f"{self._name}: {what or hex(at)}", value, width)
        self._data[at : at + width] = value.to_bytes(width, "little")
        mask = (1 << 8 * width) - 1
        self._writable[at : at + width] = (writable & ~clear & mask).to_bytes(width, "little")
        self._clear[at : at + width] = (clear & mask).to_bytes(width, "little")

    def bytes(self, at: int, data: bytes) -> None:
        """Add read-only bytes."""
        self._data[at : at + len(data)] = data

    def done(self) -> Capability:
        """Return the capability."""
        return Capability(
            name=self._name,
            number=self._number,
            data=bytes(self._data),
            writable=bytes(self._writable),
            clear=bytes(self._clear),
            extended=self._version is not None,
            version=self._version or 0,
        )


def hex_bytes(name: str, given: str | bytes) -> bytes:
    """Read hexadecimal digits, with spaces and colons as people put them. Raises PciError."""
    if isinstance(given, bytes):
        return given
    try:
        return bytes.fromhex(given.replace(":", " ").replace("-", " "))
    except ValueError:
        raise PciError(f"{name}: not hexadecimal bytes: {given!r}") from None


def _check(what: str, value: int, width: int) -> None:
    if not 0 <= value < 1 << 8 * width:
        raise PciError(f"{what}: {value:#x} does not fit in {width} byte{'s' * (width > 1)}")
