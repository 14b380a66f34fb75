"""Schema of `memory_blocks:`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fakedev.profiles.fields import Number, Part, RangeText, Text
from fakedev.profiles.fields_pci import CpuList

NODE_LIMIT = 1024
"""MAX_NUMNODES."""


class MemoryNode(Part):
    """A NUMA node."""

    id: Number = Field(description="its number")
    ranges: list[RangeText] = Field(
        [],
        max_length=4096,
        description="addresses that are its own; the rest is of the lowest node",
    )
    cpus: Annotated[CpuList, Field(description="its CPUs: 0-3,8")] | None = None
    distances: list[Number] = Field(
        [],
        max_length=NODE_LIMIT,
        description="to every node, in order of their numbers (not given: 10 to itself, else 20)",
    )


class DimmSlot(Part):
    """A slot, and the memory module that belongs there."""

    slot: Text = Field(description="name of the slot", min_length=1)
    at: Number = Field(description="physical address that the module gets")
    size: Number = Field(description="its size, in whole memory blocks")
    nid: Number = Field(0, description="the NUMA node")
    plugged: bool = Field(False, description="it is in the slot at boot")


class MemoryBlocks(Part):
    """Memory hot-plug: blocks, NUMA nodes and DIMM slots."""

    size: Number = Field(128 << 20, description="size of a memory block, a power of two from 128M")
    auto_online: Literal["offline", "online", "online_kernel", "online_movable"] = Field(
        "offline", description="what happens to memory that is added"
    )
    nodes: list[MemoryNode] = Field(
        [], max_length=NODE_LIMIT, description="NUMA nodes (not given: node 0 has everything)"
    )
    dimms: list[DimmSlot] = Field([], max_length=1024, description="DIMM slots")
    unmovable: list[RangeText] = Field(
        [], max_length=4096, description="memory that never goes offline, beside the kernel's own"
    )
    probe: bool = Field(False, description="the file `probe` exists (CONFIG_ARCH_MEMORY_PROBE)")
