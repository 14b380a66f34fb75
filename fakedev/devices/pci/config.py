"""Configuration space: bytes, and for each bit what a write does to it."""

from fakedev.devices.pci.errors import PciError

CONVENTIONAL = 256
EXTENDED = 4096


class ConfigSpace:
    """256 or 4096 bytes; a bit is read-only, read-write (`writable`) or write-1-to-clear (`clear`).

    `write` is a write over the bus, `set` and `put` are the hardware itself: they ignore the masks.
    """

    __slots__ = ("_boot", "clear", "data", "size", "writable")

    def __init__(self, size: int = CONVENTIONAL) -> None:
        if size not in (CONVENTIONAL, EXTENDED):
            raise PciError(f"a configuration space has 256 or 4096 bytes, not {size}")
        self.size = size
        self.data = bytearray(size)
        self.writable = bytearray(size)
        self.clear = bytearray(size)
        self._boot: bytes | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes that are there: fewer than `size` at the end."""
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write as the bus does: the masks say which bits follow. Bytes behind the end are lost."""
        end = min(offset + len(data), self.size)
        if offset >= end:
            return
        old = int.from_bytes(self.data[offset:end], "little")
        new = int.from_bytes(data[: end - offset], "little")
        clear = int.from_bytes(self.clear[offset:end], "little")
        keep = ~int.from_bytes(self.writable[offset:end], "little") | clear
        value = ((old & keep) | (new & ~keep)) & ~(new & clear)
        self.data[offset:end] = value.to_bytes(end - offset, "little")

    def set(self, offset: int, data: bytes) -> None:
        """Change bytes whatever the masks say. PciError when they do not fit."""
        self._check(offset, len(data))
        self.data[offset : offset + len(data)] = data

    def get(self, offset: int, width: int) -> int:
        """Return a little-endian number of `width` bytes."""
        return int.from_bytes(self.data[offset : offset + width], "little")

    def put(self, offset: int, width: int, value: int) -> None:
        """Set a little-endian number whatever the masks say; it is cut to `width` bytes."""
        self._check(offset, width)
        self.data[offset : offset + width] = _number(width, value)

    def declare(self, offset: int, width: int, *, writable: int = 0, clear: int = 0) -> None:
        """Say what the bits of a register do; those of neither mask are read-only from now on."""
        self._check(offset, width)
        self.writable[offset : offset + width] = _number(width, writable & ~clear)
        self.clear[offset : offset + width] = _number(width, clear)

    def freeze(self) -> None:
        """Remember the bytes: `reset` comes back here."""
        self._boot = bytes(self.data)

    def reset(self) -> None:
        """Go back to the bytes of `freeze`; without one they stay."""
        if self._boot is not None:
            self.data[:] = self._boot

    def boot(self, offset: int, size: int) -> bytes:
        """Return bytes as they were at `freeze`."""
        return bytes((self._boot or self.data)[offset : offset + size])

    def scratch(self) -> "ConfigSpace":
        """Return a copy to try a write on; the masks are shared."""
        copy = ConfigSpace.__new__(ConfigSpace)
        copy.size, copy.writable, copy.clear = self.size, self.writable, self.clear
        copy.data, copy._boot = bytearray(self.data), self._boot  # noqa: SLF001  # one of us
        return copy

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or offset + size > self.size:
            raise PciError(f"{size} bytes at {offset:#x} leave the {self.size} bytes of the space")


def _number(width: int, value: int) -> bytes:
    return (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
