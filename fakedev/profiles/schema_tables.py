"""JSON schema of SMBIOS structures and ACPI tables, out of the tables of their builders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fakedev.firmware import acpi_tables
from fakedev.firmware.acpi_encode import COMMON_KEYS, SOURCES
from fakedev.firmware.smbios_structures import STRUCTURES

NUMBER_SCHEMA: dict[str, Any] = {"$ref": "#/$defs/Number"}
HEX_SCHEMA: dict[str, Any] = {"$ref": "#/$defs/HexBytes"}
TEXT_SCHEMA: dict[str, Any] = {"type": "string"}
_LISTS = {"texts", "handles", "records", "peers"}
_NUMBER_OR_TEXT = {"anyOf": [NUMBER_SCHEMA, TEXT_SCHEMA]}
_BYTES = {"anyOf": [HEX_SCHEMA, {"type": "array", "items": {"type": "integer"}}]}
_RAW = {"raw": HEX_SCHEMA, "strings": {"type": "array", "items": TEXT_SCHEMA}}
_NUMBERS_OF_HEADERS = {"at", "revision", "oem_revision", "creator_revision"}


def structure_schema() -> dict[str, Any]:
    """One SMBIOS structure: by the name of its type, or by number with a raw body."""
    named = []
    for name, structure in STRUCTURES.items():
        fields = {field.name: _smbios_value(field.format) for field in structure.fields}
        properties = {
            "type": {"enum": [name, structure.number]},
            "handle": NUMBER_SCHEMA,
            "length": NUMBER_SCHEMA,
            **fields,
            **_RAW,
        }
        named.append(_closed(properties, ["type"]))
    properties = {"type": {"type": "integer"}, "handle": NUMBER_SCHEMA, "length": NUMBER_SCHEMA}
    return {"anyOf": [*named, _closed({**properties, **_RAW}, ["type", "raw"])]}


def _smbios_value(form: str) -> dict[str, Any]:
    if form in {"text", "uuid"}:
        return TEXT_SCHEMA
    if form in _LISTS:
        return {"type": "array", "items": TEXT_SCHEMA if form == "texts" else _NUMBER_OR_TEXT}
    return _BYTES if form[0].isdigit() else NUMBER_SCHEMA


def table_schema() -> dict[str, Any]:
    """One ACPI table: of fields where they are known, else of bytes."""
    common: dict[str, Any] = {
        key: NUMBER_SCHEMA if key in _NUMBERS_OF_HEADERS else TEXT_SCHEMA for key in COMMON_KEYS
    }
    made = {**acpi_tables.TABLES, "FACS": acpi_tables.TableType(0, acpi_tables.FACS)}
    kinds = []
    for signature, table in made.items():
        properties = {**common, "signature": {"const": signature}, "length": NUMBER_SCHEMA}
        properties |= _fields(table.fields)
        if table.entries:
            properties[table.entries] = {"type": "array", "items": _entry(table.entries)}
        kinds.append(_closed(properties, ["signature"]))
    for source in SOURCES:
        content = TEXT_SCHEMA if source.endswith("file") else HEX_SCHEMA
        kinds.append(_closed({**common, source: content}, ["signature", source]))
    return {"anyOf": kinds}


def _fields(fields: Iterable[acpi_tables.Field]) -> dict[str, Any]:
    return {
        field.name: _gas() if field.format == "gas" else NUMBER_SCHEMA
        for field in fields
        if not field.format.endswith("x")
    }


def _gas() -> dict[str, Any]:
    numbers = dict.fromkeys(("width", "offset", "access", "address"), NUMBER_SCHEMA)
    space = {"anyOf": [{"enum": list(acpi_tables.SPACES)}, NUMBER_SCHEMA]}
    return {"anyOf": [NUMBER_SCHEMA, _closed({"space": space, **numbers}, ["address"])]}


def _entry(key: str) -> dict[str, Any]:
    if key == "allocations":
        return _closed(_fields(acpi_tables.MCFG_ALLOCATION.fields), [])
    named = [
        _closed({"type": {"const": name}, **_fields(entry.fields)}, ["type"])
        for name, entry in acpi_tables.MADT_ENTRIES.items()
    ]
    return {"anyOf": [*named, _closed({"raw": HEX_SCHEMA}, ["raw"])]}


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
