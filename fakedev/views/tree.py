"""The tree of a machine: real absolute paths below one root."""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Protocol

from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.views.devmem import DevMem
from fakedev.views.node import Attr, Directory, Node, Placeholder, Symlink, TextFile

DEVMEM = "/dev/mem"
IOMEM = "/proc/iomem"
CMDLINE = "/proc/cmdline"


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


def listing(machine: Machine) -> dict[str, int]:
    """Every path of the machine's tree with its `st_mode`; directories that only hold others are left out."""
    rules = machine.rules
    made = {IOMEM: True, CMDLINE: bool(rules.cmdline), DEVMEM: rules.devmem}
    modes = {path: file.mode for path, file in machine.files.items()}
    return modes | {path: stat.S_IFREG for path, there in made.items() if there}


class Tree:
    """The files of a machine. One tree serves one mount."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.root = Directory()
        self._directories = {"": self.root, "/": self.root}
        for path, file in machine.files.items():
            self._place(path, _static(file))
        self._place(IOMEM, TextFile(lambda o: machine.iomem(privileged=o.privileged).encode()))
        if machine.rules.cmdline:
            text = machine.rules.cmdline.encode() + b"\n"
            self._place(CMDLINE, TextFile(lambda _: text))
        if machine.rules.devmem:
            self._place(DEVMEM, DevMem(machine))

    def _place(self, path: str, node: Node) -> None:
        if isinstance(node, Directory):
            self.directory(path).set_mode(stat.S_IMODE(node.attr().mode))
            return
        parent, _, name = path.rpartition("/")
        self.directory(parent).add(name, node)

    def directory(self, path: str) -> Directory:
        """The directory at a path, made with its parents where missing."""
        found = self._directories.get(path)
        if found is None:
            parent, _, name = path.rpartition("/")
            found = self._directories[path] = Directory()
            self.directory(parent).add(name, found)
        return found

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every path with its node, parents before children."""
        pending: list[tuple[str, Directory]] = [("", self.root)]
        while pending:
            prefix, directory = pending.pop()
            for name, node in directory.entries().items():
                yield f"{prefix}/{name}", node
                if isinstance(node, Directory):
                    pending.append((f"{prefix}/{name}", node))

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
