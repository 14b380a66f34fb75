"""What a process in the machine reads of the tree, without a record: devices, resources, /proc/iomem."""

import os
import re
import struct
from pathlib import PurePosixPath
from typing import Any

from truth.caller import STRUCTURES, Caller

PAGE = 4096
DEVICES = "/sys/bus/pci/devices"
_AT_FDCWD = -100
_LINE = re.compile(r"( *)([0-9a-f]+)-([0-9a-f]+) : (.*)")


class Tree:
    """Reads through one caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def slurp(self, path: str, chunk: int = 4096) -> bytes:
        """All of a file; nothing where it cannot be opened."""
        fd = self.caller.call("openat", _AT_FDCWD, path, os.O_RDONLY).value
        found = b""
        while fd >= 0 and (got := self.caller.call("read", fd, "@0", chunk).value) > 0:
            found += self.caller.show(0, got)
        if fd >= 0:
            self.caller.call("close", fd)
        return found

    def names(self, path: str) -> list[str]:
        """Entries of a directory, without . and .."""
        fd = self.caller.call("openat", _AT_FDCWD, path, os.O_RDONLY | os.O_DIRECTORY).value
        found: list[str] = []
        while fd >= 0 and (got := self.caller.call("getdents64", fd, "@0", 32768).value) > 0:
            found += _dirents(self.caller.show(0, got))
        if fd >= 0:
            self.caller.call("close", fd)
        return [name for name in found if name not in {".", ".."}]

    def find(self, vendor: int, device: int) -> str:
        """The address of a function by its ids."""
        for bdf in self.names(DEVICES):
            ids = [int(self.slurp(f"{DEVICES}/{bdf}/{name}"), 0) for name in ("vendor", "device")]
            if ids == [vendor, device]:
                return bdf
        raise LookupError(f"no function {vendor:04x}:{device:04x}")

    def resources(self, bdf: str) -> list[tuple[int, int, int]]:
        """Start, end and flags of each line of `resource`."""
        lines = self.slurp(f"{DEVICES}/{bdf}/resource").decode().splitlines()
        return [
            (int(one, 16), int(two, 16), int(three, 16))
            for one, two, three in map(str.split, lines)
        ]

    def link(self, path: str) -> str | None:
        """Where a symbolic link leads."""
        done = self.caller.call("readlinkat", _AT_FDCWD, path, "@0", 4096)
        return None if done.errno else self.caller.show(0, done.value).decode()

    def driver(self, bdf: str) -> str:
        """The name of the driver of a function, `(none)` without one."""
        link = self.link(f"{DEVICES}/{bdf}/driver")
        return PurePosixPath(link).name if link else "(none)"

    def iomem_path(self, address: int) -> str:
        """The names of /proc/iomem that an address is in, from the outermost."""
        lines = map(_LINE.match, self.slurp("/proc/iomem").decode().splitlines())
        names = [
            match[4]
            for match in lines
            if match and int(match[2], 16) <= address <= int(match[3], 16)
        ]
        return " > ".join(names) or "(unclaimed)"

    def stat_of_room(self) -> dict[str, Any]:
        """The struct stat that lies in the room (asm-generic and x86-64 differ)."""
        data = self.caller.show(STRUCTURES, 144)
        if os.uname().machine == "x86_64":
            _, inode, links, mode = struct.unpack_from("<QQQI", data)
        else:
            _, inode, mode, links = struct.unpack_from("<QQII", data)
        (size,) = struct.unpack_from("<q", data, 48)
        return {"mode": f"{mode:o}", "size": size, "ino": inode, "nlink": links}


def _dirents(data: bytes) -> list[str]:
    names, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<H", data, at + 16)[0]
        names.append(data[at + 19 : at + length].partition(b"\0")[0].decode())
        at += length
    return names
