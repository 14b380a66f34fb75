"""The machine of the recordings with another amount of RAM: what QEMU's q35 puts where then."""

from collections.abc import Sequence
from typing import Any

import yaml

from fakedev.model.errors import HostError
from fakedev.model.ranges import parse_number
from fakedev.profiles.bundled import bundled_path

_M, _G = 1 << 20, 1 << 30
_4G = 4 * _G
RECORDED = 512 * _M
_LOW_LIMIT = 0xB0000000  # MMCONFIG
_LOW_SPLIT = 2 * _G  # what is kept below 4 GiB of RAM that does not fit below MMCONFIG
_FIRMWARE = 0x2A000  # what SeaBIOS keeps at the end of low RAM
_MAX_MEMORY, _SLOTS = 24 * _G, 8  # -m slots=8,maxmem=24G
_HOLE64 = 32 * _G


class Layout:
    """Where `size` bytes of RAM lie, and what moves with them (`pc_q35_init`, `pc_memory_init`)."""

    def __init__(self, size: int) -> None:
        self.low = size if size < _LOW_LIMIT else _LOW_SPLIT
        self.high_end = _4G + size - self.low
        self.hotplug = _round_up(self.high_end)
        # Each slot may need to be aligned: a GiB of room for it.
        hotplug_size = _MAX_MEMORY - size + _SLOTS * _G
        self.window = _round_up(self.hotplug + hotplug_size)

    @property
    def ram_end(self) -> int:
        """The last byte of low RAM that the kernel gets."""
        return self.low - _FIRMWARE - 1

    @property
    def ram(self) -> list[tuple[int, int]]:
        """The RAM above 1 MiB that the kernel gets: first and last byte of each part."""
        return [(_M, self.ram_end), *([(_4G, self.high_end - 1)] if self.high_end > _4G else [])]

    @property
    def window_end(self) -> int:
        """The last byte of the 64-bit window of PCI."""
        return self.window + _HOLE64 - 1


def overrides(size: int, kernel: Sequence[str] = ()) -> list[str]:
    """Settings that make `pc-q35` a machine with `size` bytes. Raises HostError where there is none.

    `kernel` are lines of /proc/iomem that say where KASLR put it.
    """
    if size % (128 * _M) or not RECORDED <= size < _MAX_MEMORY:
        raise HostError(
            f"{size / _M:g}M of RAM: --memory is a multiple of 128M, from 512M to less than 24G"
        )
    path = bundled_path("pc-q35")
    if path is None:
        raise HostError("the profile pc-q35 is missing")
    with open(path, encoding="utf-8") as stream:  # noqa: PTH123 - a name, not a Path
        profile = yaml.safe_load(stream)
    old, new = Layout(RECORDED), Layout(size)
    moved = (
        [] if size == RECORDED else [*_firmware(profile, old, new), *_devices(profile, old, new)]
    )
    return [*moved, _iomem(profile["iomem"], old, new, kernel)]


def _round_up(address: int) -> int:
    return (address + _G - 1) // _G * _G


def _firmware(profile: dict[str, Any], old: Layout, new: Layout) -> list[str]:
    """RAM, what the firmware keeps of its top, and its tables there."""
    moved = new.low - old.low
    found = []
    entries = profile["firmware"]["e820"]
    for number, entry in enumerate(entries):
        start, end = _ends(entry["range"])
        if end in (old.ram_end, old.low - 1):  # RAM, and what is kept
            start += moved if end == old.low - 1 else 0
            found.append(f"firmware.e820.{number}.range={start:x}-{end + moved:x}")
    if new.high_end > _4G:
        ram = f"{{range: {_4G:x}-{new.high_end - 1:x}, type: System RAM}}"
        found.append(f"firmware.e820.{len(entries)}={ram}")
    start, end = _ends(profile["firmware"]["acpi"]["tables_at"])
    found.append(f"firmware.acpi.tables_at={start + moved:x}-{end + moved:x}")
    number, segment = _named(profile, "firmware RAM")
    start, end = _ends(segment["range"])
    return [*found, f"memory.segments.{number}.range={start + moved:x}-{end + moved:x}"]


def _devices(profile: dict[str, Any], old: Layout, new: Layout) -> list[str]:
    """Memory devices: they lie behind all RAM, in the same order."""
    moved = new.hotplug - old.hotplug
    found = []
    for name in ("NVDIMM 0", "NVDIMM 1"):
        number, segment = _named(profile, name)
        found.append(f"memory.segments.{number}.range={_moved(segment['range'], moved)}")
    for number, content in enumerate(profile["memory"]["contents"]):
        if str(content.get("text", "")).startswith("NVDIMM"):
            found.append(f"memory.contents.{number}.at={content['at'] + moved:#x}")
    for number, region in enumerate(profile["nvdimm"]["regions"]):
        found.append(f"nvdimm.regions.{number}.range={_moved(region['range'], moved)}")
    for number, dimm in enumerate(profile["memory_blocks"]["dimms"]):
        found.append(f"memory_blocks.dimms.{number}.at={dimm['at'] + moved:#x}")
    for name, device in profile["virtio_mem"].items():
        found.append(f"virtio_mem.{name}.addr={parse_number(str(device['addr'])) + moved:#x}")
    return found


def _iomem(text: str, old: Layout, new: Layout, kernel: Sequence[str]) -> str:
    """The windows of the host bridge begin where RAM ends, and behind the memory devices.

    The kernel stays where the profile has it if it was where this machine has no RAM.
    """
    text = text.replace(f"{old.low:08x}-", f"{new.low:08x}-")
    text = text.replace(f"-{old.ram_end:08x} ", f"-{new.ram_end:08x} ")
    text = text.replace(f"{old.window:x}-{old.window_end:x}", f"{new.window:x}-{new.window_end:x}")
    lines = text.splitlines()
    ends = [end for line in kernel for end in _ends(line.split()[0])]
    for first, last in new.ram:
        if ends and first <= ends[0] and max(ends) <= last:
            lines = [line for line in lines if " : Kernel " not in line]
            ram = f"{first:08x}-{last:08x} : System RAM"
            place = lines.index(ram) if ram in lines else len(lines)
            lines[place : place + 1] = [ram, *(f"  {line}" for line in kernel)]
    return "iomem=|2\n" + "".join(f"  {line}\n" for line in lines)


def _named(profile: dict[str, Any], name: str) -> tuple[int, dict[str, Any]]:
    segments = profile["memory"]["segments"]
    return next((n, one) for n, one in enumerate(segments) if one["name"] == name)


def _ends(text: str) -> tuple[int, int]:
    start, _, end = str(text).partition("-")
    return int(start, 16), int(end, 16)


def _moved(text: str, distance: int) -> str:
    start, end = _ends(text)
    return f"{start + distance:x}-{end + distance:x}"
