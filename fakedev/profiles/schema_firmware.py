"""Schema of `firmware:`. Single structures and tables are checked by their builders."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from fakedev.firmware.e820 import RAM, TYPES
from fakedev.profiles.fields import (
    NUMBER_SCHEMA,
    RANGE_SCHEMA,
    LooseText,
    Number,
    Part,
    RangeText,
    refuse,
    typed,
)
from fakedev.profiles.merging import suggest
from fakedev.profiles.nodes import kind

# Wrong keys are compared with the right ones, which takes its time.
KEY_LIMIT = 128
LIST_LIMIT = 1000


def to_type(value: object) -> str:
    """Check the kernel's name of a memory type."""
    if isinstance(value, str) and value in TYPES:
        return str(value)
    close = suggest(str(value), list(TYPES)) if isinstance(value, str) else ""
    raise ValueError(f"there is no memory type {kind(value)}{close}; one of {', '.join(TYPES)}")


def to_mapping(value: object) -> object:
    """Give the members of a mapping YAML's own types."""
    if not isinstance(value, dict):
        refuse(f"a mapping (`key: value` lines) is needed here, not {kind(value)}")
    if len(value) > KEY_LIMIT:
        refuse(f"at most {KEY_LIMIT} keys are read here, not {len(value)}")
    return typed(value)


def to_area(value: object) -> object:
    """Check that an area is an address or a range; the builder reads it."""
    if not isinstance(value, str):
        refuse(f"an address or a range is needed here, not {kind(value)}")
    return str(value)


E820Type = Annotated[str, BeforeValidator(to_type), WithJsonSchema({"enum": list(TYPES)})]
_AREA = WithJsonSchema({"anyOf": [RANGE_SCHEMA, NUMBER_SCHEMA]})
# `json_schema` puts the fields of structures and tables in here.
Mapped = Annotated[dict[str, Any], BeforeValidator(to_mapping)]
Area = Annotated[str, BeforeValidator(to_area), _AREA]


class E820Entry(Part):
    """A line of the memory map that the firmware gives to the kernel."""

    span: RangeText = Field(alias="range", description="its addresses")
    kind: E820Type = Field(RAM, alias="type", description="the kernel's name of the type")


class Smbios(Part):
    """SMBIOS: the structure table and its entry point (DSP0134)."""

    version: LooseText | None = Field(None, description='"2.8", "3.4", ...', examples=["2.8"])
    entry: LooseText | None = Field(None, description='entry point: "2.1" (_SM_) or "3.0" (_SM3_)')
    entry_point: Number | None = Field(None, description="address of the entry point")
    table: Number | None = Field(None, description="address of the structure table")
    structures: list[Mapped] | None = Field(
        None, max_length=LIST_LIMIT, description="the structures, in order"
    )
    raw: str | None = Field(None, description="a file with a whole table, instead of structures")
    raw_entry_point: str | None = Field(None, description="a file with an entry point")
    max_structure_size: Number | None = Field(None, description="in a 2.1 entry point")
    docrev: Number | None = Field(None, description="in a 3.0 entry point")
    sysfs: bool | None = Field(None, description="false: no files in /sys")


class Acpi(Part):
    """ACPI: the root pointer and the tables it leads to."""

    rsdp: Number | None = Field(None, description="address of the root pointer")
    revision: Number | None = Field(None, description="0: RSDT only; 2: RSDT and XSDT")
    tables_at: Area | None = Field(None, description="where the tables lie: an address or a range")
    alignment: Number | None = Field(None, description="of each table; a power of two")
    oem_id: LooseText | None = Field(None, description="six characters in each header")
    oem_table_id: LooseText | None = Field(None, description="eight characters in each header")
    oem_revision: Number | None = Field(None, description="in each header")
    creator_id: LooseText | None = Field(None, description="four characters in each header")
    creator_revision: Number | None = Field(None, description="in each header")
    tables: list[Mapped] | None = Field(
        None, max_length=LIST_LIMIT, description="the tables, in order of address"
    )
    sysfs: bool | None = Field(None, description="false: no files in /sys")


class Firmware(Part):
    """What the firmware leaves in memory and tells the kernel."""

    e820: list[E820Entry] = Field(default_factory=list, description="the memory map")
    smbios: Smbios | None = Field(None, description="SMBIOS entry point and structures")
    acpi: Acpi | None = Field(None, description="ACPI root pointer and tables")
