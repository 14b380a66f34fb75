"""Memory blocks, nodes and DIMMs as plain values: what a profile's `memory_blocks:` compiles to."""

from typing import NamedTuple

Span = tuple[int, int]
"""Start and size."""


class NodePlan(NamedTuple):
    """A NUMA node: its memory, its CPUs (`0-3,8`), distances to all nodes in order of their ids."""

    id: int
    ranges: tuple[Span, ...] = ()
    cpus: str = ""
    distances: tuple[int, ...] = ()


class DimmPlan(NamedTuple):
    """A slot and the module that belongs there. `plugged`: it is in the slot at boot."""

    slot: str
    at: int
    size: int
    nid: int = 0
    plugged: bool = False


class BlocksPlan(NamedTuple):
    """All of it. `unmovable` memory never goes offline; `probe`: CONFIG_ARCH_MEMORY_PROBE."""

    size: int
    auto_online: str = "offline"
    nodes: tuple[NodePlan, ...] = ()
    dimms: tuple[DimmPlan, ...] = ()
    unmovable: tuple[Span, ...] = ()
    probe: bool = False


def freeze(plan: BlocksPlan) -> list[object]:
    """The plan as lists, for JSON."""
    return list(plan)


def thaw(stored: list[object]) -> BlocksPlan:
    """A plan that was kept as JSON."""
    size, auto_online, nodes, dimms, unmovable, probe = stored
    return BlocksPlan(
        size,  # type: ignore[arg-type] # JSON gives back what it was given
        auto_online,  # type: ignore[arg-type]
        tuple(NodePlan(i, _spans(r), c, tuple(d)) for i, r, c, d in nodes),  # type: ignore[attr-defined]
        tuple(DimmPlan(*dimm) for dimm in dimms),  # type: ignore[attr-defined]
        _spans(unmovable),
        bool(probe),
    )


def _spans(stored: object) -> tuple[Span, ...]:
    return tuple((start, size) for start, size in stored)  # type: ignore[attr-defined]
