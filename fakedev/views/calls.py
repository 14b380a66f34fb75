"""System calls on a file that the kernel answers from its file operations, and FUSE is not asked about."""

from collections.abc import Callable
from typing import NamedTuple

from fakedev.model.ranges import Range


class Answer(NamedTuple):
    """What a call returns: a result, or -errno; `rule` names the kernel function that decides."""

    value: int
    rule: str
    span: Range | None = None


class MapCall(NamedTuple):
    """mmap(2): bytes as the caller gave them (`offset` unsigned).

    `status` is the access mode of the descriptor (O_ACCMODE). `state` belongs to the descriptor: an ioctl
    may have left something for mmap. `capable`: whether the caller has a capability.
    """

    offset: int
    length: int
    prot: int
    flags: int
    status: int
    state: dict[str, int]
    capable: Callable[[int], bool] = lambda _: True


class SeekCall(NamedTuple):
    """lseek(2): a signed `offset`, and the `position` before it, unsigned."""

    offset: int
    whence: int
    position: int


class IoctlCall(NamedTuple):
    """ioctl(2): 32 bits of command, 64 of argument; `state` belongs to the descriptor."""

    command: int
    argument: int
    state: dict[str, int]


class Shown(NamedTuple):
    """What stat shows of a file, with the ids that exist inside; `time`, all of its times, in seconds."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    time: int
