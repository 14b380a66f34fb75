"""What Linux shows of SMBIOS: drivers/firmware/dmi_scan.c, dmi-id.c and dmi-sysfs.c as files."""

import uuid
from collections import Counter
from collections.abc import Sequence

from fakedev.firmware.dmi_table import Structure, parse_table
from fakedev.firmware.smbios_structures import Version
from fakedev.model.files import StaticFile

_TABLES = "/sys/firmware/dmi/tables"
_ENTRIES = "/sys/firmware/dmi/entries"
_ID = "/sys/devices/virtual/dmi/id"

# attribute: (structure type, offset, mode), in the order of dmi_decode; text unless listed below
_TEXTS = {
    "bios_vendor": (0, 4, 0o444),
    "bios_version": (0, 5, 0o444),
    "bios_date": (0, 8, 0o444),
    "sys_vendor": (1, 4, 0o444),
    "product_name": (1, 5, 0o444),
    "product_version": (1, 6, 0o444),
    "product_serial": (1, 7, 0o400),
    "product_sku": (1, 25, 0o444),
    "product_family": (1, 26, 0o444),
    "board_vendor": (2, 4, 0o444),
    "board_name": (2, 5, 0o444),
    "board_version": (2, 6, 0o444),
    "board_serial": (2, 7, 0o400),
    "board_asset_tag": (2, 8, 0o444),
    "chassis_vendor": (3, 4, 0o444),
    "chassis_version": (3, 6, 0o444),
    "chassis_serial": (3, 7, 0o400),
    "chassis_asset_tag": (3, 8, 0o444),
}
# get_modalias: the order and the prefixes
_MODALIAS = {
    "bvn": "bios_vendor",
    "bvr": "bios_version",
    "bd": "bios_date",
    "br": "bios_release",
    "efr": "ec_firmware_release",
    "svn": "sys_vendor",
    "pn": "product_name",
    "pvr": "product_version",
    "rvn": "board_vendor",
    "rn": "board_name",
    "rvr": "board_version",
    "cvn": "chassis_vendor",
    "ct": "chassis_type",
    "cvr": "chassis_version",
    "sku": "product_sku",
}


def dmi_files(entry_point: bytes, table: bytes, *, version: Version) -> dict[str, StaticFile]:
    """All DMI files of sysfs, by path."""
    structures = parse_table(table)
    files = {
        f"{_TABLES}/smbios_entry_point": StaticFile.regular(entry_point, 0o400),
        f"{_TABLES}/DMI": StaticFile.regular(table, 0o400),
    }
    return files | _entries(structures) | _identity(structures, version)


def _entries(structures: Sequence[Structure]) -> dict[str, StaticFile]:
    files: dict[str, StaticFile] = {}
    seen: Counter[int] = Counter()
    for position, one in enumerate(structures):
        place = f"{_ENTRIES}/{one.type}-{seen[one.type]}"
        values = {
            "length": len(one.formatted),
            "handle": one.handle,
            "type": one.type,
            "instance": seen[one.type],
            "position": position,
        }
        seen[one.type] += 1
        files |= {f"{place}/{name}": StaticFile.text(f"{v}\n", 0o400) for name, v in values.items()}
        files[f"{place}/raw"] = StaticFile.regular(one.data, 0o400)
    return files


def dmi_identity(structures: Sequence[Structure], version: Version) -> dict[str, str]:
    """The identity of the machine: attribute name of `/sys/class/dmi/id` → value."""
    first = {one.type: one for one in reversed(structures)}
    identity = {
        name: text
        for name, (kind, offset, _) in _TEXTS.items()
        if kind in first and (text := first[kind].text(offset)) is not None
    }
    for name, kind, offset in (("bios_release", 0, 20), ("ec_firmware_release", 0, 22)):
        release = first[kind].formatted[offset : offset + 2] if kind in first else b""
        if len(release) == 2 and release != b"\xff\xff":
            identity[name] = f"{release[0]}.{release[1]}"
    if 1 in first and (text := _uuid(first[1].formatted[8:24], version)):
        identity["product_uuid"] = text
    if 3 in first and (chassis := first[3].byte(5)) is not None:
        identity["chassis_type"] = str(chassis & 0x7F)
    return identity


def _uuid(raw: bytes, version: Version) -> str:
    if len(raw) < 16 or raw in {bytes(16), b"\xff" * 16}:
        return ""
    swapped = version >= (2, 6)
    return str(uuid.UUID(bytes_le=raw) if swapped else uuid.UUID(bytes=raw))


def modalias(identity: dict[str, str]) -> str:
    """`dmi:bvn...:bvr...:` with only the characters that the kernel lets through."""
    parts = [
        prefix + "".join(c for c in identity[name] if " " < c < "\x7f" and c != ":")
        for prefix, name in _MODALIAS.items()
        if name in identity
    ]
    return "dmi:" + "".join(f"{part}:" for part in parts)


def _identity(structures: Sequence[Structure], version: Version) -> dict[str, StaticFile]:
    identity = dmi_identity(structures, version)
    alias = modalias(identity)
    files = {
        f"{_ID}/{name}": StaticFile.text(f"{value}\n", 0o400 if name == "product_uuid" else mode)
        for name, value in identity.items()
        for mode in (_TEXTS[name][2] if name in _TEXTS else 0o444,)
    }
    return files | {
        f"{_ID}/modalias": StaticFile.text(f"{alias}\n"),
        f"{_ID}/uevent": StaticFile.text(f"MODALIAS={alias}\n", 0o644),
        f"{_ID}/subsystem": StaticFile.symlink("../../../../class/dmi"),
        "/sys/class/dmi/id": StaticFile.symlink("../../devices/virtual/dmi/id"),
    }
