"""`/dev/mem`: the open rules of `open_port`, and reads, writes, faults and stores by physical address."""

import errno
import os
import stat

from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_MASK, Range
from fakedev.model.verdict import Verdict
from fakedev.views.node import Attr, Buffers, Opener, Refused, access_mask, check_access
from fakedev.views.physical import PhysicalFile

MODE = 0o640
O_DIRECT = getattr(os, "O_DIRECT", 0)


class DevMem(PhysicalFile):
    """A file that shows physical memory from address `base` (0 for `/dev/mem`)."""

    __slots__ = ()

    def __init__(self, machine: Machine, *, base: int = 0) -> None:
        super().__init__(machine, "/dev/mem", mode=MODE, base=base)

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.machine.top - self.base)

    def open(self, opener: Opener) -> "DevMemHandle":
        """EACCES by mode, EPERM without CAP_SYS_RAWIO or under lockdown, EINVAL for O_DIRECT."""
        check_access(self.attr(), opener.uid, access_mask(opener.flags))
        if not opener.privileged or self.machine.rules.lockdown_level != "none":
            raise Refused(errno.EPERM)
        if opener.flags & O_DIRECT:
            raise Refused(errno.EINVAL)
        return DevMemHandle(self, self.machine.now)


class DevMemHandle:
    """An open `/dev/mem`. Offsets are physical addresses; `opened` is the event it was opened after."""

    __slots__ = ("_base", "_machine", "opened")

    def __init__(self, node: DevMem, opened: int) -> None:
        self._machine = node.machine
        self._base = node.base
        self.opened = opened

    def read(self, offset: int, size: int) -> Buffers:
        """`read_mem`: all of it, or Refused with EFAULT or EPERM."""
        verdict, data = self._machine.read(self._base + offset, size)
        if not verdict.allowed:
            raise Refused(verdict.errno, verdict)
        return data

    def write(self, offset: int, data: memoryview) -> int:
        """`write_mem`: the bytes taken, or Refused (pages before the refused one are written)."""
        verdict, taken = self._machine.write(self._base + offset, data)
        if not verdict.allowed and not taken:
            raise Refused(verdict.errno, verdict)
        return taken

    def fault(self, offset: int, size: int) -> Buffers:
        """Pages for a mapping, or Refused: the toucher gets SIGBUS."""
        verdict, data = self._machine.fault(self._base + offset, size, opened=self.opened)
        if not data:
            raise Refused(verdict.errno, verdict)
        return data

    def span(self, offset: int, size: int) -> Range:
        """The physical range behind file offsets."""
        return Range(self._base + offset, size)

    def explain(self, offset: int, size: int) -> Verdict:
        """The verdict on mapping these pages."""
        start = (self._base + offset) & ~PAGE_MASK
        return self._machine.touch(start, size)
