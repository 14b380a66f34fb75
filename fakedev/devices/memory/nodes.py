"""NUMA nodes: what the firmware tells of them."""

from collections.abc import Iterable
from typing import NamedTuple

from fakedev.model.ranges import Range


class NodeSettings(NamedTuple):
    """One node: which ranges of memory and which CPUs are its own, and how far the others are.

    `cpus` is a list as the kernel prints it (`0-3,8`). `distances` has one number a node, in order
    of their ids; empty: 10 to itself, 20 to the others.
    """

    id: int
    ranges: tuple[Range, ...] = ()
    cpus: str = ""
    distances: tuple[int, ...] = ()


def cpus_of(text: str) -> list[int]:
    """The CPUs of a list: `0-3,8` is 0, 1, 2, 3, 8."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def list_text(numbers: Iterable[int]) -> str:
    """Numbers as the kernel prints a bitmap with `%*pbl`: 0, 1, 2, 3, 8 is `0-3,8`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] + 1 == number:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{low}-{high}" if low < high else f"{low}" for low, high in runs)


def cpu_mask(cpus: Iterable[int]) -> str:
    """CPUs as the kernel prints a bitmap with `%*pb`: hexadecimal, in groups of 32 bits."""
    mask = sum(1 << cpu for cpu in set(cpus))
    groups = []
    while mask >> 32:
        groups.append(f"{mask & 0xFFFF_FFFF:08x}")
        mask >>= 32
    return ",".join([f"{mask:x}", *reversed(groups)])
