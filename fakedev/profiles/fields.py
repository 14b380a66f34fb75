"""The field types of the profile schema: numbers, ranges, bytes, modes; each with its JSON schema."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from fakedev.model.errors import RangeError
from fakedev.model.ranges import Range, parse_number, parse_range
from fakedev.profiles.nodes import Scalar, kind

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9_]*|0[xX][0-9a-fA-F][0-9a-fA-F_]*)")
_HEX_KEYS = frozenset({"aml", "body", "hex", "raw"})
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}


class Part(BaseModel):
    """Base of every schema model: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        populate_by_name=False,
        arbitrary_types_allowed=True,
    )


def refuse(text: str) -> NoReturn:
    """Refuse a value: pydantic makes an error with a place of it."""
    raise ValueError(text)


def to_number(value: object) -> int:
    """An address, size or count from its text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        refuse(f"a number is needed here, not {kind(value)}; write 4096, 0x1000 or 64K")
    number: int = _ranged(parse_number, value)
    return number


def to_range(value: object) -> Range:
    """A range from its text."""
    if isinstance(value, Range):
        return value
    if not isinstance(value, str):
        refuse(f"a range is needed here, not {kind(value)}; "
                         "write ADDR+LEN (0xd8100000+64K) or START-END (d8100000-d810ffff)")  # fmt: skip
    span: Range = _ranged(parse_range, value)
    return span


def _ranged(parse: Any, value: str) -> Any:
    try:
        return parse(str(value))
    except RangeError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        raise ValueError(f"not a number: {kind(value)}; write 4096, 0x1000 or 64K") from None


def to_numbers(value: object) -> object:
    """One number counts as a list of one."""
    return value if isinstance(value, list) else [value]


def to_hex(value: object) -> bytes:
    """Bytes from hexadecimal digits; white space between bytes is free."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        refuse(f'hexadecimal bytes are needed here, not {kind(value)}; write "00 11 ff"')
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise ValueError(f'not hexadecimal bytes: {kind(value)}; write "00 11 ff"') from None


def to_base64(value: object) -> bytes:
    """Bytes from base64; white space is free."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        refuse(f"base64 text is needed here, not {kind(value)}")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from None


def to_mode(value: object) -> int:
    """Permission bits, octal as chmod takes them: 444, 0444 or 0o444."""
    text = str(value).lower().removeprefix("0o") if isinstance(value, str) else ""
    if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise ValueError(f"not a file mode: {kind(value)}; write octal permissions like 0o444")
    return int(text, 8)


def typed(value: object) -> object:
    """A sub-tree with YAML's own types: whole numbers and booleans out of unquoted texts.

    Bytes stay text: `aml: 0810` is two bytes, not a number.
    """
    if isinstance(value, dict):
        return {
            key: str(member) if key in _HEX_KEYS and isinstance(member, str) else typed(member)
            for key, member in value.items()
        }
    if isinstance(value, list):
        return [typed(member) for member in value]
    if isinstance(value, Scalar):
        return typed_scalar(value)
    return value


def typed_scalar(text: Scalar) -> object:
    """A number or a boolean where the text is one and stood without quotes; else the text."""
    if not text.plain:
        return str(text)
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text) and len(text) <= 40:
        return int(text.replace("_", "") or "0", 0)
    return str(text)


_NUMBER_TEXT = r"^\s*(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)\s*([KkMmGgTtPp]([Ii]?[Bb])?)?\s*$"
_RANGE_TEXT = (
    r"^\s*(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)\s*([KkMmGgTtPp]([Ii]?[Bb])?)?\s*\+"
    r"\s*(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)\s*([KkMmGgTtPp]([Ii]?[Bb])?)?\s*$"
    r"|^\s*(0[xX])?[0-9a-fA-F_]+\s*-\s*(0[xX])?[0-9a-fA-F_]+\s*$"
)
NUMBER_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _NUMBER_TEXT}],
    "description": "a number: 4096, 0x1000, or with a binary suffix 64K, 16M, 1GiB",
    "examples": ["0x1000", "64K", 4096],
}
RANGE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": _RANGE_TEXT,
    "description": "ADDR+LEN, or START-END as /proc/iomem prints it (hexadecimal, END inclusive)",
    "examples": ["0xd8100000+64K", "d8100000-d810ffff"],
}
HEX_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": r"^[0-9a-fA-F\s]*$"}, {"type": "integer"}],
    "description": "bytes as hexadecimal digits",
    "examples": ["00 11 22 ff"],
}
MODE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": "^(0o)?[0-7]{1,5}$"}, {"type": "integer"}],
    "description": "permissions, octal",
    "examples": ["0o444", "0o600"],
}
BASE64_SCHEMA: dict[str, Any] = {"type": "string", "description": "bytes as base64"}
BOOL_SCHEMA: dict[str, Any] = {"type": "boolean"}
TEXT_SCHEMA: dict[str, Any] = {"type": "string"}
# A text that people write without quotes although it looks like a number: version: 6.1
LOOSE_TEXT_SCHEMA: dict[str, Any] = {"type": ["string", "number"]}

Number = Annotated[int, BeforeValidator(to_number), WithJsonSchema(NUMBER_SCHEMA)]
RangeText = Annotated[Range, BeforeValidator(to_range), WithJsonSchema(RANGE_SCHEMA)]
Numbers = Annotated[
    list[Number],
    BeforeValidator(to_numbers),
    WithJsonSchema({"anyOf": [NUMBER_SCHEMA, {"type": "array", "items": NUMBER_SCHEMA}]}),
]
HexBytes = Annotated[bytes, BeforeValidator(to_hex), WithJsonSchema(HEX_SCHEMA)]
Base64Bytes = Annotated[bytes, BeforeValidator(to_base64), WithJsonSchema(BASE64_SCHEMA)]
Mode = Annotated[int, BeforeValidator(to_mode), WithJsonSchema(MODE_SCHEMA)]
Text = Annotated[str, Field()]
LooseText = Annotated[str, WithJsonSchema(LOOSE_TEXT_SCHEMA)]
