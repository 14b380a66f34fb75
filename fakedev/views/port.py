"""`/dev/port`: the I/O ports as bytes (`read_port`, `write_port`)."""

import errno
import os
import stat
from collections.abc import Callable

from fakedev.model.lockdown import LOCKDOWN_DEV_MEM
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.devmem import KMEM
from fakedev.views.kinds import MEMORY_DEVICE
from fakedev.views.lockdown import check_lockdown
from fakedev.views.node import CAP_SYS_RAWIO, Attr, Buffers, Handle, Node, Opener, Refused

MODE = 0o640
PORTS = 0x10000


class PortFile(Node):
    """65,536 ports. What can be opened is a regular file, as no device can be on a FUSE mount.

    `pages`: the memory that ports show now, or change.
    """

    __slots__ = ("_machine", "_pages")
    kind = MEMORY_DEVICE

    def __init__(self, machine: Machine, pages: Callable[[], list[Range]]) -> None:
        self.mode = MODE
        self._owner = 0, KMEM
        self._machine = machine
        self._pages = pages

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, PORTS)

    def look(self) -> Attr:
        """The character device 1:4."""
        return Attr(stat.S_IFCHR | self.mode, rdev=os.makedev(1, 4))

    def open(self, opener: Opener) -> Handle:
        """EACCES by mode, EPERM without CAP_SYS_RAWIO or under lockdown (`open_port`)."""
        self.permit(opener)
        if not opener.capable(CAP_SYS_RAWIO):
            raise Refused(errno.EPERM)
        check_lockdown(self._machine, LOCKDOWN_DEV_MEM, opener.pid)
        return PortHandle(self._machine, self._pages)


class PortHandle:
    """An open `/dev/port`.

    The kernel moves byte after byte; here one call is one access, so that configuration mechanism
    #1 with its 4-byte address register can be used.
    """

    __slots__ = ("_machine", "_pages")
    slow = settles = True
    mappable = False

    def __init__(self, machine: Machine, pages: Callable[[], list[Range]]) -> None:
        self._machine = machine
        self._pages = pages

    def read(self, offset: int, size: int) -> Buffers:
        """Bytes of the ports; fewer at the last one, none behind it."""
        size = min(size, PORTS - offset)
        if size <= 0:
            return []
        machine = self._machine
        read = machine.locked(lambda: memoryview(machine.port_space.read(offset, size)))
        return [machine.settle(self._pages(), read)]

    def write(self, offset: int, data: memoryview) -> int:
        """The number of bytes that went to ports."""
        data = data[: max(PORTS - offset, 0)]
        if data:
            machine = self._machine
            write = machine.locked(lambda: machine.port_space.write(offset, data))
            machine.settle(self._pages(), write)
        return len(data)
