"""`/dev/uioN` (`drivers/uio/uio.c`): maps of a function's BARs, and interrupts, which never come."""

import errno
import os
import stat
from typing import ClassVar

from fakedev.devices.pci.uio import MAJOR, UioDevice, map_name
from fakedev.model.machine import Machine
from fakedev.model.poisoned import first_in, verdict_at
from fakedev.model.ranges import PAGE_SHIFT, PAGE_SIZE, Range
from fakedev.model.verdict import Verdict
from fakedev.views.calls import Answer, MapCall
from fakedev.views.kinds import CHAR_DEVICE, mapped_size
from fakedev.views.node import Attr, Buffers, Node, Opener, Refused, Waits
from fakedev.views.physical import PhysicalFile

MODE = 0o600
_COUNT = 4  # bytes of the number of interrupts
_ERROR_EVENTS = -errno.EIO & 0xFFFF


class UioFile(PhysicalFile):
    """The file that map `index` is mapped through, at `index` pages.

    The pages of one map would be those of the next: each has a file of its own, that of the first is the
    one that is listed. Claims take no mapping of it: it is not that of `/dev/mem`.
    """

    __slots__ = ("index", "uio")
    kind = CHAR_DEVICE
    shared: ClassVar[bool] = False

    def __init__(self, machine: Machine, uio: UioDevice, index: int = 0) -> None:
        self.uio = uio
        self.index = index
        start = self._span.start - index * PAGE_SIZE
        super().__init__(machine, f"/dev/{map_name(uio.minor, index)}", mode=MODE, base=start)

    @property
    def _span(self) -> Range:
        return self.uio.maps[self.index].span if self.uio.maps else Range(0, 0)

    def attr(self) -> Attr:
        """What can be opened: it ends where its map does."""
        return Attr(stat.S_IFREG | self.mode, self.index * PAGE_SIZE + self._span.size)

    def look(self) -> Attr:
        """A character device."""
        return Attr(stat.S_IFCHR | self.mode, rdev=os.makedev(MAJOR, self.uio.minor))

    def open(self, opener: Opener) -> "UioHandle":
        """`uio_open`: EACCES by mode, ENODEV once the driver has let go; the module is in use from now on."""
        self.permit(opener)
        if not self.uio.end.alive:
            raise Refused(errno.ENODEV)
        return UioHandle(self)

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """`uio_mmap`: the offset in pages is the number of a map."""
        if not self.uio.end.alive:
            return Answer(-errno.EINVAL, f"uio_mmap: the driver has let {self.uio.name} go")
        index, maps = call.offset >> PAGE_SHIFT, self.uio.maps
        if index >= len(maps):
            rule = f"uio_find_mem_index: {self.uio.name} has {len(maps)} maps, and no map {index}"
            return Answer(-errno.EINVAL, rule)
        if mapped_size(call) > maps[index].span.size:
            return Answer(-errno.EINVAL, f"uio_mmap: longer than map {index}", maps[index].span)
        return None

    def mapped_through(self, call: MapCall) -> str | None:
        """The file of the map that is asked for, where that is another one."""
        index = call.offset >> PAGE_SHIFT
        return None if index == self.index else f"/dev/{map_name(self.uio.minor, index)}"

    def stands_for(self, other: Node) -> bool:
        """So does the file of another map."""
        return isinstance(other, UioFile) and other.uio is self.uio

    def empty(self, offset: int) -> Answer:
        """A read or write is of 4 bytes."""
        return Answer(-errno.EINVAL, "uio_read, uio_write: the size is not that of an s32")

    def revocable(self) -> bool:
        """Only mappings of a card that was pulled die: those that the driver leaves behind live on."""
        return self.uio.device.unplugged


class UioHandle:
    """An open `/dev/uioN`."""

    __slots__ = ("_node", "until")

    def __init__(self, node: UioFile) -> None:
        self._node = node
        self.until = node.uio.end
        node.uio.driver.users.add(1)

    def released(self) -> None:
        """Closed, and no mapping is left (`module_put`)."""
        self.until.forget(self)
        self._node.uio.driver.users.add(-1)

    def read(self, offset: int, size: int) -> Buffers:
        """`uio_read`: waits for an interrupt. EIO without one, or when the driver lets go."""
        self._check(size)
        if not self.until.alive or not self._node.uio.irq:
            raise Refused(errno.EIO)
        raise Waits(self.until)

    def write(self, offset: int, data: memoryview) -> int:
        """`uio_write`: the driver cannot switch interrupts (ENOSYS)."""
        self._check(len(data))
        if not self.until.alive:
            raise Refused(errno.EINVAL)
        raise Refused(errno.ENOSYS if self._node.uio.irq else errno.EIO)

    @staticmethod
    def _check(size: int) -> None:
        if size != _COUNT:
            raise Refused(errno.EINVAL)

    def poll(self) -> int:
        """`uio_poll`: nothing, or an errno that is taken for events."""
        return 0 if self.until.alive and self._node.uio.irq else _ERROR_EVENTS

    def fault(self, offset: int, size: int) -> Buffers:
        """Pages for a mapping: no rule of `/dev/mem` is asked. Refused where the memory failed."""
        machine, span = self._node.machine, self.span(offset, size)
        bad = first_in(machine.poisoned, *span) if machine.poisoned else None
        if bad is not None:
            raise Refused(errno.EIO, verdict_at(machine.poisoned, bad))
        return machine.memory.buffers(*span)

    def span(self, offset: int, size: int) -> Range:
        """The physical range behind file offsets."""
        return Range(self._node.base + offset, size)

    def explain(self, offset: int, size: int) -> Verdict:
        """The verdict on these pages, as /dev/mem would have it."""
        return self._node.machine.touch(*self.span(offset, size))
