"""`/proc/kcore` against a recorded kernel: its headers at three moments, and what it read."""

import struct
from pathlib import Path

import pytest
from kcore_headers import Header, headers, text_or_ram
from pci_tree import ROOT, read
from recordings import records
from virtio_mem_machines import Recording

from fakedev.devices.memory.kcore import (
    PAGE_OFFSET,
    TEXT,
    VIRTUAL_MASK,
    VMALLOC,
    VMEMMAP,
)
from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.kcore import Kcore

DATA = Path(__file__).parent / "data" / "truth-kcore"
#: Where a recorded machine had its parts (KASLR), and where they are here.
MOVED = (
    (0xFFFFFFFF9C200000, TEXT, 0x3430000),
    (0xFFFFCC5E40000000, VMALLOC.start, VMALLOC.size),
    (0xFFFF8C5840000000, PAGE_OFFSET, 64 << 40),
    (0xFFFFF06100000000, VMEMMAP, 1 << 40),
)


def recorded(name: str) -> tuple[str, list[Header]]:
    """The recorded first line, and headers moved to where the parts are here."""
    first, _, *lines = (DATA / f"kcore-{name}.txt").read_text().splitlines()
    found = []
    for line in lines:
        words = line.split()
        offset, start, paddr, filesz, memsz = (int(word, 16) for word in words[1:6])
        moved = moved_to(start)
        if words[0] == "LOAD":
            offset += (moved & VIRTUAL_MASK) - (start & VIRTUAL_MASK)
        kind, flags = (1, 7) if words[0] == "LOAD" else (4, 0)
        align = int(words[7], 16)
        found.append((kind, flags, offset, moved, paddr, filesz, memsz, align))
    return first, found


def moved_to(start: int) -> int:
    return next((new + start - old for old, new, size in MOVED if 0 <= start - old < size), start)


@pytest.fixture(scope="module")
def walked() -> dict[str, tuple[str, list[Header]]]:
    """First line and headers at the recorded moments."""
    machine, node = before_the_driver()
    wanted = {"matrix-vmem-loaded": "vmem-loaded", "matrix-vmem-online": "vmem-online"}
    found = {}
    for stage, step in Recording(machine).steps():
        step()
        if stage in wanted:
            data = read(node)
            kind, arch = struct.unpack_from("<HH", data, 16)
            line = f"ELF type {kind} machine {arch} phnum {len(headers(data))}"
            found[wanted[stage]] = f"{line} size {node.attr().size}", headers(data)
    return found


@pytest.mark.parametrize("moment", ["vmem-loaded", "vmem-online"])
def test_headers_are_those_of_the_recorded_kernel(
    walked: dict[str, tuple[str, list[Header]]], moment: str
) -> None:
    assert walked[moment] == recorded(moment)


def test_headers_at_boot() -> None:
    node = Kcore(build_machine(load_profile("pc-q35")))
    assert headers(read(node)) == recorded("boot")[1]
    assert recorded("boot")[0].endswith(f" size {node.attr().size}")


def before_the_driver() -> tuple[Machine, Kcore]:
    """The recorded machine and its file, which was there before a namespace became RAM."""
    machine = build_machine(load_profile("pc-q35"))
    node = Kcore(machine)
    machine.nd.modprobe("nfit")
    machine.nd.set_mode("namespace0.0", "kmem")
    return machine, node


def test_recorded_reads() -> None:
    """Kernel text and what a kernel put into its RAM cannot be compared; zeros and counts can."""
    machine, node = before_the_driver()
    Recording(machine).to("matrix-vmem-online")
    wanted = [r for r in records("vmem") if r["case"] == "kcore-read-segment"]
    assert len(wanted) == 8
    node.open(ROOT)
    for record in wanted:
        paddr = int(record["args"]["paddr"], 16)
        data = read(node, size=16, offset=text_or_ram(node, paddr))
        assert len(data) == record["result"]
        if paddr in {0x1000, 0x100000, 0x158000000}:  # zeros were recorded
            assert not any(data), record
