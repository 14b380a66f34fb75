"""Small machines for tests, made through the model's own API."""

from typing import Any

from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_MEM, IORESOURCE_SYSTEM_RAM
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree

RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
BAR = 0xD8100000
HIGH = 0x100000000
TOP = 0x110000000


def small_machine(version: str = "6.1", **rules: Any) -> Machine:
    """256 MiB of RAM at 1 MiB and at 4 GiB, low RAM, and an idle 64 KiB BAR."""
    memory = PhysicalMemory(undecoded=0xFF)
    for start, size in ((0, 0xA0000), (0x100000, 256 << 20), (HIGH, 256 << 20), (BAR, 0x10000)):
        memory.add(start, size)
    tree = ResourceTree()
    for start, end, name, flags in (
        (0x1000, 0x9FFFF, "System RAM", RAM),
        (0x100000, 0x100FFFFF, "System RAM", RAM),
        (0xD8000000, 0xD8FFFFFF, "PCI Bus 0000:04", IORESOURCE_MEM),
        (BAR, BAR + 0xFFFF, "0000:04:00.0", IORESOURCE_MEM),
        (HIGH, TOP - 1, "System RAM", RAM),
    ):
        tree.insert_resource(Resource(start, end, name, flags))
    kernel = KernelRules.preset(version, **{"phys_bits": 40, **rules})
    return Machine(kernel, memory, tree, name="small", high_memory=TOP)
