"""What goes wrong on a PCI bus."""

import errno as _errno

from fakedev.model.errors import FakedevError


class PciError(FakedevError):
    """A value that PCI has no room for, or a verb that the kernel refuses with `errno`."""

    def __init__(self, message: str, *, errno: int = _errno.EINVAL) -> None:
        super().__init__(message)
        self.errno = errno
