"""Kernel lockdown (`security/lockdown/lockdown.c`): a level that can only rise, and what it restricts.

What is open or mapped already stays: `/dev/mem` is asked for at open, PCI files at each write and mmap.
"""

import errno
from dataclasses import replace
from typing import NamedTuple

from fakedev.model.errors import ControlError
from fakedev.model.kernel import LOCKDOWN_LEVELS
from fakedev.model.world import World


class Reason(NamedTuple):
    """A member of `enum lockdown_reason`: the level that restricts it, and its name in the log."""

    level: str
    text: str


LOCKDOWN_DEV_MEM = Reason("integrity", "/dev/mem,kmem,port")
LOCKDOWN_PCI_ACCESS = Reason("integrity", "direct PCI access")
LOCKDOWN_KCORE = Reason("confidentiality", "/proc/kcore access")


def lockdown_text(level: str) -> str:
    """`lockdown_read`: all levels on a line, the one in force in brackets."""
    return " ".join(f"[{name}]" if name == level else name for name in LOCKDOWN_LEVELS)


def lock_kernel_down(world: World, level: str, where: str, who: str) -> None:
    """Raise the level. ControlError: EINVAL for no level, EPERM for one that is not above that in force."""
    if level not in LOCKDOWN_LEVELS:
        known = ", ".join(LOCKDOWN_LEVELS)
        raise ControlError(f"lockdown: {level!r} is not one of {known}", errno=errno.EINVAL)
    with world.lock:
        old = world.rules.lockdown_level
        if world.rules.locked_down(level):
            raise ControlError(
                f"lockdown is {old} and can only be raised, not set to {level}", errno=errno.EPERM
            )
        _set(world, level)
        message = f"Kernel is locked down from {where}; see man kernel_lockdown.7"
        event = world.record("lockdown", f"{message} ({who}: {old} to {level})")
        if old == LOCKDOWN_LEVELS[0]:
            world.locked_since = event.number


def unlock(world: World) -> None:
    """The level of the boot."""
    with world.lock:
        _set(world, world.boot_lockdown)
        world.locked_since = 0


def _set(world: World, level: str) -> None:
    world.rules = replace(world.rules, lockdown=level)
    world.policy = world.policy.under(world.rules)


def security_locked_down(world: World, what: Reason, pid: int) -> bool:
    """Whether process `pid` is refused; the log has the kernel's line, once for a row of the same."""
    if not world.rules.locked_down(what.level):
        return False
    comm = world.comm_of(pid)
    message = f"Lockdown: {comm}: {what.text} is restricted; see man kernel_lockdown.7"
    if not world.events or world.events[-1].message != message:
        world.record("denied", message)
    return True
