"""sendfile, splice and copy_file_range: what the kernel refuses before it asks either file."""

import os
from typing import NamedTuple

from fakedev.sandbox.exact import tracee
from fakedev.sandbox.exact.listener import Notification
from fakedev.sandbox.exact.rules import ALL_ONES


class Transfer(NamedTuple):
    """Where among the arguments the descriptors stand, and the pointers to their offsets.

    `size`: where the number of bytes stands, if none are moved whatever the files are.
    """

    source: int
    source_at: int
    target: int
    target_at: int | None
    size: int | None = None


TRANSFERS = {
    "sendfile": Transfer(1, 2, 0, None, 3),
    "splice": Transfer(0, 1, 2, 3, 4),
    "copy_file_range": Transfer(0, 1, 2, 3),
}


def is_sound(waiting: Notification, name: str, ours: int, memory: tracee.Memory) -> bool:
    """Whether file operations decide; else the kernel has an answer (EBADF, EFAULT, ESPIPE) without them.

    `ours`: the descriptor of our file.
    """
    transfer = TRANSFERS[name]
    tid, arguments = waiting.tid, waiting.arguments
    if transfer.size is not None and not arguments[transfer.size]:
        return False
    source, target = (arguments[at] & ALL_ONES for at in (transfer.source, transfer.target))
    source_at = arguments[transfer.source_at]
    target_at = 0 if transfer.target_at is None else arguments[transfer.target_at]
    if not _is_open(tid, source, os.O_WRONLY, name) or not _is_open(tid, target, os.O_RDONLY, name):
        return False
    if name == "splice" and (target_at if source == ours else source_at):
        return False  # of a pipe
    return all(not at or memory.read(tid, at, 8) for at in (source_at, target_at))


def _is_open(tid: int, fd: int, wrong: int, name: str) -> bool:
    found = tracee.descriptor(tid, fd)
    if found is None or found.flags & os.O_PATH:
        return False
    # copy_file_range looks at the type first
    return name == "copy_file_range" or found.flags & os.O_ACCMODE != wrong
