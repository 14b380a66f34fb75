"""A part of sysfs as data: which files, links and directories there are, and what each says.

The whole is made anew after every change (it is small), and two of them are compared to tell the
kernel what came, went, or is another file now.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from fakedev.model.effects import NodesChanged


class Text(NamedTuple):
    """A text attribute: `show` gives its text with the newline, `store` takes what is written."""

    show: Callable[[], str] | None
    store: Callable[[str], None] | None
    mode: int


class Link(NamedTuple):
    """A symbolic link to an absolute path below `/sys`."""

    target: str


class Folder(NamedTuple):
    """A directory."""


Entry: TypeAlias = Text | Link | Folder


class Catalog:
    """Paths and what is there. `roots` are directories that are ours as a whole.

    In the `shared` ones of them the host's own entries stay; only links of ours are in these.
    """

    __slots__ = ("children", "entries", "owners", "roots", "shared")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.children: dict[str, dict[str, None]] = {}
        self.roots: list[str] = []
        self.shared: list[str] = []
        self.owners: dict[str, object] = {}

    def root(self, path: str) -> "Place":
        """A directory that the machine has for itself."""
        if path not in self.roots:
            self.roots.append(path)
        self.children.setdefault(path, {})
        return Place(self, path, None)

    def share(self, path: str) -> "Place":
        """A directory that the machine has together with the host."""
        if path not in self.shared:
            self.shared.append(path)
        return self.root(path)

    def at(self, path: str, owner: object) -> "Place":
        """A directory below a root, whose files speak for `owner`."""
        self.put(path, Folder(), owner)
        return Place(self, path, owner)

    def put(self, path: str, entry: Entry, owner: object) -> None:
        """Add an entry, with the directories above it up to a root."""
        if path in self.roots or (isinstance(entry, Folder) and path in self.entries):
            return
        self.entries[path] = entry
        self.owners[path] = owner
        above, _, name = path.rpartition("/")
        self.children.setdefault(above, {})[name] = None
        if above and above not in self.entries and any(above.startswith(r) for r in self.roots):
            self.put(above, Folder(), None)

    def changes(self, before: "Catalog") -> list[NodesChanged]:
        """What is not as it was in another catalog, one effect a directory."""
        found: dict[str, dict[str, None]] = {}
        for path in sorted(set(self.entries) | set(before.entries)):
            if self._same(path, before):
                continue
            above, _, name = path.rpartition("/")
            found.setdefault(above, {})[name] = None
        return [NodesChanged(above, tuple(names)) for above, names in found.items()]

    def _same(self, path: str, before: "Catalog") -> bool:
        mine, theirs = self.entries.get(path), before.entries.get(path)
        if type(mine) is not type(theirs):
            return False
        if isinstance(mine, Link):
            return mine == theirs
        kept = self.owners[path] is before.owners[path]
        return kept and getattr(mine, "mode", 0) == getattr(theirs, "mode", 0)

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Every path with its entry, sorted."""
        return iter(sorted(self.entries.items()))


class Place:
    """A directory to put files into."""

    __slots__ = ("_catalog", "_owner", "path")

    def __init__(self, catalog: Catalog, path: str, owner: object) -> None:
        self._catalog = catalog
        self._owner = owner
        self.path = path

    def __call__(self, name: str, value: object, *, mode: int = 0o444) -> None:
        """A file that says `value`; what can be called is asked at each read. A newline is added."""
        show = value if callable(value) else lambda: value
        self._put(name, Text(lambda: f"{show()}\n", None, mode))

    def writable(
        self, name: str, value: object, store: Callable[[str], None], mode: int = 0o644
    ) -> None:
        """A file that can be read as with `__call__`, and written."""
        show = value if callable(value) else lambda: value
        self._put(name, Text(lambda: f"{show()}\n", store, mode))

    def action(self, name: str, store: Callable[[str], None]) -> None:
        """A file that can only be written."""
        self._put(name, Text(None, store, 0o200))

    def link(self, name: str, target: str) -> None:
        """A link to an absolute path."""
        self._put(name, Link(target))

    def folder(self, name: str, owner: object = None) -> "Place":
        """A directory in this one."""
        return self._catalog.at(f"{self.path}/{name}", self._owner if owner is None else owner)

    def _put(self, name: str, entry: Entry) -> None:
        self._catalog.put(f"{self.path}/{name}", entry, self._owner)
