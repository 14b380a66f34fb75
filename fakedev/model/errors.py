"""One family of errors: each carries what went wrong, and the errno where the kernel has one."""

import errno as _errno
from typing import Any


class FakedevError(Exception):
    """Base of every error that fakedev raises on purpose; `str()` is a complete message for a person."""


class RangeError(FakedevError):
    """A text that is not an address, a size or a range."""


class MemoryLayoutError(FakedevError):
    """A segment that overlaps another, is misaligned, or content that does not fit its place."""


class ResourceConflictError(FakedevError):
    """A request that the resource tree refuses.

    Attributes: `errno` (EBUSY), `conflict` (the resource in the way, or None), `denied`: processes map
    the range, and the policy is `deny-claim`.
    """

    denied = False

    def __init__(self, message: str, *, conflict: Any = None, errno: int = _errno.EBUSY) -> None:
        super().__init__(message)
        self.conflict = conflict
        self.errno = errno


class ClaimDeniedError(ResourceConflictError):
    """A claim of what processes map, under `deny-claim`; the message names them."""

    denied = True


class ProfileError(FakedevError):
    """One or more things that are wrong in a profile; `problems` lists them, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class HostError(FakedevError):
    """This host does not allow something; the message says what is missing and what would enable it."""


class ControlError(FakedevError):
    """A control verb that was refused. `errno` is 0 where the kernel has no errno for it."""

    def __init__(self, message: str, *, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
