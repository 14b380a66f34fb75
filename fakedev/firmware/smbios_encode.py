"""One SMBIOS structure from its fields: the formatted area, and the set of strings behind it."""

import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fakedev.firmware.base import Path, Problems, hex_bytes, number
from fakedev.firmware.smbios_structures import STRUCTURES, Field, StructureType, Version

COMMON_KEYS = ("type", "handle", "length", "strings", "raw")
_UUID_SWAPPED: Version = (2, 6)


class Encoder:
    """Encodes one structure; problems are collected under `path`."""

    def __init__(
        self, given: Mapping[str, Any], *, version: Version, path: Path, problems: Problems
    ) -> None:
        self.given = given
        self.version = version
        self.path = path
        self.problems = problems
        self.strings: list[bytes] = []

    def encode(self, kind: StructureType, *, handle: int, handles: Mapping[str, int]) -> bytes:
        """The whole structure with its strings. `handles`: the first handle of each type name."""
        body = self._raw() if "raw" in self.given else self._fields(kind, handles)
        body = self._cut(body)
        more = self.given.get("strings", ())
        if not isinstance(more, list | tuple):
            self.problems.add((*self.path, "strings"), f"a list of texts is needed, not {more!r}")
            more = ()
        for index, text in enumerate(more):
            self._string(text, (*self.path, "strings", index))
        strings = b"".join(text + b"\0" for text in self.strings) or b"\0"
        return struct.pack("<BBH", kind.number, 4 + len(body), handle) + body + strings + b"\0"

    def _raw(self) -> bytes:
        self.problems.unknown_keys(self.given, COMMON_KEYS, self.path)
        return self._value(hex_bytes, "raw") or b""

    def _fields(self, kind: StructureType, handles: Mapping[str, int]) -> bytes:
        names = [field.name for field in kind.fields]
        self.problems.unknown_keys(self.given, (*COMMON_KEYS, *names), self.path)
        body = b""
        for field in kind.fields:
            if field.since <= self.version:
                body += self._field(field, handles)
            elif field.name in self.given:
                since, ours = (".".join(map(str, v)) for v in (field.since, self.version))
                self.problems.add(
                    (*self.path, field.name), f"came with SMBIOS {since}; this table is {ours}"
                )
        return body

    def _cut(self, body: bytes) -> bytes:
        length = self._value(lambda value: number(value, bits=8), "length", default=4 + len(body))
        if length is None:
            return body
        if length < 4 or length > 255:
            self.problems.add((*self.path, "length"), f"{length} is not a length of 4 to 255 bytes")
        return body[: length - 4].ljust(length - 4, b"\0")

    def _value(self, convert: Any, name: str, *, default: Any = None) -> Any:
        """The converted value of a key; None after a problem."""
        try:
            return convert(self.given[name]) if name in self.given else default
        except ValueError as error:
            self.problems.add((*self.path, name), str(error))
            return None

    def _field(self, field: Field, handles: Mapping[str, int]) -> bytes:
        default = field.default
        if isinstance(default, str) and default.startswith("@"):
            default = handles.get(default[1:], 0xFFFF)
        value = self.given.get(field.name, default)
        try:
            return self._encoded(field.format, value, field.name)
        except (ValueError, TypeError) as error:
            self.problems.add((*self.path, field.name), str(error))
            return b"\0"

    def _encoded(self, form: str, value: Any, name: str) -> bytes:
        if form == "text":
            return bytes([self._string(value, (*self.path, name))])
        if form == "uuid":
            return self._uuid(value)
        if form in {"texts", "handles", "records", "peers"}:
            return self._list(form, value, name)
        if form[0].isdigit():
            return _byte_list(value, int(form[:-1]))
        return struct.pack("<" + form, number(value, bits=8 * struct.calcsize("<" + form)))

    def _string(self, value: object, path: Path) -> int:
        """The number of a string in the set; 0 for an empty one."""
        if not isinstance(value, str):
            self.problems.add(
                path, f'a text is needed, not {value!r}; write it in quotes: "{value}"'
            )
            return 0
        if "\0" in value:
            self.problems.add(path, "a string of SMBIOS cannot hold a NUL byte")
            return 0
        if not value:
            return 0
        self.strings.append(value.encode())
        if len(self.strings) > 255:
            self.problems.add(path, "a structure holds at most 255 strings")
        return len(self.strings) & 0xFF

    def _uuid(self, value: object) -> bytes:
        if value in ("", 0):
            return bytes(16)
        try:
            parsed = uuid.UUID(str(value))
        except ValueError:
            hint = "write 33221100-5544-7766-8899-aabbccddeeff"
            raise ValueError(f"not a UUID: {value!r}; {hint}") from None
        return parsed.bytes_le if self.version >= _UUID_SWAPPED else parsed.bytes

    def _list(self, form: str, value: Any, name: str) -> bytes:
        items: Sequence[Any] = value or ()
        if not isinstance(items, list | tuple) or len(items) > 255:
            raise ValueError("a list of at most 255 entries is needed")
        if form == "texts":
            for index, text in enumerate(items):
                self._string(text, (*self.path, name, index))
            return bytes([len(items)])
        if form == "handles":
            return bytes([len(items)]) + b"".join(
                struct.pack("<H", number(item, bits=16)) for item in items
            )
        return _records(form, [hex_bytes(item) for item in items])


def _records(form: str, records: list[bytes]) -> bytes:
    sizes = {len(record) for record in records} or {5 if form == "peers" else 0}
    if len(sizes) > 1 or max(sizes) > 255 or (form == "peers" and sizes != {5}):
        raise ValueError("all records need the same length" + (", 5 bytes" * (form == "peers")))
    length = b"" if form == "peers" else bytes(sizes)
    return bytes([len(records)]) + length + b"".join(records)


def _byte_list(value: Any, count: int) -> bytes:
    if isinstance(value, int):
        return number(value, bits=8 * count).to_bytes(count, "little")
    data = hex_bytes(value)
    if len(data) != count:
        raise ValueError(f"{count} bytes are needed, not {len(data)}")
    return data


def structure_type(given: Mapping[str, Any], path: Path, problems: Problems) -> StructureType:
    """The type of a structure by its name, or by its number when its body is `raw`."""
    kind = given.get("type")
    if isinstance(kind, str) and kind in STRUCTURES:
        return STRUCTURES[kind]
    if isinstance(kind, int) and 0 <= kind <= 255:
        known = next((s for s in STRUCTURES.values() if s.number == kind), None)
        if "raw" in given or known is not None:
            return known or StructureType(kind, ())
        problems.add(
            (*path, "type"), f"type {kind} has no table of fields here; give its body as raw"
        )
        return StructureType(kind, ())
    if kind is None:
        problems.add(path, "a structure needs a type, such as type: bios_information")
    else:
        problems.unknown_keys([kind], list(STRUCTURES), (*path, "type"))
    return StructureType(0, ())
