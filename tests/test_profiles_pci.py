"""`pci:` becomes functions with addresses, memory behind BARs, and a bus as it is after boot."""

import struct
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from profile_files import Folder
from test_profiles_fuzz import FUZZ, copied, mutate, try_it
from test_profiles_schema import SCHEMA, problems

from fakedev.devices.pci.plan import BarPlan, EcamPlan, FunctionPlan, PciPlan
from fakedev.model.ranges import Range
from fakedev.profiles import load_profile
from fakedev.profiles.build import Parts, build_machine, build_parts
from fakedev.profiles.compile_pci_pool import Pool, Share, packed

WINDOW = 'iomem: ["80000000-dfffffff : PCI Bus 0000:00"]\n'
PCI = WINDOW + "pci:\n  functions:\n"
# One of everything that the schema knows.
RICH = """\
fakedev: 1
kernel: {version: "6.12", strict_devmem: true, io_strict_devmem: true}
firmware: {e820: [{range: 0-9ffff}, {range: 100000-3fffffff}]}
iomem: |
  80000000-dfffffff : PCI Bus 0000:00
    dff00000-dfffffff : firmware
  4000000000-7fffffffff : PCI Bus 0000:00
memory:
  contents:
  - {at: 0x90000010, text: hello}
  - {range: 90001000-90001fff, fill: {bytes: "ab cd"}}
pci:
  sysfs: merge
  ecam: 0xe0000000
  conf1: true
  cpus: 0-3,8
  ports: |
    0000-0cf7 : PCI Bus 0000:00
      0000-001f : dma1
    0cf8-0cff : PCI conf1
    0d00-ffff : PCI Bus 0000:00
  functions:
    "00:00.0": {id: "8086:29c0", class: "060000", revision: "0a", command: 6, status: 0x20}
    "00:01.0":
      id: "8086:3420"
      class: "060400"
      bridge: {secondary: 1, subordinate: 3, memory: 90000000-901fffff, io: 2000-2fff, windows_listed: false}
      slot: "4"
      capabilities:
      - pcie: {type: root-port, port: 1, slot: 4, hotplug: true}
      - pm
      - aer:
      - acs: {at: 0x200}
    "01:00.0":
      id: "144d:a808"
      subsystem: "144d:a801"
      class: "010802"
      header: {cache_line: 8, latency: 1, bist: 0x80, multifunction: true}
      bars:
        0: {mem64: 16K, at: 0x90000000, listed: false}
        2: {mem32: 4K, registers: [{name: ID, at: 0, width: 2, access: ro, reset: 0xbeef}]}
        3: {io: 32}
        4: {mem64: 16G, prefetch: true, fill: random, seed: 3}
        rom: {size: 64K, enabled: true}
      capabilities:
      - msix: {vectors: 33, table: [0, 0x3000], pba: [0, 0x2000]}
      - pcie: {type: endpoint, flr: true}
      - pm: {control: 0}
      - dsn: 11-22-33-44-55-66-77-88
      - raw_extended: {id: 0x23, hex: "01 02"}
      config: [{at: 0xf00, hex: "de ad"}, {at: 0xf10, u32: [1, 0x12345678]}]
      interrupt: {pin: B, line: 16, irq: 24, gsi: 18}
      numa_node: 1
      driver: nvme
      on_unplug: poison
      msi_irqs: [30, 31]
      power_state: D3hot
      dma_mask_bits: 48
      consistent_dma_mask_bits: 44
      enabled: 2
      d3cold_allowed: true
      link: {speed: Unknown, width: 0}
      links: {/sys/class/nvme/nvme0: nvme/nvme0}
    "01:00.1": {id: "144d:a809", class: "010802", reset: none, driver: none}
  drivers:
    nvme: {ids: ["144d:a808", "144d:*:1:2", "class:0108", "class:010802/ffff00"], claims: [0, 2], msi: msix,
      vectors: 4, exclusive: true, claim_name: nvme0, module: nvme-core, bus_master: true, dma_mask_bits: 64}
    pci-stub: {claims: none, loaded: false}
    e1000: {ids: ["8086:100e"], probe_error: EBUSY, builtin: true}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    return Folder(tmp_path)


def fn(bdf: str, rest: str = "", cls: str = "020000") -> str:
    return f'    "{bdf}": {{{rest}{", " if rest else ""}id: "8086:100e", class: "{cls}"}}\n'


def planned(folder: Folder, text: str) -> PciPlan:
    plan = folder.load(text).pci
    assert plan is not None
    return plan


def named(plan: PciPlan, bdf: str) -> FunctionPlan:
    domain, bus, devfn = bdf.split(":")
    device, function = devfn.split(".")
    wanted = (int(domain, 16), int(bus, 16), int(device, 16), int(function, 16))
    return next(one for one in plan.functions if one[:4] == wanted)


def bars(plan: PciPlan, bdf: str) -> dict[int, int]:
    return {bar.number: bar.start for bar in named(plan, bdf).bars}


def rich(folder: Folder) -> Parts:
    (folder.path / "rich.yaml").write_text(RICH)
    return build_parts(load_profile("rich.yaml"))


# -- plans -------------------------------------------------------------------------------------


def test_without_pci(folder: Folder) -> None:
    for text in ("", "pci:\n"):
        profile = folder.load(text)
        assert profile.pci is None
        assert build_machine(profile).pci is None


def test_short_form(folder: Folder) -> None:
    text = """\
pci:
  functions:
    "00:1f.2": {id: "8086:2922", class: "010601"}
    "00:1f.0": {id: "0x8086:0x2918", class: "0x060100", interrupt: {pin: 3}}
"""
    plan = planned(folder, text)
    first, second = plan.functions
    assert first[:7] == (0, 0, 0x1F, 0, 0x8086, 0x2918, 0x060100)
    assert (first.multifunction, second.multifunction) == (True, False)
    assert (first.pin, first.command, first.config_size, first.driver) == (3, 0, 256, None)
    assert (plan.sysfs, plan.ecam, plan.conf1, plan.cpus) == ("replace", (), False, "0")


def test_rich(folder: Folder) -> None:
    (folder.path / "rich.yaml").write_text(RICH)
    plan = load_profile("rich.yaml").pci
    assert plan is not None
    assert plan.ecam == (EcamPlan(0, 0xE000_0000),)
    port, nvme = named(plan, "0000:00:01.0"), named(plan, "0000:01:00.0")
    assert port.bridge is not None
    assert port.bridge[:3] == (0, 1, 3)
    assert port.bridge.memory == (0x9000_0000, 0x20_0000)
    assert port.bridge.prefetch == (0x40_0000_0000, 16 << 30)
    assert not port.bridge.windows_listed
    assert port.command == 7
    assert port.slot == "4"
    assert [one.data[0] for one in port.capabilities] == [
        0x10,
        0x01,
        0x01,
        0x0D,
    ]  # the last two extended
    assert [one.at for one in port.capabilities] == [0x40, 0x7C, 0x100, 0x200]
    assert nvme.bars[0] == BarPlan(
        0, "mem", 64, False, 16384, 0x9000_0000, listed=False,
        fill=nvme.bars[0].fill, contents=nvme.bars[0].contents,
    )  # fmt: skip
    # largest first, behind what has an address: the ROM, then the registers
    assert bars(plan, "0000:01:00.0") == {
        0: 0x9000_0000, 2: 0x9000_4000, 3: 0x2000, 4: 0x40_0000_0000, 6: 0x9001_0000,
    }  # fmt: skip
    assert nvme.reset == ("flr", "pm")
    assert nvme.config == ((0xF00, b"\xde\xad"), (0xF10, struct.pack("<II", 1, 0x12345678)))
    assert (nvme.pin, nvme.line, nvme.irq, nvme.gsi) == (2, 16, 24, 18)
    assert named(plan, "0000:01:00.1").reset == ()
    assert named(plan, "0000:01:00.1").driver == ""
    drivers = {driver.name: driver for driver in plan.drivers}
    assert [entry[4:] for entry in drivers["nvme"].ids[2:]] == [
        (0x010800, 0xFFFF00),
        (0x010802, 0xFFFF00),
    ]
    assert (drivers["nvme"].claims, drivers["e1000"].claims) == ((0, 2), None)
    assert (drivers["pci-stub"].enables, drivers["e1000"].enables) == (False, True)
    assert (drivers["e1000"].probe_error, drivers["e1000"].module) == (16, "")


def test_json_schema_agrees() -> None:
    assert problems(yaml.safe_load(RICH), SCHEMA) == []


def test_cache_gives_the_same(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKEDEV_NO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.path / "cache"))
    (folder.path / "rich.yaml").write_text(RICH)
    first = load_profile("rich.yaml")
    monkeypatch.setattr("fakedev.profiles.reading.read_profile", None)
    assert load_profile("rich.yaml") == first


def test_extends(folder: Folder) -> None:
    folder.write(
        PCI + fn("00:02.0", "bars: {0: {mem32: 4K}, 2: {io: 32}}") + fn("00:03.0")
        + "  drivers:\n    a: {claims: none}\n    b: {}\n",
        "base.yaml",
    )  # fmt: skip
    text = """\
extends: base.yaml
pci:
  conf1: true
  functions:
    "00:03.0": null
    "00:02.0": {revision: "07", bars: {2: null, 1: {mem32: 8K}}}
  drivers: {a: null, b: {loaded: false}, c: {}}
"""
    plan = planned(folder, text)
    (function,) = plan.functions
    assert function.revision == 7
    assert [bar.number for bar in function.bars] == [0, 1]
    assert [(driver.name, driver.loaded) for driver in plan.drivers] == [("b", False), ("c", True)]


def test_overrides(folder: Folder) -> None:
    options = [
        'pci.functions."00:02.0".id=1af4:1000',
        'pci.functions."00:02.0".capabilities=[pm, aer]',
    ]
    plan = folder.load(PCI + fn("00:02.0"), options).pci
    assert plan is not None
    assert plan.functions[0][4:6] == (0x1AF4, 0x1000)
    assert [one.at for one in plan.functions[0].capabilities] == [0x40, 0x100]
    assert plan.functions[0].config_size == 4096


# -- addresses ---------------------------------------------------------------------------------


def test_largest_first_from_the_bottom(folder: Folder) -> None:
    plan = planned(
        folder,
        PCI
        + fn("00:02.0", "bars: {0: {mem32: 4K}, 1: {mem32: 1M}, 2: {io: 8}, 3: {io: 256}}")
        + fn("00:03.0", "bars: {0: {mem64: 16M, prefetch: true}, 2: {mem32: 64K, at: 0x80000000}}")
        + fn("00:04.0", "bars: {rom: {size: 128K}, 0: {mem32: 256}}"),
    )
    assert bars(plan, "0000:00:02.0") == {0: 0x8001_0000, 1: 0x8010_0000, 2: 0x1100, 3: 0x1000}
    assert bars(plan, "0000:00:03.0") == {0: 0x8100_0000, 2: 0x8000_0000}
    assert bars(plan, "0000:00:04.0") == {6: 0x8002_0000, 0: 0x8001_1000}
    assert [one.command for one in plan.functions] == [3, 2, 2]


def test_windows_grow_around_what_is_behind(folder: Folder) -> None:
    plan = planned(
        folder,
        PCI
        + fn("00:01.0", "bridge: {secondary: 1}", "060400")
        + fn("01:00.0", "bridge: {secondary: 2}", "060400")
        + fn("02:00.0", "bars: {0: {mem32: 2M}, 1: {mem32: 4K}, 2: {io: 32}}")
        + fn("02:01.0", "bars: {0: {mem64: 64M, prefetch: true}}")
        + fn("00:02.0", "bridge: {secondary: 4}", "060400")
        + fn("04:00.0", "bars: {0: {mem32: 4K, at: 0xd0101000}, 1: {mem32: 4K}}"),
    )
    outer, inner = named(plan, "0000:00:01.0").bridge, named(plan, "0000:01:00.0").bridge
    assert outer is not None
    assert inner is not None
    assert (outer.secondary, outer.subordinate) == (1, 2)
    assert inner.memory == outer.memory == (0x8400_0000, 0x30_0000)
    assert inner.prefetch == outer.prefetch == (0x8000_0000, 64 << 20)
    assert inner.io == outer.io == (0x1000, 0x1000)
    assert bars(plan, "0000:02:00.0") == {0: 0x8400_0000, 1: 0x8420_0000, 2: 0x1000}
    fixed = named(plan, "0000:00:02.0").bridge
    assert fixed is not None
    assert (fixed.memory, fixed.io, fixed.prefetch) == ((0xD010_0000, 0x10_0000), None, None)
    assert bars(plan, "0000:04:00.0") == {0: 0xD010_1000, 1: 0xD010_0000}
    assert [named(plan, f"0000:{bdf}").command for bdf in ("00:01.0", "00:02.0")] == [7, 6]


def test_what_is_there_already_is_left_alone(folder: Folder) -> None:
    text = (
        "memory: {segments: [{range: 80000000-8000ffff}]}\n"
        'iomem: [{range: 80000000-8fffffff, name: "PCI Bus 0000:00", children: ["80010000-8001ffff : x"]}]\n'
        "pci:\n  ports: |\n    1000-1fff : PCI Bus 0000:00\n      1000-10ff : x\n  functions:\n"
        + fn("00:02.0", "bars: {0: {mem32: 4K}, 1: {io: 4}}")
    )
    assert bars(planned(folder, text), "0000:00:02.0") == {0: 0x8002_0000, 1: 0x1100}


def test_without_windows_in_iomem(folder: Folder) -> None:
    plan = planned(
        folder, "pci:\n  functions:\n" + fn("00:02.0", "bars: {0: {mem32: 4K}, 1: {io: 4}}")
    )
    assert bars(plan, "0000:00:02.0") == {0: 0xC000_0000, 1: 0x1000}


def test_more_than_one_root(folder: Folder) -> None:
    windows = (
        'iomem: ["80000000-8fffffff : PCI Bus 0000:00", "90000000-9fffffff : PCI Bus 0000:40", '
    )
    text = windows + '"a0000000-afffffff : PCI Bus 0001:00"]\npci:\n  functions:\n' + "".join(
        fn(bdf, "bars: {0: {mem32: 4K}}") for bdf in ("00:02.0", "40:02.0", "1:00:02.0")
    )  # fmt: skip
    starts = [one.bars[0].start for one in planned(folder, text).functions]
    assert starts == [0x8000_0000, 0x9000_0000, 0xA000_0000]


@given(
    sizes=st.lists(st.integers(4, 16), max_size=24),
    busy=st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(1, 0x4000)), max_size=6),
)
def test_shares_of_a_pool_lie_apart(sizes: list[int], busy: list[tuple[int, int]]) -> None:
    taken = [Range(*span) for span in busy]
    window = Range(0x1000, 0x2F000)
    pool = Pool([window], taken)
    for size in sorted(sizes, reverse=True):
        share = Share("", ("x",), ("mem",), 1 << size, 1 << size, 1 << 32)
        at = pool.take(share)
        if at is None:
            continue
        span = Range(at, 1 << size)
        assert at % (1 << size) == 0
        assert window.start <= at
        assert span.end <= window.end
        assert not any(span.overlaps(other) for other in taken)
        taken.append(span)


@given(sizes=st.lists(st.integers(4, 24), min_size=1, max_size=40))
def test_what_is_packed_fits(sizes: list[int]) -> None:
    shares = [Share("", ("x",), ("mem",), 1 << size, 1 << size, 1 << 32) for size in sizes]
    pool = Pool([Range(1 << 26, packed(shares))], [])
    for share in sorted(shares, key=lambda one: -one.size):
        assert pool.take(share) is not None


# -- ECAM --------------------------------------------------------------------------------------

ACPI = """\
firmware:
  e820: [{range: 0-9ffff}, {range: 100000-7fffffff}, {range: 80000000-800fffff, type: ACPI Tables}]
  acpi:
    rsdp: 0x9f000
    tables: [%s]
pci:
  functions: {"00:00.0": {id: "8086:29c0", class: "060000"}}
"""
ALLOCATIONS = "{signature: MCFG, allocations: [{base: 0xe0000000}, {base: 0xc0000000, segment: 1, start_bus: 2, end_bus: 3}]}"


def test_ecam_is_where_mcfg_says(folder: Folder) -> None:
    plan = planned(folder, ACPI % ALLOCATIONS)
    assert plan.ecam == (EcamPlan(0, 0xE000_0000), EcamPlan(1, 0xC000_0000, 2, 3))
    memory = build_parts(folder.load(ACPI % ALLOCATIONS)).memory
    assert memory.read(0xE000_0000, 4) == b"\x86\x80\xc0\x29"
    assert memory.read(0xE000_8000, 4) == b"\xff" * 4
    assert [segment.range for segment in memory.segments if segment.name == "ECAM"] == [
        Range(0xC020_0000, 2 << 20), Range(0xE000_0000, 256 << 20),
    ]  # fmt: skip


def test_ecam_from_a_table_in_a_file(folder: Folder) -> None:
    entry = struct.pack("<QHBBI", 0xB000_0000, 0, 0, 127, 0)
    (folder.path / "mcfg.bin").write_bytes(b"MCFG" + struct.pack("<I", 60) + bytes(36) + entry)
    plan = planned(folder, ACPI % "{signature: MCFG, file: mcfg.bin}")
    assert plan.ecam == (EcamPlan(0, 0xB000_0000, 0, 127),)


def test_padding_of_ecam(folder: Folder) -> None:
    assert planned(folder, "pci: {}\n").ecam_padding == 0xFF
    assert planned(folder, "pci: {ecam_padding: zeros}\n").ecam_padding == 0


def test_ecam_of_the_profile_wins(folder: Folder) -> None:
    assert planned(folder, (ACPI % ALLOCATIONS) + "  ecam: none\n").ecam == ()
    plan = planned(folder, (ACPI % ALLOCATIONS) + "  ecam: 0xd0000000\n")
    assert plan.ecam == (EcamPlan(0, 0xD000_0000),)


# -- machines ----------------------------------------------------------------------------------


def test_rich_machine(folder: Folder) -> None:
    parts = rich(folder)
    assert parts.pci is not None
    assert parts.ports is not None
    assert parts.port_space is not None
    config = parts.pci.fabric.config_read
    nvme = next(one for one in parts.pci.fabric.functions if str(one) == "0000:01:00.0")
    assert config(nvme, 0, 4) == b"\x4d\x14\x08\xa8"
    assert config(nvme, 0x0C, 4) == bytes([8, 1, 0x80, 0x80])
    assert config(nvme, 0x10, 8) == struct.pack("<Q", 0x9000_0004)
    assert config(nvme, 0x30, 4) == struct.pack("<I", 0x9001_0001)
    assert config(nvme, 0x3C, 2) == bytes([16, 2])
    assert config(nvme, 0xF00, 2) == b"\xde\xad"
    assert parts.memory.read(0x9000_0010, 5) == b"hello"
    assert parts.memory.read(0x9000_4000, 4) == b"\xef\xbe\0\0"
    assert parts.memory.read(0x9001_0000, 4) == bytes(4)
    assert parts.memory.read(0xE010_0000, 4) == b"\x4d\x14\x08\xa8"
    tree = parts.tree.iomem_text(privileged=True)
    assert "  90004000-90004fff : 0000:01:00.0\n    90004000-90004fff : nvme0\n" in tree
    assert "PCI Bus 0000:01" not in tree
    assert "  2000-201f : 0000:01:00.0\n" in parts.ports.iomem_text(privileged=True).replace(
        "0000200", "200"
    ).replace("0000201", "201")
    device = parts.pci.devices["0000:01:00.0"]
    assert device.driver is not None
    assert device.driver.name == "nvme"
    assert parts.pci.devices["0000:01:00.1"].driver is None
    assert parts.port_space.read(0x2000, 1) == b"\0"
    parts.port_space.write(0xCF8, struct.pack("<I", 0x8001_0000))
    assert parts.port_space.read(0xCFC, 4) == b"\x4d\x14\x08\xa8"


def test_contents_move_with_their_bar(folder: Folder) -> None:
    text = "memory: {contents: [{at: 0xd8000ffe, hex: 01020304}]}\n" + PCI + (
        fn("00:02.0", "bars: {0: {mem32: 4K, at: 0xd8000000}, 1: {mem32: 4K, at: 0xd8001000}}")
    )  # fmt: skip
    machine = build_machine(folder.load(text))
    assert machine.memory.read(0xD800_0FFE, 4) == b"\1\2\3\4"
    bdf = next(iter(machine.pci.fabric.functions))
    machine.pci.fabric.config_write(bdf, 0x14, struct.pack("<I", 0x9000_0000))
    assert machine.memory.read(0xD800_0FFE, 4) == b"\1\2\xff\xff"
    assert machine.memory.read(0x9000_0000, 3) == b"\3\4\0"


def test_a_bar_that_does_not_decode_keeps_its_contents(folder: Folder) -> None:
    text = "memory: {contents: [{at: 0xd8000000, text: hidden}]}\n" + PCI + (
        fn("00:02.0", "command: 0, bars: {0: {mem32: 4K, at: 0xd8000000}}")
    )  # fmt: skip
    machine = build_machine(folder.load(text))
    assert machine.memory.read(0xD800_0000, 2) == b"\xff\xff"
    bdf = next(iter(machine.pci.fabric.functions))
    machine.pci.fabric.config_write(bdf, 4, b"\2\0")
    assert machine.memory.read(0xD800_0000, 6) == b"hidden"


@pytest.mark.parametrize("fill", ["address", "random, seed: 7", "{bytes: 01 02 03}", "zero"])
def test_a_bar_holds_what_a_segment_would(folder: Folder, fill: str) -> None:
    segment = f"memory: {{segments: [{{range: d8000000-d801ffff, fill: {fill}}}]}}\n"
    bar = PCI + fn("00:02.0", f"bars: {{0: {{mem32: 128K, at: 0xd8000000, fill: {fill}}}}}")
    at = 0xD801_0123
    both = [build_parts(folder.load(text)).memory.read(at, 64) for text in (segment, bar)]
    assert both[0] == both[1]


@pytest.mark.parametrize("fill", ["address", "random, seed: 7", "{bytes: 01 02 03}"])
def test_a_fill_over_several_bars(folder: Folder, fill: str) -> None:
    content = f"  contents: [{{range: d8000800-d81007ff, fill: {fill}}}]\n"
    segment = "memory:\n  segments: [{range: d8000000-d81fffff}]\n" + content
    first = "memory:\n  segments: [{range: d8100000-d81fffff}]\n" + content + PCI
    pieces = ", ".join(f"{i}: {{mem32: 256K, at: {0xD800_0000 + (i << 18):#x}}}" for i in range(4))
    texts = (segment, first + fn("00:02.0", f"bars: {{{pieces}}}"))
    memories = [build_parts(folder.load(text)).memory for text in texts]
    for at in (0xD800_07F0, 0xD803_FFF0, 0xD808_0123, 0xD80F_FFF0, 0xD810_07F0):
        assert memories[0].read(at, 32) == memories[1].read(at, 32)


def test_files(folder: Folder) -> None:
    (folder.path / "x.rom").write_bytes(b"\x55\xaa" + bytes(100) + b"end")
    with (folder.path / "big.bin").open("wb") as stream:
        stream.truncate(2 << 20)
        stream.seek(0x12345)
        stream.write(b"deep")
    text = PCI + fn(
        "00:02.0",
        "bars: {0: {mem32: 4M, at: 0xd8000000, file: big.bin}, rom: {size: 2K, file: x.rom, at: 0xd9000000, enabled: true}}",
    )
    profile = folder.load(text)
    assert not profile.cacheable
    memory = build_parts(profile).memory
    assert memory.read(0xD801_2345, 5) == b"deep\0"
    assert memory.read(0xD900_0000, 2) + memory.read(0xD900_0066, 4) == b"\x55\xaaend\0"


def test_lines_that_are_listed_already(folder: Folder) -> None:
    """A paste of /proc/iomem may hold the nodes that the kernel makes when it finds the function."""
    paste = (
        "iomem: |\n  80000000-dfffffff : PCI Bus 0000:00\n    d8000000-d8000fff : 0000:00:02.0\n"
    )
    text = paste + "pci:\n  functions:\n" + fn("00:02.0", "bars: {0: {mem32: 4K, at: 0xd8000000}}")
    tree = build_parts(folder.load(text)).tree.iomem_text(privileged=True)
    assert tree == "80000000-dfffffff : PCI Bus 0000:00\n  d8000000-d8000fff : 0000:00:02.0\n"


def test_reset_methods(folder: Folder) -> None:
    behind = fn("00:01.0", "bridge: {secondary: 1}", "060400")
    plan = planned(folder, PCI + behind + fn("01:00.0", "capabilities: [pm: {control: 0}, af]"))
    assert named(plan, "0000:01:00.0").reset == ("af_flr", "pm", "bus")
    plan = planned(
        folder, PCI + behind + fn("01:00.0", "capabilities: [pm]") + fn("01:01.0", "reset: [bus]")
    )
    assert [named(plan, f"0000:01:0{i}.0").reset for i in (0, 1)] == [(), ("bus",)]


# -- many --------------------------------------------------------------------------------------


def crowd(count: int = 4096) -> str:
    """So many functions: bridges on bus 0, and up to 255 functions behind each."""
    buses = -(-count // 256)
    lines = ['iomem: ["80000000-dfffffff : PCI Bus 0000:00"]', "pci:", "  functions:"]
    lines += [
        f'    "00:{bus:02x}.0": {{id: "8086:3420", class: "060400", bridge: {{secondary: {bus}}}, '
        "capabilities: [pcie: {type: root-port}]}"
        for bus in range(1, buses + 1)
    ]
    for number in range(count - buses):
        bus, devfn = 1 + number // 255, number % 255
        lines.append(f'    "{bus:02x}:{devfn >> 3:02x}.{devfn & 7}":\n      id: "8086:{number:04x}"\n'
                     '      class: "020000"\n      bars: {0: {mem64: 16K}, 2: {mem32: 4K}}\n'
                     "      capabilities: [pm: {}, msi: {}, pcie: {type: endpoint}]")  # fmt: skip
    return "\n".join(lines) + "\n"


def test_4096_functions(folder: Folder) -> None:
    text = crowd()
    begin = time.process_time()
    profile = folder.load(text)
    spent = time.process_time() - begin
    assert profile.pci is not None
    assert len(profile.pci.functions) == 4096
    spans = sorted(
        (bar.start, bar.start + bar.size) for one in profile.pci.functions for bar in one.bars
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert spent < 15  # an eighth of it on a machine that does nothing else


# -- anything ----------------------------------------------------------------------------------

TREE: Any = yaml.load(RICH, Loader=yaml.BaseLoader)


@FUZZ
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 3))
def test_changed_trees(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    import random

    chance = random.Random(seed)
    tree = copied(TREE)
    for _ in range(count):
        mutate(tree["pci"], chance)
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKEDEV_NO_CACHE", "1")
        try_it(path, yaml.safe_dump(tree, default_style='"' if seed % 2 else None))
