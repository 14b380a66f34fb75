"""Files whose bytes are persistent memory: `/dev/daxR.I`, `/dev/pmemN`, and files of an fsdax file system."""

import errno
import stat
from typing import ClassVar

from fakedev.devices.nd.dax import Life
from fakedev.model.machine import Machine
from fakedev.model.poisoned import first_in
from fakedev.model.ranges import Range
from fakedev.model.verdict import Verdict
from fakedev.views.node import Attr, Buffers, Opener, Refused, access_mask, check_access
from fakedev.views.physical import PhysicalFile


class MediumFile(PhysicalFile):
    """A file that shows `span` for as long as `life` lasts, and never again after it.

    `readable`: read(2) and write(2) are for such a file; device-dax can only be mapped (EINVAL).
    """

    __slots__ = ("life", "readable", "span")
    shared: ClassVar[bool] = False

    def __init__(
        self, machine: Machine, name: str, span: Range, life: Life, *, mode: int, readable: bool
    ) -> None:
        super().__init__(machine, name, mode=mode, base=span.start)
        self.span = span
        self.life = life
        self.readable = readable

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.span.size)

    def open(self, opener: Opener) -> "MediumHandle":
        """EACCES by mode, ENXIO when the device is gone."""
        check_access(self.attr(), opener.uid, access_mask(opener.flags))
        if not self.life.alive:
            raise Refused(errno.ENXIO)
        return MediumHandle(self)

    def stored(self, offset: int, data: memoryview) -> None:
        """Stores of a mapping that was alive; what comes after its end falls nowhere."""
        if not self.life.drained:
            super().stored(offset, data)

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
