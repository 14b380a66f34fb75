"""Inodes and descriptors of one mount, and how often the kernel holds each."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fakedev.fuse import wire
from fakedev.fuse.owners import Alias
from fakedev.views.node import Handle, Node
from fakedev.views.physical import PhysicalHandle


@dataclass(slots=True, eq=False)
class Inode:
    """A node as the kernel knows it. `lookups` counts what FORGET will give back."""

    nodeid: int
    ino: int
    node: Node
    lookups: int = 0
    alias: Alias | None = None


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


class Inodes:
    """The table of nodeids. The root is always there."""

    def __init__(self, root: Node) -> None:
        self._numbers = itertools.count(wire.ROOT_ID + 1)
        self._by_id: dict[int, Inode] = {wire.ROOT_ID: Inode(wire.ROOT_ID, wire.ROOT_ID, root, 1)}
        self._by_node: dict[int, Inode] = {id(root): self._by_id[wire.ROOT_ID]}

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
            nodeid = next(self._numbers)
            inode = Inode(nodeid, inode.ino if inode else nodeid, node)
            self._by_id[nodeid] = inode
            self._by_node[id(node)] = inode
        return inode

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel drops `count` of its references; more than it has is taken as all."""
        inode = self._by_id.get(nodeid)
        if inode is None or nodeid == wire.ROOT_ID:
            return
        inode.lookups -= count
        if inode.lookups <= 0:
            del self._by_id[nodeid]
            if self._by_node.get(id(inode.node)) is inode:
                del self._by_node[id(inode.node)]
