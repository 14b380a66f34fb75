"""Extended capabilities: each class is a name's options, `build` makes its bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from fakedev.devices.pci.capability import Body, Capability, hex_bytes
from fakedev.devices.pci.errors import PciError

_UNCORRECTABLE, _CORRECTABLE = 0x07FFF030, 0x0000F1C1
_SERIAL_BYTES, _HEADER_LOG = 8, 16
_VF_BARS = 6
_LANES = (1, 2, 4, 8, 12, 16, 32)


@dataclass(frozen=True)
class Aer:
    """Advanced error reporting, version 2; its registers by name, `header_log` in hexadecimal."""

    uncorrectable_status: int = 0
    uncorrectable_mask: int = 0
    uncorrectable_severity: int = 0x00462030
    correctable_status: int = 0
    correctable_mask: int = 0x00002000
    control: int = 0x000000A0
    header_log: str | bytes = b""
    root_command: int = 0
    root_status: int = 0
    source: int = 0
    version: int = 2

    def build(self) -> Capability:
        """72 bytes; masks and severity follow writes, each status is cleared by ones."""
        log = hex_bytes("aer", self.header_log)
        if len(log) > _HEADER_LOG:
            raise PciError(f"aer: header_log has at most {_HEADER_LOG} bytes, not {len(log)}")
        body = Body("aer", 0x0001, 0x48, version=self.version)
        body.put(0x04, 4, self.uncorrectable_status, "uncorrectable_status", clear=_UNCORRECTABLE)
        body.put(0x08, 4, self.uncorrectable_mask, "uncorrectable_mask", writable=_UNCORRECTABLE)
        severity = self.uncorrectable_severity
        body.put(0x0C, 4, severity, "uncorrectable_severity", writable=_UNCORRECTABLE)
        body.put(0x10, 4, self.correctable_status, "correctable_status", clear=_CORRECTABLE)
        body.put(0x14, 4, self.correctable_mask, "correctable_mask", writable=_CORRECTABLE)
        body.put(0x18, 4, self.control, "control", writable=0x00000140)
        body.bytes(0x1C, log)
        body.put(0x2C, 4, self.root_command, "root_command", writable=7)
        body.put(0x30, 4, self.root_status, "root_status", clear=0x7F)
        body.put(0x34, 4, self.source, "source")
        return body.done()


@dataclass(frozen=True)
class Dsn:
    """Device serial number: `11-22-33-44-55-66-77-88` as lspci prints it, or the number."""

    serial: str | int = 0

    def build(self) -> Capability:
        """12 bytes."""
        number = self.serial
        if isinstance(number, str):
            data = hex_bytes("dsn", number)
            if len(data) != _SERIAL_BYTES:
                raise PciError(f"dsn: a serial number has 8 bytes: {number!r} has {len(data)}")
            number = int.from_bytes(data, "big")
        body = Body("dsn", 0x0003, 12, version=1)
        body.put(4, 8, number, "serial")
        return body.done()


@dataclass(frozen=True)
class Acs:
    """Access control services."""

    capabilities: int = 0x001F
    control: int = 0x001D

    def build(self) -> Capability:
        """8 bytes; what is capable can be controlled."""
        body = Body("acs", 0x000D, 8, version=1)
        body.put(4, 2, self.capabilities, "capabilities")
        body.put(6, 2, self.control, "control", writable=self.capabilities & 0x7F)
        return body.done()


@dataclass(frozen=True)
class Ats:
    """Address translation services; `depth` of the invalidate queue, 1 to 32."""

    depth: int = 32
    enabled: bool = False

    def build(self) -> Capability:
        """8 bytes."""
        if not 1 <= self.depth <= 32:
            raise PciError(f"ats: depth is 1 to 32, not {self.depth}")
        body = Body("ats", 0x000F, 8, version=1)
        body.put(4, 2, self.depth & 0x1F | 0x20, "capabilities")  # page aligned requests
        body.put(6, 2, 0x8000 if self.enabled else 0, writable=0x801F)
        return body.done()


@dataclass(frozen=True)
class Ari:
    """Alternative routing ids; `next` function number."""

    next: int = 0

    def build(self) -> Capability:
        """8 bytes."""
        body = Body("ari", 0x000E, 8, version=1)
        body.put(5, 1, self.next, "next")
        body.put(6, 2, 0, writable=0x0073)
        return body.done()


@dataclass(frozen=True)
class Sriov:
    """Single-root I/O virtualisation, shown only: all registers are read-only.

    `bars` are the raw values of up to six VF BARs. `page_sizes` are bits of 4 KiB shifted left.
    """

    total: int = 0
    initial: int | None = None
    enabled: int = 0
    offset: int = 1
    stride: int = 1
    device: int = 0
    link: int = 0
    bars: Sequence[int] = ()
    capabilities: int = 0
    control: int | None = None
    page_sizes: int = 0x553

    def build(self) -> Capability:
        """64 bytes."""
        if len(self.bars) > _VF_BARS:
            raise PciError(f"sriov: {len(self.bars)} bars; a function has at most {_VF_BARS}")
        if self.enabled > self.total:
            raise PciError(f"sriov: {self.enabled} enabled of a total of {self.total}")
        running = 0x0009 if self.enabled else 0  # VFs on, their memory on
        body = Body("sriov", 0x0010, 0x40, version=1)
        body.put(0x04, 4, self.capabilities, "capabilities")
        body.put(0x08, 2, running if self.control is None else self.control, "control")
        initial = self.total if self.initial is None else self.initial
        for at, what, value in (
            (0x0C, "initial", initial),
            (0x0E, "total", self.total),
            (0x10, "enabled", self.enabled),
            (0x12, "link", self.link),
            (0x14, "offset", self.offset),
            (0x16, "stride", self.stride),
            (0x1A, "device", self.device),
        ):
            body.put(at, 2, value, what)
        body.put(0x1C, 4, self.page_sizes, "page_sizes")
        body.put(0x20, 4, 1)
        for index, value in enumerate(self.bars):
            body.put(0x24 + 4 * index, 4, value, f"bars[{index}]")
        return body.done()


@dataclass(frozen=True)
class Ltr:
    """Latency tolerance: the largest snoop and no-snoop latencies, as encoded."""

    snoop: int = 0x1003
    nosnoop: int = 0x1003

    def build(self) -> Capability:
        """8 bytes."""
        body = Body("ltr", 0x0018, 8, version=1)
        body.put(4, 2, self.snoop, "snoop", writable=0x1FFF)
        body.put(6, 2, self.nosnoop, "nosnoop", writable=0x1FFF)
        return body.done()


@dataclass(frozen=True)
class L1ss:
    """L1 substates."""

    capabilities: int = 0x0028281F
    control1: int = 0
    control2: int = 0x00000028

    def build(self) -> Capability:
        """16 bytes."""
        body = Body("l1ss", 0x001E, 16, version=1)
        body.put(0x4, 4, self.capabilities, "capabilities")
        body.put(0x8, 4, self.control1, "control1", writable=0xE3FFFF1F)
        body.put(0xC, 4, self.control2, "control2", writable=0x000000FB)
        return body.done()


@dataclass(frozen=True)
class SecPcie:
    """Secondary PCI Express: lane equalisation of 8 GT/s and more; `lanes` as the link has."""

    lanes: int = 4
    presets: int = 0x7F7F

    def build(self) -> Capability:
        """12 bytes and 2 for each lane."""
        if self.lanes not in _LANES:
            raise PciError(f"secpcie: lanes are one of {_LANES}, not {self.lanes}")
        body = Body("secpcie", 0x0019, 0x0C + (2 * self.lanes + 3 & ~3), version=1)
        body.put(0x4, 4, 0, writable=0x3)
        body.put(0x8, 4, 0, clear=(1 << self.lanes) - 1)
        for lane in range(self.lanes):
            body.put(0x0C + 2 * lane, 2, self.presets, "presets")
        return body.done()


@dataclass(frozen=True)
class Vsec:
    """Vendor specific: `id` and `revision` of the vendor's, then the bytes of `hex`."""

    id: int = 0
    revision: int = 0
    hex: str | bytes = b""

    def build(self) -> Capability:
        """8 bytes of headers, then the body, read-only."""
        data = hex_bytes("vsec", self.hex)
        length = 8 + len(data)
        if self.revision > 0xF or length > 0xFFF:
            raise PciError(f"vsec: revision {self.revision:#x} or {length} bytes are too many")
        body = Body("vsec", 0x000B, length, version=1)
        body.put(4, 2, self.id, "id")
        body.put(6, 2, self.revision | length << 4, "revision")
        body.bytes(8, data)
        return body.done()


@dataclass(frozen=True)
class RawExtended:
    """Any extended capability: `hex` follows its 4 bytes of header."""

    id: int = 0
    version: int = 1
    hex: str | bytes = b""

    def build(self) -> Capability:
        """4 bytes of header, then the body, read-only."""
        data = hex_bytes("raw_extended", self.hex)
        body = Body("raw_extended", self.id, 4 + len(data), version=self.version)
        body.bytes(4, data)
        return body.done()
