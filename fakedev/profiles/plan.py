"""A validated profile as plain values: what `load_profile` returns and `build_machine` builds.

Nothing here needs pydantic or YAML, so a compiled profile can be kept in a cache and read back.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fakedev.model.files import StaticFile

if TYPE_CHECKING:
    from fakedev.devices.memory.plan import BlocksPlan
    from fakedev.devices.memory.virtio_mem_plan import VirtioMemPlan
    from fakedev.devices.nd.plan import NdPlan
    from fakedev.devices.pci.plan import PciPlan


class Fill(NamedTuple):
    """What memory holds before anything is placed: `zero`, `address`, `random` (by seed) or `bytes`."""

    kind: str = "zero"
    pattern: bytes = b""
    seed: int = 0


class SegmentPlan(NamedTuple):
    """Memory that decodes at `start`; stores to `readonly` memory (a ROM) are dropped.

    `file`: its bytes are those of this file of the host, which is made where there is none.
    """

    start: int
    size: int
    name: str = ""
    fill: Fill = Fill()
    readonly: bool = False
    file: str = ""


class Placement(NamedTuple):
    """One content, put on top of what is there: `data`, else the file `path`, else `fill`."""

    start: int
    size: int
    data: bytes = b""
    path: str = ""
    offset: int = 0
    fill: Fill = Fill()


class ResourcePlan(NamedTuple):
    """A node of the iomem tree in pre-order; `end` is inclusive, `depth` 0 is a child of the root."""

    depth: int
    start: int
    end: int
    name: str
    flags: int
    desc: int


class Profile(NamedTuple):
    """A machine profile that passed every check.

    `rules` are the arguments of `KernelRules.preset` (with `version`); `inputs` are the files that
    were read, by absolute path, with the SHA-256 of each.
    """

    name: str
    description: str
    path: str
    rules: Mapping[str, str | int | bool]
    undecoded: int
    segments: tuple[SegmentPlan, ...]
    placements: tuple[Placement, ...]
    resources: tuple[ResourcePlan, ...]
    files: Mapping[str, StaticFile]
    high_memory: int
    inputs: Mapping[str, str] = MappingProxyType({})
    cacheable: bool = True
    pci: "PciPlan | None" = None
    blocks: "BlocksPlan | None" = None
    nd: "NdPlan | None" = None
    virtio_mem: "tuple[VirtioMemPlan, ...]" = ()
