"""A profile to a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fakedev.model.contents import (
    ZERO,
    AddressPattern,
    BytePattern,
    Content,
    RandomContent,
)
from fakedev.model.errors import MemoryLayoutError, ProfileError
from fakedev.model.files import StaticFile
from fakedev.model.kernel import KernelRules
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resources import Resource, ResourceTree
from fakedev.profiles.plan import Fill, Placement, Profile, ResourcePlan

if TYPE_CHECKING:
    from fakedev.model.machine import Machine


class Parts(NamedTuple):
    """What a machine is made of."""

    rules: KernelRules
    memory: PhysicalMemory
    tree: ResourceTree
    files: Mapping[str, StaticFile]
    high_memory: int


def build_machine(profile: Profile, *, name: str | None = None) -> Machine:
    """The machine of a profile, named after it unless `name` is given.

    Raises ProfileError when a large file that the profile names has changed since it was checked.
    """
    from fakedev.model.machine import Machine  # noqa: PLC0415 - `build_parts` does without

    parts = build_parts(profile)
    return Machine(
        parts.rules,
        parts.memory,
        parts.tree,
        name=name or profile.name,
        files=parts.files,
        high_memory=parts.high_memory,
    )


def build_parts(profile: Profile) -> Parts:
    """Rules, memory, resource tree and files of a profile. Raises as `build_machine`."""
    rules = dict(profile.rules)
    version = str(rules.pop("version"))
    return Parts(
        KernelRules.preset(version, **rules),
        build_memory(profile),
        build_tree(profile.resources),
        profile.files,
        profile.high_memory,
    )


def build_memory(profile: Profile) -> PhysicalMemory:
    """The memory with everything in its place."""
    memory = PhysicalMemory(undecoded=profile.undecoded)
    try:
        for segment in profile.segments:
            memory.add(
                segment.start,
                segment.size,
                content_of(segment.fill),
                name=segment.name,
                rom=segment.readonly,
            )
        for placement in profile.placements:
            _place(memory, placement)
    except (MemoryLayoutError, OSError) as error:
        raise ProfileError([f"{profile.path}: {error}"]) from None
    return memory


def _place(memory: PhysicalMemory, placement: Placement) -> None:
    if placement.data:
        memory.place(placement.start, placement.data)
    elif placement.path:
        memory.load(placement.start, placement.path, offset=placement.offset, size=placement.size)
    else:
        memory.fill(placement.start, placement.size, content_of(placement.fill))


def content_of(fill: Fill) -> Content:
    """The content that a fill stands for."""
    if fill.kind == "address":
        return AddressPattern()
    if fill.kind == "random":
        return RandomContent(fill.seed)
    return BytePattern(fill.pattern) if fill.kind == "bytes" else ZERO


def build_tree(resources: tuple[ResourcePlan, ...]) -> ResourceTree:
    """The iomem tree from its nodes in pre-order."""
    tree = ResourceTree()
    parents = [tree.root]
    for depth, start, end, name, flags, desc in resources:
        node = Resource(start, end, name, flags, desc)
        tree.request_resource(parents[depth], node)
        parents[depth + 1 :] = [node]
    return tree
