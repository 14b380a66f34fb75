"""Machines with virtio-mem, and the recorded one at the moment before its driver was loaded."""

import json
import lzma
import re
from functools import cache
from pathlib import Path
from typing import Any

from fakedev.devices.memory.blocks import MemoryBlocks
from fakedev.devices.memory.virtio_mem_bus import VirtioMem
from fakedev.devices.memory.virtio_mem_plan import GIB, MIB, VirtioMemPlan
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

DATA = Path(__file__).parent / "data"
ADDR = 4 * GIB
STATE = re.compile(
    r"^/sys/devices/system/memory/memory(\d+): state=(\S+) .*valid_zones=(.*?) ?$", re.MULTILINE
)
IOMEM = "00001000-0009fbff : System RAM\n00100000-1fffffff : System RAM\n"


def plan(name: str = "vm0", **changes: Any) -> VirtioMemPlan:
    """1 GiB at 4 GiB, blocks of 2 MiB, nothing requested."""
    return VirtioMemPlan(name, ADDR, GIB)._replace(**changes)


def guest(
    *plans: VirtioMemPlan,
    version: str = "6.12",
    auto: str = "offline",
    block_size: int = 128 * MIB,
    **rules: Any,
) -> Machine:
    """512 MiB of RAM, and virtio-mem devices; no driver is loaded."""
    plans = plans or (plan(),)
    memory = PhysicalMemory()
    memory.add(0, 512 * MIB)
    for one in plans:
        memory.add(one.addr, one.region_size)
    tree = build_tree(parse_iomem(IOMEM))
    machine = Machine(
        KernelRules.preset(version, **rules), memory, tree, name="guest", high_memory=512 * MIB
    )
    blocks = MemoryBlocks(machine.rules.arch, block_size=block_size, auto_online=auto)
    blocks.boot(tree)
    blocks.attach(machine)
    VirtioMem(plans).attach(machine)
    return machine


def hot(machine: Machine) -> dict[int, str]:
    """The blocks above the RAM of boot: zone, or `offline`."""
    return {
        number: block.zone if block.online else "offline"
        for number, block in machine.blocks.blocks.items()
        if block.span.start >= ADDR
    }


def lines(machine: Machine) -> list[str]:
    """What `/proc/iomem` has above 4 GiB."""
    return [line for line in machine.iomem().splitlines() if len(line.split("-")[0].strip()) > 8]


@cache
def stages() -> dict[str, dict[str, str]]:
    """`/proc/iomem` and the memory blocks of the recorded machine, stage by stage."""
    found: dict[str, dict[str, str]] = json.loads(
        lzma.decompress((DATA / "pc-q35-vmem-stages.json.xz").read_bytes())
    )
    return found


def recorded_machine() -> Machine:
    """The bundled `pc-q35` after what its recording did with persistent memory: one namespace is RAM."""
    machine = build_machine(load_profile("pc-q35"))
    machine.nd.modprobe("nfit")
    machine.nd.set_mode("namespace0.0", "kmem")
    return machine


class Recording:
    """The steps that the recording took with the device, one method each, in its order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.found = machine.virtio_mem

    def to(self, stage: str) -> None:
        """Everything up to a stage, as its file is named."""
        for name, step in self.steps():
            step()
            if name == stage:
                return
        raise AssertionError(stage)

    def steps(self) -> list[tuple[str, Any]]:
        return [
            ("vmem-0-before", lambda: None),
            ("vmem-1-loaded-offline", self.load),
            ("matrix-vmem-loaded", lambda: None),
            ("vmem-2-online", self.online),
            ("matrix-vmem-online", lambda: None),
            ("vmem-3-640M", lambda: self.found.request("vm0", 640 * MIB)),
            ("vmem-4-64M", lambda: self.found.request("vm0", 64 * MIB)),
            ("vmem-5-offlined", lambda: self.machine.blocks.offline(32)),
            ("vmem-6-after-offline-attempts", lambda: None),
            ("vmem-7-0", self.online_and_shrink),
            ("vmem-8-rmmod", self.found.rmmod),
            ("vmem-9-reloaded", self.reload),
            ("vmem-a-rmmod-with-memory", self.found.rmmod),
            ("vmem-b-third", self.found.modprobe),
        ]

    def load(self) -> None:
        self.machine.pci.modprobe("virtio_pci")
        self.found.modprobe()

    def online(self) -> None:
        for number, block in tuple(self.machine.blocks.blocks.items()):
            if not block.online:
                self.machine.blocks.online(number, "online_movable")
        self.machine.blocks.set_auto_online("online_movable")

    def online_and_shrink(self) -> None:
        self.machine.blocks.online(32)
        self.found.request("vm0", 0)

    def reload(self) -> None:
        self.found.modprobe()
        self.found.request("vm0", 272 * MIB)
