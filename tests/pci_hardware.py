"""Small functions and fabrics for tests of the PCI hardware."""

from fakedev.devices.pci import header
from fakedev.devices.pci.bars import Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.capabilities import build_chain
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.header import Bridge, Identity, Span
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range


def bar_memory(size, first=b""):
    memory = PhysicalMemory()
    memory.add(0, size)
    memory.place(0, first)
    return memory


def mem_bar(index, size, first=b"", **options):
    return Bar(index, "mem", size, bar_memory(size, first), **options)


def endpoint(bdf, places=(), *, capabilities=(), size=256, command=7, **options):
    """`places`: pairs of a Bar and its address."""
    config = ConfigSpace(size)
    header.write_identity(config, Identity(0x144D, 0xA808, 0x010802, 1, (0x144D, 0xA801)))
    config.put(header.COMMAND, 2, command)
    function = Function(Bdf.parse(bdf), config, [bar for bar, _ in places], **options)
    for bar, address in places:
        function.bars[bar.index].place(config, address)
    build_chain(config, capabilities)
    return function


def bridge(bdf, secondary, subordinate, memory=None, *, prefetch=None, io=None, capabilities=()):
    config = ConfigSpace(4096)
    place = Bdf.parse(bdf)
    windows = [None if w is None else Span(*w) for w in (io, memory, prefetch)]
    header.write_bridge(config, Bridge(place.bus, secondary, subordinate, *windows))
    header.write_identity(config, Identity(0x8086, 0x3420, 0x060400))
    config.put(header.COMMAND, 2, 7)
    function = Function(place, config)
    build_chain(config, capabilities)
    return function


def fabric_of(*functions, memory=None):
    """A fabric at boot, with the list of ranges that moved since."""
    moved: list[Range] = []
    fabric = Fabric(functions, memory or PhysicalMemory(), PhysicalMemory())
    fabric.decode_all()
    fabric.freeze()
    fabric.moved = moved.append
    return fabric, moved


def small_machine():
    """A NIC on the root bus; a hot-plug port with an NVMe behind it."""
    nic = endpoint(
        "00:02.0",
        [(mem_bar(0, 0x10000, b"NIC0"), 0xD8200000), (Bar(4, "io", 32, bar_memory(32)), 0xC000)],
        capabilities=[("pm", {})],
    )
    slot = {"type": "root-port", "slot": 1, "hotplug": True, "surprise": True}
    port = bridge(
        "00:01.0", 1, 1, (0xD8000000, 0xD80FFFFF), capabilities=[("pm", {}), ("pcie", slot)]
    )
    nvme = endpoint(
        "01:00.0",
        [(mem_bar(0, 0x4000, b"NVME", width=64), 0xD8000000)],
        capabilities=[("pcie", {"flr": True}), ("aer", {})],
        size=4096,
    )
    return fabric_of(nic, port, nvme)
