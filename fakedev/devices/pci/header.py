"""The first 64 bytes of a configuration space: names of registers, values, and their masks."""

from collections.abc import Iterator
from typing import NamedTuple

from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.errors import PciError

SIZE = 64
VENDOR, DEVICE, COMMAND, STATUS, REVISION, CLASS = 0x00, 0x02, 0x04, 0x06, 0x08, 0x09
CACHE_LINE, LATENCY, HEADER_TYPE, BIST, BARS = 0x0C, 0x0D, 0x0E, 0x0F, 0x10
SUBSYSTEM, ROM, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = 0x2C, 0x30, 0x34, 0x3C, 0x3D
PRIMARY, SECONDARY, SUBORDINATE = 0x18, 0x19, 0x1A
IO_BASE, SECONDARY_STATUS, MEMORY_BASE, PREFETCH_BASE = 0x1C, 0x1E, 0x20, 0x24
PREFETCH_UPPER, IO_UPPER, BRIDGE_ROM, BRIDGE_CONTROL = 0x28, 0x30, 0x38, 0x3E

COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER = 0x1, 0x2, 0x4
STATUS_CAPABILITIES = 0x10

# I/O, memory, master, write-invalidate, parity, SERR, INTx off
_COMMAND_BITS = 0x0557
_STATUS_ERRORS = 0xF900
# parity, SERR, ISA, VGA, VGA 16 bit, master abort, secondary reset, discard timers
_BRIDGE_CONTROL_BITS = 0x0F7F
_SUBTRACTIVE = 0x060401


class Identity(NamedTuple):
    """What a function says it is: numbers of vendor, device, 24-bit class, revision, subsystem."""

    vendor: int
    device: int
    class_: int
    revision: int = 0
    subsystem: tuple[int, int] = (0, 0)


class Span(NamedTuple):
    """Addresses that a bridge forwards, `end` inclusive as its registers have it."""

    start: int
    end: int


class Bridge(NamedTuple):
    """Bus numbers and windows of a bridge; a window that is None is closed."""

    primary: int
    secondary: int
    subordinate: int
    io: Span | None = None
    memory: Span | None = None
    prefetch: Span | None = None


def write_identity(config: ConfigSpace, identity: Identity) -> None:
    """Set vendor, device, class and revision, and the subsystem of a header of type 0.

    The header type must be set before. PciError for a number that is too large.
    """
    for what, value, bits in (
        ("vendor", identity.vendor, 16),
        ("device", identity.device, 16),
        ("class", identity.class_, 24),
        ("revision", identity.revision, 8),
        ("subsystem vendor", identity.subsystem[0], 16),
        ("subsystem device", identity.subsystem[1], 16),
    ):
        if not 0 <= value < 1 << bits:
            raise PciError(f"{what} {value:#x} has more than {bits} bits")
    config.put(VENDOR, 2, identity.vendor)
    config.put(DEVICE, 2, identity.device)
    config.put(REVISION, 1, identity.revision)
    config.put(CLASS, 3, identity.class_)
    if header_type(config) == 0:
        config.put(SUBSYSTEM, 2, identity.subsystem[0])
        config.put(SUBSYSTEM + 2, 2, identity.subsystem[1])


def header_type(config: ConfigSpace) -> int:
    """0 for a device, 1 for a bridge; without the multi-function bit."""
    return config.data[HEADER_TYPE] & 0x7F


def declare_header(config: ConfigSpace) -> None:
    """Set the masks of the header for its type; those of BARs are `Bar.install`'s."""
    config.declare(COMMAND, 2, writable=_COMMAND_BITS)
    config.declare(STATUS, 2, clear=_STATUS_ERRORS)
    config.declare(CACHE_LINE, 1, writable=0xFF)
    config.declare(INTERRUPT_LINE, 1, writable=0xFF)
    if header_type(config) == 1:
        _declare_bridge(config)


def _declare_bridge(config: ConfigSpace) -> None:
    config.declare(PRIMARY, 3, writable=0xFFFFFF)
    config.declare(IO_BASE, 2, writable=0xF0F0)
    config.declare(SECONDARY_STATUS, 2, clear=_STATUS_ERRORS)
    config.declare(MEMORY_BASE, 4, writable=0xFFF0FFF0)
    config.declare(PREFETCH_BASE, 4, writable=0xFFF0FFF0)
    wide = config.data[PREFETCH_BASE] & 0xF == 1
    config.declare(PREFETCH_UPPER, 8, writable=(1 << 64) - 1 if wide else 0)
    wide = config.data[IO_BASE] & 0xF == 1
    config.declare(IO_UPPER, 4, writable=0xFFFFFFFF if wide else 0)
    config.declare(BRIDGE_CONTROL, 2, writable=_BRIDGE_CONTROL_BITS)


def write_bridge(config: ConfigSpace, bridge: Bridge) -> None:
    """Make the header one of type 1. A closed window has its base above its limit.

    PciError for a window that the registers cannot hold: memory comes in MiB below 4 GiB, I/O in
    4 KiB below 64 KiB.
    """
    config.data[HEADER_TYPE] = config.data[HEADER_TYPE] & 0x80 | 1
    numbers = (bridge.primary, bridge.secondary, bridge.subordinate)
    for at, number in zip((PRIMARY, SECONDARY, SUBORDINATE), numbers, strict=True):
        if not 0 <= number <= 0xFF:
            raise PciError(f"bus number {number:#x} is beyond ff")
        config.put(at, 1, number)
    set_io_window(config, bridge.io)
    set_memory_window(config, bridge.memory)
    set_prefetch_window(config, bridge.prefetch)


def set_io_window(config: ConfigSpace, window: Span | None) -> None:
    """Program I/O base and limit below 64 KiB."""
    start, end = _checked("I/O", window or Span(0xF000, 0x0FFF), 12, 16, closed=window is None)
    kind = config.data[IO_BASE] & 0xF
    config.put(IO_BASE, 2, start >> 8 & 0xF0 | end & 0xF000 | kind | kind << 8)
    if kind == 1:
        config.put(IO_UPPER, 4, 0)


def set_memory_window(config: ConfigSpace, window: Span | None) -> None:
    """Program memory base and limit."""
    closed = Span(0xFFF00000, 0x000FFFFF)
    start, end = _checked("memory", window or closed, 20, 32, closed=window is None)
    config.put(MEMORY_BASE, 2, start >> 16 & 0xFFF0)
    config.put(MEMORY_BASE + 2, 2, end >> 16 & 0xFFF0)


def set_prefetch_window(config: ConfigSpace, window: Span | None) -> None:
    """Program prefetchable base and limit, 64 bits wide."""
    closed = Span(0xFFF00000, 0x000FFFFF)
    start, end = _checked("prefetchable", window or closed, 20, 64, closed=window is None)
    config.put(PREFETCH_BASE, 2, start >> 16 & 0xFFF0 | 1)
    config.put(PREFETCH_BASE + 2, 2, end >> 16 & 0xFFF0 | 1)
    config.put(PREFETCH_UPPER, 4, start >> 32)
    config.put(PREFETCH_UPPER + 4, 4, end >> 32)


def _checked(what: str, window: Span, shift: int, bits: int, *, closed: bool) -> Span:
    unit = 1 << shift
    if closed:
        return window
    if window.end < window.start:
        raise PciError(
            f"{what} window {window.start:x}-{window.end:x}: the end is before the start"
        )
    if window.start % unit or (window.end + 1) % unit:
        raise PciError(
            f"{what} window {window.start:x}-{window.end:x} is not made of {unit:#x} bytes"
        )
    if window.end >> bits:
        raise PciError(f"{what} window {window.start:x}-{window.end:x} leaves its {bits} bits")
    return window


def bridge_windows(data: bytes | bytearray) -> tuple[Span | None, Span | None, Span | None]:
    """Read the I/O, memory and prefetchable window out of a header of type 1; None is closed."""
    io_start, io_end = (data[IO_BASE] & 0xF0) << 8, (data[IO_BASE + 1] & 0xF0) << 8 | 0xFFF
    if data[IO_BASE] & 0xF == 1:
        io_start |= _u16(data, IO_UPPER) << 16
        io_end |= _u16(data, IO_UPPER + 2) << 16
    start, end = _u16(data, PREFETCH_BASE) & 0xFFF0, _u16(data, PREFETCH_BASE + 2) & 0xFFF0
    start, end = start << 16, end << 16 | 0xFFFFF
    if data[PREFETCH_BASE] & 0xF == 1:
        start |= int.from_bytes(data[PREFETCH_UPPER : PREFETCH_UPPER + 4], "little") << 32
        end |= int.from_bytes(data[PREFETCH_UPPER + 4 : PREFETCH_UPPER + 8], "little") << 32
    low = (_u16(data, MEMORY_BASE) & 0xFFF0) << 16
    high = (_u16(data, MEMORY_BASE + 2) & 0xFFF0) << 16 | 0xFFFFF
    return _open(io_start, io_end), _open(low, high), _open(start, end)


def forwards(data: bytes | bytearray, kind: str, start: int, size: int) -> bool:
    """True where a bridge with this header passes the whole span on to its secondary bus."""
    if not data[COMMAND] & (COMMAND_IO if kind == "io" else COMMAND_MEMORY):
        return False
    if int.from_bytes(data[CLASS : CLASS + 3], "little") == _SUBTRACTIVE:
        return True
    io, memory, prefetch = bridge_windows(data)
    spans = (io,) if kind == "io" else (memory, prefetch)
    return any(s is not None and s.start <= start and start + size - 1 <= s.end for s in spans)


def walk(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield number and offset of each standard capability, in the order of the list."""
    if not data[STATUS] & STATUS_CAPABILITIES:
        return
    at, seen = data[CAPABILITIES] & 0xFC, set[int]()
    while at >= SIZE and at not in seen:
        seen.add(at)
        yield data[at], at
        at = data[at + 1] & 0xFC


def _open(start: int, end: int) -> Span | None:
    return Span(start, end) if start <= end else None


def _u16(data: bytes | bytearray, offset: int) -> int:
    return data[offset] | data[offset + 1] << 8
