"""Run a command as a process that could not do anything special on this host.

    python tests/unprivileged.py COMMAND ARG...

An ordinary user runs the command as it is. Root enters a user namespace where its id is 1000, so
that every capability is gone after exec: the files of root still seem to be its own, but nothing
that needs privilege works any more.
"""

import ctypes
import os
import sys
from pathlib import Path

INSIDE = 1000
_CLONE_NEWUSER = 0x1000_0000


def command(*args: str | os.PathLike[str]) -> list[str]:
    """Return the command line that runs `args` without privilege."""
    words = [os.fspath(word) for word in args]
    if os.geteuid():
        return words
    return [sys.executable, str(Path(__file__).resolve()), *words]


def drop() -> None:
    """Give up every privilege with the next exec; does nothing for an ordinary user."""
    uid, gid = os.geteuid(), os.getegid()
    if uid:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{INSIDE} {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{INSIDE} {gid} 1", encoding="ascii")


if __name__ == "__main__":
    drop()
    os.execvp(sys.argv[1], sys.argv[1:])
