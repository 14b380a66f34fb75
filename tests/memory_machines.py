"""Machines with memory blocks, DIMM slots and nodes."""

from pathlib import Path
from typing import Any

from fakedev.devices.memory.blocks import MemoryBlocks
from fakedev.devices.memory.nodes import NodeSettings
from fakedev.devices.memory.plan import DimmPlan
from fakedev.model.effects import Effect
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range

MIB, GIB = 1 << 20, 1 << 30
BLOCK = 128 * MIB
MEMORY = "/sys/devices/system/memory"
NODES = "/sys/devices/system/node"
DATA = Path(__file__).parent / "data"
IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
  11000000-11ffffff : Kernel code
100000000-13fffffff : System RAM
"""
DIMMS = (DimmPlan("dimm0", 0x2_0000_0000, 256 * MIB, 1), DimmPlan("dimm1", 0x2_1000_0000, BLOCK))
NODE_SETTINGS = (
    NodeSettings(0, (Range(0, GIB),), "0-3", (10, 21)),
    NodeSettings(1, (Range(4 * GIB, GIB),), "4-7,9", (21, 10)),
)


def machine_of(
    *,
    version: str = "6.1",
    iomem: str = IOMEM,
    rules: dict[str, Any] | None = None,
    **options: Any,
) -> Machine:
    """1 GiB of RAM below 4 GiB and 1 GiB above, with two slots."""
    tree = build_tree(parse_iomem(iomem))
    memory = PhysicalMemory()
    memory.add(0, GIB)
    memory.add(4 * GIB, GIB)
    kernel = KernelRules.preset(version, **(rules or {}))
    blocks = MemoryBlocks(kernel.arch, **{"dimms": DIMMS, **options})
    top = blocks.dimms.boot(memory, tree)
    blocks.boot(tree)
    machine = Machine(kernel, memory, tree, high_memory=max(5 * GIB, top))
    blocks.attach(machine)
    return machine


def heard(machine: Machine) -> list[Effect]:
    """A list that effects are added to from now on."""
    found: list[Effect] = []
    machine.subscribers.append(found.append)
    return found


def shown(machine: Machine) -> dict[int, str]:
    """Zone or state of every block."""
    return {
        number: block.zone if block.online else block.state
        for number, block in machine.blocks.blocks.items()
    }
