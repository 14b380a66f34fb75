"""chown(2) of our files to ids that do not exist in the sandbox: the kernel refuses these before it asks us.

A path may lead through a file system that a tool of the sandbox serves, which may wait for the supervisor
itself: another thread of it answers meanwhile (`crew`).
"""

import ctypes
import os
import struct
import threading
from typing import Any, NamedTuple

from fakedev.sandbox.exact.hand import Hand
from fakedev.sandbox.exact.listener import Notification
from fakedev.sandbox.exact.rules import ALL_ONES, AT_EMPTY_PATH
from fakedev.sandbox.exact.tracee import Memory
from fakedev.views.node import Node

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_PATH_MAX = 4096
_SYS_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10
_HOW = struct.Struct("=3Q")  # struct open_how: flags, mode, resolve

_libc: Any = ctypes.CDLL(None, use_errno=True)


class _Change(NamedTuple):
    """A call: `fd` is that of the file, or the directory that `path` starts in; 0: no path."""

    fd: int
    path: int
    uid: int
    gid: int
    flags: int = 0


class Owners:
    """Finds our files by what a caller says, and changes their owners. For one thread."""

    def __init__(self, hand: Hand) -> None:
        self._memory = hand.memory
        self._statuses = hand.statuses
        self._files = hand.shared.files

    def change(self, waiting: Notification, name: str) -> bool:
        """chown, lchown, fchown, fchownat; False where the file is not ours. Raises Refused."""
        change = _parsed(name, waiting.arguments)
        node = self._node(waiting.tid, change)
        if node is None:
            return False
        caller = self._files.callers.opener(waiting.tid, 0, 0)
        node.chown(caller, _signed(change.uid), _signed(change.gid))
        return True

    def _node(self, tid: int, change: _Change) -> Node | None:
        path = self._path(tid, change.path) if change.path else b""
        if path is None:
            return None
        if not path:
            return self._of(tid, change.fd) if change.flags & AT_EMPTY_PATH else None
        try:
            fd = _look_up(tid, change, path)
        except OSError:
            return None  # the kernel knows why
        try:
            return self._of(threading.get_native_id(), fd)
        finally:
            os.close(fd)

    def _of(self, tid: int, fd: int) -> Node | None:
        ino = self._statuses.ours(tid, fd)
        file = self._files.file(ino) if ino else None
        return None if file is None else file.node

    def _path(self, tid: int, address: int) -> bytes | None:
        """A string in the caller's memory, read in pieces that lie in one page each."""
        found = b""
        while len(found) < _PATH_MAX:
            at = address + len(found)
            part = self._memory.read(tid, at, Memory.SIZE - at % Memory.SIZE)
            if part is None:
                return None
            head, end, _ = part.partition(b"\0")
            found += head
            if end:
                return found
        return None


def _parsed(name: str, words: tuple[int, ...]) -> _Change:
    low = [word & ALL_ONES for word in words]
    if name == "fchownat":
        return _Change(_signed(low[0]), words[1], low[2], low[3], low[4])
    if name == "fchown":
        return _Change(low[0], 0, low[1], low[2], AT_EMPTY_PATH)
    flags = _AT_SYMLINK_NOFOLLOW if name == "lchown" else 0
    return _Change(_AT_FDCWD, words[0], low[1], low[2], flags)


def _look_up(tid: int, change: _Change, path: bytes) -> int:
    """An O_PATH descriptor of what the caller means, in its own root."""
    start = "cwd" if change.fd == _AT_FDCWD else f"fd/{change.fd}"
    above = os.readlink(os.fsencode(f"/proc/{tid}/{start}")) if path[:1] != b"/" else b""  # noqa: PTH115
    root = os.open(f"/proc/{tid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = os.O_PATH | os.O_CLOEXEC
    if change.flags & _AT_SYMLINK_NOFOLLOW:
        flags |= os.O_NOFOLLOW
    how = _HOW.pack(flags, 0, _RESOLVE_IN_ROOT)
    try:
        found = _libc.syscall(_SYS_OPENAT2, root, os.path.join(above, path), how, len(how))  # noqa: PTH118
    finally:
        os.close(root)
    if found < 0:
        raise OSError(ctypes.get_errno(), "openat2")
    return int(found)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
