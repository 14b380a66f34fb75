"""Which host paths a sandbox covers with virtual ones: a pure function from two listings to a plan.

Three ways to make a virtual path appear:

* *bind*: the host has something of the same sort there, so the virtual one is mounted over it;
* *shadow*: the host has nothing there (or a link, over which nothing can be mounted), so its
  directory is replaced by one of the FUSE tree that shows the host's entries and the virtual ones;
* *unplaced*: the directory is one that cannot be replaced (`/`, `/proc`).

Where the machine's directory stands for the host's as a whole, host links that lead into it from
elsewhere are left out (`links`), which takes a shadow of the directory that has them.
"""

import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fakedev.sandbox.host import Host
from fakedev.sandbox.links import LeftOut, left_out
from fakedev.sandbox.protocols import HostEntry, Kind

#: Directories whose virtual content replaces the host's as a whole.
OPAQUE = frozenset(
    {
        "/sys/bus/memory",
        "/sys/devices/system/cpu",
        "/sys/devices/system/memory",
        "/sys/devices/system/node",
        "/sys/firmware/acpi",
        "/sys/firmware/devicetree",
        "/sys/firmware/dmi",
        "/sys/firmware/memmap",
    }
)
#: Directories that are shadowed as soon as they have a virtual entry: nodes come and go there.
ALWAYS_SHADOW = frozenset({"/dev"})
#: Directories that cannot be replaced: nothing would be left of the host, or of its processes.
NEVER_SHADOW = frozenset({"/", "/proc"})

# A directory that others may write to with the sticky bit set makes `echo > file` fail inside
# (fs.protected_regular), so a shadow never takes over more than this of the host's bits.
_SHADOW_MODE_MASK = 0o755


class Shadow(NamedTuple):
    """A host directory that is replaced by a merged one.

    `entries` is what the host contributes to the listing, `binds` the names among them that are
    covered with the host's own file or directory. An `inner` shadow lies in another one and
    needs no mount of its own.
    """

    path: str
    mode: int
    entries: tuple[HostEntry, ...]
    binds: tuple[str, ...]
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sandbox mounts, in this order: `clones`, `shadows` (outer before inner), `binds`.

    `clones` are (host directory, place for a second view of it); `binds` are virtual paths that
    are mounted over the host's path of the same name; `unplaced` could not be put anywhere.
    """

    shadows: tuple[Shadow, ...] = ()
    binds: tuple[str, ...] = ()
    clones: tuple[tuple[str, str], ...] = ()
    unplaced: tuple[str, ...] = ()

    def a_mount(self) -> str | None:
        """One path at which the tree is mounted."""
        outer = [shadow.path for shadow in self.shadows if not shadow.inner]
        return next(iter([*outer, *self.binds]), None)


@dataclass(slots=True)
class _Node:
    """A virtual path: its kind and what lies below it."""

    kind: Kind = Kind.DIRECTORY
    children: dict[str, "_Node"] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.kind is Kind.DIRECTORY


def make_plan(
    virtual: Mapping[str, Kind],
    host: Host,
    *,
    clone_at: str,
    opaque: Collection[str] = OPAQUE,
    merged: Collection[str] = (),
    always_shadow: Collection[str] = ALWAYS_SHADOW,
) -> Plan:
    """Decide how each path of `virtual` gets its place on `host`.

    `clone_at` is an empty directory where a second view of the host's /dev may be mounted (only
    /dev/ptmx needs it). `opaque` and `always_shadow` are described at their defaults; `merged`
    directories are always shadowed, with what `virtual` has in them in place of the host's.
    """
    tree = _Tree(virtual)
    left = left_out(host, [path for path in opaque if path in tree], tree.__contains__)
    for path in left:
        tree.grow(path)
    planner = _Planner(host, clone_at, opaque, always_shadow, {*merged, *left}, left)
    planner.visit("/", tree.root, shadowed=False)
    return Plan(
        tuple(planner.shadows),
        tuple(planner.binds),
        tuple(planner.clones),
        tuple(planner.unplaced),
    )


class _Tree:
    """The virtual paths, each below its parents."""

    __slots__ = ("root",)

    def __init__(self, virtual: Mapping[str, Kind]) -> None:
        self.root = _Node()
        for path, kind in virtual.items():
            self.grow(path).kind = kind

    def grow(self, path: str) -> _Node:
        """Return the node at `path`, made with its parents where missing."""
        node = self.root
        for part in path.strip("/").split("/"):
            if part:
                node = node.children.setdefault(part, _Node())
        return node

    def __contains__(self, path: str) -> bool:
        node: _Node | None = self.root
        for part in path.strip("/").split("/"):
            node = node.children.get(part) if node else None
        return node is not None


class _Planner:
    """Walks the virtual tree along the host's, top down."""

    __slots__ = (
        "_always",
        "_clone_at",
        "_forced",
        "_host",
        "_left",
        "_opaque",
        "binds",
        "clones",
        "shadows",
        "unplaced",
    )

    def __init__(
        self,
        host: Host,
        clone_at: str,
        opaque: Collection[str],
        always: Collection[str],
        forced: Collection[str],
        left: LeftOut,
    ) -> None:
        self._host = host
        self._clone_at = clone_at
        self._opaque = opaque
        self._always = always
        self._forced = forced
        self._left = left
        self.shadows: list[Shadow] = []
        self.binds: list[str] = []
        self.clones: list[tuple[str, str]] = []
        self.unplaced: list[str] = []

    def visit(self, path: str, node: _Node, *, shadowed: bool) -> None:
        """Place the children of `node`; `path` is a directory of the host, perhaps in a shadow."""
        prefix = "/" if path == "/" else path + "/"
        wanted = shadowed or path in self._forced
        wanted = wanted or (path in self._always and bool(node.children))
        listing = self._host.scan(path) if wanted else None
        known = {entry.name: entry for entry in listing or ()}
        # A listing knows more at once than one question per child.
        find = self._host.lstat if listing is None else lambda place: known.get(_name(place))
        children = [(prefix + name, child) for name, child in sorted(node.children.items())]
        found = [find(place) for place, _ in children]
        if not wanted and not all(map(_covers, (child for _, child in children), found)):
            wanted, listing = True, self._host.scan(path)
        replaced = wanted and self._shadow(path, node, listing, inner=shadowed)
        for (place, child), entry in zip(children, found, strict=True):
            self._place(place, child, entry, replaced=replaced)

    def _place(self, path: str, node: _Node, found: HostEntry | None, *, replaced: bool) -> None:
        both = node.is_directory and found is not None and found.is_directory
        if both and path not in self._opaque:
            self.visit(path, node, shadowed=replaced)
        elif replaced:
            return  # the merged directory shows it
        elif _covers(node, found):
            self.binds.append(path)
        else:
            self.unplaced.append(path)

    def _shadow(
        self, path: str, node: _Node, listing: list[HostEntry] | None, *, inner: bool
    ) -> bool:
        """Add a shadow of `path`, where the host has `listing`; False if there cannot be one."""
        here = self._host.lstat(path)
        if here is None or listing is None or path in NEVER_SHADOW:
            return False
        hidden = {*node.children, *self._left.get(path, ())}
        entries = [entry for entry in listing if entry.name not in hidden]
        if path == "/dev":
            entries = self._with_terminals(entries)
        names = tuple(entry.name for entry in entries if not entry.is_symlink)
        mode = stat.S_IMODE(here.mode) & _SHADOW_MODE_MASK
        self.shadows.append(Shadow(path, mode, tuple(entries), names, inner))
        return True

    def _with_terminals(self, entries: Iterable[HostEntry]) -> list[HostEntry]:
        """Replace the node /dev/ptmx by a link to one that works.

        The kernel looks for `pts` beside the ptmx that was opened, in the same mount (path_pts() in
        fs/namei.c): a ptmx that is mounted as a single file finds nothing. The one inside
        /dev/pts is as good if its mode lets everyone use it; otherwise the host's /dev is
        mounted a second time, as a whole.
        """
        return [
            self._terminal_link(entry)
            if entry.name == "ptmx" and stat.S_ISCHR(entry.mode)
            else entry
            for entry in entries
        ]

    def _terminal_link(self, entry: HostEntry) -> HostEntry:
        usable = self._host.lstat("/dev/pts/ptmx")
        if usable is not None and usable.mode & 0o666 == 0o666:
            target = "pts/ptmx"
        else:
            self.clones.append(("/dev", self._clone_at))
            target = f"{self._clone_at}/ptmx"
        return entry._replace(mode=stat.S_IFLNK | 0o777, rdev=0, target=target)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _covers(node: _Node, found: HostEntry | None) -> bool:
    """Whether the virtual entry can be mounted over (or merged with) what the host has there."""
    if found is None or found.is_symlink or node.kind is Kind.SYMLINK:
        return False
    return node.is_directory == found.is_directory
