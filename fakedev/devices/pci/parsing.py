"""Numbers as the kernel reads them out of a sysfs file. Whatever they refuse raises PciError."""

import errno
import re

from fakedev.devices.kstrtox import unsigned
from fakedev.devices.pci.driver import ANY_ID, PciId
from fakedev.devices.pci.errors import PciError

_HEX = re.compile(r"\s*(?:0[xX])?([0-9a-fA-F]+)", re.ASCII)
_INT_MAX = (1 << 31) - 1
_LONGEST = 64


def kstrtoul(text: str) -> int:
    """`kstrtoul` with base 0: `12`, `0x0c`, `014`, one newline behind it. EINVAL, or ERANGE."""
    value = unsigned(text)
    if value is None:
        raise PciError(f"not a number: {text[:_LONGEST]!r}")
    if value >> 64:
        raise PciError(f"{text[:_LONGEST].strip()} does not fit in 64 bits", errno=errno.ERANGE)
    return value


def kstrtoint(text: str) -> int:
    """`kstrtoint` with base 0: as `kstrtoul`, and a minus may lead. EINVAL, or ERANGE."""
    negative = text.startswith("-")
    value = kstrtoul(text[1:] if negative and text[1:2] != "+" else text)
    if value > _INT_MAX + negative:
        raise PciError(f"{text[:_LONGEST].strip()} does not fit in an int", errno=errno.ERANGE)
    return -value if negative else value


def hex_fields(text: str, most: int) -> list[int]:
    """Up to `most` hexadecimal numbers as `sscanf("%x %x ...")` takes them; it stops at junk."""
    fields: list[int] = []
    at = 0
    while len(fields) < most and (match := _HEX.match(text, at)):
        fields.append(int(match[1], 16) & (1 << 64) - 1)
        at = match.end()
    return fields


def dynamic_id(text: str) -> tuple[PciId, int]:
    """What is written to `new_id` and `remove_id`, and how many fields there were. EINVAL below two."""
    fields = hex_fields(text, 7)
    if len(fields) < 2:
        raise PciError(f"needs at least a vendor and a device, hexadecimal: {text[:_LONGEST]!r}")
    defaults = (0, 0, ANY_ID, ANY_ID, 0, 0, 0)
    values = [*fields, *defaults[len(fields) :]]
    vendor, device, subvendor, subdevice, class_, mask = (value & ANY_ID for value in values[:6])
    entry = PciId(vendor, device, subvendor, subdevice, class_, mask, values[6])
    return entry, len(fields)


def streq(text: str, name: str) -> bool:
    """`sysfs_streq`: equal, but for one newline at the end."""
    return text in (name, f"{name}\n")
