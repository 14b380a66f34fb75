"""Regions and namespaces of persistent memory (`drivers/nvdimm`)."""

from fakedev.devices.nd.dax import DaxDevice, Life
from fakedev.devices.nd.plan import FilePlan, NamespacePlan, RegionPlan
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

_STRUCT_PAGE, _PAGE, _SUPERBLOCK = 64, 4096, 8192
SEEDS = ("btt", "pfn", "dax")


def metadata_size(span: Range, align: int) -> int:
    """What the info block and the page structs of a namespace take (`nd_pfn_init`), aligned."""
    need = _SUPERBLOCK + span.size // _PAGE * _STRUCT_PAGE
    data = -(-(span.start + need) // align) * align
    return data - span.start


class Namespace:
    """`namespaceR.I`: what it is used as, and who has claimed it.

    `life` is there while a driver has it as a block device (raw, fsdax). `dax` is the device-dax
    on top in the modes devdax and kmem, `holder` the name of the pfn or dax device of the nd bus.
    """

    __slots__ = (
        "dax", "files", "holder", "index", "life", "metadata", "mode", "node", "plan", "region",
    )  # fmt: skip

    def __init__(self, region: "Region", index: int, plan: NamespacePlan) -> None:
        self.region = region
        self.index = index
        self.plan = plan
        self.mode = "raw"
        self.node: Resource | None = None
        self.life: Life | None = None
        self.dax: DaxDevice | None = None
        self.holder = ""
        self.metadata = plan.metadata or metadata_size(self.span, plan.align)
        self.files: tuple[FilePlan, ...] = plan.files

    def __repr__(self) -> str:
        return f"<Namespace {self.name} {self.mode}>"

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
        return Range(self.plan.start, self.plan.size)

    @property
    def data(self) -> Range:
        """What is left behind the metadata."""
        return Range(self.plan.start + self.metadata, self.plan.size - self.metadata)


class Region:
    """`regionN`. `present`: the hardware is plugged in; `known`: the kernel has it.

    `node` is there unless the firmware's map has one; `parked` are the segments that were pulled
    out, for when they are put back. `burned`: RAM in it leaked.
    """

    __slots__ = (
        "burned", "known", "namespaces", "node", "number", "parked", "plan", "present", "seeds",
    )  # fmt: skip

    def __init__(self, number: int, plan: RegionPlan) -> None:
        self.number = number
        self.plan = plan
        self.present = True
        self.known = False
        self.burned = False
        self.node: Resource | None = None
        self.parked: tuple[object, ...] = ()
        self.seeds = dict.fromkeys(SEEDS, 0)
        self.namespaces: list[Namespace] = []
        self.renew()

    def renew(self) -> None:
        """Namespaces as new objects: files that were opened in the old ones never come back."""
        self.seeds = dict.fromkeys(SEEDS, 0)
        self.namespaces = [Namespace(self, i, n) for i, n in enumerate(self.plan.namespaces)]

    def take_seed(self, kind: str) -> str:
        """The name of the idle device of a kind, which is used now; the next one is idle then."""
        number = self.seeds[kind]
        self.seeds[kind] += 1
        return f"{kind}{self.number}.{number}"

    @property
    def name(self) -> str:
        """`regionN`."""
        return f"region{self.number}"

    @property
    def span(self) -> Range:
        """Where it lies."""
        return Range(self.plan.start, self.plan.size)
