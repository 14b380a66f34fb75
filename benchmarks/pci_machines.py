"""Profiles of machines with PCI: one with a single function, one with as many as sixteen buses hold."""

from collections.abc import Iterator
from pathlib import Path

BAR = 0x3000_0000
BOARD = "0000:00:01.0"
BUSES = 16

_HEAD = """\
fakedev: 1
name: {name}
description: PCI for the benchmarks.
kernel: {{version: "6.12", strict_devmem: true, io_strict_devmem: true}}
firmware:
  e820:
    - {{range: 0-9fbff, type: System RAM}}
    - {{range: 100000-1fffffff, type: System RAM}}
    - {{range: 100000000-1ffffffff, type: System RAM}}
iomem: |
  20000000-5fffffff : PCI Bus 0000:00
  e0000000-efffffff : PCI ECAM 0000 [bus 00-ff]
pci:
  ecam: 0xe0000000
  functions:
"""
_BRIDGE = """\
    "{spot}": {{id: "1b36:000c", class: "060400", bridge: {{secondary: {secondary}}},
      capabilities: [pm: {{}}, pcie: {{type: root-port, port: {secondary}, speed: 3, width: 4}}]}}
"""
_ENDPOINT = """\
    "{spot}": {{id: "8086:100e", class: "020000", bars: {{0: {{mem32: {size}{place}}}}},
      capabilities: [pm: {{}}, msi: {{vectors: 4}}]}}
"""


def board() -> str:
    """One function with 64 KiB of memory at BAR, which no driver claims."""
    return _ENDPOINT.format(spot=BOARD[5:], size="64K", place=f", at: {BAR:#x}")


def crowd() -> str:
    """4,096 functions: all 256 of sixteen buses, of which fifteen are bridges to the others."""
    return "".join(_crowd())


def _crowd() -> Iterator[str]:
    for bus in range(BUSES):
        for devfn in range(256):
            spot = f"{bus:02x}:{devfn >> 3:02x}.{devfn & 7}"
            if bus == 0 and 0 < devfn < BUSES:
                yield _BRIDGE.format(spot=spot, secondary=devfn)
            else:
                yield _ENDPOINT.format(spot=spot, size="4K", place="")


def write(directory: Path, name: str, functions: str) -> Path:
    """A profile with these functions."""
    path = directory / f"{name}.yaml"
    path.write_text(_HEAD.format(name=name) + functions, encoding="utf-8")
    return path
