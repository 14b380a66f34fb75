"""`/sys/devices/system/memory` (`drivers/base/memory.c`)."""

import errno
from collections.abc import Callable

from fakedev.devices.memory.block import MemoryBlock
from fakedev.devices.memory.onlining import AUTO_ONLINE
from fakedev.devices.memory.zones import KINDS
from fakedev.model.ranges import Range
from fakedev.views.live import Attribute, LiveDirectory, Show
from fakedev.views.memory.site import (
    MEMORY,
    MEMORY_BUS,
    Site,
    relative,
    same_word,
    to_address,
    to_bool,
)
from fakedev.views.node import CAP_SYS_ADMIN, Node, Opener, Refused
from fakedev.views.sysfs import link, take_uevent

_PREFIX = "memory"
CRASH_HOTPLUG = (6, 6)


def memory_directory(site: Site) -> LiveDirectory:
    """Settings of all blocks, and a directory for each."""
    fixed = _settings(site)
    own = site.extras(MEMORY)

    def names() -> list[str]:
        with site.machine.lock:
            return [*fixed, *map("memory{}".format, site.blocks.blocks)]

    def make(name: str) -> Node | None:
        if name in fixed:
            return fixed[name]() if own.lookup(name) is None else None
        block = find(site, name)
        return _block(site, block) if block is not None else None

    return site.directory(MEMORY, names, make)


def find(site: Site, name: str) -> MemoryBlock | None:
    """The block of a directory's name."""
    digits = name.removeprefix(_PREFIX)
    if digits == name or not (digits.isascii() and digits.isdigit()) or str(int(digits)) != digits:
        return None
    return site.blocks.blocks.get(int(digits))


def _settings(site: Site) -> dict[str, Callable[[], Node]]:
    blocks = site.blocks

    def auto(text: str, _: Opener) -> None:
        word = same_word(text)
        if word not in AUTO_ONLINE:
            raise Refused(errno.EINVAL)
        blocks.set_auto_online(word)

    makers: dict[str, Callable[[], Node]] = {
        "auto_online_blocks": lambda: Attribute(
            lambda: f"{blocks.auto_online}\n", auto, mode=0o644
        ),
        "block_size_bytes": lambda: Attribute(lambda: f"{blocks.block_size:x}\n"),
        "hard_offline_page": lambda: _page_file(site, "hard_offline"),
        "power": lambda: site.power(f"{MEMORY}/power"),
        "soft_offline_page": lambda: _page_file(site, "soft_offline"),
        "uevent": lambda: Attribute(lambda: "", take_uevent, mode=0o644),
    }
    if blocks.probe:
        makers["probe"] = lambda: Attribute(
            None, lambda text, _: _probe(site, text), mode=0o200, verb=True
        )
    if site.machine.rules.release >= CRASH_HOTPLUG:
        makers["crash_hotplug"] = lambda: Attribute(lambda: "1\n")
    return makers


def _probe(site: Site, text: str) -> None:
    """`probe_store`: one block at a physical address. EINVAL not aligned, EEXIST there already."""
    address, size = to_address(text), site.blocks.block_size
    if address % size:
        raise Refused(errno.EINVAL)
    site.blocks.add_memory(Range(address, size), nid=site.blocks.nid_at(address))


def _page_file(site: Site, action: str) -> Attribute:
    """`hard_offline_page`, `soft_offline_page`: the number is a physical address in bytes."""

    def store(text: str, opener: Opener) -> None:
        if not opener.capable(CAP_SYS_ADMIN):
            raise Refused(errno.EPERM)
        address = to_address(text)
        poison = getattr(site.machine, "poison", None)
        if not site.blocks.within(Range(address, 1)):
            late = action == "hard_offline" and site.machine.rules.release >= (7, 2)
            raise Refused(errno.EBUSY if late else errno.ENXIO)
        if poison is None:
            raise Refused(errno.EOPNOTSUPP)
        getattr(poison, action)(address)

    return Attribute(None, store, mode=0o200, verb=True)


def _block(site: Site, block: MemoryBlock) -> LiveDirectory:
    """`memoryN`. Its files die with the block."""
    files = _Files(site, block)
    return LiveDirectory(files.names, files.make, extras=files.own, alive=files.alive)


class _Files:
    """What is in `memoryN`, made when somebody asks for it: there may be thousands of blocks."""

    __slots__ = ("block", "own", "site")

    def __init__(self, site: Site, block: MemoryBlock) -> None:
        self.site = site
        self.block = block
        self.own = site.extras(f"{MEMORY}/{block.name}")

    def alive(self) -> bool:
        """Whether the block is still there."""
        return self.site.blocks.blocks.get(self.block.number) is self.block

    def names(self) -> list[str]:
        """The same for all, but for the node."""
        return [f"node{self.block.nid}", *_FILES]

    def make(self, name: str) -> Node | None:
        """The node of a name; files of the profile win."""
        if self.own.lookup(name) is not None:
            return None
        if name in _FILES:
            return _FILES[name](self)
        node = f"node{self.block.nid}"
        return relative(f"../../node/{node}") if name == node else None

    def text(self, show: Show) -> Node:
        """A file that is read."""
        return Attribute(show, alive=self.alive)

    def setting(self, store: Callable[[Site, MemoryBlock, str], None], show: Show) -> Node:
        """A file whose write is a verb."""
        return Attribute(
            show,
            lambda text, _: store(self.site, self.block, text),
            mode=0o644,
            alive=self.alive,
            verb=True,
        )


_FILES: dict[str, Callable[[_Files], Node]] = {
    "online": lambda of: of.setting(_set_online, lambda: f"{int(of.block.online)}\n"),
    "phys_device": lambda of: of.text(lambda: "0\n"),
    "phys_index": lambda of: of.text(lambda: f"{of.block.number:08x}\n"),
    "power": lambda of: of.site.power(f"{MEMORY}/{of.block.name}/power", alive=of.alive),
    "removable": lambda of: of.text(lambda: f"{int(of.block.removable)}\n"),
    "state": lambda of: of.setting(_set_state, lambda: f"{of.block.state}\n"),
    "subsystem": lambda _: relative("../../../../bus/memory"),
    "uevent": lambda of: Attribute(lambda: "", take_uevent, mode=0o644, alive=of.alive),
    "valid_zones": lambda of: of.text(lambda: f"{valid_zones(of.site, of.block)}\n"),
}


def valid_zones(site: Site, block: MemoryBlock) -> str:
    """The zone of an online block; those that an offline one can go to, the default first."""
    with site.machine.lock:
        if block.online:
            return block.zone
        return " ".join(site.blocks.zones.candidates(block.nid, block.number))


def _set_state(site: Site, block: MemoryBlock, text: str) -> None:
    """`state_store`: a word of four. EINVAL for others, and for the state that it has."""
    word = same_word(text)
    if word == "offline":
        site.blocks.offline(block.number)
    elif word in KINDS:
        site.blocks.online(block.number, word)
    else:
        raise Refused(errno.EINVAL)


def _set_online(site: Site, block: MemoryBlock, text: str) -> None:
    """`online_store`: what it is already is no error."""
    wanted = to_bool(text)
    with site.machine.verb():
        if wanted == (block.state == "online"):
            return
        if wanted:
            site.blocks.online(block.number)
        else:
            site.blocks.offline(block.number)


def bus_directory(site: Site) -> LiveDirectory:
    """`/sys/bus/memory`: links to the blocks; it has no drivers."""
    devices = f"{MEMORY_BUS}/devices"

    def names() -> list[str]:
        with site.machine.lock:
            return list(map("memory{}".format, site.blocks.blocks))

    def make(name: str) -> Node | None:
        return link(devices, f"{MEMORY}/{name}") if find(site, name) is not None else None

    return site.fixed(MEMORY_BUS, {
        "devices": lambda: site.directory(devices, names, make),
        "drivers": lambda: site.fixed(f"{MEMORY_BUS}/drivers", {}),
        "drivers_autoprobe": lambda: Attribute(lambda: "1\n", _ignore, mode=0o644),
        "drivers_probe": lambda: Attribute(None, _ignore, mode=0o200),
        "uevent": lambda: Attribute(None, take_uevent, mode=0o200),
    })  # fmt: skip


def _ignore(_text: str, _opener: Opener) -> None:
    """Nothing here has a driver."""
