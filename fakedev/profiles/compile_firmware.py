# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH118, PTH120
"""`firmware:` through its builders, with their problems at the line of the profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from fakedev.firmware.base import Firmware as Built
from fakedev.firmware.base import FirmwareError, Placed, overlaps
from fakedev.firmware.e820 import ACPI, E820Map, build_e820
from fakedev.model.ranges import Range
from fakedev.profiles.blobs import BlobError, read_blob
from fakedev.profiles.compile_memory import MemoryMap
from fakedev.profiles.context import Context, Path
from fakedev.profiles.fields import Part
from fakedev.profiles.nodes import Node
from fakedev.profiles.schema_firmware import E820Entry, Firmware

_NO_MAP = E820Map(entries=(), ram=(), resources=(), ram_buffers=(), high_memory=0, files={})
TABLE_LIMIT = 1 << 20


def build_map(entries: Sequence[E820Entry], context: Context) -> E820Map:
    """The e820 map, or an empty one where there is none or it is wrong."""
    if not entries:
        return _NO_MAP
    known = {place for place, _ in context.problems}
    try:
        return build_e820([{"range": entry.span, "type": entry.kind} for entry in entries])
    except FirmwareError as error:
        for problem in error.problems:
            path: Path = ("firmware", "e820", *problem.path)
            if context.place(*path) not in known:
                context.report(problem.text, *path)
        return _NO_MAP


def firmware(given: Firmware, mapped: MemoryMap, context: Context) -> Built:
    """SMBIOS and ACPI: what they put into memory and into /sys/firmware."""
    made: list[Built] = []
    if given.smbios is not None:
        from fakedev.firmware.smbios import build_smbios  # noqa: PLC0415 - for machines that have it

        made.append(_build(build_smbios, given.smbios, ("firmware", "smbios"), context))
    if given.acpi is not None:
        from fakedev.firmware.acpi import build_acpi  # noqa: PLC0415 - for machines that have it

        area = next((entry.span for entry in given.e820 if entry.kind == ACPI), None)
        build = partial(build_acpi, area=area)
        made.append(_build(build, given.acpi, ("firmware", "acpi"), context))
    placed = tuple(item for built in made for item in built.placed)
    for item in placed:
        span = Range(item.address, len(item.data))
        mapped.check(span, context, *_owner(item), what=item.name)
    for before, after in overlaps(placed):
        context.report(f"{after.name} at {after.address:#x} overlaps {before.name} "
                       f"({before.address:#x}-{before.end - 1:#x})", *_owner(after))  # fmt: skip
    return Built(placed, {path: file for built in made for path, file in built.files.items()})


def _owner(item: Placed) -> Path:
    if item.name.startswith("SMBIOS"):
        return ("firmware", "smbios", "table" if "table" in item.name else "entry_point")
    return ("firmware", "acpi", "rsdp" if item.name == "RSDP" else "tables_at")


def _build(build: Callable[..., Built], given: Part, path: Path, context: Context) -> Built:
    description = given.model_dump(by_alias=True, exclude_none=True)
    try:
        return build(description, blob=_Blobs(context, path))
    except FirmwareError as error:
        seen = set()
        for problem in error.problems:
            # The first problem of a value is the cause of the others.
            place = context.place(*path, *problem.path)
            if place not in seen:
                context.report(problem.text, *path, *problem.path)
            seen.add(place)
        return Built()


class _Blobs:
    """Reads the files that a builder asks for, relative to the YAML file that names each."""

    def __init__(self, context: Context, path: Path) -> None:
        self.context = context
        self.folders: dict[str, str] = {}
        self._learn(context.root.find(path))

    def _learn(self, node: Node) -> None:
        if isinstance(node.value, str):
            folder = os.path.dirname(node.place.file) if node.place.line else ""
            self.folders.setdefault(node.value, folder)
        members = node.value.values() if isinstance(node.value, dict) else node.value
        for member in members if not isinstance(members, str) and members else ():
            self._learn(member)

    def __call__(self, name: str) -> bytes:
        """The content of a file. Raises OSError with a message for people."""
        folder = self.folders.get(name, "")
        full = os.path.join(folder, name)
        try:
            blob = read_blob(full, self.context.inputs, room=TABLE_LIMIT)
        except BlobError as error:
            raise OSError(f"file {name!r} (looked for in {folder or os.curdir}): {error}") from None
        if blob.size != len(blob.data):
            raise OSError(
                f"file {name!r} has {blob.size:,} bytes; a table has at most {TABLE_LIMIT:,}"
            )
        return blob.data
