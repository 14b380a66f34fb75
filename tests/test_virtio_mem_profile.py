"""`virtio_mem:` in profiles: what it makes, and what is wrong with it."""

from pathlib import Path

import pytest
from profile_files import Folder
from virtio_mem_machines import hot, lines

from fakedev.devices.memory.virtio_mem_plan import GIB, MIB, VirtioMemPlan
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.tree import Tree

RAM = "firmware: {e820: [{range: 1000-9ffff}, {range: 100000-1fffffff}]}\n"
STRICT = 'kernel: {version: "6.12", strict_devmem: true, phys_bits: 40}\n'
BLOCKS = "memory_blocks: {auto_online: online_movable}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    return Folder(tmp_path)


def vm(rest: str = "", *, addr: str = "4G", size: str = "1G", name: str = "vm0") -> str:
    """A device on line 3 of the profile, behind `virtio_mem:` on line 2."""
    return f"  {name}: {{addr: {addr}, region_size: {size}{', ' if rest else ''}{rest}}}\n"


def text(*devices: str, kernel: str = STRICT, more: str = "") -> str:
    return "virtio_mem:\n" + "".join(devices or (vm(),)) + RAM + kernel + more


def test_the_plan_of_a_short_entry(folder: Folder) -> None:
    assert folder.load(text()).virtio_mem == (VirtioMemPlan("vm0", 4 * GIB, GIB),)


def test_the_plan_of_a_long_entry(folder: Folder) -> None:
    every = (
        "block_size: 4M, requested_size: 64M, usable_size: 512M, node: 1, loaded: true, force_bbm: true, "
        "bbm_block_size: 256M, unmovable: 0"
    )
    assert folder.load(text(vm(every))).virtio_mem == (
        VirtioMemPlan(
            "vm0", 4 * GIB, GIB, 4 * MIB, 1, 64 * MIB, 512 * MIB, "", True, True, 256 * MIB, 0
        ),
    )


def test_a_driver_that_is_loaded_at_boot(folder: Folder) -> None:
    machine = build_machine(
        folder.load(text(vm("requested_size: 192M, loaded: true"), more=BLOCKS))
    )
    assert lines(machine) == [
        "100000000-13fffffff : virtio0",
        "  100000000-10fffffff : System RAM (virtio_mem)",
    ]
    assert hot(machine) == {32: "Movable", 33: "Movable"}


def test_the_memory_behind_the_region_can_have_contents(folder: Folder) -> None:
    more = "memory: {contents: [{at: 0x100000000, text: before}]}\n"
    assert build_machine(folder.load(text(more=more))).peek("0x100000000+6") == b"before"


def test_it_survives_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FAKEDEV_NO_CACHE", raising=False)
    path = tmp_path / "m.yaml"
    path.write_text("fakedev: 1\n" + text(vm("unmovable: 0, usable_size: 1G")))
    first = load_profile(str(path))
    assert list((tmp_path / "cache").rglob("*.json"))
    again = load_profile(str(path))
    assert again.virtio_mem == first.virtio_mem
    assert isinstance(again.virtio_mem[0], VirtioMemPlan)


SINGLE = {
    "addr not aligned": (
        text(vm(addr="0x100100000")),
        "m.yaml:3:15: addr 0x100100000 is not a multiple of the block size 0x200000; 0x100000000 would be",
    ),
    "region not aligned": (
        text(vm(size="0x40100000")),
        "m.yaml:3:32: region_size 0x40100000 is not a multiple of the block size 0x200000; 0x40000000 would be",
    ),
    "requested not aligned": (
        text(vm("requested_size: 3M")),
        "m.yaml:3:52: requested_size 0x300000 is not a multiple of the block size 0x200000; 0x200000 would be",
    ),
    "requested above the region": (
        text(vm("requested_size: 2G")),
        "m.yaml:3:52: requested_size 0x80000000 exceeds the region, which has 0x40000000 bytes",
    ),
    "usable above the region": (
        text(vm("usable_size: 2G")),
        "m.yaml:3:49: usable_size 0x80000000 exceeds the region, which has 0x40000000 bytes",
    ),
    "no region": (
        text(vm(size="0")),
        "m.yaml:3:32: a region of 0 bytes has no room for a block",
    ),
    "block size no power of two": (
        text(vm("block_size: 3M")),
        "m.yaml:3:48: virtio_mem.vm0.block_size: a block is a power of two from 1M on, not 0x300000",
    ),
    "block size too small": (
        text(vm("block_size: 64K")),
        "m.yaml:3:48: virtio_mem.vm0.block_size: a block is a power of two from 1M on, not 0x10000",
    ),
    "big block no power of two": (
        text(vm("bbm_block_size: 384M")),
        "m.yaml:3:52: virtio_mem.vm0.bbm_block_size: a block is a power of two from 1M on, not 0x18000000",
    ),
    "beyond the CPU": (
        text(vm(addr="1T")),
        "m.yaml:3:15: the region ends at 0x1003fffffff, beyond the 40 address bits of this CPU",
    ),
    "over RAM": (
        text(vm(addr="256M")),
        (
            "m.yaml:3:15: memory 10000000-4fffffff (virtio-mem vm0) overlaps 00100000-1fffffff (System RAM) "
            "of m.yaml:4:48; move or shorten one of them"
        ),
    ),
    "two that overlap": (
        text(vm(), vm(name="vm1", addr="0x120000000")),
        (
            "m.yaml:4:15: memory 120000000-15fffffff (virtio-mem vm1) overlaps 100000000-13fffffff "
            "(virtio-mem vm0) of m.yaml:3:15; move or shorten one of them"
        ),
    ),
    "no such function": (
        text(vm('pci: "00:01.0"')),
        "m.yaml:3:41: there is no function 0000:00:01.0 in `pci:`; there are none",
    ),
    "no function at all": (
        text(vm("pci: nonsense")),
        "m.yaml:3:41: not the address of a PCI function: 'nonsense'; write 00:1f.2 or 0000:00:1f.2",
    ),
    "loaded before there was a driver": (
        text(vm("loaded: true"), kernel='kernel: {version: "5.4"}\n'),
        "m.yaml:3:44: the driver came with Linux 5.8, and this is 5.4; take `loaded` out",
    ),
    "Kconfig": (
        text(kernel='kernel: {version: "6.1", strict_devmem: false}\n'),
        (
            "m.yaml:2:1: VIRTIO_MEM depends on EXCLUSIVE_SYSTEM_RAM since Linux 5.16, which depends on "
            "!DEVMEM || STRICT_DEVMEM: this kernel could not have the driver; set kernel.strict_devmem to true, "
            "or kernel.devmem to false"
        ),
    ),
}


@pytest.mark.parametrize("case", SINGLE)
def test_what_is_wrong(folder: Folder, case: str) -> None:
    written, expected = SINGLE[case]
    assert folder.check(written) == [expected]


def test_two_devices_with_one_function(folder: Folder) -> None:
    pci = (
        'iomem: ["c0000000-dfffffff : PCI Bus 0000:00"]\n'
        'pci: {functions: {"00:01.0": {id: "1af4:1058", class: "00ff00"}}}\n'
    )
    one, two = vm('pci: "00:01.0"'), vm('pci: "0000:00:01.0"', name="vm1", addr="8G")
    assert folder.check(text(one, two, more=pci)) == [
        "m.yaml:4:41: 0000:00:01.0 is the function of vm0"
    ]


def test_what_follows_from_another_mistake_is_not_reported(folder: Folder) -> None:
    pci = 'pci: {functions: {"00:22.0": {id: "1af4:1058", class: "00ff00"}}}\n'
    (only,) = folder.check(text(vm('pci: "00:01.0"'), more=pci))
    assert "device 0x22 is beyond 1f" in only


@pytest.mark.parametrize(
    ("kernel", "good"),
    [
        ('version: "6.12", strict_devmem: false', False),
        ('version: "5.16", strict_devmem: false', False),
        ('version: "5.12", strict_devmem: false', True),
        ('version: "6.12", strict_devmem: false, devmem: false', True),
        ('version: "6.12", strict_devmem: true, io_strict_devmem: false', True),
    ],
)
def test_kconfig(folder: Folder, kernel: str, good: bool) -> None:
    found = folder.check(text(vm("loaded: true"), kernel=f"kernel: {{{kernel}}}\n"))
    assert (found == []) is good


def test_without_devmem_it_loads_and_the_file_is_not_there(folder: Folder) -> None:
    kernel = 'kernel: {version: "6.12", strict_devmem: false, devmem: false}\n'
    machine = build_machine(folder.load(text(vm("loaded: true"), kernel=kernel)))
    assert lines(machine) == ["100000000-13fffffff : virtio0"]
    directory = Tree(machine).root.lookup("dev")
    assert directory is None or directory.lookup("mem") is None  # type: ignore[attr-defined]
