"""Calls on nodes, and answers as the names of errnos."""

import errno
import os
from typing import Any

from pci_tree import Setup, node_at

from fakedev.views.calls import Answer, IoctlCall, MapCall, SeekCall
from fakedev.views.node import Node

PAGE = 4096
R, W, X = 1, 2, 4
SHARED, PRIVATE, VALIDATE = 1, 2, 3
MAP_SYNC, MAP_FIXED = 0x80000, 0x10
FIONREAD = 0x541B
OFFSET_LIMIT = 1 << 64


def call(offset: int = 0, length: int = PAGE, **options: Any) -> MapCall:
    """A shared, readable mapping of a file that is open for both, unless told otherwise."""
    given = {"prot": R, "flags": SHARED, "status": os.O_RDWR, "state": {}} | options
    return MapCall(offset, length, **given)


def said(answer: Answer | None) -> str | int | None:
    """The name of the errno, or the result."""
    if answer is None or not -4095 <= answer.value < 0:
        return None if answer is None else answer.value
    return errno.errorcode[-answer.value].replace("ENOTSUP", "EOPNOTSUPP")


def mapped(node: Node, offset: int = 0, length: int = PAGE, **options: Any) -> str | int | None:
    return said(node.mmap(call(offset, length, **options)))


def sought(node: Node, offset: int, whence: int, position: int = 0) -> str | int | None:
    return said(node.seek(SeekCall(offset, whence, position)))


def remove(setup: Setup, name: str) -> None:
    bus = setup.machine.pci
    bus.remove(bus.devices[name], "1")


def at(setup: Setup, path: str) -> Node:
    return node_at(setup.tree, path)


def ioctl(node: Node, command: int, argument: int = 0, **state: int) -> tuple[Any, dict[str, int]]:
    return said(node.ioctl(IoctlCall(command, argument, state))), state
