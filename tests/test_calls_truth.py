"""Recorded answers to mmap, lseek, ioctl, fsync, stat... against those of the nodes of `pc-q35`, call by call."""

from pathlib import Path

import pytest
from calls_replay import Replay, differences
from recordings import records

from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

TESTS = Path(__file__).parent
#: The machine of the phases after its NVDIMM became memory.
GROWN = str(TESTS / "grown.yaml")
BOOT = [
    "fd",
    "open",
    "lowram",
    "matrix-boot",
    "mmap-args",
    "vm-ops",
    "sysfs",
    "sysfs-ops",
    "bind-errors",
]
LATER = ["revoke-*", "cross-write", "remove-*", "lockdown-runtime"]
SETTINGS = {"default": [], "lockdown-integrity": ["kernel.lockdown=integrity"]}
#: A WB mapping through /dev/mem was alive: there are no memory types here.
MEMORY_TYPES = [
    "lockdown-runtime: before sysfs-map: mmap: (0, None), recorded -1, EINVAL",
]


@pytest.mark.parametrize(
    ("config", "profile", "phases", "calls", "known"),
    [
        ("default", "pc-q35", BOOT, 858, []),
        ("default", GROWN, LATER, 186, MEMORY_TYPES),
        ("lockdown-integrity", "pc-q35", BOOT, 149, []),
        ("lockdown-integrity", GROWN, LATER, 74, []),
    ],
)
def test_every_recorded_answer(
    config: str, profile: str, phases: list[str], calls: int, known: list[str]
) -> None:
    machine = build_machine(load_profile(profile, overrides=SETTINGS[config]))
    assert differences(Replay(machine), records(*phases, config=config)) == (calls, known)


@pytest.mark.parametrize(
    ("phase", "iomem", "calls"),
    [
        ("matrix-vmem-loaded", "iomem-vmem-loaded.txt", 131),
        ("matrix-all-drivers", "iomem-all-drivers.txt", 131),
    ],
)
def test_devmem_when_drivers_are_there(phase: str, iomem: str, calls: int) -> None:
    tree = build_tree(parse_iomem((TESTS / "data" / iomem).read_text()))
    machine = Machine(KernelRules.preset("6.1", phys_bits=40), PhysicalMemory(), tree, name=phase)
    assert differences(Replay(machine), records(phase)) == (calls, [])
