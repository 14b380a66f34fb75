"""The field types of `pci:`: ids, class codes, BAR sizes, windows; each with its JSON schema."""

from __future__ import annotations

import errno
import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from fakedev.devices.pci.plan import IdPlan
from fakedev.model.ranges import Range
from fakedev.profiles.fields import NUMBER_SCHEMA, RANGE_SCHEMA, refuse, to_number, to_range
from fakedev.profiles.merging import suggest
from fakedev.profiles.nodes import kind

ANY = 0xFFFF_FFFF
SHARE_LIMIT = {"io": 1 << 16, "mem32": 1 << 31, "mem64": 1 << 62}
_SMALLEST = {"io": 4, "mem32": 16, "mem64": 16}
_HEX = re.compile(r"(0[xX])?[0-9a-fA-F]+")
_CPUS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")
_PINS = {"": 0, "A": 1, "B": 2, "C": 3, "D": 4}
CPU_LIMIT = 8192


def to_hex_number(value: object, digits: int, form: str) -> int:
    """A number of at most so many hexadecimal digits, with or without 0x."""
    text = value.strip() if isinstance(value, str) else ""
    if not _HEX.fullmatch(text):
        refuse(f"not hexadecimal: {kind(value)}; write {form}")
    number = int(text, 16)
    if number >= 1 << 4 * digits:
        refuse(f"{kind(value)} has more than {digits} hexadecimal digits; write {form}")
    return number


def to_pair(value: object) -> tuple[int, int]:
    """`vendor:device` in hexadecimal."""
    first, colon, second = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not colon:
        refuse(f'not an id: {kind(value)}; write vendor:device in hexadecimal, "8086:100e"')
    form = 'vendor:device in hexadecimal, "8086:100e"'
    return to_hex_number(first, 4, form), to_hex_number(second, 4, form)


def to_class(value: object) -> int:
    """Base class, sub-class and programming interface: six hexadecimal digits."""
    text = value.strip().lower().removeprefix("0x") if isinstance(value, str) else ""
    if len(text) != 6 or not _HEX.fullmatch(text):
        refuse(f'not a class code: {kind(value)}; write six hexadecimal digits, "010802"')
    return int(text, 16)


def to_revision(value: object) -> int:
    """A revision: two hexadecimal digits."""
    return to_hex_number(value, 2, 'two hexadecimal digits, "02"')


def to_driver_id(value: object) -> IdPlan:
    """An entry of an id table: `vendor:device[:subvendor:subdevice]` or `class:CCCCCC[/MASK]`."""
    if not isinstance(value, str):
        refuse(f'an id is needed here, not {kind(value)}; write "8086:100e" or "class:010802"')
    parts = value.strip().split(":")
    if parts[0] == "class" and len(parts) == 2:
        return _class_id(*parts[1].split("/", 1))
    if len(parts) not in {2, 4}:
        refuse(f"not an id: {kind(value)}; write vendor:device, vendor:device:subvendor:subdevice, "
               "or class:CCCCCC, in hexadecimal")  # fmt: skip
    form = "four hexadecimal digits, or * for any"
    numbers = [ANY if part == "*" else to_hex_number(part, 4, form) for part in parts]
    vendor, device, subvendor, subdevice = [*numbers, ANY, ANY][:4]
    return IdPlan(vendor, device, subvendor, subdevice)


def _class_id(code: str, mask: str = "") -> IdPlan:
    """Two digits are a base class, four a class, six have the programming interface too."""
    form = "class:CCCCCC or class:CCCCCC/MASK in hexadecimal"
    number, missing = to_hex_number(code, 6, form), 6 - len(code.strip())
    if missing not in {0, 2, 4}:
        refuse(f"not a class: {kind(code)}; it has two, four or six hexadecimal digits")
    bits = to_hex_number(mask, 6, form) if mask else 0xFF_FFFF << 4 * missing & 0xFF_FFFF
    return IdPlan(ANY, ANY, ANY, ANY, number << 4 * missing, bits)


def to_size(value: object, space: str) -> int:
    """The size of a BAR: a power of two that its register can say."""
    size = to_number(value)
    if size & (size - 1) or not size:
        near = max(1 << size.bit_length(), _SMALLEST[space])
        refuse(f"{kind(value)} is no power of two, and a BAR has no other sizes; "
               f"{near:#x} would be right")  # fmt: skip
    if size < _SMALLEST[space]:
        refuse(f"a BAR in {'I/O' if space == 'io' else 'memory'} space has at least "
               f"{_SMALLEST[space]} bytes, not {size}")  # fmt: skip
    if size > SHARE_LIMIT[space]:
        refuse(f"{size:#x} bytes do not fit; {space} has at most {SHARE_LIMIT[space]:#x}")
    return size


def to_rom_size(value: object) -> int:
    """The size of an expansion ROM: a power of two from 2 KiB to 16 MiB."""
    size = to_size(value, "mem32")
    if not 2048 <= size <= 1 << 24:
        refuse(f"an expansion ROM has 2 KiB to 16 MiB, not {size:#x} bytes")
    return size


def to_config_size(value: object) -> int:
    """The size of a configuration space: 256 or 4096."""
    size: int = to_number(value)
    if size not in {256, 4096}:
        refuse(f"a configuration space has 256 or 4096 bytes, not {kind(value)}")
    return size


def to_window(value: object) -> Range | str:
    """A window of a bridge: a range, `none`, or `auto`."""
    if isinstance(value, str) and value in {"none", "auto"}:
        return str(value)
    span: Range = to_range(value)
    return span


def to_ecam(value: object) -> int | str:
    """The address of the configuration window, or `none`."""
    if isinstance(value, str) and value == "none":
        return "none"
    return to_number(value)


def to_pin(value: object) -> int:
    """An interrupt pin: 0 to 4, or A to D."""
    text = value.strip().upper() if isinstance(value, str) else str(value)
    if text in _PINS:
        return _PINS[text]
    if text not in {"0", "1", "2", "3", "4"}:
        refuse(f"not an interrupt pin: {kind(value)}; write A, B, C, D, or 0 for none")
    return int(text)


def to_cpus(value: object) -> str:
    """A list of CPUs as the kernel prints it: `0-3,8`."""
    text = "".join(value.split()) if isinstance(value, str) else ""
    if not _CPUS.fullmatch(text):
        refuse(f"not a list of CPUs: {kind(value)}; write 0-3 or 0,2,4-7")
    bounds = [part.split("-") for part in text.split(",")]
    if any(int(part[0]) > int(part[-1]) or int(part[-1]) >= CPU_LIMIT for part in bounds):
        refuse(f"not a list of CPUs: {kind(value)}; each range goes up, to at most {CPU_LIMIT - 1}")
    return text


def to_claims(value: object) -> tuple[int, ...] | None:
    """What a driver claims: `all` (None), `none`, or a list of BAR indexes."""
    if value in ("all", None):
        return None
    if value == "none":
        return ()
    if not isinstance(value, list):
        refuse(f"not what a driver can claim: {kind(value)}; write all, none, or [0, 2]")
    numbers = tuple(to_number(item) for item in value)
    wrong = [number for number in numbers if number > 5]
    if wrong:
        refuse(f"there is no BAR {wrong[0]}: a function has BARs 0 to 5")
    return tuple(sorted(set(numbers)))


def to_errno(value: object) -> int:
    """An errno by its name or number; 0 for none."""
    name = value.strip().removeprefix("-").upper() if isinstance(value, str) else ""
    numbers = {text: code for code, text in errno.errorcode.items()}
    known = numbers | {str(code): code for code in (0, *errno.errorcode)}
    if name not in known:
        close = suggest(name, list(numbers)) if name else ""
        refuse(f"not an errno: {kind(value)}{close}; write EBUSY, ENODEV, ...")
    return known[name]


def _text(pattern: str, *examples: str) -> dict[str, Any]:
    return {
        "anyOf": [{"type": "string", "pattern": pattern}, {"type": "number"}],
        "examples": list(examples),
    }


_PAIR = r"^\s*(0[xX])?[0-9a-fA-F]{1,4}:(0[xX])?[0-9a-fA-F]{1,4}\s*$"
_ID = (
    r"^\s*(class:([0-9a-fA-F]{2}){1,3}(/[0-9a-fA-F]{1,6})?"
    r"|([0-9a-fA-F]{1,4}|\*):([0-9a-fA-F]{1,4}|\*)(:([0-9a-fA-F]{1,4}|\*)){0,2})\s*$"
)
_INDEXES = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 5}}

Pair = Annotated[
    tuple[int, int], PlainValidator(to_pair), WithJsonSchema(_text(_PAIR, "8086:100e"))
]
ClassCode = Annotated[
    int,
    PlainValidator(to_class),
    WithJsonSchema(_text(r"^\s*(0[xX])?[0-9a-fA-F]{6}\s*$", "010802")),
]
Revision = Annotated[
    int,
    PlainValidator(to_revision),
    WithJsonSchema(_text(r"^\s*(0[xX])?[0-9a-fA-F]{1,2}\s*$", "02")),
]
DriverId = Annotated[
    IdPlan, PlainValidator(to_driver_id), WithJsonSchema(_text(_ID, "8086:100e", "class:0108"))
]
IoSize = Annotated[
    int, PlainValidator(lambda value: to_size(value, "io")), WithJsonSchema(NUMBER_SCHEMA)
]
Mem32Size = Annotated[
    int, PlainValidator(lambda value: to_size(value, "mem32")), WithJsonSchema(NUMBER_SCHEMA)
]
Mem64Size = Annotated[
    int, PlainValidator(lambda value: to_size(value, "mem64")), WithJsonSchema(NUMBER_SCHEMA)
]
RomSize = Annotated[int, PlainValidator(to_rom_size), WithJsonSchema(NUMBER_SCHEMA)]
ConfigSize = Annotated[
    int, PlainValidator(to_config_size), WithJsonSchema({"enum": [256, 4096, "4K"]})
]
Window = Annotated[
    Range | str,
    PlainValidator(to_window),
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto"]}, RANGE_SCHEMA]}),
]
EcamBase = Annotated[
    int | str,
    PlainValidator(to_ecam),
    WithJsonSchema({"anyOf": [{"const": "none"}, NUMBER_SCHEMA]}),
]
Pin = Annotated[
    int,
    PlainValidator(to_pin),
    WithJsonSchema({"enum": [0, 1, 2, 3, 4, "A", "B", "C", "D", "a", "b", "c", "d"]}),
]
CpuList = Annotated[
    str,
    PlainValidator(to_cpus),
    WithJsonSchema(_text(r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$", "0-3")),
]
Claims = Annotated[
    tuple[int, ...] | None,
    PlainValidator(to_claims),
    WithJsonSchema({"anyOf": [{"enum": ["all", "none"]}, _INDEXES]}),
]
Errno = Annotated[
    int,
    PlainValidator(to_errno),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}], "examples": ["EBUSY"]}),
]
