"""`/dev/mem`: the open rules of `open_port`, and reads, writes, faults and stores by physical address."""

import errno
import functools
import os
import stat

from fakedev.model.lockdown import LOCKDOWN_DEV_MEM
from fakedev.model.machine import Machine
from fakedev.model.policy import Policy
from fakedev.model.ranges import PAGE_MASK, Range
from fakedev.model.verdict import Verdict
from fakedev.views.calls import Answer, MapCall, SeekCall
from fakedev.views.kinds import MEMORY_DEVICE, mapped_size, memory_lseek
from fakedev.views.lockdown import check_lockdown
from fakedev.views.node import CAP_SYS_RAWIO, Attr, Buffers, Opener, Partly, Refused
from fakedev.views.physical import PhysicalFile

MODE = 0o640  # udev's, with the group; devtmpfs alone makes it 0600
NUMBER = os.makedev(1, 1)
KMEM = 15  # of Debian; stat cannot show it
O_DIRECT = getattr(os, "O_DIRECT", 0)


class DevMem(PhysicalFile):
    """A file that shows physical memory from address `base` (0 for `/dev/mem`)."""

    __slots__ = ("_judged",)
    kind = MEMORY_DEVICE

    def __init__(self, machine: Machine, *, base: int = 0) -> None:
        super().__init__(machine, "/dev/mem", mode=MODE, base=base)
        self._owner = 0, KMEM
        self._judged: tuple[Policy, Range, Answer | None] | None = None

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.machine.top - self.base)

    def look(self) -> Attr:
        """The character device 1:1."""
        return _device(self.mode)

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """`mmap_mem`."""
        span = Range(self.base + call.offset, mapped_size(call))
        policy, last = self.machine.policy, self._judged
        if last is not None and last[0] is policy and last[1] == span:
            return last[2]
        verdict = policy.mmap(*span)
        answer = None if verdict.allowed else Answer(-verdict.errno, verdict.rule, span)
        self._judged = policy, span, answer
        return answer

    def seek(self, call: SeekCall) -> Answer | None:
        """It does not matter how much memory there is, which takes a while to find out."""
        return memory_lseek(call, 0)

    def empty(self, offset: int) -> Answer | None:
        """`read_mem` and `write_mem` test the range of a request, not whether there is any."""
        verdict = self.machine.policy.read(self.base + offset, 0)
        return None if verdict.allowed else Answer(-verdict.errno, verdict.rule)

    def open(self, opener: Opener) -> "DevMemHandle":
        """EACCES by mode, EPERM without CAP_SYS_RAWIO or under lockdown, EINVAL for O_DIRECT."""
        if not opener.again:
            self._open_port(opener)
        return DevMemHandle(self, self.machine.now)

    def _open_port(self, opener: Opener) -> None:
        self.permit(opener)
        if not opener.capable(CAP_SYS_RAWIO):
            raise Refused(errno.EPERM)
        check_lockdown(self.machine, LOCKDOWN_DEV_MEM, opener.pid)
        if opener.flags & O_DIRECT:
            raise Refused(errno.EINVAL)


@functools.cache  # of 512 modes at most
def _device(mode: int) -> Attr:
    return Attr(stat.S_IFCHR | mode, rdev=NUMBER)


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
            raise self._refusal(verdict, offset, size)
        return data

    def write(self, offset: int, data: memoryview) -> int:
        """`write_mem`: the bytes taken, or Refused (pages before the refused one are written)."""
        verdict, taken = self._machine.write(self._base + offset, data)
        if not verdict.allowed and not taken:
            raise self._refusal(verdict, offset, len(data), data)
        return taken

    def _refusal(
        self, verdict: Verdict, offset: int, size: int, data: memoryview | bytes = b""
    ) -> Refused:
        address = self._base + offset
        if not self._machine.read(address, 1)[0].allowed:
            return Refused(verdict.errno, verdict)
        return Partly(verdict.errno, verdict, self._machine.moved(address, size), data)

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
