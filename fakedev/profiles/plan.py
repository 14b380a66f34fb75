"""A validated profile as plain values: what `load_profile` returns and `build_machine` builds.

Nothing here needs pydantic or YAML, so a compiled profile can be kept in a cache and read back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fakedev.model.files import StaticFile

if TYPE_CHECKING:
    from fakedev.devices.pci.plan import PciPlan


class Fill(NamedTuple):
    """What memory holds before anything is placed: `zero`, `address`, `random` (by seed) or `bytes`."""

    kind: str = "zero"
    pattern: bytes = b""
    seed: int = 0


class SegmentPlan(NamedTuple):
    """Memory that decodes at `start`; stores to `readonly` memory (a ROM) are dropped."""

    start: int
    size: int
    name: str = ""
    fill: Fill = Fill()
    readonly: bool = False


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


@dataclass(frozen=True, slots=True)
class Profile:
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
    inputs: Mapping[str, str] = field(default_factory=dict)
    cacheable: bool = True
    pci: "PciPlan | None" = None
