"""One memory block, and the errors of this subsystem."""

import errno as _errno

from fakedev.model.errors import ControlError
from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree

BUSY_RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY


class BlockError(ControlError):
    """A verb on memory that the kernel refuses with `errno`."""

    def __init__(self, message: str, *, errno: int = _errno.EINVAL) -> None:
        super().__init__(message, errno=errno)


class MemoryBlock:
    """`memoryN`: `size` bytes from `number * size` on.

    `state` is online, offline or going-offline. `zone` is where an online block's pages are, `none`
    when they lie in several. `present` are its bytes of RAM (a block of the boot memory may have
    holes). `unmovable`: pages that cannot move keep it from going offline. `poisoned`: pages that
    failed keep it from going online. `boot`: it was there from the start.
    """

    __slots__ = ("boot", "nid", "number", "poisoned", "present", "removable",
                 "size", "state", "tree", "unmovable", "zone", "zones")  # fmt: skip

    def __init__(
        self,
        number: int,
        size: int,
        tree: ResourceTree,
        *,
        nid: int = 0,
        present: int = 0,
        boot: bool = False,
    ) -> None:
        self.number = number
        self.size = size
        self.tree = tree
        self.nid = nid
        self.state = "offline"
        self.zone = "none"
        self.zones: tuple[str, ...] = ()
        self.present = present
        self.boot = boot
        self.removable = True
        self.poisoned = self.unmovable = False

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"memory{self.number}"

    @property
    def span(self) -> Range:
        """Its addresses."""
        return Range(self.number * self.size, self.size)

    @property
    def online(self) -> bool:
        """Whether the page allocator has it, or still has it."""
        return self.state != "offline"

    @property
    def resource(self) -> Resource:
        """The BUSY System RAM that it lies in; the first one where there are several."""
        for node in self.tree.root.descend(self.span.start, self.span.end - 1):
            if node.matches(BUSY_RAM):
                return node
        raise BlockError(f"{self.name} has no resource", errno=_errno.ENODEV)
