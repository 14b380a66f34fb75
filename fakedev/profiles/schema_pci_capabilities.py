"""Schema of `capabilities:`. The options of each are the fields of its class in `devices.pci`."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from fakedev.profiles.fields import BOOL_SCHEMA, TEXT_SCHEMA, refuse
from fakedev.profiles.nodes import kind

CHAIN_LIMIT = 128
_NUMBERS: dict[str, Any] = {"type": "array", "items": {"$ref": "#/$defs/Number"}}
_KINDS: dict[str, dict[str, Any]] = {
    "int": {"$ref": "#/$defs/Number"},
    "bool": BOOL_SCHEMA,
    "str": TEXT_SCHEMA,
    "str | bytes": {"$ref": "#/$defs/HexBytes"},
    "str | int": {"anyOf": [TEXT_SCHEMA, {"$ref": "#/$defs/Number"}]},
    "Sequence[int]": _NUMBERS,
}


def option_kinds(name: str) -> dict[str, str]:
    """The options of a capability, each with its type as its class says it; `at` is one of all."""
    from fakedev.devices.pci.capabilities import NAMES, options  # noqa: PLC0415 - start-up time

    types = [_type(field.type) for field in fields(NAMES[name])]
    return {**dict(zip(options(name), types, strict=True)), "at": "int"}


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else _spelled(annotation)
    return text.removesuffix(" | None")


def _spelled(annotation: object) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    for prefix in ("collections.abc.", "typing."):
        text = text.replace(prefix, "")
    return text


def to_capabilities(value: object) -> list[Any]:
    """A list; its members are checked together with their places in the file."""
    if not isinstance(value, list):
        refuse(f"a list (`- ...` lines) is needed here, not {kind(value)}")
    if len(value) > CHAIN_LIMIT:
        refuse(f"at most {CHAIN_LIMIT} members are read, not {len(value)}")
    return value


def _member(name: str) -> dict[str, Any]:
    kinds = option_kinds(name)
    properties = {option: _KINDS.get(form, {}) for option, form in kinds.items()}
    given: dict[str, Any] = {"type": "object", "properties": properties,
                             "additionalProperties": False}  # fmt: skip
    first = _KINDS.get(next(iter(kinds.values())), {})
    return {
        "type": "object",
        "properties": {name: {"anyOf": [given, {"type": "null"}, first]}},
        "required": [name],
        "additionalProperties": False,
    }


def chain_schema() -> dict[str, Any]:
    """The JSON schema of a chain; it needs the definitions Number and HexBytes."""
    from fakedev.devices.pci.capabilities import NAMES  # noqa: PLC0415 - start-up time

    members = [{"enum": list(NAMES)}, *map(_member, NAMES)]
    return {"type": "array", "items": {"anyOf": members}}


Capabilities = Annotated[
    list[Any], PlainValidator(to_capabilities), WithJsonSchema({"type": "array"})
]
