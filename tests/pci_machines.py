"""The recorded machine's PCI in short, made through the model's own API, for tests of the bus."""

import errno
from collections.abc import Callable
from typing import Any

from fakedev.devices.pci import header
from fakedev.devices.pci.bars import Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.capabilities import build_chain
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.header import Bridge, Identity, Span
from fakedev.devices.pci.settings import EcamWindow, Facts, PciSettings
from fakedev.model.effects import Effect
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resources import ResourceTree

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
000c0000-000c9bff : Video ROM
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-1ffd5fff : System RAM
20000000-afffffff : PCI Bus 0000:00
b0000000-bfffffff : PCI MMCONFIG 0000 [bus 00-ff]
c0000000-febfffff : PCI Bus 0000:00
fec00000-fec003ff : IOAPIC 0
900000000-10ffffffff : PCI Bus 0000:00
"""
PORTS = """\
0000-0cf7 : PCI Bus 0000:00
  0000-001f : dma1
  0070-0077 : rtc0
0cf8-0cff : PCI conf1
0d00-ffff : PCI Bus 0000:00
"""
K, M = 1 << 10, 1 << 20
Place = tuple[int, str, int, int]  # index, kind, size, address


def memory_of(size: int) -> PhysicalMemory:
    memory = PhysicalMemory()
    memory.add(0, size)
    return memory


def bar(index: int, kind: str, size: int) -> Bar:
    """`kind`: io, mem32, mem64, pref32, pref64."""
    wide = 64 if kind.endswith("64") else 32
    prefetch = kind.startswith("pref")
    return Bar(index, "io" if kind == "io" else "mem", size, memory_of(size), wide, prefetch)


def function(
    name: str,
    ids: str,
    class_: int,
    *bars: Place,
    command: int = 0x103,
    capabilities: Any = (),
    pin: int = 1,
    line: int = 0,
    subsystem: tuple[int, int] = (0x1AF4, 0x1100),
    **options: Any,
) -> Function:
    config = ConfigSpace(4096 if any(c[0] == "pcie" for c in capabilities) else 256)
    vendor, device = (int(part, 16) for part in ids.split(":"))
    header.write_identity(config, Identity(vendor, device, class_, 1, subsystem))
    config.put(header.COMMAND, 2, command)
    config.put(header.INTERRUPT_PIN, 1, pin)
    config.put(header.INTERRUPT_LINE, 1, line)
    made = Function(Bdf.parse(name), config, [bar(*place[:3]) for place in bars], **options)
    for index, _, _, address in bars:
        made.bars[index].place(config, address)
    build_chain(config, list(capabilities))
    return made


def port(
    name: str,
    secondary: int,
    subordinate: int,
    *,
    memory: tuple[int, int] | None = None,
    prefetch: tuple[int, int] | None = None,
    io: tuple[int, int] | None = None,
    own: Place | None = None,
    kind: str = "root-port",
    hotplug: bool = True,
    slot: str | None = None,
    command: int = 0x107,
) -> Function:
    config = ConfigSpace(4096)
    place = Bdf.parse(name)
    windows = [None if w is None else Span(*w) for w in (io, memory, prefetch)]
    header.write_bridge(config, Bridge(place.bus, secondary, subordinate, *windows))
    header.write_identity(config, Identity(0x1B36, 0xC, 0x060400))
    config.put(header.COMMAND, 2, command)
    config.put(header.INTERRUPT_PIN, 1, 1)
    made = Function(place, config, [bar(*own[:3])] if own else [], slot=slot)
    if own:
        made.bars[own[0]].place(config, own[3])
    options: dict[str, Any] = {"type": kind, "speed": 1, "width": 1}
    if kind in {"root-port", "downstream"}:
        options |= {"slot": 1, "hotplug": hotplug}
    build_chain(
        config, [("msix", {"vectors": 1, "table": [0, 0], "pba": [0, 0x800]}), ("pcie", options)]
    )
    return made


def q35() -> list[Function]:
    """Functions of the recorded machine that the recorded phases use."""
    return [
        function("00:00.0", "8086:29c0", 0x060000, pin=0),
        function("00:02.0", "1af4:1110", 0x050000, (0, "mem32", 256, 0xFEB7C000), (2, "pref64", 16 * M, 0xFB000000), pin=0),
        function("00:03.0", "8086:100e", 0x020000, (0, "mem32", 128 * K, 0xFEB40000), (1, "io", 64, 0xD100), (6, "mem32", 256 * K, 0xFEB00000), line=11),
        function("00:04.0", "1b36:0010", 0x010802, (0, "mem64", 16 * K, 0xFEB70000), command=0x107, line=10, reset_methods=["flr"],
                 capabilities=[("msix", {"vectors": 65, "table": [0, 0x2000], "pba": [0, 0x3000]}), ("pcie", {"type": "endpoint", "flr": True})]),
        function("00:05.0", "1234:11e8", 0x00FF00, (0, "mem32", M, 0xFEA00000), line=10, capabilities=[("msi", {})]),
        function("00:07.0", "1234:1111", 0x030000, (0, "pref32", 16 * M, 0xFC000000), (2, "mem32", 4 * K, 0xFEB7D000), (6, "mem32", 64 * K, 0xFEB60000), pin=0),
        port("00:0b.0", 1, 1, memory=(0xFE800000, 0xFE9FFFFF), prefetch=(0xFE000000, 0xFE1FFFFF), io=(0xC000, 0xCFFF), own=(0, "mem32", 4 * K, 0xFEB7F000), slot="1"),
        function("01:00.0", "8086:10d3", 0x020000, (0, "mem32", 128 * K, 0xFE840000), (1, "mem32", 128 * K, 0xFE860000), (2, "io", 32, 0xC000),
                 (3, "mem32", 16 * K, 0xFE880000), (6, "mem32", 256 * K, 0xFE800000), line=11, on_unplug="all-ones",
                 capabilities=[("pm", {}), ("pcie", {"type": "endpoint"})]),
    ]  # fmt: skip


def drivers() -> list[PciDriver]:
    return [
        PciDriver("pcieport", [PciId(*[0xFFFFFFFF] * 4, 0x060400, ~0 & 0xFFFFFFFF)], claims=(), builtin=True, msi="msix", bus_master=True),
        PciDriver("pci-stub", claims=(), enables=False, module="pci_stub", loaded=False),
        PciDriver("uio_pci_generic", claims=(), loaded=False),
        PciDriver("vfio-pci", claims=(), probe_error=errno.EINVAL, enables=False, module="vfio_pci", loaded=False),
        PciDriver("e1000", [PciId(0x8086, 0x100E)], claims=(0, 1), loaded=False),
        PciDriver("nvme", [PciId(0xFFFFFFFF, 0xFFFFFFFF, class_=0x010802, mask=0xFFFFFF)], msi="msix", vectors=3, dma_mask_bits=64, loaded=False),
        PciDriver("bochs-drm", [PciId(0x1234, 0x1111)], claims=(0, 2), module="bochs", bus_master=False, loaded=False),
        PciDriver("e1000e", [PciId(0x8086, 0x10D3)], claims=(0, 1), loaded=False),
    ]  # fmt: skip


def machine_of(
    functions: list[Function],
    known: list[PciDriver] | None = None,
    *,
    facts: dict[str, Facts] | None = None,
    iomem: str = IOMEM,
    ports: str = PORTS,
    **settings: Any,
) -> Machine:
    memory, port_space = PhysicalMemory(undecoded=0xFF), PhysicalMemory(undecoded=0xFF)
    fabric = Fabric(functions, memory, port_space)
    fabric.decode_all()
    tree = build_tree(parse_iomem(iomem))
    ioports = build_tree(parse_iomem(ports), root=ResourceTree.ioports().root)
    options = PciSettings(
        ecam=(EcamWindow(0, 0xB0000000),),
        facts={Bdf.parse(name): fact for name, fact in (facts or {}).items()},
        **settings,
    )
    bus = PciBus(fabric, iomem=tree, ioports=ioports, drivers=known or drivers(), settings=options)
    bus.boot()
    machine = Machine(
        KernelRules.preset("6.1", phys_bits=40), memory, tree, ports=ioports, high_memory=1 << 32
    )
    machine.port_space = port_space
    machine.pci = bus
    bus.attach(machine)
    return machine


def q35_machine(**options: Any) -> Machine:
    return machine_of(q35(), **options)


def effects_of(machine: Machine) -> list[Effect]:
    seen: list[Effect] = []
    machine.subscribers.append(seen.append)
    return seen


def outcome(action: Callable[[], None]) -> str | None:
    """The name of the errno that an action raises, or None."""
    try:
        action()
    except PciError as error:
        return errno.errorcode[error.errno]
    return None
