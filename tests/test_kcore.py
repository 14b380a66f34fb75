"""`/proc/kcore`: who may read it, and what is behind its headers."""

import os
import struct
from collections.abc import Iterable

import pytest
from kcore_headers import headers, text_or_ram
from memory_machines import GIB, MIB, machine_of
from pci_tree import ROOT, USER, node_at, read, refused
from virtio_mem_machines import guest

from fakedev.devices.memory.kcore import (
    NO_PADDR,
    NOTES_SIZE,
    TEXT,
    VIRTUAL_MASK,
    VMALLOC,
)
from fakedev.devices.memory.poison import poison_of
from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.kcore import PATHS, Kcore
from fakedev.views.node import Opener
from fakedev.views.tree import Tree, listing


def kcore(machine: Machine) -> Kcore:
    node = node_at(Tree(machine), "/dev/kcore")
    assert isinstance(node, Kcore)
    return node


def at(node: Kcore, address: int) -> int:
    """The offset of a physical address, as a reader finds it."""
    for header in headers(read(node)):
        start, size, paddr = header[2], header[5], header[4]
        if header[0] == 1 and paddr <= address < paddr + size and header[3] < TEXT:
            return start + address - paddr
    raise AssertionError(hex(address))


def shown(node: Kcore, address: int, size: int = 8) -> bytes:
    return read(node, offset=at(node, address), size=size)


def paddrs(node: Kcore) -> list[int]:
    return [h[4] for h in headers(read(node)) if h[4] != NO_PADDR and h[0] == 1]


def test_notes() -> None:
    machine = machine_of(rules={"cmdline": "quiet " * 20})
    machine.files["/proc/version"] = StaticFile.text("Linux version 6.1.0-9 (x) #1\n")
    data = read(Kcore(machine), size=1 << 16)
    offset, size = headers(data)[0][2], headers(data)[0][5]
    assert size == NOTES_SIZE
    found, where = [], offset
    while where < offset + size:
        name_size, length, kind = struct.unpack_from("<III", data, where)
        name = data[where + 12 : where + 11 + name_size]
        where += 12 + (name_size + 3 & ~3)
        found.append((name, kind, data[where : where + length]))
        where += length + 3 & ~3
    assert [(name, kind) for name, kind, _ in found] == [
        (b"CORE", 1), (b"CORE", 3), (b"CORE", 4), (b"VMCOREINFO", 0),
    ]  # fmt: skip
    info = found[1][2]
    assert (len(found[0][2]), len(info), info[1:2]) == (336, 136, b"R")
    assert info[40:56].rstrip(b"\0") == b"vmlinux"
    assert info[56:] == (b"quiet " * 20)[:79] + b"\0"
    assert found[3][2].startswith(b"OSRELEASE=6.1.0-9\nPAGESIZE=4096\n")
    assert f"NUMBER(phys_base)={0x10000000}\n".encode() in found[3][2]


def test_who_may_open() -> None:
    machine = machine_of()
    node = kcore(machine)
    assert node.attr().mode & 0o777 == 0o400
    assert refused(node.open, USER) == "EACCES"
    handle = node.open(Opener(1, 0, os.O_RDWR))
    assert refused(handle.write, 0, memoryview(b"x")) == "EIO"
    assert not getattr(handle, "mappable", True)


@pytest.mark.parametrize(
    ("level", "answer"), [("none", None), ("integrity", None), ("confidentiality", "EPERM")]
)
def test_lockdown(level: str, answer: str | None) -> None:
    node = kcore(machine_of(rules={"lockdown": level}))
    if answer is None:
        assert read(node, size=4) == b"\x7fELF"
    else:
        assert refused(node.open, ROOT) == answer


def test_the_kernel_and_ram_show_the_same_bytes() -> None:
    machine = machine_of()
    machine.poke(0x11000010, b"MARK")
    node = kcore(machine)
    assert shown(node, 0x11000010, 4) == b"MARK"
    assert read(node, size=4, offset=text_or_ram(node, 0x11000000) + 0x10) == b"MARK"
    assert machine.read(0x11000010, 4)[0].allowed is False


def test_nothing_is_zeros_and_there_is_no_end() -> None:
    node = kcore(machine_of())
    image = node.image
    end = image.size
    for offset in (
        image.data_offset,
        end - 8,
        end,
        end + (1 << 50),
        (VMALLOC.start & VIRTUAL_MASK),
    ):
        assert read(node, size=4096, offset=offset) == bytes(4096)
    low = at(node, 0x1000)
    assert read(node, size=1 << 20, offset=low - 0x800) == bytes(1 << 20)
    parts = [read(node, offset=n, size=7) for n in range(0, image.data_offset, 7)]
    whole = read(node, size=image.data_offset)
    assert b"".join(parts)[: len(whole)] == whole


@pytest.mark.parametrize(("version", "seen"), [("5.16", bytes(4)), ("5.10", b"MARK")])
def test_an_offline_block(version: str, seen: bytes) -> None:
    machine = machine_of(version=version)
    node = kcore(machine)
    address, block = 4 * GIB, 32
    for where in (address, address - 4 + 128 * MIB, address + 128 * MIB):
        machine.poke(where, b"MARK")
    held = node.open(ROOT)
    offset = at(node, address)
    machine.blocks.offline(block)
    assert b"".join(held.read(offset, 4)) == seen
    edge = b"".join(held.read(offset + 128 * MIB - 4, 8))
    assert edge == seen + b"MARK"
    machine.blocks.online(block)
    assert b"".join(held.read(offset, 4)) == b"MARK"


def test_poisoned_pages() -> None:
    machine = machine_of()
    machine.poke(0x20000000, b"\xaa" * 0x5000)
    node, poison = kcore(machine), poison_of(machine)
    poison.add(Range(0x20001000, 0x1000))
    poison.soft_offline(0x20003000)
    data = shown(node, 0x20000000, 0x5000)
    good, bad = b"\xaa" * 0x1000, bytes(0x1000)
    assert data == good + bad + good + bad + good
    assert shown(node, 0x20000F00, 0x200) == b"\xaa" * 0x100 + bytes(0x100)


def test_unplugged_pages_of_virtio_mem() -> None:
    machine = guest(auto="online")
    node = kcore(machine)
    assert paddrs(node) == [0x1000, 0x100000]
    machine.virtio_mem.modprobe()
    machine.virtio_mem.request("vm0", 130 * MIB)
    assert paddrs(node) == [0x1000, 0x100000, 4 * GIB]
    hidden = machine.virtio_mem.hidden()
    assert hidden
    unplugged, plugged = hidden[0].start, hidden[0].start - MIB
    for where in (unplugged, plugged):
        machine.memory.write(where, b"MARK")
    assert shown(node, unplugged, 4) == bytes(4)
    assert shown(node, plugged, 4) == b"MARK"


def test_the_list_is_refreshed_at_an_open_after_memory_went_online() -> None:
    machine = machine_of()
    node = kcore(machine)
    held = node.open(ROOT)
    before, size = paddrs(node), node.attr().size

    def count() -> int:
        return len(headers(b"".join(held.read(0, 4096))))

    first = count()
    machine.blocks.dimms.plug("dimm0")
    assert paddrs(node) == before
    machine.blocks.online(64)
    assert count() == first
    assert paddrs(node) == [*before, 0x2_0000_0000]
    assert count() == first + 2  # whoever has it open sees the new list
    assert node.attr().size >= size
    machine.reset()
    assert paddrs(node) == before


def test_what_is_mapped_is_settled_first() -> None:
    machine = machine_of()
    spans: list[object] = []

    def settle(span: object, action: object) -> object:
        spans.append(span)
        assert callable(action)
        return action()

    machine.settle = settle  # type: ignore[assignment]
    node = kcore(machine)
    shown(node, 0x20000000, 0x2000)
    assert spans == [Range(0x20000000, 0x2000)]


def test_where_it_stands() -> None:
    machine = machine_of()
    assert set(PATHS) <= listing(machine).keys()
    for path in PATHS:
        assert isinstance(node_at(Tree(machine), path), Kcore)
    machine.files["/dev/kcore"] = StaticFile.text("mine")
    assert read(node_at(Tree(machine), "/dev/kcore")) == b"mine"
    assert names(listing(machine_of(rules={"arch": "aarch64"}))) == set()


def names(found: Iterable[str]) -> set[str]:
    return {path for path in found if "kcore" in path}


def test_zeros_are_not_copied() -> None:
    node = kcore(machine_of())
    views = node.open(ROOT).read(at(node, 0x20000000), MIB)
    assert [len(view) for view in views] == [MIB]
