"""The DIMM of the recorded machine: `/proc/iomem` and the memory blocks at every stage."""

import json
import lzma
import re

import pytest
from memory_machines import DATA, MEMORY
from pci_tree import directory_at, node_at, read
from virtio_mem_machines import Recording, recorded_machine

from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.node import Directory, Symlink
from fakedev.views.tree import Tree

_KERNEL = re.compile(r"^.* : Kernel .*\n", re.MULTILINE)  # at another address in every run
_ATTRIBUTES = ("state", "online", "removable", "phys_index", "phys_device", "valid_zones")
DENIED = "cat: can't open '{}': Permission denied"


def stages() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(
        lzma.decompress((DATA / "pc-q35-dimm-stages.json.xz").read_bytes())
    )
    return found


def before() -> Machine:
    """What the recording did to the machine before: memory blocks, and the functions of PCI."""
    machine = recorded_machine()
    Recording(machine).to("vmem-b-third")
    bus = machine.pci
    for name in ("0000:00:02.0", "0000:00:05.0"):
        bus.remove(bus.devices[name], "1")
        bus.rescan("1")
    bus.modprobe("e1000")
    bus.remove(bus.devices["0000:00:03.0"], "1")
    bus.rescan("1")
    bus.modprobe("bochs")
    return machine


@pytest.fixture(scope="module")
def walked() -> dict[str, tuple[str, str]]:
    """`/proc/iomem` and the files of memory blocks, stage by stage."""
    boot = build_machine(load_profile("pc-q35"))
    found = {"boot": (boot.iomem(), _memory(boot))}
    machine = before()
    blocks = machine.blocks
    blocks.set_auto_online("offline")

    def stage(name: str) -> None:
        found[name] = (machine.iomem(), _memory(machine))

    blocks.dimms.plug("dimm0")
    stage("dimm-1-added")
    blocks.online_all([44, 45], "online_movable")
    stage("dimm-2-online")
    blocks.offline(44)
    stage("dimm-3-one-offline")
    blocks.dimms.unplug("dimm0")
    stage("dimm-4-deleted")
    return found


def _memory(machine: Machine) -> str:
    """The directory, its settings, and every block, in the words of the recording."""
    tree = Tree(machine)
    directory = directory_at(tree, MEMORY)
    text = _listed(directory)
    for name, node in directory.entries().items():
        if not isinstance(node, Directory):
            path = f"{MEMORY}/{name}"
            readable = node.attr().mode & 0o444
            text += (
                f"== {path}: {read(node).decode().strip() if readable else DENIED.format(path)}\n"
            )
    for name in directory.entries():
        if name.startswith("memory"):
            values = (
                read(node_at(tree, f"{MEMORY}/{name}/{a}")).decode().strip() for a in _ATTRIBUTES
            )
            pairs = zip(_ATTRIBUTES, values, strict=True)
            text += f"{MEMORY}/{name}: {''.join(f'{a}={v} ' for a, v in pairs)}\n"
    return text + _listed(directory_at(tree, f"{MEMORY}/memory0"))


def _listed(directory: Directory) -> str:
    """Mode, size and name, as in the recorded `ls -la`."""
    lines = ""
    for name, node in directory.entries().items():
        attr = node.attr()
        kind = {0o04: "d", 0o12: "l"}.get(attr.mode >> 12, "-")
        bits = "".join(c if attr.mode >> (8 - i) & 1 else "-" for i, c in enumerate("rwxrwxrwx"))
        target = f" -> {node.target.decode()}" if isinstance(node, Symlink) else ""
        size = attr.size if kind == "-" else 0
        lines += f"{kind}{bits} {size} {name}{target}\n"
    return lines


_LISTED = re.compile(r"^([dl-][rwx-]{9}) +\d+ root +root +(\d+) \w+ +\d+ [\d:]+ (.*)$")


def recorded_memory(text: str) -> str:
    """A recorded stage as `_memory` writes it: without counts of links, times, and what follows."""
    lines = []
    for line in text.partition("MemTotal:")[0].splitlines():
        match = _LISTED.match(line)
        if match and match[3] not in {".", ".."}:
            lines.append(f"{match[1]} {match[2]} {match[3]}")
        elif match is None and not line.startswith("total "):
            lines.append(line)
    return "".join(f"{line.rstrip()}\n" for line in lines)


@pytest.mark.parametrize(
    "stage", ["boot", "dimm-1-added", "dimm-2-online", "dimm-3-one-offline", "dimm-4-deleted"]
)
def test_every_stage(walked: dict[str, tuple[str, str]], stage: str) -> None:
    iomem, memory = walked[stage]
    recorded = stages()[stage]
    assert _KERNEL.sub("", iomem) == _KERNEL.sub("", recorded["iomem"])
    there = "".join(f"{line.rstrip()}\n" for line in memory.splitlines())
    assert there == recorded_memory(recorded["memory"])
