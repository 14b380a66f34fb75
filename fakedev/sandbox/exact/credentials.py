"""Users and capabilities of a process as the kernel changes them (kernel/sys.c, kernel/groups.c, commoncap.c).

Pure: a `Credentials` goes in with a call, another one comes out, or Refused with the errno.
"""

import errno
from typing import NamedTuple

from fakedev.fuse.credentials import EVERYTHING, CapabilitySets, Known
from fakedev.views.node import Refused

KEEP = 0xFFFF_FFFF  #: -1: this id stays
CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 6, 7, 8
SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_KEEP_CAPS = 1 << 0, 1 << 2, 1 << 4
_SECURE_ALL_BITS, _SECURE_ALL_LOCKS = (
    0x555,
    0xAAA,
)  # of 6.14; those from 0x100 on mean nothing to us
NGROUPS_MAX = 65536
# CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
_CAP_FS_SET = 0b11111 | 1 << 9 | 1 << 27 | 1 << 32


class Ids(NamedTuple):
    """The four user ids of a process, or its group ids; `file` is the one for file systems."""

    real: int = 0
    effective: int = 0
    saved: int = 0
    file: int = 0

    def set(self, new: int, *, able: bool) -> "Ids":
        """setuid(2), setgid(2)."""
        if new == KEEP:
            raise Refused(errno.EINVAL)
        if able:
            return Ids(new, new, new, new)
        _allow(new in (self.real, self.saved))
        return self._replace(effective=new, file=new)

    def set_two(self, real: int, effective: int, *, able: bool) -> "Ids":
        """setreuid(2), setregid(2)."""
        _allow(able or real in (KEEP, self.real, self.effective))
        _allow(able or effective in (KEEP, *self[:3]))
        new = self._changed(real, effective, KEEP)
        if real != KEEP or effective not in (KEEP, self.real):
            return new._replace(saved=new.effective)
        return new

    def set_three(self, real: int, effective: int, saved: int, *, able: bool) -> "Ids":
        """setresuid(2), setresgid(2)."""
        for wanted in (real, effective, saved):
            _allow(able or wanted in (KEEP, *self[:3]))
        new = self._changed(real, effective, saved)
        same = new[:3] == self[:3] and effective in (KEEP, self.file)
        return self if same else new  # since 6.3; before, `file` became `effective`

    def set_file(self, new: int, *, able: bool) -> "Ids":
        """setfsuid(2), setfsgid(2), which never fail."""
        allowed = new != KEEP and (able or new in self)
        return self._replace(file=new) if allowed else self

    def after_exec(self) -> "Ids":
        """`begin_new_exec`, `cap_bprm_creds_from_file`: without a set-id bit."""
        return self._replace(saved=self.effective, file=self.effective)

    def _changed(self, real: int, effective: int, saved: int) -> "Ids":
        pairs = zip((real, effective, saved), self[:3], strict=True)
        new = Ids(*(old if wanted == KEEP else wanted for wanted, old in pairs))
        return new._replace(file=new.effective)


class Program(NamedTuple):
    """What exec gives and fork keeps: where the code and the stack of a process begin."""

    code: int
    stack: int


class Bounds(NamedTuple):
    """Sets that the host keeps for us, as it is told of every change."""

    inheritable: int
    bounding: int
    ambient: int


class Credentials(NamedTuple):
    """`struct cred`. What exec makes of it is worked out when it is asked for: it was made in `program`."""

    uids: Ids
    gids: Ids
    groups: tuple[int, ...]
    effective: int
    permitted: int
    securebits: int = 0
    program: Program | None = None

    def capable(self, capability: int) -> bool:
        """`ns_capable` in the user namespace of the sandbox."""
        return bool(self.effective >> capability & 1)

    def with_uids(self, uids: Ids) -> "Credentials":
        """`cap_emulate_setxuid`: capabilities go with the last user id that is root's."""
        new, old = self._replace(uids=uids), self.uids
        if self.securebits & SECBIT_NO_SETUID_FIXUP:
            return new
        if 0 in old[:3] and 0 not in uids[:3] and not self.securebits & SECBIT_KEEP_CAPS:
            new = new._replace(permitted=0, effective=0)
        if old.effective == 0 != uids.effective:
            new = new._replace(effective=0)
        if old.effective != 0 == uids.effective:
            new = new._replace(effective=new.permitted)
        return new

    def with_file_uid(self, uids: Ids) -> "Credentials":
        """`cap_task_fix_setuid` of setfsuid(2): those for files come and go."""
        new, old = self._replace(uids=uids), self.uids
        if self.securebits & SECBIT_NO_SETUID_FIXUP:
            return new
        if old.file == 0 != uids.file:
            return new._replace(effective=self.effective & ~_CAP_FS_SET)
        if old.file != 0 == uids.file:
            return new._replace(effective=self.effective | self.permitted & _CAP_FS_SET)
        return new

    def with_groups(self, groups: tuple[int, ...]) -> "Credentials":
        """setgroups(2)."""
        _allow(self.capable(CAP_SETGID))
        if len(groups) > NGROUPS_MAX or KEEP in groups:
            raise Refused(errno.EINVAL)
        return self._replace(groups=groups)

    def with_capabilities(self, wanted: CapabilitySets, bounds: Bounds) -> "Credentials":
        """`cap_capset`."""
        mine = bounds.inheritable | self.permitted
        _allow(self.capable(CAP_SETPCAP) or not wanted.inheritable & ~mine)
        _allow(not wanted.inheritable & ~(bounds.inheritable | bounds.bounding))
        _allow(not wanted.permitted & ~self.permitted)
        _allow(not wanted.effective & ~wanted.permitted)
        return self._replace(effective=wanted.effective, permitted=wanted.permitted)

    def with_securebits(self, bits: int) -> "Credentials":
        """PR_SET_SECUREBITS of `cap_task_prctl`."""
        locked = self.securebits & _SECURE_ALL_LOCKS
        _allow(not (locked >> 1) & (self.securebits ^ bits) and not locked & ~bits)
        _allow(not bits & ~(_SECURE_ALL_BITS | _SECURE_ALL_LOCKS) and self.capable(CAP_SETPCAP))
        return self._replace(securebits=bits)

    def keeping(self, *, keep: bool) -> "Credentials":
        """PR_SET_KEEPCAPS."""
        _allow(not self.securebits & SECBIT_KEEP_CAPS << 1)
        bits = self.securebits & ~SECBIT_KEEP_CAPS
        return self._replace(securebits=bits | SECBIT_KEEP_CAPS if keep else bits)

    def after_exec(self, bounds: Bounds) -> "Credentials":
        """`cap_bprm_creds_from_file` for a file without capabilities and set-id bits."""
        uids, gids = self.uids.after_exec(), self.gids.after_exec()
        ambient = bounds.ambient & self.permitted
        permitted = effective = ambient
        if not self.securebits & SECBIT_NOROOT:
            if 0 in uids[:2]:
                permitted |= bounds.bounding | bounds.inheritable
            if uids.effective == 0:
                effective = permitted
        bits = self.securebits & ~SECBIT_KEEP_CAPS
        return Credentials(uids, gids, self.groups, effective, permitted, bits)

    def is_the_same_after_exec(self) -> bool:
        """Whether nothing is left that exec could change."""
        return self._replace(program=None) == self.after_exec(Bounds(0, EVERYTHING, 0))

    def at_files(self, *, real: bool) -> Known:
        """What counts at a file; `real`: for access(2) (`access_override_creds`)."""
        if not real:
            return Known(self.uids.file, (self.gids.file, *self.groups), self.effective)
        effective = self.effective
        if not self.securebits & SECBIT_NO_SETUID_FIXUP:
            effective = 0 if self.uids.real else self.permitted
        return Known(self.uids.real, (self.gids.real, *self.groups), effective)


def _allow(condition: object) -> None:
    if not condition:
        raise Refused(errno.EPERM)
