# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH119, PTH122
"""A checked document to a `Profile`: everything that concerns several places at once.

Nothing is built here; what `fakedev check` finds is found in this step and in the schema.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fakedev.devices.memory.boot import BLOCK_SIZE
from fakedev.firmware.e820 import E820Map
from fakedev.model.errors import FakedevError
from fakedev.model.files import StaticFile
from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_MEM
from fakedev.model.iomem_names import standard_flags
from fakedev.model.kernel import KernelRules
from fakedev.model.resources import Resource, ResourceTree
from fakedev.profiles.compile_blocks import address_bits, compile_blocks
from fakedev.profiles.compile_files import static_files
from fakedev.profiles.compile_firmware import build_map, firmware
from fakedev.profiles.compile_iomem import TreeBuilder, flatten, top_of_ram
from fakedev.profiles.compile_memory import (
    Area,
    memory_map,
    overlaps,
    placements,
    segment_areas,
    segments,
)
from fakedev.profiles.compile_nd import compile_nd
from fakedev.profiles.compile_nd_places import Surroundings
from fakedev.profiles.compile_virtio_mem import plans as virtio_mem_plans
from fakedev.profiles.compile_virtio_mem import regions as virtio_mem_regions
from fakedev.profiles.context import Context, Path
from fakedev.profiles.plan import Placement, Profile
from fakedev.profiles.schema import Document
from fakedev.profiles.schema_kernel import Kernel

if TYPE_CHECKING:
    from fakedev.profiles.compile_pci import PciParts

DEFAULT_VERSION = KernelRules().version


def compile_document(document: Document, path: str, context: Context) -> Profile:
    """The profile. What is wrong goes to `context.problems`; then the profile is not to be used."""
    entries = [
        Area(entry.span, entry.kind, ("firmware", "e820", index, "range"))
        for index, entry in enumerate(document.firmware.e820)
    ]
    overlaps(entries, context, what="e820 entry")
    e820 = build_map(document.firmware.e820, context)
    tree = _tree(document, e820, context)
    own = segment_areas(document.memory, context)
    own += virtio_mem_regions(document, context)
    rules = _rules(document.kernel, context)
    chips, ram = _backed(entries), e820.ram
    known = [*own, *chips]
    nd = compile_nd(document, _surroundings(document, known, tree, rules), context)
    if nd:
        chips, ram = nd.beside_areas(chips), nd.beside(ram)
    own += nd.areas if nd else []
    known += nd.areas if nd else []
    pci = _pci(document, tree, known, context)
    windows = pci.areas() if pci else []
    mapped = memory_map(own, ram, chips, windows, context)
    tables = firmware(document.firmware, mapped, context)
    files: dict[str, StaticFile] = {**e820.files, **tables.files}
    files |= static_files(document.files, context)
    placed = [Placement(item.address, len(item.data), item.data) for item in tables.placed]
    placed += placements(document.memory, mapped, context)
    if pci:
        placed = list(pci.divide(placed))
    return Profile(
        name=document.name or _stem(path),
        description=document.description.strip(),
        path=path,
        rules=rules,
        undecoded=document.memory.undecoded,
        segments=nd.with_files(segments(mapped)) if nd else segments(mapped),
        placements=tuple(placed),
        resources=flatten(tree),
        files=files,
        high_memory=top_of_ram(e820.high_memory, tree),
        inputs=dict(context.inputs.hashes),
        cacheable=context.inputs.cacheable,
        pci=pci.plan(tables.placed, [*known, *windows]) if pci else None,
        blocks=compile_blocks(
            document.memory_blocks, tree, [*known, *windows], address_bits(rules), context
        ),
        nd=nd.plan if nd else None,
        virtio_mem=virtio_mem_plans(document, rules, context),
    )


def _surroundings(
    document: Document, known: list[Area], tree: ResourceTree, rules: dict[str, str | int | bool]
) -> Surroundings:
    given = document.memory_blocks
    return Surroundings(
        known,
        tree,
        address_bits(rules),
        given.size if given else BLOCK_SIZE,
        _version(document).lists_soft_reserved,
    )


def _version(document: Document) -> KernelRules:
    """Rules that only have the version."""
    return KernelRules(version=document.kernel.version or DEFAULT_VERSION)


def _pci(
    document: Document, tree: ResourceTree, known: list[Area], context: Context
) -> PciParts | None:
    if document.pci is None:
        return None
    from fakedev.profiles.compile_pci import compile_pci  # noqa: PLC0415 - for machines that have it

    return compile_pci(document.pci, tree, known, context)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _backed(entries: list[Area]) -> list[Area]:
    from fakedev.firmware.e820 import BACKED  # noqa: PLC0415

    return [area for area in entries if area.name in BACKED]


def _rules(kernel: Kernel, context: Context) -> dict[str, str | int | bool]:
    given = {name: value for name, value in kernel if value is not None}
    given.setdefault("version", DEFAULT_VERSION)
    try:
        KernelRules.preset(**given)
    except FakedevError as error:
        named = str(error).partition(":")[0]
        context.report(str(error), "kernel", named if named in given else "version")
    return given


def _tree(document: Document, e820: E820Map, context: Context) -> ResourceTree:
    """The e820 resources, `iomem:` on top, and last the RAM buffers around what is there."""
    tree = ResourceTree()
    origins: dict[Resource, Path] = {}
    kernel = _version(document)
    for item in e820.resources:
        if item.name == "Soft Reserved" and not kernel.lists_soft_reserved:
            continue
        flags, desc = standard_flags(item.name, item.start, item.end)
        flags = flags | IORESOURCE_BUSY if item.busy else flags & ~IORESOURCE_BUSY
        node = Resource(item.start, item.end, item.name, flags, desc)
        tree.insert_resource(node)
        origins[node] = _origin(item.start, document)
    TreeBuilder(tree, origins, context).add_all(document.iomem)
    for item in e820.ram_buffers:
        _reserve_with_split(tree, item.start, item.end, item.name)
    return tree


def _origin(start: int, document: Document) -> Path:
    for index, entry in enumerate(document.firmware.e820):
        if entry.span.start <= start < entry.span.end:
            return ("firmware", "e820", index)
    return ("firmware", "e820")


def _reserve_with_split(tree: ResourceTree, start: int, end: int, name: str) -> None:
    """`reserve_region_with_split`: the parts of a range that nobody owns."""
    flags = IORESOURCE_MEM | IORESOURCE_BUSY
    gaps = []
    for node in tree.root.overlapping(start, end):
        gaps.append((start, node.start - 1))
        start = node.end + 1
    for low, high in [*gaps, (start, end)]:
        if low <= high:
            tree.request_resource(tree.root, Resource(low, high, name, flags))
