"""The tree of a machine: real absolute paths below one root."""

import os
import stat
from collections.abc import Iterable
from typing import Protocol

from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.views.devmem import DevMem
from fakedev.views.node import Attr, Directory, Node, Placeholder, Symlink, TextFile

DEVMEM = "/dev/mem"


class HostEntry(Protocol):
    """An entry of a host directory: its name, `st_mode`, device number and link target."""

    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def rdev(self) -> int: ...
    @property
    def target(self) -> str: ...


class Tree:
    """The files of a machine. One tree serves one mount."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.root = Directory()
        for path, file in sorted(machine.files.items()):
            self._place(path, _static(file))
        self._place(
            "/proc/iomem", TextFile(lambda o: machine.iomem(privileged=o.privileged).encode())
        )
        if machine.rules.devmem:
            self._place(DEVMEM, DevMem(machine))

    def _place(self, path: str, node: Node) -> None:
        parent = self.directory(os.path.dirname(path))  # noqa: PTH120 - virtual path
        name = os.path.basename(path)  # noqa: PTH119 - virtual path
        present = parent.lookup(name)
        if not (isinstance(present, Directory) and isinstance(node, Directory)):
            parent.add(name, node)

    def directory(self, path: str) -> Directory:
        """The directory at a path, made with its parents where missing."""
        here = self.root
        for part in filter(None, path.split("/")):
            child = here.lookup(part)
            if not isinstance(child, Directory):
                child = Directory()
                here.add(part, child)
            here = child
        return here

    def shadow(self, path: str, entries: Iterable[HostEntry], *, mode: int) -> None:
        """Show the host's `entries` in a directory beside the machine's own, which win.

        Links are served as links; the rest are placeholders of the same type, to be covered by
        bind mounts. `mode` are the permission bits of the directory.
        """
        directory = self.directory(path)
        directory.set_mode(mode)
        for entry in entries:
            if directory.lookup(entry.name) is None:
                directory.add(entry.name, _host_node(entry))

    def listing(self) -> dict[str, Node]:
        """Every path of the tree with its node, parents before children."""
        found: dict[str, Node] = {}
        pending: list[tuple[str, Directory]] = [("", self.root)]
        while pending:
            prefix, directory = pending.pop()
            for name, node in directory.entries().items():
                found[f"{prefix}/{name}"] = node
                if isinstance(node, Directory):
                    pending.append((f"{prefix}/{name}", node))
        return dict(sorted(found.items()))


def _host_node(entry: HostEntry) -> Node:
    if stat.S_ISLNK(entry.mode):
        return Symlink(os.fsencode(entry.target))
    return Placeholder(Attr(entry.mode, rdev=entry.rdev))


def _static(file: StaticFile) -> Node:
    if stat.S_ISLNK(file.mode):
        return Symlink(file.data)
    if stat.S_ISDIR(file.mode):
        return Directory(stat.S_IMODE(file.mode))
    size = len(file.data) if file.size is None else file.size
    return TextFile(lambda _: file.data, mode=stat.S_IMODE(file.mode), size=size)
