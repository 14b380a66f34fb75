"""Who sends a request: the capabilities of a thread, and ids that are known better than the kernel knows them.

The server may look at /proc/TID/ns and ask capget(2) for a thread that waits for it: neither touches the
thread's memory, which can be a page that we serve.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

from fakedev.views.node import Opener

_VERSION_3 = 0x2008_0522  # _LINUX_CAPABILITY_VERSION_3
_HEADER, _DATA = struct.Struct("=Ii"), struct.Struct("=6I")
EVERYTHING = (1 << 64) - 1

_libc: Any = ctypes.CDLL(None, use_errno=True)
_capget = _libc.capget
_capget.argtypes = [ctypes.c_char_p, ctypes.c_char_p]


class CapabilitySets(NamedTuple):
    """Masks, as capget(2) and capset(2) have them."""

    effective: int
    permitted: int
    inheritable: int

    def packed(self) -> bytes:
        """`struct __user_cap_data_struct` twice: low halves, high halves."""
        return _DATA.pack(*(mask >> shift & 0xFFFF_FFFF for shift in (0, 32) for mask in self))

    @classmethod
    def unpacked(cls, data: bytes) -> "CapabilitySets":
        """The opposite of `packed`."""
        words = _DATA.unpack(data)
        return cls(*(low | high << 32 for low, high in zip(words[:3], words[3:], strict=True)))


class Known(NamedTuple):
    """What counts at a file: user, groups with the one of the process, effective capabilities."""

    uid: int
    groups: Collection[int]
    effective: int


class Callers:
    """The threads that use one mount; `namespace` is their user namespace, as /proc/PID/ns/user shows it.

    `known(tid, real)` is asked first: it may know of ids that do not exist in the user namespace, the
    real ones where `real` (access(2)).
    """

    __slots__ = ("_inside", "_outside", "known")

    def __init__(self, namespace: str) -> None:
        self._inside = namespace
        self._outside = user_namespace("self")
        self.known: Callable[[int, bool], Known | None] = lambda *_: None

    def opener(self, pid: int, uid: int, flags: int, *, real: bool = False) -> Opener:
        """Who opens, or does something with a name."""
        known = self.known(pid, real)
        if known is None:
            groups = () if uid else (0,)
            return Opener(pid, uid, flags, groups, partial(self._effective, pid))
        effective = partial(self._effective, pid, known.effective)
        return Opener(pid, known.uid, flags, known.groups, effective)

    def is_initial(self, tid: int) -> bool:
        """Whether a thread is in the user namespace that is the machine's initial one."""
        return user_namespace(tid) == self._inside

    def _effective(self, pid: int, known: int | None = None) -> int:
        """`cap_capable` in the initial user namespace: nothing for who has left it.

        Everything for us and others of the host, and for who is gone: nobody can tell any more.
        """
        try:
            namespace = user_namespace(pid)
            if namespace == self._inside:
                return capabilities(pid).effective if known is None else known
        except OSError:
            return EVERYTHING
        return EVERYTHING if namespace == self._outside else 0


def user_namespace(pid: int | str) -> str:
    """The name of a user namespace."""
    return os.readlink(f"/proc/{pid}/ns/user")  # noqa: PTH115 - fast


def capabilities(tid: int) -> CapabilitySets:
    """capget(2): what a thread has in its own user namespace. Raises OSError when it is gone."""
    data = ctypes.create_string_buffer(_DATA.size)
    if _capget(_HEADER.pack(_VERSION_3, tid), data):
        raise OSError(ctypes.get_errno(), "capget")
    return CapabilitySets.unpacked(data.raw)
