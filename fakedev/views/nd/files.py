"""Files whose bytes are persistent memory: `/dev/daxR.I`, `/dev/pmemN`, and files of an fsdax file system."""

import errno
import os
import stat
from typing import ClassVar, NamedTuple

from fakedev.devices.nd.dax import Life
from fakedev.model.machine import Machine
from fakedev.model.poisoned import first_in
from fakedev.model.ranges import Range
from fakedev.model.verdict import Verdict
from fakedev.model.window import all_ones
from fakedev.views.calls import Answer, MapCall
from fakedev.views.kinds import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_TYPE,
    REGULAR,
    mapped_size,
)
from fakedev.views.node import Attr, Buffers, Opener, Refused
from fakedev.views.physical import PhysicalFile


class Number(NamedTuple):
    """That of a device node. `align` is the alignment of device-dax, 0 for a block device."""

    major: int
    minor: int
    align: int = 0


class MediumFile(PhysicalFile):
    """A file that shows `span` for as long as `life` lasts, and never again after it.

    `number`: it is a device node; device-dax can only be mapped (EINVAL for read(2) and write(2)).
    """

    __slots__ = ("kind", "life", "number", "span")
    shared: ClassVar[bool] = False
    pfnmap = False  # it has pages: ZONE_DEVICE

    def __init__(
        self,
        machine: Machine,
        name: str,
        span: Range,
        life: Life,
        *,
        mode: int,
        number: Number | None = None,
    ) -> None:
        super().__init__(machine, name, mode=mode, base=span.start)
        self.span = span
        self.life = life
        self.number = number
        self.kind = REGULAR if number is None else CHAR_DEVICE if number.align else BLOCK_DEVICE

    @property
    def readable(self) -> bool:
        """Whether read(2) and write(2) are for such a file."""
        return self.kind is not CHAR_DEVICE

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.span.size)

    def look(self) -> Attr | None:
        """A device node, where it is one."""
        if self.number is None:
            return None
        kind = stat.S_IFCHR if self.number.align else stat.S_IFBLK
        return Attr(kind | self.mode, rdev=os.makedev(self.number.major, self.number.minor))

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """`check_vma` of device-dax. An address that the kernel chooses is congruent to the offset."""
        if self.kind is not CHAR_DEVICE or self.number is None:
            return None
        if not self.life.alive:
            return Answer(-errno.ENXIO, f"check_vma: {self.life.name} is not alive", self.span)
        if call.flags & MAP_TYPE == MAP_PRIVATE:
            return Answer(-errno.EINVAL, "check_vma: a private mapping", self.span)
        chosen = 0 if call.flags & MAP_FIXED else call.offset
        if (chosen | mapped_size(call)) % self.number.align:
            rule = f"check_vma: start or end is not a multiple of {self.number.align:#x}"
            return Answer(-errno.EINVAL, rule, self.span)
        return None

    def open(self, opener: Opener) -> "MediumHandle":
        """EACCES by mode, ENXIO when the device is gone."""
        self.permit(opener)
        if not self.life.alive:
            raise Refused(errno.ENXIO)
        return MediumHandle(self)

    def stored(self, offset: int, data: memoryview) -> None:
        """Stores of a mapping that was alive; what comes after its end falls nowhere."""
        if not self.life.drained:
            super().stored(offset, data)

    def revocable(self) -> bool:
        """Whether a claim takes mapped pages; where they read ones, nothing is left to take."""
        return not self.life.ones

    def mappable(self, span: Range) -> bool:
        """Whether a new mapping would be allowed."""
        return self.life.alive


class MediumHandle:
    """An open file of persistent memory."""

    __slots__ = ("_node",)

    def __init__(self, node: MediumFile) -> None:
        self._node = node

    def read(self, offset: int, size: int) -> Buffers:
        """Bytes up to the end; EINVAL for device-dax, EIO when the device is gone or the bytes failed."""
        span = self._part(offset, size)
        if not span.size:
            return []
        return self._memory().memory.buffers(*span)

    def write(self, offset: int, data: memoryview) -> int:
        """Bytes taken; the size never changes: ENOSPC behind the end, else as `read`."""
        span = self._part(offset, len(data))
        if not span.size:
            if len(data):
                raise Refused(errno.ENOSPC)
            return 0
        machine = self._memory()
        with machine.lock:
            machine.memory.write(span.start, data[: span.size])
        return span.size

    def _part(self, offset: int, size: int) -> Range:
        node = self._node
        if not node.readable:
            raise Refused(errno.EINVAL)
        if not node.life.alive:
            raise Refused(errno.EIO)
        part = Range(node.span.start + offset, max(min(size, node.span.size - offset), 0))
        self._check_poison(part)
        return part

    def _memory(self) -> Machine:
        return self._node.machine

    def _check_poison(self, part: Range) -> None:
        poisoned = self._node.machine.poisoned
        if poisoned and part.size and first_in(poisoned, *part) is not None:
            raise Refused(errno.EIO)

    def fault(self, offset: int, size: int) -> Buffers:
        """Pages for a mapping, or Refused: the toucher gets SIGBUS."""
        node = self._node
        if node.life.ones:
            return all_ones(size)
        if not node.life.alive:
            raise Refused(errno.EIO, self.explain(offset, size))
        end = node.span.size + 4095 & -4096
        part = Range(node.span.start + offset, max(min(size, end - offset), 0))
        self._check_poison(part)
        return node.machine.memory.buffers(*part) if part.size else []

    def span(self, offset: int, size: int) -> Range:
        """The physical range behind file offsets."""
        return Range(self._node.span.start + offset, size)

    def explain(self, offset: int, size: int) -> Verdict:
        """The verdict on mapping these pages, as /dev/mem would have it."""
        return self._node.machine.policy.mmap(self._node.span.start + offset, size)
