"""Reads a table of SMBIOS structures, as the kernel's dmi_scan does."""

from collections.abc import Sequence
from typing import NamedTuple

END_OF_TABLE = 127


class Structure(NamedTuple):
    """One structure: `formatted` is its area with the header, `data` all of it with strings."""

    type: int
    handle: int
    formatted: bytes
    data: bytes

    @property
    def size(self) -> int:
        """Bytes with the strings."""
        return len(self.data)

    def byte(self, offset: int) -> int | None:
        """A byte of the formatted area; None behind its end."""
        return self.formatted[offset] if offset < len(self.formatted) else None

    def text(self, offset: int) -> str | None:
        """The string that the byte at `offset` names; "" for none, None behind the end."""
        index = self.byte(offset)
        if index is None:
            return None
        strings = self.data[len(self.formatted) :].split(b"\0")
        found = strings[index - 1] if 0 < index <= len(strings) else b""
        return found.decode("utf-8", "replace").strip(" ") and found.decode("utf-8", "replace")


def parse_table(table: bytes) -> Sequence[Structure]:
    """All structures up to the end of table, or to the first one that is cut off."""
    found: list[Structure] = []
    at = 0
    while at + 4 <= len(table):
        length = table[at + 1]
        end = table.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            break
        handle = int.from_bytes(table[at + 2 : at + 4], "little")
        found.append(Structure(table[at], handle, table[at : at + length], table[at : end + 2]))
        at = end + 2
        if found[-1].type == END_OF_TABLE:
            break
    return found
