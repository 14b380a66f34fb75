"""Files through which physical memory can be mapped. `/dev/mem` and the `resourceN` of PCI are such."""

from typing import ClassVar, Protocol

from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.model.verdict import Verdict
from fakedev.views.node import Buffers, Handle, Node


class PhysicalFile(Node):
    """Byte 0 of the file is physical address `base`, the start of a page; its path ends in `name`.

    `shared`: it shares the mapping of `/dev/mem` (`iomem_get_mapping`), as the files of PCI do.
    """

    __slots__ = ("base", "machine", "name")
    shared: ClassVar[bool] = True
    pfnmap = True

    def __init__(self, machine: Machine, name: str, *, mode: int, base: int = 0) -> None:
        self.machine = machine
        self.name = name
        self.mode = mode
        self.base = base

    def stored(self, offset: int, data: memoryview) -> None:
        """Pages that the kernel writes back from a mapping, through whichever descriptor."""
        self.machine.stored(self.base + offset, data)

    def revocable(self) -> bool:
        """Whether a claim takes pages that are mapped through this file."""
        return True

    def mappable(self, span: Range) -> bool:
        """Whether a new mapping of these physical pages would be allowed."""
        return self.machine.policy.mmap(span.start, span.size).allowed


class PhysicalHandle(Handle, Protocol):
    """An open file of physical memory."""

    def fault(self, offset: int, size: int) -> Buffers:
        """Pages for a mapping, or Refused: the toucher gets SIGBUS."""

    def span(self, offset: int, size: int) -> Range:
        """The physical range behind file offsets."""

    def explain(self, offset: int, size: int) -> Verdict:
        """The verdict on mapping these pages."""
