"""`/sys/kernel/security/lockdown`: the level, and the way to raise it (`security/lockdown/lockdown.c`)."""

import errno
import stat
from typing import TYPE_CHECKING

from fakedev.model.lockdown import Reason, lock_kernel_down, lockdown_text, security_locked_down
from fakedev.model.machine import Machine
from fakedev.views.live import SysfsNode, kernel_errors
from fakedev.views.node import Buffers, Handle, Opener, Refused

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

PATH = "/sys/kernel/security/lockdown"


def paths(machine: Machine) -> dict[str, int]:
    """Where the file stands, with its `st_mode`; a profile's own file wins."""
    return {} if PATH in machine.files else {PATH: stat.S_IFREG}


def directories(_: Machine) -> dict[str, bool]:
    """What the host has in securityfs stays."""
    return {}


def install(tree: "Tree", machine: Machine) -> None:
    """Put the file into the tree."""
    tree.mount(PATH, LockdownFile(machine))


def check_lockdown(machine: Machine, what: Reason, pid: int) -> None:
    """`security_locked_down`: Refused (EPERM) from the level of `what` on, and a line in the log."""
    if security_locked_down(machine, what, pid):
        raise Refused(errno.EPERM)


class LockdownFile(SysfsNode):
    """A file of securityfs: its size is 0, and it can be neither mapped nor truncated."""

    __slots__ = ("machine",)

    def __init__(self, machine: Machine) -> None:
        super().__init__(mode=0o644 if machine.rules.release >= (5, 8) else 0o600, size=0)
        self.machine = machine

    def open(self, opener: Opener) -> Handle:
        self.check_open(opener)
        return LockdownHandle(self.machine, opener.pid)


class LockdownHandle:
    """An open file: the text is that of the moment of each read."""

    __slots__ = ("_machine", "_pid")
    mappable = False

    def __init__(self, machine: Machine, pid: int) -> None:
        self._machine = machine
        self._pid = pid

    def read(self, offset: int, size: int) -> Buffers:
        text = lockdown_text(self._machine.rules.lockdown_level).encode() + b"\n"
        return [memoryview(text)[offset : offset + size]]

    def write(self, offset: int, data: memoryview) -> int:
        """`lockdown_write`: a level, perhaps with a newline. EINVAL for anything else, EPERM to lower it."""
        text = bytes(data).partition(b"\0")[0].decode("latin-1").removesuffix("\n")
        who = f"{self._machine.comm_of(self._pid)}[{self._pid}]"
        with kernel_errors():
            lock_kernel_down(self._machine, text, "securityfs", who)
        return len(data)
