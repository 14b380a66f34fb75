"""Looking into the tree of a machine with PCI, as a server and its callers do."""

import errno
import os
import stat
from typing import Any

import pytest

from fakedev.model.effects import NodesChanged
from fakedev.model.machine import Machine
from fakedev.views.live import LiveDirectory
from fakedev.views.node import Directory, Node, Opener, Refused, Symlink
from fakedev.views.tree import Tree

ROOT = Opener(1, 0, os.O_RDONLY)
WRITER = Opener(1, 0, os.O_WRONLY)
USER = Opener(1, 1000, os.O_RDONLY)
EDU, E1000, NVME, IVSHMEM, PORT = (f"0000:00:{n}.0" for n in ("05", "03", "04", "02", "0b"))


def node_at(tree: Tree, path: str) -> Node:
    node: Node | None = tree.root
    for name in path.strip("/").split("/"):
        assert isinstance(node, Directory), path
        node = node.lookup(name)
    assert node is not None, path
    return node


def directory_at(tree: Tree, path: str) -> Directory:
    node = node_at(tree, path)
    assert isinstance(node, Directory)
    return node


def read(node: Node | None, opener: Opener = ROOT, size: int = 4096, offset: int = 0) -> bytes:
    assert node is not None
    return b"".join(node.open(opener).read(offset, size))


def write(node: Node | None, text: str | bytes, offset: int = 0) -> int:
    assert node is not None
    data = text if isinstance(text, bytes) else text.encode()
    return node.open(WRITER).write(offset, memoryview(data))


def refused(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        call(*args, **options)
    return errno.errorcode[caught.value.errno]


def entries_of(directory: Directory) -> dict[str, list[Any]]:
    """As `ls -l` shows them: mode, size and target of each entry."""
    found = {}
    for name, node in directory.entries().items():
        attr = node.attr()
        target = node.target.decode() if isinstance(node, Symlink) else ""
        size = attr.size if stat.S_ISREG(attr.mode) else 0
        found[name] = [attr.mode, size, target]
    return found


def device_path(name: str) -> str:
    parent = "0000:00:0b.0/" if name.startswith("0000:01:") else ""
    return f"/sys/devices/pci0000:00/{parent}{name}"


class Setup:
    """A machine, its tree, and a server's part: names that changed are forgotten."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tree = Tree(machine)
        self.changed: list[tuple[str, str]] = []
        machine.subscribers.append(self._take)

    def _take(self, effect: object) -> None:
        if isinstance(effect, NodesChanged):
            self.changed += [(effect.directory, name) for name in effect.names]
            known = self.tree.known(effect.directory)
            if isinstance(known, LiveDirectory):
                known.forget(effect.names)

    def device(self, name: str) -> Directory:
        return directory_at(self.tree, device_path(name))

    def attribute(self, name: str, attribute: str) -> Node:
        node = self.device(name).lookup(attribute)
        assert node is not None, attribute
        return node
