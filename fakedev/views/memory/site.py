"""What the files of memory share: the machine, its blocks, and the profile's own files beside them."""

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fakedev.devices.kstrtox import unsigned
from fakedev.devices.memory.blocks import MemoryBlocks
from fakedev.model.machine import Machine
from fakedev.views.live import Alive, Attribute, LiveDirectory, always
from fakedev.views.node import Node, Refused, Symlink
from fakedev.views.sysfs import Place

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

MEMORY = "/sys/devices/system/memory"
NODES = "/sys/devices/system/node"
MEMORY_BUS = "/sys/bus/memory"
NODE_BUS = "/sys/bus/node"
_BOOL = {"y": True, "Y": True, "1": True, "n": False, "N": False, "0": False}
_BOOL2 = {"on": True, "of": False}
_POWER = {
    "control": "auto\n",
    "runtime_status": "unsupported\n",
    "runtime_active_time": "0\n",
    "runtime_suspended_time": "0\n",
    "autosuspend_delay_ms": None,
}


class Site(Place):
    """One machine's memory files in one tree."""

    __slots__ = ("blocks",)

    def __init__(self, tree: "Tree", machine: Machine) -> None:
        super().__init__(tree, machine)
        self.blocks: MemoryBlocks = machine.blocks

    def fixed(
        self, path: str, makers: Mapping[str, Callable[[], Node]], *, alive: Alive = always
    ) -> LiveDirectory:
        """A directory whose names never change; files of the profile win over ours."""
        own = self.extras(path)

        def make(name: str) -> Node | None:
            maker = makers.get(name)
            return maker() if maker is not None and own.lookup(name) is None else None

        return self.directory(path, lambda: makers, make, alive=alive)

    def power(self, path: str, *, alive: Alive = always) -> LiveDirectory:
        """`power/` of a device that never suspends."""
        own = self.extras(path)

        def make(name: str) -> Node | None:
            if name not in _POWER or own.lookup(name) is not None:
                return None
            text = _POWER[name]
            return Attribute(_eio if text is None else lambda: text, alive=alive)

        return LiveDirectory(lambda: _POWER, make, extras=own, alive=alive)


def relative(target: str) -> Symlink:
    """A link with the text as the kernel has it."""
    return Symlink(target.encode())


def to_bool(text: str) -> bool:
    """`kstrtobool`: y, Y, 1, on, n, N, 0, off; only the first letters count. EINVAL."""
    known = _BOOL.get(text[:1], _BOOL2.get(text[:2].lower()))
    if known is None:
        raise Refused(errno.EINVAL)
    return known


def to_address(text: str) -> int:
    """`kstrtoull` with any base: 0x for hexadecimal, 0 for octal. EINVAL, or ERANGE beyond 64 bits."""
    number = unsigned(text)
    if number is None:
        raise Refused(errno.EINVAL)
    if number >= 1 << 64:
        raise Refused(errno.ERANGE)
    return number


def same_word(text: str) -> str:
    """What `sysfs_streq` compares: the text without one newline at its end."""
    return text.removesuffix("\n")


def _eio() -> str:
    raise Refused(errno.EIO)
