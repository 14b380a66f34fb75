"""Where the files of memory blocks and nodes stand in the tree of a machine."""

import stat
from typing import TYPE_CHECKING

from fakedev.model.machine import Machine
from fakedev.views.memory.blocks import bus_directory, memory_directory
from fakedev.views.memory.nodes import node_bus_directory, nodes_directory
from fakedev.views.memory.site import MEMORY, MEMORY_BUS, NODE_BUS, NODES, Site

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

_DIRECTORY = stat.S_IFDIR | 0o755
_MAKERS = {
    MEMORY: memory_directory,
    MEMORY_BUS: bus_directory,
    NODES: nodes_directory,
    NODE_BUS: node_bus_directory,
}


def paths(_: Machine) -> dict[str, int]:
    """Each directory with its `st_mode`."""
    return dict.fromkeys(_MAKERS, _DIRECTORY)


def directories(_: Machine) -> dict[str, bool]:
    """They replace the host's as a whole."""
    return dict.fromkeys(_MAKERS, False)


def install(tree: "Tree", machine: Machine) -> None:
    """Put the directories into a tree. What the profile adds below them may come later."""
    site = Site(tree, machine)
    for path, make in _MAKERS.items():
        tree.mount(path, make(site))
