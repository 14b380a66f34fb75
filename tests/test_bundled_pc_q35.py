"""The bundled profile pc-q35 against what was recorded on the machine."""

import json
import lzma
from collections.abc import Iterator
from typing import Any

import pytest
from firmware_data import DATA

from fakedev.profiles.build import Parts, build_parts
from fakedev.profiles.loader import load_profile


@pytest.fixture(scope="module")
def machine() -> Parts:
    return build_parts(load_profile("pc-q35"))


def touches() -> Iterator[dict[str, Any]]:
    """Successful loads through mappings at boot."""
    with lzma.open(DATA / "truth-pc-q35.jsonl.xz", "rt") as lines:
        for record in map(json.loads, lines):
            loads = record["op"] in {"mmap+touch", "touch_read"} and record["result"] == 0
            if loads and record["phase"] in {"matrix-boot", "lowram"} and record["data"]:
                yield record


def test_memory_holds_what_the_real_one_held(machine: Parts) -> None:
    checked = 0
    for record in touches():
        args = record["args"]
        address = int(args.get("off") or args["phys"], 16)
        of_a_function = " > 0000:" in args.get("iomem", "")
        if of_a_function or record["case"] == "lowram-second-mapping-sees-write":
            continue
        data = bytes.fromhex(record["data"])
        assert machine.memory.read(address, len(data)) == data, record
        last = (record.get("extra") or {}).get("last_u32")
        if last is not None:
            end = address + int(args["len"], 16)
            assert machine.memory.read(end - 4, 4) == int(last, 16).to_bytes(4, "little"), record
        checked += 1
    assert checked > 100


def test_low_ram_is_empty_where_it_was(machine: Parts) -> None:
    pages = [p for p in range(0x1000, 0x9F000, 0x1000) if any(machine.memory.read(p, 0x1000))]
    recorded = "6 10 11 12 13 14 15 16 1f 20 98 99 9a 9b 9c 9d 9e"
    assert " ".join(f"{page >> 12:x}" for page in pages) == recorded


def test_roms_drop_stores(machine: Parts) -> None:
    before = machine.memory.read(0xF0000, 16)
    machine.memory.write(0xF0000, b"overwritten")
    assert machine.memory.read(0xF0000, 16) == before
    assert any(before)


def test_iomem_is_that_of_the_machine(machine: Parts) -> None:
    assert machine.tree.iomem_text(privileged=True) == (DATA / "iomem-root-boot.txt").read_text()


def test_high_memory_is_the_end_of_ram(machine: Parts) -> None:
    assert machine.high_memory == 0x1FFD6000
    assert machine.rules.phys_bits == 40
