"""Files that a machine serves as they are: firmware tables, extra `/proc`, `/sys` and `/dev` entries."""

import stat
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, symlink or directory with fixed content.

    `mode` carries the type bits (`S_IFREG`, `S_IFLNK`, `S_IFDIR`). `data` is the content, or the
    target of a symlink. `size` is what stat shows; None means the length of the data.
    """

    mode: int
    data: bytes = b""
    size: int | None = None

    @classmethod
    def regular(cls, data: bytes, mode: int = 0o444, *, size: int | None = None) -> Self:
        """A regular file."""
        return cls(stat.S_IFREG | mode, data, size)

    @classmethod
    def text(cls, text: str, mode: int = 0o444) -> Self:
        """A regular file with UTF-8 text."""
        return cls(stat.S_IFREG | mode, text.encode())

    @classmethod
    def symlink(cls, target: str) -> Self:
        """A symbolic link."""
        return cls(stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def directory(cls, mode: int = 0o755) -> Self:
        """An empty directory (parents of other files need none)."""
        return cls(stat.S_IFDIR | mode)
