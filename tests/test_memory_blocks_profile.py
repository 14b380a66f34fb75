"""`memory_blocks:` of profiles: what it compiles to, and what is wrong with it, by line."""

from pathlib import Path

import pytest

from fakedev.devices.memory.plan import BlocksPlan, DimmPlan, NodePlan
from fakedev.profiles.build import build_machine
from fakedev.profiles.cache import lookup, store
from fakedev.profiles.loader import check_file, load_profile

HEAD = """\
fakedev: 1
kernel: {version: "6.1", phys_bits: 40}
firmware:
  e820:
    - {range: 0-9fbff, type: System RAM}
    - {range: 100000-3fffffff, type: System RAM}
    - {range: 100000000-13fffffff, type: System RAM}
"""
SECTION = """\
memory_blocks:
  size: 128M
  auto_online: online_movable
  probe: true
  unmovable: [110000000-117ffffff]
  nodes:
    - {id: 1, ranges: [100000000-13fffffff], cpus: "2-3", distances: [20, 10]}
    - {id: 0, cpus: "0-1"}
  dimms:
    - {slot: a, at: 0x200000000, size: 256M, nid: 1}
    - {slot: b, at: 0x240000000, size: 128M, plugged: true}
"""


def written(path: Path, text: str) -> str:
    file = path / "machine.yaml"
    file.write_text(HEAD + text)
    return str(file)


def test_what_it_compiles_to(tmp_path: Path) -> None:
    assert load_profile(written(tmp_path, SECTION)).blocks == BlocksPlan(
        size=128 << 20,
        auto_online="online_movable",
        nodes=(
            NodePlan(0, (), "0-1"),
            NodePlan(1, ((0x1_0000_0000, 0x4000_0000),), "2-3", (20, 10)),
        ),
        dimms=(
            DimmPlan("a", 0x2_0000_0000, 256 << 20, 1),
            DimmPlan("b", 0x2_4000_0000, 128 << 20, 0, plugged=True),
        ),
        unmovable=((0x1_1000_0000, 0x800_0000),),
        probe=True,
    )


def test_the_machine(tmp_path: Path) -> None:
    machine = build_machine(load_profile(written(tmp_path, SECTION)))
    blocks = machine.blocks
    assert blocks.probe
    assert blocks.auto_online == "online_movable"
    assert list(blocks.nodes) == [0, 1]
    assert blocks.blocks[34].unmovable
    assert blocks.blocks[72].online  # of slot b, at 0x240000000
    assert machine.high_memory == 0x2_4800_0000
    assert "240000000-247ffffff : System RAM\n" in machine.iomem()
    before = machine.iomem()
    blocks.dimms.unplug("b")
    blocks.dimms.plug("a")
    machine.reset()
    assert machine.iomem() == before
    assert blocks.dimms.present == {"b"}


def test_a_machine_that_says_nothing_has_blocks(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, ""))
    machine = build_machine(profile)
    assert profile.blocks is None
    assert list(machine.blocks.blocks) == [*range(8), *range(32, 40)]
    assert machine.blocks.nodes[0].cpus == "0"


def test_cpus_of_the_profile_are_those_of_node_0(tmp_path: Path) -> None:
    text = 'files: {/sys/devices/system/cpu/online: "0-5\\n"}\n'
    assert build_machine(load_profile(written(tmp_path, text))).blocks.nodes[0].cpus == "0-5"


def test_the_cache_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FAKEDEV_NO_CACHE", raising=False)
    path = written(tmp_path, SECTION)
    profile = load_profile(path)
    store(profile, path, ())
    found = lookup(path, ())
    assert found is not None
    assert found.blocks == profile.blocks


NODE = "  nodes:\n    - {id: 0}\n"
WRONG = [
    ("  size: 100M\n", 9, "a memory block is a power of two from 128 MiB to 64 GiB, not 0x6400000 bytes"),
    ("  size: 64M\n", 9, "a memory block is a power of two from 128 MiB to 64 GiB, not 0x4000000 bytes"),
    ("  auto_online: maybe\n", 9, "auto_online"),
    (NODE + "    - {id: 0}\n", 11, "there is a node 0 already"),
    (NODE + "    - {id: 5000}\n", 11, "a node has a number below 1024, not 5000"),
    ("  nodes:\n    - {id: 0, cpus: 0-3}\n    - {id: 1, cpus: 3}\n", 11, "CPU 3 is in node 0 already"),
    ("  nodes:\n    - {id: 0, distances: [10, 20]}\n", 10, "2 distances for 1 nodes"),
    ("  nodes:\n    - {id: 0, distances: [11]}\n", 10, "a node is 10 away from itself"),
    (
        '  nodes:\n    - {id: 0, ranges: ["0+1G"]}\n    - {id: 1, ranges: ["512M+1G"]}\n',
        11,
        "overlaps 00000000-3fffffff (node 0)",
    ),
    ("  dimms:\n    - {slot: a, at: 0x200000000, size: 100M}\n", 10, "a DIMM has whole memory blocks of 128 MiB"),
    ("  dimms:\n    - {slot: a, at: 0x200001000, size: 128M}\n", 10, "a DIMM starts at a multiple of 128 MiB"),
    ("  dimms:\n    - {slot: a, at: 0x10000000000, size: 128M}\n", 10, "ends beyond the 40 address bits"),
    ("  dimms:\n    - {slot: a, at: 0x100000000, size: 128M}\n", 10, "overlaps System RAM (100000000-13fffffff)"),
    (NODE + "  dimms:\n    - {slot: a, at: 0x200000000, size: 128M, nid: 3}\n", 12, "there is no node 3"),
    (
        ("  dimms:\n    - {slot: a, at: 0x200000000, size: 256M}\n"
        "    - {slot: a, at: 0x208000000, size: 128M}\n"),
        11,
        "there is a slot 'a' already",
    ),
    (
        ("  dimms:\n    - {slot: a, at: 0x200000000, size: 256M}\n"
        "    - {slot: b, at: 0x208000000, size: 128M}\n"),
        11,
        "DIMM 208000000-20fffffff (b) overlaps 200000000-20fffffff (a)",
    ),
    ("  dimm: []\n", 9, "dimm"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message"), WRONG)
def test_what_is_wrong_is_said_by_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    problems = check_file(written(tmp_path, f"memory_blocks:\n{text}"))
    assert any(f"machine.yaml:{line}:" in one and message in one for one in problems), problems


def test_a_dimm_on_memory_of_a_device(tmp_path: Path) -> None:
    text = (
        "memory: {segments: [{range: 0x200000000+64M}]}\n"
        "memory_blocks: {dimms: [{slot: a, at: 0x200000000, size: 128M}]}\n"
    )
    problems = check_file(written(tmp_path, text))
    assert len(problems) == 1
    assert "200000000-207ffffff overlaps" in problems[0]
