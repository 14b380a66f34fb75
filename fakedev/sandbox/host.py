"""The host as plans see it: what is at a path, and which links are in a directory."""

import contextlib
import os
import stat
from typing import Protocol

from fakedev.sandbox.protocols import HostEntry

_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Host(Protocol):
    """What a plan asks about the host."""

    def lstat(self, path: str) -> HostEntry | None:
        """Return the entry at `path`, None if there is none."""
        ...

    def scan(self, path: str) -> list[HostEntry] | None:
        """Return the sorted entries of a directory, None if it cannot be read."""
        ...

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, none if it cannot be read."""
        ...

    def links(self, path: str) -> list[tuple[str, str]]:
        """Return (name, target) of the links in a directory, none if it cannot be read."""
        ...


class HostView:
    """The host that this process runs on."""

    __slots__ = ()

    def lstat(self, path: str) -> HostEntry | None:
        """Return the entry at `path`, None if there is none or no right to know."""
        try:
            return self._entry(path, path.rpartition("/")[2])
        except OSError:
            return None

    def scan(self, path: str) -> list[HostEntry] | None:
        """Return the sorted entries of a directory, None if it cannot be read."""
        found = []
        try:
            with os.scandir(path) as listing:
                for entry in listing:
                    with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                        found.append(self._listed(entry))
        except OSError:
            return None
        return sorted(found)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, none if it cannot be read."""
        try:
            return os.listdir(path)  # noqa: PTH208 - hot, no Path needed
        except OSError:
            return []

    def links(self, path: str) -> list[tuple[str, str]]:
        """Return (name, target) of the links in a directory, none if it cannot be read."""
        found = []
        try:
            directory = os.open(path, _LISTED)
        except OSError:
            return []
        try:
            for name in os.listdir(directory):  # noqa: PTH208 - a descriptor; hundreds of links
                try:
                    found.append((name, os.readlink(name, dir_fd=directory)))
                except OSError:  # no link, or gone since it was listed
                    continue
        finally:
            os.close(directory)
        return found

    def _listed(self, entry: "os.DirEntry[str]") -> HostEntry:
        """Spare the lstat() where the type is enough, because the host's own covers the entry."""
        if entry.is_symlink():
            return HostEntry(entry.name, stat.S_IFLNK | 0o777, 0, _target(entry.path))
        if entry.is_dir(follow_symlinks=False):
            return HostEntry(entry.name, stat.S_IFDIR | 0o755)
        if entry.is_file(follow_symlinks=False):
            return HostEntry(entry.name, stat.S_IFREG | 0o444)
        return self._entry(entry.path, entry.name)

    @staticmethod
    def _entry(path: str, name: str) -> HostEntry:
        status = os.lstat(path)
        target = _target(path) if stat.S_ISLNK(status.st_mode) else ""
        return HostEntry(name, status.st_mode, status.st_rdev, target)


def _target(path: str) -> str:
    return os.readlink(path)  # noqa: PTH115 - hot, no Path needed
