"""Schema of `memory:` and `iomem:`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from fakedev.model.flags import FLAG_NAMES
from fakedev.profiles.fields import (
    HEX_SCHEMA,
    Base64Bytes,
    HexBytes,
    Number,
    Numbers,
    Part,
    RangeText,
    to_hex,
)
from fakedev.profiles.merging import suggest
from fakedev.profiles.nodes import kind
from fakedev.profiles.plan import Fill

PAYLOADS = ("u8", "u16", "u32", "u64", "text", "hex", "base64", "file", "fill")
FILLS = ("zero", "address", "random")


def to_fill(value: object) -> object:
    """`zero`, `address`, `random`, or `{bytes: "de ad"}`."""
    if isinstance(value, str) and value in FILLS:
        return Fill(str(value))
    if isinstance(value, dict) and list(value) == ["bytes"]:
        pattern = to_hex(value["bytes"])
        if not pattern:
            raise ValueError("the pattern of a fill needs at least one byte")
        return Fill("bytes", pattern)
    raise ValueError(f"not a fill: {kind(value)}; write zero, address, random or "
                     '{bytes: "de ad"}')  # fmt: skip


_FILL_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"enum": list(FILLS)},
        {
            "type": "object",
            "properties": {"bytes": HEX_SCHEMA},
            "required": ["bytes"],
            "additionalProperties": False,
        },
    ],
    "description": "zero; address: each 8-byte word holds its own physical address; random: by seed; "
    "or a byte pattern that repeats",
}
FillText = Annotated[Fill, BeforeValidator(to_fill), WithJsonSchema(_FILL_SCHEMA)]


def to_flag(value: object) -> str:
    """A flag by its short name."""
    if isinstance(value, str) and value in FLAG_NAMES:
        return str(value)
    close = suggest(str(value), list(FLAG_NAMES)) if isinstance(value, str) else ""
    raise ValueError(f"not a resource flag: {kind(value)}{close}; one of {', '.join(FLAG_NAMES)}")


Flag = Annotated[str, BeforeValidator(to_flag), WithJsonSchema({"enum": list(FLAG_NAMES)})]


class Segment(Part):
    """Memory that is not RAM of the e820 map: BAR memory, ROM, device registers as plain bytes."""

    span: RangeText = Field(alias="range", description="where it decodes")
    name: str = Field("", description="a name for messages and pictures")
    fill: FillText = Field(Fill(), description="what it holds at power-on")
    seed: Number | None = Field(None, description="seed of `fill: random`")
    readonly: bool = Field(False, description="a ROM: stores are dropped")

    @model_validator(mode="after")
    def _seeded(self) -> Segment:
        if self.seed is not None and self.fill.kind != "random":
            raise ValueError("'seed' belongs to `fill: random`; take it out or change the fill")
        return self


class Content(Part):
    """Bytes placed at an address, after the firmware tables and in the order of the list."""

    at: Number | None = Field(None, description="physical address")
    span: RangeText | None = Field(None, alias="range", description="address and room")
    u8: Numbers | None = Field(None, description="bytes")
    u16: Numbers | None = Field(None, description="little-endian 16-bit words")
    u32: Numbers | None = Field(None, description="little-endian 32-bit words")
    u64: Numbers | None = Field(None, description="little-endian 64-bit words")
    text: str | None = Field(None, description='UTF-8 text; "\\0" in double quotes ends it')
    hex: HexBytes | None = Field(None, description="bytes as hexadecimal digits")
    base64: Base64Bytes | None = Field(None, description="bytes as base64")
    file: str | None = Field(
        None, description="a raw file, relative to this profile; .xz is unpacked"
    )
    offset: Number = Field(0, description="first byte of the file that is used")
    size: Number | None = Field(None, description="how many bytes of the file are used")
    fill: FillText | None = Field(None, description="content for the whole range")
    seed: Number | None = Field(None, description="seed of `fill: random`")

    @model_validator(mode="after")
    def _one_payload(self) -> Content:
        given = [name for name in PAYLOADS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(map(repr, given)) or "none"
            raise ValueError(
                f"one content is needed, not {found}; give one of {', '.join(PAYLOADS)}"
            )
        if (self.at is None) == (self.span is None):
            raise ValueError("give either 'at' (an address) or 'range' (address and room)")
        self._check_extras(given[0])
        return self

    def _check_extras(self, payload: str) -> None:
        if payload == "fill" and self.span is None:
            raise ValueError("'fill' needs a 'range', not 'at': how much is to be filled?")
        if payload != "file" and (self.size is not None or self.offset):
            raise ValueError(f"'offset' and 'size' belong to 'file', not to {payload!r}")
        if self.seed is not None and (self.fill is None or self.fill.kind != "random"):
            raise ValueError("'seed' belongs to `fill: random`; take it out or change the fill")
        if payload[0] == "u" and payload[1:].isdigit():
            limit = 1 << int(payload[1:])
            for value in getattr(self, payload):
                if value >= limit:
                    raise ValueError(f"{value:#x} does not fit in {payload}")


class Memory(Part):
    """The physical memory."""

    undecoded: Number = Field(
        0xFF, le=0xFF, description="the byte that undecoded addresses read as"
    )
    segments: list[Segment] = Field(default_factory=list, description="memory that is not e820 RAM")
    contents: list[Content] = Field(default_factory=list, description="what lies where, in order")


class IomemEntry(Part):
    """A node of /proc/iomem. `"000a0000-000bffff : PCI Bus 0000:00"` is the short form."""

    span: RangeText = Field(alias="range", description="the addresses that it owns")
    name: str = Field(min_length=1, description="as /proc/iomem shows it")
    flags: list[Flag] | None = Field(
        None, description="IORESOURCE_ flags beside mem; not given: what x86 sets for this name"
    )
    children: list[IomemEntry] = Field(default_factory=list, description="nodes inside this one")


_ENTRY_REFERENCE = {"$ref": "#/$defs/IomemEntry"}
_LINE = {
    "type": "string",
    "pattern": r"^\s*[0-9a-fA-F]+-[0-9a-fA-F]+ : .+$",
    "examples": ["000a0000-000bffff : PCI Bus 0000:00"],
}
IOMEM_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "description": "text as /proc/iomem prints it; indent nests"},
        {"type": "array", "items": {"anyOf": [_LINE, _ENTRY_REFERENCE]}},
    ],
    "description": "resources, inserted after the e820 map; a line that equals a resource which is "
    "there already stands for it",
}
