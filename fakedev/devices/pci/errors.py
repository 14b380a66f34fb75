"""What goes wrong on a PCI bus."""

import errno as _errno

from fakedev.model.errors import FakedevError


class PciError(FakedevError):
    """A value that PCI has no room for, or a verb that the kernel refuses with `errno`.

    `denied`: because processes map what a driver would claim, and the policy is `deny-claim`.
    """

    def __init__(self, message: str, *, errno: int = _errno.EINVAL, denied: bool = False) -> None:
        super().__init__(message)
        self.errno = errno
        self.denied = denied
