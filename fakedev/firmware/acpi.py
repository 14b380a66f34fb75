"""ACPI: RSDP, RSDT, XSDT and the tables they lead to, at their addresses, and sysfs' view of them.

`build_acpi` takes a mapping with these keys; all but `tables` have defaults:

    rsdp          address of the RSDP, default 0xf5a40 (in the BIOS area, a multiple of 16)
    revision      0 (RSDT only) or 2 (RSDT and XSDT)
    tables_at     an address, or a range that all tables must fit in
    alignment     of each table, default 64
    oem_id, oem_table_id, oem_revision, creator_id, creator_revision   for headers that are made
    tables        list, in the order of their addresses: `signature`, then one of
                  the fields of `acpi_tables.py`;  `aml` (hexadecimal) or `aml_file`: the code of a
                  DSDT or SSDT;  `body` (hexadecimal) behind a made header;  `file` or `hex`: the
                  whole table with its header;  and `at`: its own address
    sysfs         false: no files

RSDT and XSDT are made unless they are in the list. The pointers of a FADT that is made of fields
lead to the FACS and the DSDT of the list.
"""

import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fakedev.firmware.acpi_encode import HEADER_KEYS, TableEncoder, padded
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
from fakedev.model.errors import RangeError
from fakedev.model.files import StaticFile
from fakedev.model.ranges import Range, parse_range

KEYS = ("rsdp", "revision", "tables_at", "alignment", "tables", "sysfs", *HEADER_KEYS[1:])
_TOO_HIGH = "an RSDT has 32-bit addresses: tables cannot lie above 4 GiB"
_SYSFS = "/sys/firmware/acpi"
_ROOTS = ("RSDT", "XSDT")
# these hang on the FADT, not on the root table
_UNLISTED = ("DSDT", "FACS", *_ROOTS)


def build_acpi(
    description: Mapping[str, Any], *, blob: Blob | None = None, area: Range | None = None
) -> Firmware:
    """The placed RSDP and tables, and the files of `/sys/firmware/acpi`.

    `blob` reads a file by its name. `area` is where tables go when `tables_at` is not given: the
    e820 range of ACPI tables. Raises FirmwareError: unknown keys, bad values, an area that is too
    small, tables that overlap.
    """
    builder = _Builder(description, blob, area)
    builder.problems.stop()
    placed = builder.place()
    builder.problems.stop()
    return Firmware(tuple(placed), acpi_files(placed) if description.get("sysfs", True) else {})


def acpi_files(placed: list[Placed]) -> dict[str, StaticFile]:
    """`/sys/firmware/acpi/tables`: the root tables are not shown, equal names get numbers."""
    shown = [one for one in placed if one.name not in {*_ROOTS, "RSDP"}]
    total = Counter(one.name for one in shown)
    seen: Counter[str] = Counter()
    files = {f"{_SYSFS}/tables/{name}": StaticFile.directory() for name in ("data", "dynamic")}
    for one in shown:
        seen[one.name] += 1
        suffix = str(seen[one.name]) if total[one.name] > 1 else ""
        files[f"{_SYSFS}/tables/{one.name}{suffix}"] = StaticFile.regular(one.data, 0o400)
        if one.name == "FACP" and len(one.data) > 45:
            files[f"{_SYSFS}/pm_profile"] = StaticFile.text(f"{one.data[45]}\n")
    return files


def rsdp(oem_id: bytes, rsdt: int, xsdt: int, revision: int) -> bytes:
    """The root pointer: 20 bytes, and 16 more from revision 2 on (ACPI 5.2.5.3)."""
    first = summed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, oem_id, revision, rsdt), 8)
    return first if revision < 2 else summed(first + struct.pack("<IQB3x", 36, xsdt, 0), 32)


class _Builder:
    def __init__(
        self, description: Mapping[str, Any], blob: Blob | None, area: Range | None
    ) -> None:
        self.given = description
        self.blob = blob
        self.problems = Problems()
        self.problems.unknown_keys(description, KEYS, ())
        self.revision = self._number("revision", 2, bits=8)
        if self.revision not in {0, 2}:
            self.problems.add(("revision",), f"the RSDP has revision 0 or 2, not {self.revision}")
        self.alignment = self._number("alignment", 64, bits=32)
        if self.alignment & (self.alignment - 1) or not self.alignment:
            self.problems.add(("alignment",), f"{self.alignment} is not a power of two")
        self.rsdp = self._number("rsdp", 0xF5A40)
        if self.rsdp % 16:
            self.problems.add(
                ("rsdp",), f"{self.rsdp:#x} is not a multiple of 16: nothing finds it there"
            )
        self.area = self._area(area)
        self.shared = {key: description[key] for key in HEADER_KEYS[1:] if key in description}
        self.files: dict[str, bytes] = {}
        self.tables = self._tables()

    def place(self) -> list[Placed]:
        """All tables and the RSDP; sizes do not depend on addresses, so a first pass finds them."""
        sizes = [len(table.encode({})) for table in self.tables]
        self.problems.stop()
        addresses = self._addresses(sizes)
        where = dict(zip((t.signature for t in self.tables), addresses, strict=True))
        pointers = self._pointers(where)
        listed = [
            a for t, a in zip(self.tables, addresses, strict=True) if t.signature not in _UNLISTED
        ]
        placed = []
        for table, address in zip(self.tables, addresses, strict=True):
            data = table.encode(pointers)
            placed.append(Placed(address, self._root(table, data, listed), table.signature))
        placed.append(self._rsdp(where))
        for first, second in overlaps(placed):
            self.problems.add(
                (),
                f"{second.name} at {second.address:#x} overlaps {first.name}, "
                f"which ends at {first.end - 1:#x}",
            )
        return placed

    def _tables(self) -> list[TableEncoder]:
        given = self.problems.mappings(self.given.get("tables", ()), ("tables",))
        signatures = {str(one.get("signature")) for one in given}
        wanted = [name for name in _ROOTS[: 1 + (self.revision >= 2)] if name not in signatures]
        listed = sum(str(one.get("signature")) not in _UNLISTED for one in given)
        given += [
            {"signature": name, "body": bytes(listed * (4 if name == "RSDT" else 8))}
            for name in wanted
        ]
        tables = [self._encoder(one, index) for index, one in enumerate(given)]
        for index, table in enumerate(tables):
            if len(table.signature) != 4 or not table.signature.isascii():
                problem = f"a signature has four ASCII characters, not {table.signature!r}"
                self.problems.add(("tables", index, "signature"), problem)
        return tables

    def _encoder(self, given: Mapping[str, Any], index: int) -> TableEncoder:
        path = ("tables", index)
        return TableEncoder(
            given, shared=self.shared, path=path, problems=self.problems, load=self._load
        )

    def _load(self, name: str, path: Path) -> bytes:
        if name not in self.files:
            self.files[name] = read_blob(self.blob, name, path, self.problems)
        return self.files[name]

    def _addresses(self, sizes: list[int]) -> list[int]:
        addresses = []
        cursor = self.area.start
        for index, (table, size) in enumerate(zip(self.tables, sizes, strict=True)):
            if "at" in table.given:
                addresses.append(self._fixed(table, index))
                continue
            cursor = (cursor + self.alignment - 1) & ~(self.alignment - 1)
            addresses.append(cursor)
            cursor += size
            if cursor > self.area.end:
                self.problems.add(
                    ("tables_at",),
                    f"{self.area} is too small: {table.signature} would end at {cursor - 1:#x}, "
                    f"{cursor - self.area.end} bytes too far",
                )
                self.problems.stop()
        return addresses

    def _fixed(self, table: TableEncoder, index: int) -> int:
        try:
            return number(table.given["at"])
        except ValueError as error:
            self.problems.add(("tables", index, "at"), str(error))
            return 0

    def _pointers(self, where: Mapping[str, int]) -> dict[str, int]:
        facs, dsdt = where.get("FACS", 0), where.get("DSDT", 0)
        low = {"firmware_ctrl": facs, "dsdt": dsdt}
        return {k: v for k, v in low.items() if v < 1 << 32} | {
            "x_firmware_ctrl": facs,
            "x_dsdt": dsdt,
        }

    def _root(self, table: TableEncoder, data: bytes, listed: list[int]) -> bytes:
        """A root table that is made here gets its addresses; one from a file stays as it is."""
        if table.signature not in _ROOTS or not isinstance(table.given.get("body"), bytes):
            return data
        form = "I" if table.signature == "RSDT" else "Q"
        if form == "I" and any(address >= 1 << 32 for address in listed):
            self.problems.add(("tables_at",), _TOO_HIGH)
            return data
        return summed(data[:36] + struct.pack(f"<{len(listed)}{form}", *listed), 9)

    def _rsdp(self, where: Mapping[str, int]) -> Placed:
        try:
            oem = padded(self.given.get("oem_id", "FAKEDV"), 6)
        except ValueError as error:
            self.problems.add(("oem_id",), str(error))
            oem = bytes(6)
        if where.get("RSDT", 0) >= 1 << 32:
            self.problems.add(("tables_at",), _TOO_HIGH)
        data = rsdp(oem, where.get("RSDT", 0) & 0xFFFFFFFF, where.get("XSDT", 0), self.revision)
        return Placed(self.rsdp, data, "RSDP")

    def _number(self, name: str, default: int, *, bits: int = 64) -> int:
        try:
            return number(self.given.get(name, default), bits=bits)
        except ValueError as error:
            self.problems.add((name,), str(error))
            return default

    def _area(self, area: Range | None) -> Range:
        value = self.given.get("tables_at", area)
        if isinstance(value, Range):
            return value
        if value is None:
            self.problems.add(
                ("tables_at",), "a place for the tables is missing; write an address or a range"
            )
            return Range(0, 0)
        try:
            if isinstance(value, str) and ("-" in value or "+" in value):
                return parse_range(value)
            start = number(value)
        except (ValueError, RangeError) as error:
            self.problems.add(("tables_at",), str(error))
            return Range(0, 0)
        inside = area is not None and area.start <= start < area.end
        return Range(start, (area.end if area is not None and inside else 1 << 64) - start)
