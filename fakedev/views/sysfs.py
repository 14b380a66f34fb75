"""What the directories of sysfs share: a profile's own files beside live ones, relative links, `uevent`."""

import errno
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fakedev.model.machine import Machine
from fakedev.views.live import Alive, LiveDirectory, always
from fakedev.views.node import Directory, Node, Opener, Refused, Symlink

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

_ACTIONS = frozenset(
    ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")
)  # fmt: skip
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UEVENT = re.compile(rf"(\w+)(?: +{_UUID}(?: +[A-Za-z0-9]+=[A-Za-z0-9]+)*)?")


class Place:
    """One machine's files in one tree."""

    __slots__ = ("_tree", "machine")

    def __init__(self, tree: "Tree", machine: Machine) -> None:
        self._tree = tree
        self.machine = machine

    def extras(self, path: str) -> Directory:
        """What the profile adds to the directory at a path."""
        return self._tree.extras(path)

    def directory(
        self,
        path: str,
        names: Callable[[], Iterable[str]],
        make: Callable[[str], Node | None],
        *,
        mode: int = 0o755,
        alive: Alive = always,
    ) -> LiveDirectory:
        """A live directory at a path, with the profile's own files in it."""
        return LiveDirectory(names, make, mode=mode, extras=self.extras(path), alive=alive)


def link(directory: str, target: str) -> Symlink:
    """A relative link to `target`, for the directory at `directory`; both are paths below `/sys`."""
    depth = directory.count("/") - 1
    return Symlink(("../" * depth + target.removeprefix("/sys/")).encode())


def take_uevent(text: str, _: Opener) -> None:
    """`kobject_synth_uevent`: an action, then perhaps a UUID and KEY=VALUE pairs; nobody listens. EINVAL."""
    match = _UEVENT.fullmatch(text.removesuffix("\n"))
    if match is None or match[1] not in _ACTIONS:
        raise Refused(errno.EINVAL)
