"""A host for plans: what `fakedev.sandbox.host` asks of the real one."""

import os
import stat
from collections.abc import Iterable

from fakedev.sandbox.protocols import HostEntry


class FakeHost:
    """A host made of a dict: path -> "dir", "file", "chr:MAJ,MIN" or "link:target"."""

    def __init__(self, paths: dict[str, str], *, unreadable: Iterable[str] = ()) -> None:
        self.entries: dict[str, HostEntry] = {"/": HostEntry("", stat.S_IFDIR | 0o755)}
        self.unreadable = set(unreadable)
        for path, what in paths.items():
            parts = path.strip("/").split("/")
            for depth in range(1, len(parts)):
                parent = "/" + "/".join(parts[:depth])
                self.entries.setdefault(parent, HostEntry(parts[depth - 1], stat.S_IFDIR | 0o755))
            self.entries[path] = self._entry(parts[-1], what)

    @staticmethod
    def _entry(name: str, what: str) -> HostEntry:
        kind, _, rest = what.partition(":")
        if kind == "link":
            return HostEntry(name, stat.S_IFLNK | 0o777, target=rest)
        if kind == "chr":
            numbers, _, mode = rest.partition(" ")
            major, minor = map(int, numbers.split(","))
            return HostEntry(name, stat.S_IFCHR | int(mode or "666", 8), os.makedev(major, minor))
        if kind == "dir":
            return HostEntry(name, stat.S_IFDIR | int(rest or "755", 8))
        return HostEntry(name, stat.S_IFREG | 0o644)

    def lstat(self, path: str) -> HostEntry | None:
        return self.entries.get(path)

    def scan(self, path: str) -> list[HostEntry] | None:
        if path in self.unreadable:
            return None
        prefix = path.rstrip("/") + "/"
        found = [
            entry
            for place, entry in sorted(self.entries.items())
            if place.startswith(prefix) and "/" not in place[len(prefix) :] and place != "/"
        ]
        return sorted(found, key=lambda entry: entry.name)

    def names(self, path: str) -> list[str]:
        return [entry.name for entry in self.scan(path) or ()]

    def links(self, path: str) -> list[tuple[str, str]]:
        return [(e.name, e.target) for e in self.scan(path) or () if e.is_symlink]
