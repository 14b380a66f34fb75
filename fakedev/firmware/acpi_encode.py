"""One ACPI table from its fields, from AML, or from raw bytes."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from fakedev.firmware import acpi_tables
from fakedev.firmware.acpi_tables import EntryType, Field, TableType
from fakedev.firmware.base import Path, Problems, hex_bytes, number, summed

HEADER_KEYS = (
    "revision",
    "oem_id",
    "oem_table_id",
    "oem_revision",
    "creator_id",
    "creator_revision",
)
SOURCES = ("file", "hex", "aml", "aml_file", "body")
COMMON_KEYS = ("signature", "at", *HEADER_KEYS)
HEADER_SIZE = 36
_TEXT_SIZES = {"oem_id": 6, "oem_table_id": 8, "creator_id": 4}
_DEFAULTS = {
    "oem_id": "FAKEDV",
    "oem_table_id": "FAKETBL",
    "oem_revision": 1,
    "creator_id": "FKDV",
    "creator_revision": 1,
}


def padded(value: object, size: int) -> bytes:
    """An identifier of the header: ASCII, filled with blanks. Raises ValueError."""
    text = value.encode("ascii", "replace") if isinstance(value, str) else b""
    if not text or len(text) > size or b"?" in text:
        raise ValueError(
            f"an identifier of at most {size} ASCII characters is needed, not {value!r}"
        )
    return text.ljust(size)


class TableEncoder:
    """Encodes one table. `shared` has the header fields that all tables inherit."""

    def __init__(
        self,
        given: Mapping[str, Any],
        *,
        shared: Mapping[str, Any],
        path: Path,
        problems: Problems,
        load: Callable[[str, Path], bytes],
    ) -> None:
        self.given = given
        self.header = _DEFAULTS | dict(shared) | dict(given)
        self.path = path
        self.problems = problems
        self.load = load
        self.signature = str(given.get("signature", ""))

    def encode(self, pointers: Mapping[str, int]) -> bytes:
        """The whole table. `pointers` fill the fields of a FADT that are not given."""
        sources = [name for name in SOURCES if name in self.given]
        if len(sources) > 1:
            self._problem(sources[1], f"give either {sources[0]!r} or {sources[1]!r}, not both")
        if sources:
            self.problems.unknown_keys(self.given, (*COMMON_KEYS, *sources), self.path)
            return self._from_source(sources[0])
        if self.signature == "FACS":
            self.problems.unknown_keys(
                self.given, (*COMMON_KEYS, *_names(acpi_tables.FACS)), self.path
            )
            body = self._fields(acpi_tables.FACS, self.given, self.path)
            return struct.pack("<4sI", b"FACS", 8 + len(body)) + body
        if self.signature not in acpi_tables.TABLES:
            known = ", ".join((*acpi_tables.TABLES, "FACS"))
            self._problem(
                "signature",
                f"a table {self.signature!r} needs content: give aml, aml_file, body, file or hex "
                f"(fields are known for {known})",
            )
            return b""
        return self._from_fields(acpi_tables.TABLES[self.signature], pointers)

    def _problem(self, name: str, text: str) -> None:
        """Notes a problem where the value stands: in this table, or in what all tables share."""
        shared = name in HEADER_KEYS and name not in self.given
        self.problems.add((name,) if shared else (*self.path, name), text)

    def _from_source(self, source: str) -> bytes:
        value = self.given[source]
        try:
            in_file = source in {"file", "aml_file"} and not isinstance(value, bytes)
            data = self.load(str(value), (*self.path, source)) if in_file else hex_bytes(value)
        except ValueError as error:
            self._problem(source, str(error))
            return b""
        if source in {"file", "hex"}:
            return self._whole(data, source) if data else b""
        return self._with_header(data, revision=2 if self.signature in {"DSDT", "SSDT"} else 1)

    def _whole(self, data: bytes, source: str) -> bytes:
        """A table as it is, checksum included; its header must fit it."""
        length = int.from_bytes(data[4:8], "little")
        if data[:4] != self.signature.encode("ascii", "replace"):
            self._problem(source, f"the table is {data[:4]!r}, not {self.signature!r}")
        elif length != len(data):
            self._problem(source, f"its header says {length} bytes; there are {len(data)}")
        return data

    def _from_fields(self, kind: TableType, pointers: Mapping[str, int]) -> bytes:
        entries = (kind.entries,) if kind.entries else ()
        names = (*COMMON_KEYS, "length", *_names(kind.fields), *entries)
        self.problems.unknown_keys(self.given, names, self.path)
        values = {**(pointers if self.signature == "FACP" else {}), **self.given}
        body = self._fields(kind.fields, values, self.path)
        place = (*self.path, kind.entries)
        for index, entry in enumerate(self.problems.mappings(values.get(kind.entries, ()), place)):
            body += self._entry(entry, (*place, index))
        length = self._length(kind, HEADER_SIZE + len(body)) - HEADER_SIZE
        return self._with_header(body[:length].ljust(length, b"\0"), revision=kind.revision)

    def _length(self, kind: TableType, length: int) -> int:
        revision = self._number("revision", kind.revision, 8)
        by_revision = next((size for limit, size in kind.lengths if revision <= limit), length)
        wanted = self._number("length", by_revision, 32)
        if wanted < HEADER_SIZE or wanted > 1 << 24:
            self._problem("length", f"{wanted} bytes cannot be the length of a table")
            return HEADER_SIZE
        return wanted

    def _number(self, name: str, default: int, bits: int) -> int:
        try:
            return number(self.header.get(name, default), bits=bits)
        except ValueError as error:
            self._problem(name, str(error))
            return default

    def _with_header(self, body: bytes, *, revision: int) -> bytes:
        texts = {}
        for name, size in _TEXT_SIZES.items():
            try:
                texts[name] = padded(self.header[name], size)
            except ValueError as error:
                self._problem(name, str(error))
                texts[name] = bytes(size)
        header = struct.pack(
            "<4sIBB6s8sI4sI",
            self.signature.encode("ascii", "replace"),
            HEADER_SIZE + len(body),
            self._number("revision", revision, 8),
            0,
            texts["oem_id"],
            texts["oem_table_id"],
            self._number("oem_revision", 1, 32),
            texts["creator_id"],
            self._number("creator_revision", 1, 32),
        )
        return summed(header + body, 9)

    def _fields(self, fields: tuple[Field, ...], values: Mapping[str, Any], path: Path) -> bytes:
        return b"".join(self._field(field, values, path) for field in fields)

    def _field(self, field: Field, values: Mapping[str, Any], path: Path) -> bytes:
        if field.format.endswith("x"):
            return bytes(int(field.format[:-1]))
        value = values.get(field.name, field.default)
        size = 12 if field.format == "gas" else struct.calcsize("<" + field.format)
        try:
            if field.format == "gas":
                return self._address(value, field, (*path, field.name))
            return struct.pack("<" + field.format, number(value, bits=8 * size))
        except ValueError as error:
            self.problems.add((*path, field.name), str(error))
            return bytes(size)

    def _address(self, value: Any, field: Field, path: Path) -> bytes:
        """A generic address structure: a number is a memory address in the field's usual form."""
        space, width, offset, access = field.template
        if not isinstance(value, Mapping):
            return struct.pack("<BBBBQ", space, width, offset, access, number(value))
        keys = ("space", "width", "offset", "access", "address")
        self.problems.unknown_keys(value, keys, path)
        numbers = dict(zip(keys, (*field.template, 0), strict=True)) | dict(value)
        numbers["space"] = acpi_tables.SPACES.get(str(numbers["space"]), numbers["space"])
        small = bytes(number(numbers[key], bits=8) for key in keys[:4])
        return small + struct.pack("<Q", number(numbers["address"]))

    def _entry(self, given: Mapping[str, Any], path: Path) -> bytes:
        if self.signature == "MCFG":
            kind: EntryType | None = acpi_tables.MCFG_ALLOCATION
            names: tuple[str, ...] = ()
        else:
            if "raw" in given:
                return self._raw_entry(given, path)
            names = ("type",)
            kind = acpi_tables.MADT_ENTRIES.get(str(given.get("type")))
        if kind is None:
            known = list(acpi_tables.MADT_ENTRIES)
            self.problems.unknown_keys([given.get("type")], known, (*path, "type"))
            return b""
        self.problems.unknown_keys(given, (*names, *_names(kind.fields)), path)
        body = self._fields(kind.fields, given, path)
        return body if kind.number is None else bytes([kind.number, 2 + len(body)]) + body

    def _raw_entry(self, given: Mapping[str, Any], path: Path) -> bytes:
        self.problems.unknown_keys(given, ("raw",), path)
        try:
            return hex_bytes(given["raw"])
        except ValueError as error:
            self.problems.add((*path, "raw"), str(error))
            return b""


def _names(fields: tuple[Field, ...]) -> tuple[str, ...]:
    return tuple(field.name for field in fields if not field.format.endswith("x"))
