"""The PCI functions of the recorded machine, built from what its kernel showed of them."""

import json
import lzma
import stat
from functools import cache
from pathlib import Path
from typing import Any

from fakedev.devices.pci import header
from fakedev.devices.pci.bars import ROM_INDEX, Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.capabilities import build_chain
from fakedev.devices.pci.conf1 import PORT, SIZE, Conf1
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.settings import Facts, PciSettings
from fakedev.model.files import StaticFile
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resources import ResourceTree

DATA = Path(__file__).parent / "data/truth-pc-q35-sysfs.json.xz"
IOMEM = """
20000000-afffffff : PCI Bus 0000:00
c0000000-febfffff : PCI Bus 0000:00
900000000-10ffffffff : PCI Bus 0000:00
"""
PORTS = """
0000-0cf7 : PCI Bus 0000:00
0cf8-0cff : PCI conf1
0d00-ffff : PCI Bus 0000:00
"""
# What the listings do not tell: PCIe links and the vendor's SSID of the port.
LINK = {"linksta": 0x0011}
CAPABILITIES: dict[str, list[tuple[str, Any]]] = {
    "0000:00:04.0": [("pcie", {"type": "rc-endpoint"})],
    "0000:00:08.0": [("pcie", {"type": "rc-endpoint"})],
    "0000:00:0b.0": [
        ("ssvid", "1b36:0000"),
        (
            "pcie",
            {"type": "root-port", "slot": 0, "hotplug": True, "speed": 4, "width": 32, **LINK},
        ),
        ("aer", {}),
    ],
    "0000:01:00.0": [
        ("pm", {"capabilities": 3}),
        ("pcie", {"speed": 1, "width": 1, **LINK}),
        ("aer", {}),
    ],
}
MSI = {"ahci": "msi", "snd_hda_intel": "msi"}


@cache
def recorded() -> dict[str, Any]:
    """Everything that was recorded; see `DATA`."""
    found: dict[str, Any] = json.loads(lzma.decompress(DATA.read_bytes()))
    return found


def recorded_machine(state: str = "boot", *, port: bool = False) -> Machine:
    """The machine in the state "boot" or "bound". `port`: it has `/dev/port`."""
    shown = recorded()[state]
    memory, ports = PhysicalMemory(undecoded=0), PhysicalMemory(undecoded=0xFF)
    fabric = Fabric([_function(name, shown[name]) for name in shown], memory, ports)
    fabric.decode_all()
    if port:
        ports.map_window(PORT, SIZE, Conf1(fabric), name="PCI conf1")
    iomem = build_tree(parse_iomem(IOMEM))
    ioports = build_tree(parse_iomem(PORTS), root=ResourceTree.ioports().root)
    facts = {Bdf.parse(name): _facts(shown[name]) for name in shown}
    settings = PciSettings(cpus="0-1", facts=facts, numa_nodes=frozenset({0}))
    bus = PciBus(fabric, iomem=iomem, ioports=ioports, drivers=_drivers(shown), settings=settings)
    bus.boot()
    machine = Machine(
        KernelRules.preset("6.1", phys_bits=40),
        memory,
        iomem,
        name="recorded",
        files=dict(_firmware_nodes(shown)),
        high_memory=1 << 36,
        ports=ioports,
    )
    machine.port_space = ports
    machine.pci = bus
    bus.attach(machine)
    return machine


def _number(texts: dict[str, str], name: str, default: int = 0) -> int:
    return int(texts.get(name, str(default)), 0)


def _driver(texts: dict[str, str]) -> str:
    head = texts["uevent"].partition("\n")[0]
    return head.removeprefix("DRIVER=") if head.startswith("DRIVER=") else ""


def _facts(shown: dict[str, Any]) -> Facts:
    texts = shown["texts"]
    return Facts(
        irq=_number(texts, "irq"),
        numa_node=_number(texts, "numa_node", -1),
        driver=_driver(texts),
        enabled=_number(texts, "enable"),
        power_state=texts["power_state"].strip(),
        dma_mask_bits=_number(texts, "dma_mask_bits"),
        consistent_dma_mask_bits=_number(texts, "consistent_dma_mask_bits"),
        d3cold_allowed=bool(_number(texts, "d3cold_allowed")),
        msi_irqs=(_number(texts, "irq"),) if MSI.get(_driver(texts)) else (40,),
    )


def _drivers(shown: dict[str, Any]) -> list[PciDriver]:
    ids: dict[str, list[PciId]] = {}
    interrupts: dict[str, str] = {}
    for function in shown.values():
        texts, name = function["texts"], _driver(function["texts"])
        if name:
            numbers = PciId(_number(texts, "vendor"), _number(texts, "device"))
            ids.setdefault(name, []).append(numbers)
            if "msi_irqs" in function["entries"]:
                interrupts[name] = MSI.get(name, "msix")
    known = [
        PciDriver(
            name,
            entries,
            claims=(),
            builtin=name == "pcieport",
            module=name,
            msi=interrupts.get(name, ""),  # type: ignore[arg-type] # "msi" or "msix"
        )
        for name, entries in ids.items()
    ]
    return [
        *known,
        PciDriver("pci-stub", claims=(), module="pci_stub", enables=False, loaded=False),
    ]


def _function(name: str, shown: dict[str, Any]) -> Function:
    texts, entries = shown["texts"], shown["entries"]
    config = ConfigSpace(entries["config"][1])
    lines = [[int(n, 16) for n in line.split()] for line in texts["resource"].splitlines()]
    if "secondary_bus_number" in texts:
        io, memory, prefetch = (header.Span(start, end) for start, end, _ in lines[13:16])
        secondary, last = (_number(texts, f"{w}_bus_number") for w in ("secondary", "subordinate"))
        header.write_bridge(config, header.Bridge(0, secondary, last, io, memory, prefetch))
    subsystem = (_number(texts, "subsystem_vendor"), _number(texts, "subsystem_device"))
    numbers = [_number(texts, key) for key in ("vendor", "device", "class", "revision")]
    header.write_identity(config, header.Identity(*numbers, subsystem))
    config.put(header.INTERRUPT_PIN, 1, 1)
    bars = [bar for index, line in enumerate(lines[:7]) if (bar := _bar(index, *line))]
    build_chain(config, [*CAPABILITIES.get(name, []), *_interrupts(name)])
    methods = texts.get("reset_method", "").split()
    slot = "0" if name == "0000:00:0b.0" else None
    function = Function(Bdf.parse(name), config, bars, reset_methods=methods, slot=slot)
    for bar in function.bars.values():
        start, _, flags = lines[bar.index]
        if not (bar.index == ROM_INDEX and flags & 2):
            bar.place(config, start)
    config.put(header.COMMAND, 2, 7)
    function.freeze()
    return function


def _interrupts(name: str) -> "list[tuple[str, Any]]":
    """What the driver needs that the function has in the end."""
    bound = recorded()["bound"][name]
    kind = MSI.get(_driver(bound["texts"]), "msix")
    return [(kind, {})] if "msi_irqs" in bound["entries"] else []


def _bar(index: int, start: int, end: int, flags: int) -> Bar | None:
    if not end:
        return None
    if index == ROM_INDEX and flags & 2:  # the kernel shows its shadow below 1 MiB
        start, end, flags = 0, 0xFFFF, 0x46200
    target = PhysicalMemory()
    target.add(0, end - start + 1)
    wide, prefetch = bool(flags & 0x100000), bool(flags & 0x2000)
    return Bar(
        index,
        "io" if flags & 0x100 else "mem",
        end - start + 1,
        target,
        width=64 if wide else 32,
        prefetch=prefetch and index != ROM_INDEX,
    )


def _firmware_nodes(shown: dict[str, Any]) -> "list[tuple[str, StaticFile]]":
    """Links that firmware tables made: a profile's own files, as far as PCI is concerned."""
    links = []
    for name, function in shown.items():
        parent = "0000:00:0b.0/" if name == "0000:01:00.0" else ""
        for entry, (mode, _, target) in function["entries"].items():
            if entry == "firmware_node" and stat.S_ISLNK(mode):
                path = f"/sys/devices/pci0000:00/{parent}{name}/{entry}"
                links.append((path, StaticFile.symlink(target)))
    return links
