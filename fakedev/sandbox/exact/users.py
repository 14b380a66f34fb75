"""Users, groups and capabilities of a sandbox in which only id 0 exists: `credentials`, as system calls.

Whoever has never set an id is who the host says: these calls continue. So do those of a thread in a user
namespace of its own, whose ids are the host's business.
"""

import errno
import functools
import struct
from collections.abc import Callable
from typing import NamedTuple

from fakedev.fuse.credentials import CapabilitySets, capabilities
from fakedev.sandbox.exact.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    NGROUPS_MAX,
    Credentials,
    Ids,
)
from fakedev.sandbox.exact.hand import Hand
from fakedev.sandbox.exact.listener import Notification
from fakedev.sandbox.exact.marks import bounds, groups
from fakedev.sandbox.exact.numbers import AARCH64, I386, X86_64
from fakedev.sandbox.exact.owners import Owners
from fakedev.sandbox.exact.rules import (
    ALL_ONES,
    PR_SET_KEEPCAPS,
    PR_SET_SECUREBITS,
    PR_SET_TIMERSLACK,
)
from fakedev.sandbox.exact.tracee import Memory
from fakedev.views.calls import Answer
from fakedev.views.node import Refused

_INT_MAX = 0x7FFF_FFFF
_HEADER = struct.Struct("=Ii")
_VERSIONS = (0x2007_1026, 0x2008_0522)  # _LINUX_CAPABILITY_VERSION_2 and _3
_SETS = 24
#: What decides, by how a call begins; others are ids.
_RULES = {
    "get": "current_cred: the ids that it has set here",
    "cap": "cap_capset, cap_capget: by the sets that its ids have left it here",
    "prctl": "cap_task_prctl: by what it has set here",
    **dict.fromkeys(("chown", "fchown", "lchown"), "setattr_prepare: chown_ok, chgrp_ok"),
}


class _Handler(NamedTuple):
    """`asks`: the kernel's own answer is right as long as nobody has set an id. `rule`: of the trace."""

    name: str
    rule: str
    asks: bool
    handle: Callable[[Notification], bool]


class Users:
    """Answers these calls. For one thread."""

    def __init__(self, hand: Hand, owners: Owners) -> None:
        self._hand = hand
        self._listener = hand.listener
        self._memory = hand.memory
        self._callers = hand.shared.files.callers
        self._owners = owners
        self._marks = hand.shared.marks
        self._handlers = self._table()

    def handle(self, waiting: Notification) -> bool:
        """Answer a call; False where the kernel is to do it."""
        entry = self._handlers.get((waiting.audit, waiting.number))
        if entry is None or (entry.asks and not self._marks.any):
            return False
        if not self._callers.is_initial(waiting.tid):
            return False
        if waiting.audit == I386.audit:
            waiting = waiting.narrow()
        try:
            return entry.handle(waiting)
        except Refused as refused:
            return self._answer(waiting, -refused.errno)

    def _table(self) -> dict[tuple[int, int], _Handler]:
        own = {name: self._handler(name) for name in X86_64.identity}
        return {
            (arch.audit, number): own[name.removesuffix("32")]
            for arch in (X86_64, I386, AARCH64)
            for name, number in arch.identity.items()
        }

    def _handler(self, name: str) -> _Handler:
        rule = next((rule for start, rule in _RULES.items() if name.startswith(start)), "")
        rule = rule or f"__sys_{name}: by the ids that it has set here"
        if "chown" in name:
            return _Handler(name, rule, False, functools.partial(self._chown, name))
        asks = name.startswith(("get", "cap"))
        return _Handler(name, rule, asks, getattr(self, name))

    def _chown(self, name: str, waiting: Notification) -> bool:
        return self._owners.change(waiting, name) and self._answer(waiting, 0)

    # -- setting ids

    def setuid(self, waiting: Notification) -> bool:
        """setuid(2)."""
        return self._set_uids(waiting, 1, Ids.set)

    def setreuid(self, waiting: Notification) -> bool:
        """setreuid(2)."""
        return self._set_uids(waiting, 2, Ids.set_two)

    def setresuid(self, waiting: Notification) -> bool:
        """setresuid(2)."""
        return self._set_uids(waiting, 3, Ids.set_three)

    def setgid(self, waiting: Notification) -> bool:
        """setgid(2)."""
        return self._set_gids(waiting, 1, Ids.set)

    def setregid(self, waiting: Notification) -> bool:
        """setregid(2)."""
        return self._set_gids(waiting, 2, Ids.set_two)

    def setresgid(self, waiting: Notification) -> bool:
        """setresgid(2)."""
        return self._set_gids(waiting, 3, Ids.set_three)

    def setfsuid(self, waiting: Notification) -> bool:
        """setfsuid(2)."""
        old = self._of(waiting.tid)
        uids = old.uids.set_file(waiting.arguments[0] & ALL_ONES, able=old.capable(CAP_SETUID))
        self._become(waiting, old, old.with_file_uid(uids))
        return self._answer(waiting, old.uids.file)

    def setfsgid(self, waiting: Notification) -> bool:
        """setfsgid(2)."""
        old = self._of(waiting.tid)
        gids = old.gids.set_file(waiting.arguments[0] & ALL_ONES, able=old.capable(CAP_SETGID))
        self._become(waiting, old, old._replace(gids=gids))
        return self._answer(waiting, old.gids.file)

    def setgroups(self, waiting: Notification) -> bool:
        """setgroups(2)."""
        old = self._of(waiting.tid)
        count = waiting.arguments[0] & ALL_ONES
        old.with_groups(())  # EPERM comes first
        if count > NGROUPS_MAX:
            raise Refused(errno.EINVAL)
        data = self._read(waiting, waiting.arguments[1], 4 * count)
        self._become(waiting, old, old.with_groups(struct.unpack(f"={count}I", data)))
        return self._answer(waiting, 0)

    def _set_uids(self, waiting: Notification, count: int, change: Callable[..., Ids]) -> bool:
        old = self._of(waiting.tid)
        wanted = (word & ALL_ONES for word in waiting.arguments[:count])
        new = change(old.uids, *wanted, able=old.capable(CAP_SETUID))
        self._become(waiting, old, old.with_uids(new))
        return self._answer(waiting, 0)

    def _set_gids(self, waiting: Notification, count: int, change: Callable[..., Ids]) -> bool:
        old = self._of(waiting.tid)
        wanted = (word & ALL_ONES for word in waiting.arguments[:count])
        new = change(old.gids, *wanted, able=old.capable(CAP_SETGID))
        self._become(waiting, old, old._replace(gids=new))
        return self._answer(waiting, 0)

    # -- asking for ids

    def getuid(self, waiting: Notification) -> bool:
        """getuid(2)."""
        return self._tell(waiting, lambda known: known.uids.real)

    def geteuid(self, waiting: Notification) -> bool:
        """geteuid(2)."""
        return self._tell(waiting, lambda known: known.uids.effective)

    def getgid(self, waiting: Notification) -> bool:
        """getgid(2)."""
        return self._tell(waiting, lambda known: known.gids.real)

    def getegid(self, waiting: Notification) -> bool:
        """getegid(2)."""
        return self._tell(waiting, lambda known: known.gids.effective)

    def getresuid(self, waiting: Notification) -> bool:
        """getresuid(2)."""
        return self._tell(waiting, lambda known: self._put_ids(waiting, known.uids))

    def getresgid(self, waiting: Notification) -> bool:
        """getresgid(2)."""
        return self._tell(waiting, lambda known: self._put_ids(waiting, known.gids))

    def getgroups(self, waiting: Notification) -> bool:
        """getgroups(2)."""
        return self._tell(waiting, lambda known: self._put_groups(waiting, known.groups))

    def _tell(self, waiting: Notification, answer: Callable[[Credentials], int]) -> bool:
        known = self._marks.of(waiting.tid)
        return known is not None and self._answer(waiting, answer(known))

    def _put_ids(self, waiting: Notification, ids: Ids) -> int:
        for address, one in zip(waiting.arguments[:3], ids[:3], strict=True):
            self._write(waiting, address, one.to_bytes(4, "little"))
        return 0

    def _put_groups(self, waiting: Notification, groups: tuple[int, ...]) -> int:
        room = waiting.arguments[0] & ALL_ONES
        if room > _INT_MAX or 0 < room < len(groups):
            raise Refused(errno.EINVAL)
        if room:
            self._write(waiting, waiting.arguments[1], struct.pack(f"={len(groups)}I", *groups))
        return len(groups)

    # -- capabilities

    def capget(self, waiting: Notification) -> bool:
        """capget(2) of a thread that has set an id; a question for the version continues."""
        header, data = waiting.arguments[:2]
        version, pid = _HEADER.unpack(self._read(waiting, header, _HEADER.size))
        known = self._marks.of(pid or waiting.tid) if pid >= 0 else None
        if known is None or not data or version not in _VERSIONS:
            return False
        inheritable = bounds(pid or waiting.tid).inheritable
        sets = CapabilitySets(known.effective, known.permitted, inheritable)
        self._write(waiting, data, sets.packed())
        return self._answer(waiting, 0)

    def capset(self, waiting: Notification) -> bool:
        """capset(2) of a thread that has set an id: what it may do here it may do to the host's sets."""
        old = self._marks.of(waiting.tid)
        header, data = waiting.arguments[:2]
        if (
            old is None
            or _HEADER.unpack(self._read(waiting, header, _HEADER.size))[0] not in _VERSIONS
        ):
            return False
        wanted = CapabilitySets.unpacked(self._read(waiting, data, _SETS))
        new = old.with_capabilities(wanted, bounds(waiting.tid))
        self._become(waiting, old, new)
        self._record(waiting, 0)
        return False

    def prctl(self, waiting: Notification) -> bool:
        """PR_SET_KEEPCAPS, PR_SET_SECUREBITS, and PR_SET_TIMERSLACK, by which we know who is who."""
        option, value = waiting.arguments[0] & ALL_ONES, waiting.arguments[1]
        if option == PR_SET_KEEPCAPS and value in (0, 1):
            old = self._of(waiting.tid)
            self._become(waiting, old, old.keeping(keep=bool(value)))
        elif option == PR_SET_SECUREBITS:
            old = self._of(waiting.tid)
            self._become(waiting, old, old.with_securebits(value & ALL_ONES))
        elif option == PR_SET_TIMERSLACK and self._marks.of(waiting.tid) is not None:
            return self._answer(waiting, 0)
        return False

    # -- threads and their memory

    def _of(self, tid: int) -> Credentials:
        found = self._marks.of(tid)
        if found is None:
            sets = capabilities(tid)
            found = Credentials(Ids(), Ids(), groups(tid), sets.effective, sets.permitted)
        return found

    def _become(self, waiting: Notification, old: Credentials, new: Credentials) -> None:
        if new != old and self._listener.waits(waiting.id):
            self._marks.set(waiting.tid, new)

    def _answer(self, waiting: Notification, value: int) -> bool:
        self._listener.answer(waiting.id, value)
        self._record(waiting, value)  # the caller goes on meanwhile
        return True

    def _record(self, waiting: Notification, value: int) -> None:
        entry = self._handlers[waiting.audit, waiting.number]
        self._hand.record(waiting.tid, entry.name, Answer(value, entry.rule))

    def _read(self, waiting: Notification, address: int, size: int) -> bytes:
        step, found = Memory.SIZE, b""
        for at in range(0, size, step):
            part = self._memory.read(waiting.tid, address + at, min(step, size - at))
            if part is None:
                raise Refused(errno.EFAULT)
            found += part
        return found

    def _write(self, waiting: Notification, address: int, data: bytes) -> None:
        for at in range(0, len(data), Memory.SIZE):
            part = data[at : at + Memory.SIZE]
            if not self._listener.waits(waiting.id):
                return
            if not self._memory.write(waiting.tid, address + at, part):
                raise Refused(errno.EFAULT)
