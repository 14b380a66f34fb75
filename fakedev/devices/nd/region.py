"""Regions, namespaces, and what is stacked on them (`drivers/nvdimm`)."""

import uuid

from fakedev.devices.nd.dax import DaxDevice, Life
from fakedev.devices.nd.infoblock import SUBSECTION, data_offset
from fakedev.devices.nd.plan import FilePlan, NamespacePlan, RegionPlan
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

SEEDS = ("btt", "pfn", "dax")
CLASSES = {"fsdax": "pfn", "devdax": "dax", "kmem": "dax"}
"""Modes, and the kind of personality that makes them."""


def metadata_size(span: Range, align: int) -> int:
    """What the info block and the page structs of a namespace take (`nd_pfn_init`), aligned."""
    return data_offset(span, max(align, SUBSECTION))


class Personality:
    """`bttR.I`, `pfnR.I` or `daxR.I`: a device of the nd bus that claims a namespace (`ndns->claim`).

    One of each kind is the seed of its region: idle, and the next to be used. `data` is there while a
    driver has it.
    """

    __slots__ = (
        "align", "data", "driver", "kind", "mode", "namespace", "number", "region", "sector_size", "uuid",
    )  # fmt: skip

    def __init__(self, region: "Region", kind: str, number: int) -> None:
        self.region = region
        self.kind = kind
        self.number = number
        self.namespace: Namespace | None = None
        self.driver = ""
        self.data: Range | None = None
        self.clear()

    def clear(self) -> None:
        """Settings as of a new seed (`nd_pfn_devinit`)."""
        self.uuid: uuid.UUID | None = None
        self.mode = "none"
        self.align = 2 << 20
        self.sector_size = 0

    def __repr__(self) -> str:
        return f"<Personality {self.name} {self.driver or 'idle'}>"

    @property
    def name(self) -> str:
        """`pfnR.I`."""
        return f"{self.kind}{self.region.number}.{self.number}"

    @property
    def span(self) -> Range:
        """Where its namespace lies; nowhere without one."""
        return self.namespace.span if self.namespace else Range(0, 0)


class Label:
    """What the label area of the modules says of a namespace; it outlives the namespace (`label.c`)."""

    __slots__ = ("alt_name", "holder_class", "sector_size", "size", "uuid")

    def __init__(self, plan: NamespacePlan) -> None:
        self.size = plan.size if plan.uuid else 0
        self.uuid = uuid.UUID(plan.uuid) if plan.uuid else None
        self.alt_name = plan.alt_name
        self.sector_size = plan.sector_size
        self.holder_class = "" if plan.io else CLASSES.get(plan.mode, "")


class Namespace:
    """`namespaceR.I`: what it is used as, and who has claimed it.

    `driver` has it as it is (raw), or `claim` is stacked on it. `life` is there while it is a block
    device (raw, fsdax), `dax` is the device-dax in the modes devdax and kmem. Its label says
    how much of the space in the plan it has, and which kind of personality may claim it
    (`holder_class`). `force_raw`: none is looked for.
    """

    __slots__ = (
        "claim", "dax", "driver", "force_raw", "index", "label", "life", "medium", "node", "plan", "region",
    )  # fmt: skip

    def __init__(self, region: "Region", index: int, plan: NamespacePlan, label: Label) -> None:
        self.region = region
        self.index = index
        self.plan = plan
        self.label = label
        self.node: Resource | None = None
        self.life: Life | None = None
        self.dax: DaxDevice | None = None
        self.claim: Personality | None = None
        self.driver = ""
        self.force_raw = False
        self.medium = b""  # its info block, where no memory is behind the region

    def __repr__(self) -> str:
        return f"<Namespace {self.name} {self.mode}>"

    @property
    def mode(self) -> str:
        """raw, fsdax, devdax, kmem, or sector under a btt."""
        if self.claim is None or self.claim.kind != "dax":
            return {"pfn": "fsdax", "btt": "sector"}[self.claim.kind] if self.claim else "raw"
        return "kmem" if self.dax is not None and self.dax.driver == "kmem" else "devdax"

    @property
    def enabled(self) -> bool:
        """Whether a driver has it, or what is stacked on it."""
        return bool(self.driver or (self.claim and self.claim.driver))

    @property
    def uuid(self) -> uuid.UUID:
        """That of its label; all zero without one (`nd_dev_to_uuid`)."""
        nobody = uuid.UUID(int=0)
        return nobody if self.plan.io else self.label.uuid or nobody

    @property
    def files(self) -> tuple[FilePlan, ...]:
        """Those of the file system that the profile put on it: not on what was made there since."""
        if not self.plan.files or self.claim is None or self.mode != "fsdax":
            return ()
        return self.plan.files if self.claim.uuid == uuid.UUID(self.plan.uuid) else ()

    @property
    def name(self) -> str:
        """`namespaceR.I`."""
        return f"namespace{self.region.number}.{self.index}"

    @property
    def block(self) -> str:
        """`pmemR`, or `pmemR.I` for all but the first."""
        return f"pmem{self.region.number}" + (f".{self.index}" if self.index else "")

    @property
    def span(self) -> Range:
        """Where it lies."""
        return Range(self.plan.start, self.label.size)

    @property
    def metadata(self) -> int:
        """Bytes before the data, as the profile would have it."""
        return self.plan.metadata or metadata_size(self.span, self.plan.align)

    @property
    def data(self) -> Range:
        """What is left behind the metadata: as it is used, or as the profile would have it."""
        if self.claim is not None and self.claim.data is not None:
            return self.claim.data
        return Range(self.span.start + self.metadata, self.span.size - self.metadata)


class Region:
    """`regionN`. `present`: the hardware is plugged in; `known`: the kernel has it.

    `enabled`: nd_region has it, so there are its namespaces, and `stack`, what claims them. `node` is
    there unless the firmware's map has one; `parked` are the segments that were pulled out, for when
    they are put back. `burned`: RAM in it leaked. `provisioned`: from now on the medium says what
    its namespaces are, no longer the profile.
    """

    __slots__ = (
        "align", "burned", "enabled", "known", "labels", "namespaces", "node", "number", "parked", "plan",
        "present", "provisioned", "read_only", "seeds", "stack",
    )  # fmt: skip

    def __init__(self, number: int, plan: RegionPlan) -> None:
        self.number = number
        self.plan = plan
        self.present = True
        self.known = False
        self.enabled = False
        self.burned = False
        self.provisioned, self.read_only, self.align = False, plan.read_only, plan.align
        self.node: Resource | None = None
        self.parked: tuple[object, ...] = ()
        self.stack: list[Personality] = []
        self.seeds: dict[str, Personality] = {}
        self.namespaces: list[Namespace] = []
        self.labels: list[Label] = []
        self.relabel()

    def relabel(self) -> None:
        """Labels, and with them everything, as the profile has them."""
        self.read_only, self.align, self.provisioned = self.plan.read_only, self.plan.align, False
        self.labels = [Label(one) for one in self._plans()]
        self.renew()

    def _plans(self) -> tuple[NamespacePlan, ...]:
        """Those of the profile, and, where labels can tell of one more, the space that is left."""
        given = self.plan.namespaces
        at = max((one.start + one.size for one in given), default=self.plan.start)
        left = self.plan.start + self.plan.size - at
        spare = NamespacePlan(at, left, "raw", "")
        return (*given, spare) if self.labelled and left else given

    def renew(self) -> None:
        """Namespaces as new objects: files that were opened in the old ones never come back."""
        self.stack, self.seeds = [], {}
        both = zip(self._plans(), self.labels, strict=True)
        self.namespaces = [Namespace(self, n, plan, label) for n, (plan, label) in enumerate(both)]

    def add(self, kind: str) -> Personality:
        """An idle personality with the lowest free number (`ida_alloc`)."""
        taken = {one.number for one in self.stack if one.kind == kind}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        made = Personality(self, kind, number)
        self.stack.append(made)
        return made

    def seed(self, kind: str) -> Personality:
        """The idle device that the next stacking will use; it is made where there is none."""
        if kind not in self.seeds:
            self.seeds[kind] = self.add(kind)
        return self.seeds[kind]

    def advance(self, used: Personality) -> None:
        """`nd_region_advance_seeds`: a seed that is in use now is none any more."""
        if self.seeds.get(used.kind) is used:
            self.seeds[used.kind] = self.add(used.kind)

    @property
    def labelled(self) -> bool:
        """Whether its namespaces have labels (type 5, not 4)."""
        return not self.plan.namespaces or not all(one.io for one in self.plan.namespaces)

    @property
    def name(self) -> str:
        """`regionN`."""
        return f"region{self.number}"

    @property
    def span(self) -> Range:
        """Where it lies."""
        return Range(self.plan.start, self.plan.size)
