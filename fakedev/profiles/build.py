"""A profile to a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from fakedev.model.contents import (
    ZERO,
    AddressPattern,
    BytePattern,
    Content,
    RandomContent,
)
from fakedev.model.errors import (
    ControlError,
    MemoryLayoutError,
    ProfileError,
    ResourceConflictError,
)
from fakedev.model.files import StaticFile
from fakedev.model.kernel import KernelRules
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resources import Resource, ResourceTree
from fakedev.profiles.garbage import no_collections
from fakedev.profiles.plan import Fill, Placement, Profile, ResourcePlan, SegmentPlan

if TYPE_CHECKING:
    from fakedev.devices.memory.blocks import MemoryBlocks
    from fakedev.devices.nd.bus import NdBus
    from fakedev.devices.pci.build import ProfileBus
    from fakedev.devices.pci.plan import BarPlan
    from fakedev.model.machine import Machine


CPUS = "/sys/devices/system/cpu/online"


class Parts(NamedTuple):
    """What a machine is made of."""

    rules: KernelRules
    memory: PhysicalMemory
    tree: ResourceTree
    files: Mapping[str, StaticFile]
    high_memory: int
    ports: ResourceTree | None = None
    port_space: PhysicalMemory | None = None
    pci: ProfileBus | None = None
    blocks: MemoryBlocks | None = None
    nd: NdBus | None = None


def build_machine(profile: Profile, *, name: str | None = None) -> Machine:
    """The machine of a profile, named after it unless `name` is given.

    Raises ProfileError when a large file that the profile names has changed since it was checked.
    """
    from fakedev.devices.memory.poison import poison_of  # noqa: PLC0415
    from fakedev.model.machine import Machine  # noqa: PLC0415 - `build_parts` does without

    parts = build_parts(profile)
    machine = Machine(
        parts.rules,
        parts.memory,
        parts.tree,
        name=name or profile.name,
        files=parts.files,
        high_memory=parts.high_memory,
        ports=parts.ports,
    )
    if parts.blocks is not None:
        parts.blocks.attach(machine)
    poison_of(machine)
    if parts.nd is not None:
        parts.nd.attach(machine)
    if parts.pci is not None and parts.port_space is not None:
        machine.port_space = parts.port_space
        machine.pci = parts.pci
        parts.pci.attach(machine)
    if profile.virtio_mem:
        from fakedev.devices.memory.virtio_mem_bus import VirtioMem  # noqa: PLC0415 - as above

        VirtioMem(profile.virtio_mem).attach(machine)
    return machine


def build_parts(profile: Profile) -> Parts:
    """Rules, memory, resource trees, files and PCI of a profile. Raises as `build_machine`."""
    with no_collections():
        return _build_parts(profile)


def _build_parts(profile: Profile) -> Parts:
    rules = dict(profile.rules)
    version = str(rules.pop("version"))
    parts = Parts(
        KernelRules.preset(version, **rules),
        build_memory(profile),
        build_tree(profile.resources),
        profile.files,
        profile.high_memory,
    )
    parts = parts if profile.pci is None else _with_pci(parts, profile)
    return _with_blocks(_with_nd(parts, profile), profile)


def _with_nd(parts: Parts, profile: Profile) -> Parts:
    """Persistent memory, dax and CXL as they are after boot; RAM of kmem is there when blocks are made."""
    if profile.nd is None:
        return parts
    from fakedev.devices.nd.build import build_nd, top_of_kmem  # noqa: PLC0415 - as above
    from fakedev.devices.pci.host import Boot  # noqa: PLC0415

    host = Boot(parts.tree, ResourceTree.ioports())
    try:
        bus = build_nd(profile.nd, host, parts.tree, parts.memory)
    except (ControlError, ResourceConflictError) as error:
        raise ProfileError([f"{profile.path}: nvdimm: {error}"]) from None
    return parts._replace(nd=bus, high_memory=max(parts.high_memory, top_of_kmem(bus)))


def _with_blocks(parts: Parts, profile: Profile) -> Parts:
    """Memory blocks, and the DIMMs that are plugged."""
    from fakedev.devices.memory.build import build_blocks  # noqa: PLC0415 - `load_profile` does without

    cpus = profile.files.get(CPUS)
    text = cpus.data.decode("ascii", "replace").strip() if cpus else "0"
    try:
        blocks, top = build_blocks(
            profile.blocks, parts.rules, parts.memory, parts.tree, cpus=text or "0"
        )
    except (MemoryLayoutError, ResourceConflictError) as error:
        raise ProfileError([f"{profile.path}: memory_blocks: {error}"]) from None
    return parts._replace(blocks=blocks, high_memory=max(parts.high_memory, top))


def _with_pci(parts: Parts, profile: Profile) -> Parts:
    """PCI as it is after boot: windows in memory, nodes in the trees, drivers bound."""
    from fakedev.devices.pci import build as pci  # noqa: PLC0415 - for machines that have it

    if profile.pci is None:
        return parts
    port_space = PhysicalMemory(undecoded=profile.undecoded)
    ports = pci.build_ports(profile.pci)
    try:
        fabric = pci.build_fabric(profile.pci, parts.memory, port_space, bar_memory)
    except (MemoryLayoutError, OSError) as error:
        raise ProfileError([f"{profile.path}: {error}"]) from None
    bus = pci.build_bus(profile.pci, fabric, parts.tree, ports)
    return parts._replace(ports=ports, port_space=port_space, pci=bus)


def bar_memory(bar: BarPlan) -> PhysicalMemory:
    """The memory behind a BAR, from its own address 0 on, with what is placed there."""
    memory = PhysicalMemory()
    memory.add(0, bar.size, _moved(content_of(bar.fill), bar.start))
    for placement in bar.contents:
        _place(memory, placement, base=bar.start)
    return memory


class _Moved(Content):
    """A content that depends on the address, as it was at the address that it was placed at."""

    __slots__ = ("_base", "_content")
    kind: ClassVar[str] = "moved"

    def __init__(self, content: Content, base: int) -> None:
        self._content = content
        self._base = base

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """Ask the content inside for the bytes of the physical address at boot."""
        base = self._base
        return self._content.generate(address + base, size, origin=origin + base)

    def __str__(self) -> str:
        return str(self._content)


def _moved(content: Content, base: int) -> Content:
    wandering = isinstance(content, AddressPattern | RandomContent)
    return _Moved(content, base) if wandering else content


def build_memory(profile: Profile) -> PhysicalMemory:
    """The memory with everything in its place, without that of devices."""
    memory = PhysicalMemory(undecoded=profile.undecoded)
    try:
        for segment in profile.segments:
            if segment.file:
                _add_medium(memory, segment)
                continue
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


def _add_medium(memory: PhysicalMemory, segment: SegmentPlan) -> None:
    """A file of the host as memory that keeps its bytes; one that is too short grows."""
    with open(segment.file, "ab") as file:  # noqa: PTH123 - on the way of every start
        if file.tell() < segment.size:
            file.truncate(segment.size)
    memory.add_file(segment.start, segment.file, size=segment.size, shared=True, name=segment.name)


def _place(memory: PhysicalMemory, placement: Placement, *, base: int = 0) -> None:
    if placement.data:
        memory.place(placement.start, placement.data)
    elif placement.path:
        memory.load(placement.start, placement.path, offset=placement.offset, size=placement.size)
    else:
        content = _moved(content_of(placement.fill), base) if base else content_of(placement.fill)
        memory.fill(placement.start, placement.size, content)


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
