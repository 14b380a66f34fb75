"""Device-dax: memory as a character device, or given to the kernel as RAM (`drivers/dax`)."""

from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

DRIVERS = ("device_dax", "kmem")


class Life:
    """From the moment a driver takes memory until it lets go: what was opened in it dies with it.

    Not `alive`: nothing is opened or mapped any more. `drained`: stores through mappings that were
    alive until then have landed, too; what comes later falls nowhere. `ones`: mappings that were
    made while it was alive outlive it, and read all-ones for ever.
    """

    __slots__ = ("alive", "drained", "name", "ones")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.drained = False
        self.ones = False


class DaxDevice:
    """`daxR.I`: one range with an alignment, and the driver that has it.

    `node` is its claim. `leaked`: kmem let it go while its memory was in use; the claim stays until
    the next boot. `life` is there while `device_dax` has it.
    """

    __slots__ = (
        "align", "driver", "index", "leaked", "life", "listed", "name", "node", "numa_node", "path", "ram",
        "region_id", "region_span", "span", "target_node",
    )  # fmt: skip

    def __init__(
        self, region_id: int, span: Range, *, path: str, align: int, numa_node: int,
        target_node: int, listed: bool = True, index: int = 0,
    ) -> None:  # fmt: skip
        self.region_id = region_id
        self.index = index
        self.name = f"dax{region_id}.{index}"
        self.span = span
        self.region_span = span
        self.path = path
        self.align = align
        self.numa_node = numa_node
        self.target_node = target_node
        self.listed = listed
        self.driver = ""
        self.node: Resource | None = None
        self.ram: Range | None = None
        self.leaked = False
        self.life: Life | None = None

    def __repr__(self) -> str:
        return f"<DaxDevice {self.name} {self.span} {self.driver or 'idle'}>"

    @property
    def minor(self) -> int:
        """The second half of the number of its device node."""
        return minor_of(self.region_id, self.index)

    @property
    def mode(self) -> str:
        """`devdax` or `system-ram` in the words of daxctl."""
        return "system-ram" if self.driver == "kmem" else "devdax"


def minor_of(region_id: int, index: int) -> int:
    """That of `daxR.I`: R for the first of a region."""
    return region_id + (index << 8)


def kmem_span(span: Range, block: int) -> Range | None:
    """The whole memory blocks inside a range (`dax_kmem_range`), None when there is none."""
    start = -(-span.start // block) * block
    end = span.end // block * block
    return Range(start, end - start) if end > start else None
