"""The tree of a machine: real absolute paths below one root."""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Protocol

from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.views import lockdown
from fakedev.views.devmem import DevMem
from fakedev.views.kinds import SEQ_FILE, kind_of
from fakedev.views.live import LiveDirectory
from fakedev.views.meminfo import PATH as MEMINFO
from fakedev.views.meminfo import meminfo
from fakedev.views.node import (
    CAP_SYS_ADMIN,
    Attr,
    Directory,
    Node,
    Opener,
    Placeholder,
    Symlink,
    TextFile,
)

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
    modes |= {path: stat.S_IFREG for path, there in made.items() if there}
    for view in _views(machine):
        modes |= view.paths(machine)
    return modes


def live_directories(machine: Machine) -> dict[str, bool]:
    """Directories that replace the host's as a whole (False), or show its entries beside theirs."""
    return {p: merge for view in _views(machine) for p, merge in view.directories(machine).items()}


class Tree:
    """The files of a machine. One tree serves one mount."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.root = Directory()
        self._directories = {"": self.root, "/": self.root}
        self._extras: dict[str, Directory] = {}
        for view in _views(machine):
            view.install(self, machine)
        for path, file in machine.files.items():
            self._place(path, meminfo(machine, file) if path == MEMINFO else _static(path, file))
        self._place(IOMEM, _proc(lambda o: _iomem(machine, o)))
        if machine.rules.cmdline:
            text = machine.rules.cmdline.encode() + b"\n"
            self._place(CMDLINE, _proc(lambda _: text))
        if machine.rules.devmem:
            self._place(DEVMEM, DevMem(machine))

    def _place(self, path: str, node: Node) -> None:
        if isinstance(node, Directory):
            self.directory(path).set_mode(stat.S_IMODE(node.attr().mode))
            return
        self.mount(path, node)

    def mount(self, path: str, node: Node) -> None:
        """Put a node at a path; its parents are made where missing."""
        parent, _, name = path.rpartition("/")
        self.directory(parent).add(name, node)

    def overlay(
        self, path: str, names: Callable[[], Iterable[str]], make: Callable[[str], Node | None]
    ) -> None:
        """Put a live directory before what is at a path already, which shows beside."""
        self.mount(path, LiveDirectory(names, make, extras=self.known(path) or self.extras(path)))

    def directory(self, path: str) -> Directory:
        """The directory at a path, made with its parents where missing."""
        found = self._directories.get(path)
        if found is None:
            parent, _, name = path.rpartition("/")
            above = self.directory(parent)
            there = above.lookup(name)
            if isinstance(there, LiveDirectory):
                return there
            found = there if isinstance(there, Directory) else Directory()
            above.add(name, found)
            self._directories[path] = found
        return found

    def extras(self, path: str) -> Directory:
        """What the profile adds to a live directory: it stays when the directory is made anew."""
        return self._extras.setdefault(path, Directory())

    def known(self, path: str) -> Directory | None:
        """The directory at a path, if anyone has asked for it."""
        node: Node | None = self.root
        for name in filter(None, path.split("/")):
            if isinstance(node, LiveDirectory):
                node = node.known(name)
            else:
                node = node.lookup(name) if isinstance(node, Directory) else None
        return node if isinstance(node, Directory) else None

    def forget(self, path: str, names: Collection[str]) -> None:
        """Let entries of a live directory be made anew."""
        directory = self.known(path)
        if isinstance(directory, LiveDirectory):
            directory.forget(names)

    def walk(self, *, live: bool = True) -> Iterator[tuple[str, Node]]:
        """Every path with its node, parents before children; without `live` not into live directories."""
        pending: list[tuple[str, Directory]] = [("", self.root)]
        while pending:
            prefix, directory = pending.pop()
            for name, node in directory.entries().items():
                yield f"{prefix}/{name}", node
                if isinstance(node, Directory) and (live or not isinstance(node, LiveDirectory)):
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


def _views(machine: Machine) -> list[ModuleType]:
    """The views of what a machine has; one without does without the module, too."""
    found: list[ModuleType] = [lockdown]
    if machine.nd is not None:
        from fakedev.views.nd import tree as nd  # noqa: PLC0415

        found.append(nd)  # first: its /dev is one whose entries come and go
    if machine.pci is not None:
        from fakedev.views.pci import tree as pci  # noqa: PLC0415
        from fakedev.views.pci import uio_tree as uio  # noqa: PLC0415

        found += [uio, pci] if uio.has_uio(machine) else [pci]
    if machine.blocks is not None:
        from fakedev.views.memory import tree as memory  # noqa: PLC0415

        found.append(memory)
        if machine.rules.arch == "x86_64":
            from fakedev.views import kcore  # noqa: PLC0415

            found.append(kcore)
    return found


def _host_node(entry: HostEntry) -> Node:
    if stat.S_ISLNK(entry.mode):
        return Symlink(os.fsencode(entry.target))
    return Placeholder(Attr(entry.mode, rdev=entry.rdev))


def _iomem(machine: Machine, opener: Opener) -> bytes:
    return machine.iomem(privileged=opener.capable(CAP_SYS_ADMIN)).encode()


def _proc(produce: Callable[[Opener], bytes]) -> TextFile:
    return TextFile(produce, kind=SEQ_FILE)


def _static(path: str, file: StaticFile) -> Node:
    if stat.S_ISLNK(file.mode):
        return Symlink(file.data)
    if stat.S_ISDIR(file.mode):
        return Directory(stat.S_IMODE(file.mode))
    size = len(file.data) if file.size is None else file.size
    mode, kind = stat.S_IMODE(file.mode), kind_of(path)
    return TextFile(lambda _: file.data, mode=mode, size=size, kind=kind)
