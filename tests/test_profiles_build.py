"""Profiles become machines: memory, resources, files; both bundled ones among them."""

from pathlib import Path

import pytest
from profile_files import RAM, Folder

from fakedev.model.flags import IORES_DESC_RESERVED, IORESOURCE_BUSY, IORESOURCE_MEM
from fakedev.profiles import load_profile
from fakedev.profiles.build import build_machine, build_parts

HIGH = "memory:\n  segments:\n  - {range: 0x100000000+1M, name: dev, fill: %s}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    return Folder(tmp_path)


def read(folder: Folder, text: str, address: int, size: int) -> bytes:
    return build_parts(folder.load(text)).memory.read(address, size)


FILLS = {
    "zero": bytes(16),
    "address": (0x1_0001_0000).to_bytes(8, "little") + (0x1_0001_0008).to_bytes(8, "little"),
    "{bytes: 01 02 03}": bytes([2, 3, 1] * 6)[:16],
}


@pytest.mark.parametrize(("fill", "expected"), FILLS.items())
def test_fills_of_segments(folder: Folder, fill: str, expected: bytes) -> None:
    assert read(folder, HIGH % fill, 0x1_0001_0000, 16) == expected


def test_random_depends_on_the_seed(folder: Folder) -> None:
    text = HIGH % "random, seed: %d"
    first = read(folder, text % 1, 0x1_0000_0000, 64)
    assert first == read(folder, text % 1, 0x1_0000_0000, 64)
    assert first != read(folder, text % 2, 0x1_0000_0000, 64)


CONTENTS = {
    "{at: 0x100000000, u8: [1, 0x2]}": b"\1\2\0",
    "{at: 0x100000000, u16: 0x102}": b"\2\1\0",
    "{at: 0x100000000, u32: 0x01020304}": b"\4\3\2\1",
    "{at: 0x100000000, u64: 0x0102030405060708}": b"\x08\7\6\5\4\3\2\1",
    '{at: 0x100000000, text: "hé\\0"}': b"h\xc3\xa9\0",
    "{at: 4G, hex: 00 11 2233}": b"\x00\x11\x22\x33",
    "{at: 4G, base64: AQID}": b"\1\2\3\0",
    "{range: 100000000-100000002, fill: {bytes: ff}}": b"\xff\xff\xff\0",
    "{range: 0x100000004+6, fill: address}": b"\0\0\0\0\1\0\0\0\x08\0\0",
}


@pytest.mark.parametrize(("content", "expected"), CONTENTS.items())
def test_contents(folder: Folder, content: str, expected: bytes) -> None:
    text = HIGH % "zero" + f"  contents:\n  - {content}\n"
    assert read(folder, text, 0x1_0000_0000, len(expected)) == expected


def test_contents_are_placed_in_order(folder: Folder) -> None:
    text = HIGH % "zero" + (
        "  contents:\n  - {at: 4G, hex: 01020304}\n  - {range: 4294967297+2, fill: zero}\n"
        "  - {at: 0x100000002, u8: 9}\n"
    )
    assert read(folder, text, 0x1_0000_0000, 4) == b"\1\0\x09\4"


@pytest.mark.parametrize("common", [b"\0", b"\xff", b"ab"])
def test_large_blobs_of_equal_pages_are_kept_small(folder: Folder, common: bytes) -> None:
    pages = [(common * 4096)[:4096]] * 60
    pages[7] = bytes(range(256)) * 16
    pages[59] = b"end"
    data = b"".join(pages)
    (folder.path / "blob.bin").write_bytes(data)
    text = HIGH % "zero" + "  contents:\n  - {at: 0x100000ff0, file: blob.bin}\n"
    profile = folder.load(text)
    assert sum(len(placement.data) for placement in profile.placements) == 4096 + 3
    memory = build_parts(profile).memory
    assert memory.read(0x1_0000_0FF0, len(data) + 4) == data + bytes(4)


def test_large_files_are_mapped_when_the_machine_is_built(folder: Folder) -> None:
    with (folder.path / "big.bin").open("wb") as stream:
        stream.truncate(2 << 20)
        stream.seek(0x1234)
        stream.write(b"hello")
    text = (HIGH % "zero").replace(
        "1M", "4M"
    ) + "  contents:\n  - {at: 4G, file: big.bin, offset: 4K}\n"
    profile = folder.load(text)
    assert not profile.cacheable
    assert build_parts(profile).memory.read(0x1_0000_0234, 5) == b"hello"


def test_undecoded(folder: Folder) -> None:
    assert read(folder, "", 0x1000, 2) == b"\xff\xff"
    assert read(folder, "memory: {undecoded: 0x5a}\n", 0x1000, 2) == b"\x5a\x5a"


def test_e820_makes_memory_resources_and_files(folder: Folder) -> None:
    profile = folder.load(RAM)
    parts = build_parts(profile)
    assert parts.high_memory == 0x400_0000
    assert parts.tree.iomem_text(privileged=True) == (
        "00000000-00000fff : Reserved\n"
        "00001000-0009fbff : System RAM\n"
        "0009fc00-0009ffff : RAM buffer\n"
        "00100000-03ffffff : System RAM\n"
    )
    assert profile.files["/sys/firmware/memmap/1/start"].data == b"0x100000\n"
    assert parts.memory.read(0x3FF_FFFF, 2) == b"\0\xff"


def test_a_paste_of_iomem_stands_for_what_is_there(folder: Folder) -> None:
    text = RAM.replace("{range: 100000", "{range: f0000-fffff, type: Reserved}, {range: 100000")
    paste = (
        "00000000-00000fff : Reserved\n"
        "00001000-0009fbff : System RAM\n"
        "000f0000-000fffff : Reserved\n"
        "  000f0000-000fffff : System ROM\n"
        "00100000-03ffffff : System RAM\n"
        "  01000000-01ffffff : Kernel code\n"
        "80000000-8fffffff : PCI Bus 0000:00\n"
        "  80000000-80ffffff : 0000:00:02.0\n"
        "    80000000-80ffffff : driver\n"
    )
    indented = "".join(f"  {line}\n" for line in paste.splitlines())
    tree = build_parts(folder.load(f"{text}iomem: |\n{indented}")).tree
    lines = tree.iomem_text(privileged=True).splitlines()
    assert [line for line in lines if not line.endswith("RAM buffer")] == paste.splitlines()
    reserved = tree.find(0xF0000, 0xFFFFF, "Reserved")
    assert reserved is not None
    assert reserved.flags == IORESOURCE_MEM | IORESOURCE_BUSY
    assert reserved.desc == IORES_DESC_RESERVED
    driver = next(tree.named("driver"))
    assert driver.busy


def test_flags_given_replace_the_standard_ones(folder: Folder) -> None:
    profile = folder.load('iomem: [{range: 1000-1fff, name: "HPET 0", flags: [busy, exclusive]}]\n')
    assert [node.flags for node in profile.resources] == [0x8800_0200]


def test_ram_without_a_map(folder: Folder) -> None:
    """A machine without e820 (arm64, riscv) says where its RAM is under `iomem:`."""
    text = "kernel: {arch: aarch64}\nmemory: {segments: [{range: 1G+1G}]}\n"
    profile = folder.load(text + "iomem: ['40000000-7fffffff : System RAM']\n")
    assert profile.high_memory == 0x8000_0000


@pytest.mark.parametrize("name", ["fd-9000", "pc-q35", "workstation"])
def test_bundled_profiles_build(name: str, folder: Folder) -> None:
    profile = load_profile(name)
    machine = build_machine(profile, name="other")
    assert machine.name == "other"
    assert machine.high_memory == profile.high_memory
    assert machine.memory.read(profile.high_memory - 1, 1) == b"\0"
    assert machine.files["/sys/firmware/memmap/0/type"].data == b"System RAM\n"


def test_fd_9000(folder: Folder) -> None:
    parts = build_parts(load_profile("fd-9000"))
    assert not parts.rules.strict_devmem
    assert parts.memory.read(0xF0010, 4) == b"_SM_"
    assert parts.memory.read(0xF5A40, 8) == b"RSD PTR "
    assert parts.memory.read(0x1_0000_0000, 18) == b"HIGHMEM-MARKER-4G\0"
    assert parts.memory.read(0xD810_0100, 10) == b"FAKE-FPGA\0"
    assert parts.high_memory == 0x1_8000_0000


def test_pc_q35(folder: Folder) -> None:
    parts = build_parts(load_profile("pc-q35"))
    assert parts.rules.strict_devmem
    assert parts.rules.release == (6, 1)
    text = parts.tree.iomem_text(privileged=True)
    assert "  b0000000-bfffffff : Reserved\n    b0000000-bfffffff : pnp 00:07\n" in text
    assert parts.high_memory == 0x1FFD_6000
