"""Inodes and descriptors of one mount, and how often the kernel holds each."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

from fakedev.fuse import wire
from fakedev.fuse.owners import Alias
from fakedev.views.node import Handle, Node
from fakedev.views.physical import PhysicalHandle


@dataclass(slots=True, eq=False)
class Inode:
    """A node as the kernel knows it. `lookups` counts what FORGET will give back.

    `look`: it only shows what stat shall show; another inode of the same node can be opened.
    `parent`, `name`: where it was found last. `generation`: how many there were before it, of those with its
    number that live; the nanoseconds of its change time, by which descriptors tell theirs.
    """

    nodeid: int
    ino: int
    node: Node
    lookups: int = 0
    alias: Alias | None = None
    look: bool = False
    parent: int = 0
    name: str = ""
    generation: int = 0


@dataclass(slots=True, eq=False)
class OpenFile:
    """A descriptor.

    `device` is the handle again if it is one of physical memory; `names` is the listing of an open
    directory, fixed at its first entry.
    """

    inode: Inode
    handle: Handle | None = None
    device: PhysicalHandle | None = None
    names: Sequence[tuple[str, Node | None]] = ()

    @property
    def physical(self) -> tuple[Alias, PhysicalHandle]:
        """Of a file of physical memory."""
        return cast("Alias", self.inode.alias), cast("PhysicalHandle", self.device)


class Inodes:
    """The table of nodeids. The root is always there."""

    def __init__(self, root: Node) -> None:
        self._numbers = itertools.count(wire.ROOT_ID + 1)
        self._by_id: dict[int, Inode] = {wire.ROOT_ID: Inode(wire.ROOT_ID, wire.ROOT_ID, root, 1)}
        self._by_node: dict[int, Inode] = {id(root): self._by_id[wire.ROOT_ID]}
        self._looks: dict[int, Inode] = {}
        self._by_ino: dict[int, list[Inode]] = {}
        self._kept: WeakKeyDictionary[Node, int] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, nodeid: int) -> Inode | None:
        """The inode behind a nodeid."""
        return self._by_id.get(nodeid)

    def known(self, node: Node) -> Inode | None:
        """The inode of a node that the kernel has asked for."""
        return self._by_node.get(id(node))

    def of(self, node: Node) -> Inode:
        """The inode that a look-up of this node resolves to: a new one when the last has expired."""
        inode = self._by_node.get(id(node))
        if inode is None or (inode.alias is not None and inode.alias.expired):
            inode = self._by_node[id(node)] = self._new(node, inode)
        return inode

    def look_of(self, node: Node) -> Inode:
        """The inode that shows a node to stat, with the number of the one that can be opened."""
        inode = self._looks.get(id(node))
        if inode is None:
            self.keep_number(node)
            inode = self._looks[id(node)] = self._new(node, None)
            inode.look = True
        return inode

    def keep_number(self, node: Node) -> None:
        """From now on all inodes of a node have one number, also when the kernel forgets between them."""
        if node not in self._kept:
            known = self._by_node.get(id(node))
            self._kept[node] = known.ino if known else next(self._numbers)

    def _new(self, node: Node, other: Inode | None) -> Inode:
        nodeid = next(self._numbers)
        ino = self._kept.get(node) or (other.ino if other else nodeid)
        inode = Inode(nodeid, ino, node)
        self._by_id[nodeid] = inode
        alike = self._by_ino.setdefault(inode.ino, [])
        inode.generation = max((one.generation + 1 for one in alike if not one.look), default=0)
        alike.append(inode)
        return inode

    def numbered(self, ino: int) -> list[Inode]:
        """What has this inode number: one node, of which older inodes may live on."""
        return list(self._by_ino.get(ino, ()))

    def path(self, inode: Inode) -> str:
        """Where an inode was found last; empty where a directory above it has been forgotten."""
        names: list[str] = []
        at: Inode | None = inode
        while at is not None and at.nodeid != wire.ROOT_ID:
            names.append(at.name)
            at = self._by_id.get(at.parent)
        return "/".join(("", *reversed(names))) if at is not None else ""

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel drops `count` of its references; more than it has is taken as all."""
        inode = self._by_id.get(nodeid)
        if inode is None or nodeid == wire.ROOT_ID:
            return
        inode.lookups -= count
        if inode.lookups <= 0:
            del self._by_id[nodeid]
            self._forget_number(inode)
            table = self._looks if inode.look else self._by_node
            if table.get(id(inode.node)) is inode:
                del table[id(inode.node)]

    def _forget_number(self, inode: Inode) -> None:
        alike = self._by_ino[inode.ino]
        alike.remove(inode)
        if not alike:
            del self._by_ino[inode.ino]
