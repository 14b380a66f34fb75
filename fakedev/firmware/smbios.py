"""SMBIOS: the structure table, its entry point, and what Linux shows of them in sysfs.

`build_smbios` takes a mapping with these keys, all optional:

    version            "2.8"; the fields of newer versions are left out
    entry              "2.1" (`_SM_`, 31 bytes) or "3.0" (`_SM3_`, 24 bytes); default by version
    entry_point        its address, default 0xf0010
    table              address of the structure table, default 0xf1000
    structures         list of mappings: `type` (a name in `smbios_structures.py`), `handle`, and
                       the fields, or `raw` (hexadecimal body) with `strings`; `length` cuts or pads
    raw                file with a whole structure table, in place of `structures`
    raw_entry_point    file with an entry point, in place of a made one
    max_structure_size in a 2.1 entry point; default: the largest structure
    docrev             in a 3.0 entry point
    sysfs              false: no files
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from fakedev.firmware.base import (
    Blob,
    Firmware,
    Path,
    Placed,
    Problems,
    number,
    overlaps,
    read_blob,
    summed,
)
from fakedev.firmware.dmi_sysfs import dmi_files
from fakedev.firmware.dmi_table import parse_table
from fakedev.firmware.smbios_encode import Encoder, structure_type
from fakedev.firmware.smbios_structures import STRUCTURES, Version

KEYS = (
    "version", "entry", "entry_point", "table", "structures", "raw", "raw_entry_point",
    "max_structure_size", "docrev", "sysfs",
)  # fmt: skip
_ANCHORS = {"2.1": b"_SM_", "3.0": b"_SM3_"}


class EntryPoint(NamedTuple):
    """What an entry point says."""

    version: Version
    table: int
    length: int


def build_smbios(description: Mapping[str, Any], *, blob: Blob | None = None) -> Firmware:
    """The placed table and entry point, and the files of sysfs. `blob` reads a file by its name.

    Raises FirmwareError with every unknown key, bad value and impossible address.
    """
    builder = _Builder(description, blob)
    table = builder.table_bytes()
    builder.problems.stop()
    entry = builder.entry_bytes(table)
    builder.problems.stop()
    placed = (
        Placed(builder.entry_address, entry, "SMBIOS entry point"),
        Placed(builder.table_address, table, "SMBIOS structure table"),
    )
    for first, second in overlaps(placed):
        builder.problems.add(
            (), f"the {second.name} at {second.address:#x} overlaps the {first.name}"
        )
    builder.problems.stop()
    sysfs = description.get("sysfs", True)
    return Firmware(placed, dmi_files(entry, table, version=builder.version) if sysfs else {})


def parse_entry_point(data: bytes) -> EntryPoint:
    """The version, and the place of the table. Raises ValueError for anything else."""
    if data[:5] == b"_SM3_" and len(data) >= 24:
        length, table = struct.unpack_from("<IQ", data, 12)
        return EntryPoint((data[7], data[8]), table, length)
    if data[:4] == b"_SM_" and data[16:21] == b"_DMI_" and len(data) >= 31:
        length, table = struct.unpack_from("<HI", data, 22)
        return EntryPoint((data[6], data[7]), table, length)
    raise ValueError("an SMBIOS entry point starts with _SM_ (31 bytes) or _SM3_ (24 bytes)")


def entry_point_21(table: int, length: int, count: int, largest: int, version: Version) -> bytes:
    """`_SM_` with its intermediate `_DMI_` part, both with their checksums (DSP0134 5.2.1)."""
    bcd = version[0] << 4 | version[1]
    middle = struct.pack("<5sBHIHB", b"_DMI_", 0, length, table, count, bcd)
    head = struct.pack("<4sBBBBHB5x", b"_SM_", 0, 0x1F, *version, largest, 0)
    return summed(head + summed(middle, 5), 4)


def entry_point_30(table: int, length: int, version: Version, docrev: int = 0) -> bytes:
    """`_SM3_` (DSP0134 5.2.2)."""
    entry = struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 0x18, *version, docrev, 1, 0, length, table)
    return summed(entry, 5)


class _Builder:
    def __init__(self, description: Mapping[str, Any], blob: Blob | None) -> None:
        self.given = description
        self.blob = blob
        self.problems = Problems()
        self.problems.unknown_keys(description, KEYS, ())
        self.version = self._version()
        self.entry_address = self._number("entry_point", 0xF0010)
        self.table_address = self._number("table", 0xF1000)
        self.raw_entry = self._raw_entry()

    def table_bytes(self) -> bytes:
        if "raw" not in self.given:
            return self._structures()
        if "structures" in self.given:
            self.problems.add(("raw",), "give either 'raw' or 'structures', not both")
        return self._file("raw")

    def entry_bytes(self, table: bytes) -> bytes:
        if self.raw_entry:
            return self.raw_entry
        structures = parse_table(table)
        kind = str(self.given.get("entry", "3.0" if self.version >= (3, 0) else "2.1"))
        if kind not in _ANCHORS:
            self.problems.add(("entry",), f"there is no entry point {kind!r}; known: 2.1 and 3.0")
        if self.entry_address % 16:
            self.problems.add(
                ("entry_point",),
                f"{self.entry_address:#x} is not a multiple of 16: nothing finds it there",
            )
        if kind == "3.0":
            return entry_point_30(
                self.table_address, len(table), self.version, self._number("docrev", 0, bits=8)
            )
        largest = max((structure.size for structure in structures), default=0)
        if self.table_address >= 1 << 32 or len(table) > 0xFFFF:
            self.problems.add(
                ("entry",), "the table lies above 4 GiB or is too long: that needs entry 3.0"
            )
            return b""
        largest = self._number("max_structure_size", largest, bits=16)
        return entry_point_21(
            self.table_address, len(table), len(structures), largest, self.version
        )

    def _version(self) -> Version:
        text = str(self.given.get("version", "2.8"))
        major, _, minor = text.partition(".")
        if major.isdigit() and minor.isdigit() and 2 <= int(major) <= 3 and int(minor) < 16:
            return int(major), int(minor)
        self.problems.add(("version",), f'not a version of SMBIOS: {text!r}; write "2.8" or "3.4"')
        return 2, 8

    def _number(self, name: str, default: int, *, bits: int = 64) -> int:
        try:
            return number(self.given.get(name, default), bits=bits)
        except ValueError as error:
            self.problems.add((name,), str(error))
            return default

    def _file(self, name: str) -> bytes:
        return read_blob(self.blob, self.given[name], (name,), self.problems)

    def _raw_entry(self) -> bytes:
        """A given entry point decides version and table address."""
        if "raw_entry_point" not in self.given:
            return b""
        data = self._file("raw_entry_point")
        try:
            entry = parse_entry_point(data)
        except ValueError as error:
            self.problems.add(("raw_entry_point",), str(error))
            return data
        if "table" in self.given and entry.table != self.table_address:
            self.problems.add(
                ("table",), f"the entry point says {entry.table:#x}, not {self.table_address:#x}"
            )
        self.version, self.table_address = entry.version, entry.table
        return data

    def _structures(self) -> bytes:
        given = self.problems.mappings(self.given.get("structures", ()), ("structures",))
        if all(one.get("type") not in ("end_of_table", 127) for one in given):
            given.append({"type": "end_of_table"})
        handles = self._handles(given)
        names = {kind.number: name for name, kind in STRUCTURES.items()}
        first: dict[str, int] = {}
        for one, handle in zip(given, handles, strict=True):
            kind = structure_type(one, (), Problems())
            first.setdefault(names.get(kind.number, ""), handle)
        return b"".join(
            self._encode(one, ("structures", index), handles[index], first)
            for index, one in enumerate(given)
        )

    def _encode(
        self, given: Mapping[str, Any], path: Path, handle: int, first: Mapping[str, int]
    ) -> bytes:
        kind = structure_type(given, path, self.problems)
        encoder = Encoder(given, version=self.version, path=path, problems=self.problems)
        return encoder.encode(kind, handle=handle, handles=first)

    def _handles(self, given: list[Mapping[str, Any]]) -> list[int]:
        """Handles as given; the others are made of the type and a count, as firmware often does."""
        handles: list[int] = []
        for index, one in enumerate(given):
            path = ("structures", index, "handle")
            kind = structure_type(one, (), Problems()).number
            try:
                handle = number(one["handle"], bits=16) if "handle" in one else kind << 8
            except ValueError as error:
                self.problems.add(path, str(error))
                handle = kind << 8
            while "handle" not in one and handle in handles:
                handle += 1
            if handle in handles:
                self.problems.add(path, f"{handle:#06x} is the handle of another structure")
            handles.append(handle & 0xFFFF)
        return handles
