"""Schema of one PCI function: its identity, BARs, bridge, and what sysfs says of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from fakedev.devices.pci.plan import RegisterPlan
from fakedev.profiles.fields import HexBytes, LooseText, Number, Numbers, Part, refuse
from fakedev.profiles.fields_pci import (
    ClassCode,
    ConfigSize,
    IoSize,
    Mem32Size,
    Mem64Size,
    Pair,
    Pin,
    Revision,
    RomSize,
    Window,
)
from fakedev.profiles.merging import suggest
from fakedev.profiles.nodes import kind
from fakedev.profiles.plan import Fill
from fakedev.profiles.schema_memory import FillText
from fakedev.profiles.schema_pci_capabilities import Capabilities

RESET_METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")
_PAYLOADS = {"u8": 1, "u16": 2, "u32": 4}
_SHARES = ("mem32", "mem64", "io")


class Register(Part):
    """One register of a block."""

    name: str = Field("", description="a name for messages")
    at: Number = Field(description="offset in the BAR")
    width: Number = Field(4, description="1, 2, 4 or 8 bytes")
    access: Literal["ro", "rw", "w1c", "wo", "rc"] = Field(
        "rw", description="read-only, read-write, write 1 to clear, write-only, read to clear"
    )
    reset: Number = Field(0, description="its value at power-on")

    @model_validator(mode="after")
    def _fits(self) -> Register:
        if self.width not in {1, 2, 4, 8}:
            raise ValueError(f"a register has 1, 2, 4 or 8 bytes, not {self.width}")
        if self.reset >> 8 * self.width:
            raise ValueError(f"{self.reset:#x} does not fit in {self.width} bytes")
        if self.at % self.width:
            raise ValueError(f"{self.at:#x} is not a multiple of {self.width}, its width")
        return self

    def plan(self) -> RegisterPlan:
        """The register as plain values."""
        return RegisterPlan(self.name, self.at, self.width, self.access, self.reset)


class _Backed(Part):
    """What BARs and ROMs share: an address, and what answers there."""

    at: Number | None = Field(
        None, description="address that the firmware gave it; not given: the first that fits"
    )
    listed: bool = Field(True, description="false: the kernel shows no node for it")
    file: str | None = Field(
        None, description="content from a file, relative to this profile; .xz is unpacked"
    )


class Bar(_Backed):
    """A base address register, and what stands behind it: memory, or registers."""

    mem32: Mem32Size | None = Field(None, description="size: memory below 4 GiB")
    mem64: Mem64Size | None = Field(None, description="size: memory anywhere; takes two registers")
    io: IoSize | None = Field(None, description="size: I/O ports")
    prefetch: bool = Field(False, description="reads have no side effects")
    fill: FillText = Field(Fill(), description="what its memory holds at power-on")
    seed: Number | None = Field(None, description="seed of `fill: random`")
    registers: list[Register] | None = Field(
        None, description="a register block instead of memory", max_length=4096
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Bar:
        given = [name for name in _SHARES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            refuse(f"one size is needed, not {found}; write mem32, mem64 or io, e.g. `mem32: 64K`")
        if given[0] == "io" and self.prefetch:
            refuse("I/O ports cannot be prefetched; take 'prefetch' out")
        if self.registers == []:
            refuse("a register block has at least one register; take 'registers' out for memory")
        if self.registers is not None and (self.file is not None or self.fill != Fill()):
            refuse("'registers' answer instead of memory; take 'fill' or 'file' out")
        if self.seed is not None and self.fill.kind != "random":
            refuse("'seed' belongs to `fill: random`; take it out or change the fill")
        return self

    @property
    def size(self) -> int:
        """How many bytes it asks for."""
        return self.mem32 or self.mem64 or self.io or 0


class Rom(_Backed):
    """The expansion ROM."""

    size: RomSize = Field(description="size: a power of two")
    enabled: bool = Field(False, description="true: it decodes at boot")


class Bars(Part):
    """The BARs by their index."""

    bar0: Bar | None = Field(None, alias="0", description="BAR 0")
    bar1: Bar | None = Field(None, alias="1", description="BAR 1")
    bar2: Bar | None = Field(None, alias="2", description="BAR 2")
    bar3: Bar | None = Field(None, alias="3", description="BAR 3")
    bar4: Bar | None = Field(None, alias="4", description="BAR 4")
    bar5: Bar | None = Field(None, alias="5", description="BAR 5")
    rom: Rom | None = Field(None, description="the expansion ROM")

    def given(self) -> list[tuple[int, Bar]]:
        """Those that exist, with their index."""
        six = (self.bar0, self.bar1, self.bar2, self.bar3, self.bar4, self.bar5)
        return [(index, bar) for index, bar in enumerate(six) if bar is not None]


class Bridge(Part):
    """A header of type 1: a bridge or a port."""

    primary: Number | None = Field(None, description="the bus it sits on (not given: that one)")
    secondary: Number = Field(description="the bus behind it", le=255)
    subordinate: Number | None = Field(
        None, description="the last bus behind it (not given: the last one that exists)", le=255
    )
    io: Window = Field("auto", description="I/O window: a range, none, or auto")
    memory: Window = Field("auto", description="memory window: a range, none, or auto")
    prefetch: Window = Field("auto", description="prefetchable window: a range, none, or auto")
    windows_listed: bool = Field(True, description="false: the kernel shows no nodes for them")


class Header(Part):
    """Registers of the header that nothing else says."""

    cache_line: Number = Field(0x10, description="cache line size in dwords", le=255)
    latency: Number = Field(0, description="latency timer", le=255)
    bist: Number = Field(0, description="self test register", le=255)
    multifunction: bool | None = Field(
        None, description="more functions in this slot (not given: where there are)"
    )


class Interrupt(Part):
    """The interrupt pin and what it leads to."""

    pin: Pin = Field(0, description="A to D, or 0 for none")
    line: Number = Field(0, description="the register that firmware fills in", le=255)
    irq: Number | None = Field(None, description="what `irq` in sysfs shows (not given: line)")
    gsi: Number | None = Field(None, description="what it shows once the function was enabled")


class Link(Part):
    """What the link files in sysfs show, instead of what the PCIe capability says."""

    speed: LooseText | None = Field(None, description="current_link_speed", examples=["Unknown"])
    width: Number | None = Field(None, description="current_link_width")
    max_speed: LooseText | None = Field(None, description="max_link_speed")
    max_width: Number | None = Field(None, description="max_link_width")


class Patch(Part):
    """Raw bytes of configuration space, on top of everything."""

    at: Number = Field(description="offset", le=4095)
    hex: HexBytes | None = Field(None, description="bytes as hexadecimal digits")
    u8: Numbers | None = Field(None, description="bytes")
    u16: Numbers | None = Field(None, description="little-endian 16-bit words")
    u32: Numbers | None = Field(None, description="little-endian 32-bit words")

    @model_validator(mode="after")
    def _one_payload(self) -> Patch:
        given = [name for name in ("hex", *_PAYLOADS) if getattr(self, name) is not None]
        if len(given) != 1:
            refuse(f"one content is needed, not {' and '.join(given) or 'none'}; "
                   "give one of hex, u8, u16, u32")  # fmt: skip
        for value in getattr(self, given[0]) if given[0] != "hex" else ():
            if value >> 8 * _PAYLOADS[given[0]]:
                refuse(f"{value:#x} does not fit in {given[0]}")
        return self

    @property
    def data(self) -> bytes:
        """The bytes."""
        for name, width in _PAYLOADS.items():
            values = getattr(self, name)
            if values is not None:
                return b"".join(value.to_bytes(width, "little") for value in values)
        return self.hex or b""


def to_resets(value: object) -> tuple[str, ...]:
    """A list of reset methods, or `none`."""
    if value == "none":
        return ()
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or name not in RESET_METHODS:
            close = suggest(str(name), list(RESET_METHODS)) if isinstance(name, str) else ""
            refuse(f"not a reset method: {kind(name)}{close}; one of {', '.join(RESET_METHODS)}, "
                   "or none")  # fmt: skip
    return tuple(str(name) for name in names)


def to_numa_node(value: object) -> int:
    """A node, or -1 for none."""
    text = value.strip() if isinstance(value, str) else str(value)
    if text == "-1":
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        refuse(f"not a NUMA node: {kind(value)}; write 0, 1, ... or -1 for none")
    return int(text)


_RESET_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"enum": ["none", *RESET_METHODS]},
        {"type": "array", "items": {"enum": list(RESET_METHODS)}},
    ]
}
Resets = Annotated[tuple[str, ...], PlainValidator(to_resets), WithJsonSchema(_RESET_SCHEMA)]
NumaNode = Annotated[
    int, PlainValidator(to_numa_node), WithJsonSchema({"type": "integer", "minimum": -1})
]


class PciFunction(Part):
    """One PCI function. Its key is its address: `"00:1f.2"` or `"0000:00:1f.2"`."""

    id: Pair = Field(description='vendor:device, in hexadecimal: "8086:100e"')
    subsystem: Pair = Field((0, 0), description="vendor:device of the subsystem")
    class_code: ClassCode = Field(alias="class", description='six hexadecimal digits: "010802"')
    revision: Revision = Field(0, description='two hexadecimal digits: "02"')
    header: Header | None = Field(None, description="registers of the header")
    command: Number | None = Field(
        None, description="command register (not given: what the BARs need)", le=0xFFFF
    )
    status: Number = Field(0, description="more bits of the status register", le=0xFFFF)
    config_size: ConfigSize | None = Field(
        None, description="256, or 4096 (the default with a PCIe or an extended capability)"
    )
    bars: Bars | None = Field(None, description="base address registers")
    bridge: Bridge | None = Field(None, description="this is a bridge (header type 1)")
    capabilities: Capabilities = Field(
        [], description="in the order of the chain; the name of each, and its options"
    )
    config: list[Patch] = Field([], description="raw bytes, last", max_length=4096)
    interrupt: Interrupt | None = Field(None, description="pin, line and irq")
    numa_node: NumaNode = Field(-1, description="NUMA node; -1 for none")
    slot: LooseText | None = Field(None, description="the physical slot: of this port, or its own")
    driver: str | None = Field(
        None, description="bound at boot (not given: what matches); none for none"
    )
    reset: Resets | None = Field(None, description="reset methods (not given: as the kernel finds)")
    on_unplug: Literal["sigbus", "all-ones", "poison"] = Field(
        "sigbus", description="what mappings of its BARs see after a surprise removal"
    )
    msi_irqs: Numbers = Field([], description="numbers of its message interrupts, once bound")
    power_state: Literal["D0", "D1", "D2", "D3hot", "D3cold", "unknown", "error"] | None = Field(
        None, description="what `power_state` shows"
    )
    dma_mask_bits: Number | None = Field(None, description="what it shows", le=64)
    consistent_dma_mask_bits: Number | None = Field(None, description="what it shows", le=64)
    enabled: Number | None = Field(None, description="enable count at boot, besides its driver's")
    d3cold_allowed: bool | None = Field(None, description="what it shows")
    link: Link | None = Field(None, description="what the link files show")
    links: dict[str, str] = Field(
        {}, description="links into its directory: path below /sys to a path in it"
    )
