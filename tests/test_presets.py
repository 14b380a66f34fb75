"""Each kernel preset, row by row of the version table (kernel-semantics section 0), as tools meet it."""

import errno
from pathlib import Path
from typing import Any

import pytest
from machines import BAR, HIGH, TOP, small_machine
from pci_machines import effects_of, q35_machine
from pci_tree import E1000, WRITER, device_path, directory_at, node_at

from fakedev.control.explaining import explain
from fakedev.model.effects import Changed, Revoke
from fakedev.model.flags import (
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_MEM,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import PRESETS, KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.policy import Policy
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree
from fakedev.model.verdict import Verdict
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.node import Refused
from fakedev.views.pci.resource import ResourceFile
from fakedev.views.tree import Tree

PAGE = 4096
VIRTIO = 0x2_0000_0000
RAM = IORESOURCE_SYSTEM_RAM
VERSIONS = ("5.4", "5.10", "5.12", "5.16", "6.1", "6.12", "7.2")
every_preset = pytest.mark.parametrize("version", VERSIONS)


def row(text: str) -> pytest.MarkDecorator:
    """One cell for each preset: `version`, `cell`."""
    return pytest.mark.parametrize(
        ("version", "cell"), list(zip(VERSIONS, text.split(), strict=True))
    )


def code(verdict: Verdict) -> str:
    return errno.errorcode[verdict.errno] if verdict.errno else "ok"


def test_these_are_the_presets() -> None:
    assert tuple(PRESETS) == VERSIONS
    for version, rules in PRESETS.items():
        assert rules == KernelRules.preset(version)
        assert (rules.strict_devmem, rules.io_strict_devmem) == (True, True)


# -- revocation, and who shares the mapping -------------------------------------------------------


@row("neither devmem both both both both both")
def test_which_mappings_a_claim_ends(version: str, cell: str) -> None:
    machine = small_machine(version)
    effects = effects_of(machine)
    opened = machine.now
    machine.claim(Range(BAR, 0x10000), "fpga")
    assert [type(effect) for effect in effects] == ([] if cell == "neither" else [Revoke])
    through_mem = bool(machine.fault(BAR, PAGE, opened=opened)[1])
    through_pci = bool(machine.fault_bar(Range(BAR, 0x10000), BAR, PAGE, opened=opened)[1])
    lives = {"neither": (True, True), "devmem": (False, True), "both": (False, False)}
    assert (through_mem, through_pci) == lives[cell]


@row("yes yes no no no no no")
def test_mappings_of_a_removed_pci_file_die(version: str, cell: str) -> None:
    machine = q35_machine()
    machine.rules = KernelRules.preset(version, phys_bits=40)
    file = node_at(Tree(machine), f"{device_path(E1000)}/resource0")
    assert isinstance(file, ResourceFile)
    handle = file.open(WRITER)
    device = machine.pci.devices[E1000]
    if device.driver:
        machine.pci.unbind(device.driver.name, E1000)
    effects = effects_of(machine)
    machine.pci.remove(device, "1")
    zapped = [effect.span for effect in effects if isinstance(effect, Changed)]
    assert (file.bar in zapped) is (cell == "yes")
    if cell == "yes":
        with pytest.raises(Refused) as caught:
            handle.fault(0, PAGE)
        assert caught.value.errno == errno.ENODEV
    else:
        assert handle.fault(0, PAGE)


@every_preset
def test_new_accesses_to_a_claim_are_refused(version: str) -> None:
    machine = small_machine(version)
    machine.claim(Range(BAR, PAGE), "fpga")
    policy = machine.policy
    assert code(policy.read(BAR, 4)) == code(policy.mmap(BAR, PAGE)) == "EPERM"
    assert code(policy.mmap_bar(Range(BAR, 0x10000))) == "EINVAL"
    assert code(policy.mmap(BAR + PAGE, PAGE)) == "ok"


# -- what is exclusive ----------------------------------------------------------------------------


def with_virtio_mem(version: str, **rules: Any) -> Machine:
    """RAM-flagged, EXCLUSIVE and not BUSY: the region of a virtio-mem driver."""
    machine = small_machine(version, **rules)
    flags = RAM | IORESOURCE_EXCLUSIVE
    machine.tree.insert_resource(Resource(VIRTIO, VIRTIO + (1 << 30) - 1, "virtio0", flags))
    machine.policy = Policy(machine.tree, machine.rules, high_memory=VIRTIO + (1 << 30))
    return machine


@row("no no no yes yes yes yes")
@pytest.mark.parametrize("cmdline", ["", "iomem=relaxed"])
def test_exclusive_system_ram_that_is_not_busy(version: str, cell: str, cmdline: str) -> None:
    expected = "EPERM" if cell == "yes" else "ok"
    for arch in ("aarch64", "riscv64"):
        machine = with_virtio_mem(version, arch=arch, cmdline=cmdline)
        assert code(machine.policy.mmap(VIRTIO, PAGE)) == expected
    # x86 finds the RAM flag, and has refused it before
    machine = with_virtio_mem(version, cmdline=cmdline)
    assert code(machine.policy.mmap(VIRTIO, PAGE)) == "EPERM"
    assert (machine.policy.iomem_is_exclusive(VIRTIO) is not None) is (cell == "yes")


@row("no yes yes yes yes yes yes")
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_a_claim_of_system_ram_revokes_even_relaxed(version: str, cell: str, arch: str) -> None:
    """It is BUSY at that moment, so every architecture finds RAM there."""
    machine = small_machine(version, arch=arch, cmdline="iomem=relaxed")
    effects = effects_of(machine)
    machine._claim(Range(VIRTIO, 1 << 30), "virtio0", RAM)
    assert [type(effect) for effect in effects] == ([Revoke] if cell == "yes" else [])


@every_preset
@pytest.mark.parametrize("exclusive", [False, True])
def test_relaxed_opens_every_other_claim(version: str, exclusive: bool) -> None:
    machine = small_machine(version, cmdline="iomem=relaxed")
    effects = effects_of(machine)
    machine.claim(Range(BAR, PAGE), "fpga", exclusive=exclusive)
    assert code(machine.policy.read(BAR, 4)) == code(machine.policy.mmap(BAR, PAGE)) == "ok"
    assert code(machine.policy.mmap_bar(Range(BAR, PAGE))) == "ok"
    assert effects == []


@every_preset
@pytest.mark.parametrize(
    ("flags", "plain", "io_strict"),
    [
        (0, "ok", "ok"),
        (IORESOURCE_BUSY, "ok", "EPERM"),
        (IORESOURCE_EXCLUSIVE, "ok", "ok"),
        (IORESOURCE_BUSY | IORESOURCE_EXCLUSIVE, "EPERM", "EPERM"),
    ],
)
def test_busy_and_exclusive(version: str, flags: int, plain: str, io_strict: str) -> None:
    for strict, expected in ((False, plain), (True, io_strict)):
        tree = ResourceTree()
        tree.insert_resource(Resource(BAR, BAR + 0xFFFF, "board", IORESOURCE_MEM | flags))
        rules = KernelRules.preset(version, io_strict_devmem=strict)
        assert code(Policy(tree, rules, high_memory=TOP).mmap(BAR, PAGE)) == expected


# -- region_intersects ----------------------------------------------------------------------------


@row("no yes no no yes yes yes")
@pytest.mark.parametrize("parent", ["Soft Reserved", "CXL Window 0", "Persistent Memory"])
def test_ram_below_the_top_level_is_seen(version: str, cell: str, parent: str) -> None:
    text = f"200000000-2ffffffff : {parent}\n  210000000-2ffffffff : System RAM (kmem)\n"
    tree = build_tree(parse_iomem(text))
    rules = KernelRules.preset(version, io_strict_devmem=False)
    policy = Policy(tree, rules, high_memory=0x3_0000_0000)
    assert code(policy.read(0x2_2000_0000, 8)) == ("EPERM" if cell == "yes" else "ok")
    assert code(policy.read(0x2_0000_0000, 8)) == "ok"


@row("no yes no no yes yes yes")
def test_the_back_port_can_be_switched(version: str, cell: str) -> None:
    rules = KernelRules.preset(version, descend_region_intersects=cell == "no")
    assert rules.looks_below_top_level is (cell == "no")


# -- mmap of RAM without STRICT_DEVMEM ------------------------------------------------------------


@row("EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL ok")
def test_mmap_of_ram_without_strict_devmem(version: str, cell: str) -> None:
    machine = small_machine(version, strict_devmem=False)
    assert code(machine.policy.mmap(HIGH, PAGE)) == cell
    assert code(machine.policy.read(HIGH, PAGE)) == "ok"
    without_pat = small_machine(version, strict_devmem=False, cmdline="nopat")
    assert code(without_pat.policy.mmap(HIGH, PAGE)) == "ok"
    other = small_machine(version, strict_devmem=False, arch="aarch64")
    assert code(other.policy.mmap(HIGH, PAGE)) == "ok"


# -- /proc/iomem ----------------------------------------------------------------------------------


@row("5 5 5 5 5 5 8")
def test_how_deep_iomem_is_indented(version: str, cell: str) -> None:
    tree = ResourceTree()
    for depth in range(10):
        tree.insert_resource(Resource(depth << 12, 0xFFFFF - (depth << 12), f"level {depth}"))
    machine = Machine(KernelRules.preset(version), PhysicalMemory(), tree)
    indents = [len(line) - len(line.lstrip()) for line in machine.iomem().splitlines()]
    assert indents == [2 * min(depth, int(cell)) for depth in range(10)]


@row("no no no no no no yes")
def test_children_follow_when_memory_is_split(version: str, cell: str) -> None:
    tree = ResourceTree()
    flags = RAM | IORESOURCE_BUSY
    for start, end, name in ((0x10000, 0x1FFFF, "System RAM"), (0x1C000, 0x1CFFF, "child")):
        tree.insert_resource(Resource(start, end, name, flags))
    reparent = KernelRules.preset(version).reparents_on_split
    assert reparent is (cell == "yes")
    assert tree.release_mem_region_adjustable(0x14000, 0x4000, reparent=reparent) is reparent


SOFT_RESERVED = """
fakedev: 1
firmware:
  e820:
    - {range: 100000-1fffffff, type: System RAM}
    - {range: 100000000-13fffffff, type: Soft Reserved}
"""


@row("yes yes yes yes yes yes no")
def test_soft_reserved_is_listed_at_boot(version: str, cell: str, tmp_path: Path) -> None:
    path = tmp_path / "soft.yaml"
    path.write_text(SOFT_RESERVED)
    profile = load_profile(str(path), overrides=[f"kernel.version='{version}'"])
    machine = build_machine(profile)
    assert ("100000000-13fffffff : Soft Reserved" in machine.iomem()) is (cell == "yes")
    # the firmware's own map is what it is, and so is the memory
    assert b"Soft Reserved\n" in [file.data for file in machine.files.values()]
    assert machine.peek(Range(0x1_0000_0000, 8)) == bytes(8)


# -- files of PCI ---------------------------------------------------------------------------------


@row("ENODEV ENODEV ENODEV ENODEV ENODEV ENODEV EINVAL")
def test_mmap_of_an_io_bar(version: str, cell: str) -> None:
    machine = build_machine(load_profile("pc-q35", overrides=[f"kernel.version='{version}'"]))
    name, index = next(
        (device.name, at)
        for device in machine.pci.devices.values()
        for at, resource in enumerate(device.resources[:6])
        if resource.flags and resource.is_io
    )
    path = f"/sys/bus/pci/devices/{name}/resource{index}"
    assert code(explain(machine, "mmap", path)) == cell


@row("no no no yes yes yes yes")
def test_reset_method(version: str, cell: str) -> None:
    machine = build_machine(load_profile("workstation", overrides=[f"kernel.version='{version}'"]))
    tree = Tree(machine)
    paths = [device.path for device in machine.pci.devices.values()]
    names = {name for path in paths for name in directory_at(tree, path).entries()}
    assert "reset" in names
    assert ("reset_method" in names) is (cell == "yes")


# -- the other architectures: sections 1.3, 1.4 and 2.1 -------------------------------------------

GENERIC_IOMEM = """
00080000-000fffff : firmware
09000000-09000fff : pl011@9000000
  09000000-09000fff : uart-pl011
10000000-3efeffff : PCI Bus 0000:00
  10000000-10003fff : 0000:00:01.0
40000000-7fffffff : System RAM
  41000000-41ffffff : Kernel code
  7c000000-7fffffff : reserved
80000000-8000ffff : reserved
90000000-900007ff : System RAM
"""
FIRMWARE, UART, IDLE, CODE, NOMAP, HALF = (
    0x8_0000, 0x900_0000, 0x1000_0000, 0x4100_0000, 0x8000_0000, 0x9000_0000,
)  # fmt: skip
GENERIC = [
    # address, read on arm64, read on riscv64, mmap on both
    (FIRMWARE, "EFAULT", "EFAULT", "ok"),  # nothing is special about the first MiB
    (UART, "EFAULT", "EPERM", "EPERM"),  # on riscv64 below high_memory: the policy answers first
    (IDLE, "EFAULT", "EFAULT", "ok"),
    (CODE, "EPERM", "EPERM", "EPERM"),
    (NOMAP, "EFAULT", "EFAULT", "ok"),
    (HALF, "EPERM", "EPERM", "EPERM"),  # BUSY, so exclusive; it is no RAM: not a whole page
]


def generic(version: str, arch: str, **rules: Any) -> Policy:
    tree = build_tree(parse_iomem(GENERIC_IOMEM))
    node = tree.root.first_overlap(UART, UART)
    assert node is not None
    node.children[0].flags |= IORESOURCE_BUSY
    return Policy(tree, KernelRules.preset(version, arch=arch, **rules), high_memory=HALF + 0x800)


@every_preset
@pytest.mark.parametrize(("address", "arm", "riscv", "mapped"), GENERIC)
def test_generic_rules(version: str, address: int, arm: str, riscv: str, mapped: str) -> None:
    for arch, read in (("aarch64", arm), ("riscv64", riscv)):
        policy = generic(version, arch)
        assert code(policy.read(address, 4)) == code(policy.write(address, 4)) == read
        assert code(policy.mmap(address, PAGE)) == mapped


@every_preset
@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
def test_generic_low_memory_has_no_zeros(version: str, arch: str) -> None:
    """RAM below 1 MiB is refused as any other RAM; a claim there is protected and revokes."""
    machine = small_machine(version, arch=arch)
    assert code(machine.policy.read(0x2000, 8)) == "EPERM"
    assert code(machine.policy.mmap(0x2000, PAGE)) == "EPERM"
    claimed = machine.claim(Range(0xC0000, PAGE), "rom")
    assert (machine.policy.should_revoke(claimed) is not None) is (version != "5.4")
    x86 = small_machine(version)
    assert x86.policy.should_revoke(x86.claim(Range(0xC0000, PAGE), "rom")) is None


@every_preset
@pytest.mark.parametrize(
    ("arch", "address", "size", "read", "mapped"),
    [
        ("aarch64", 0x7FFF_F000, 0x1001, "EFAULT", "ok"),  # across the end of a memory block
        ("aarch64", 0, 0, "EFAULT", "EINVAL"),
        ("riscv64", 0, 0, "ok", "EINVAL"),
        ("aarch64", 1 << 48, PAGE, "EFAULT", "EINVAL"),
        ("riscv64", 1 << 60, PAGE, "EFAULT", "ok"),
    ],
)
def test_generic_ranges(
    version: str, arch: str, address: int, size: int, read: str, mapped: str
) -> None:
    policy = generic(version, arch, strict_devmem=False)
    assert code(policy.read(address, size)) == read
    assert code(policy.mmap(address, size)) == mapped


@every_preset
@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
def test_generic_without_the_switches(version: str, arch: str) -> None:
    policy = generic(version, arch, strict_devmem=False)
    assert code(policy.read(CODE, 8)) == code(policy.mmap(CODE, PAGE)) == "ok"
    assert code(policy.read(UART, 4)) == "EFAULT"  # no way to read registers here
    policy = generic(version, arch, io_strict_devmem=False)
    assert code(policy.mmap(UART, PAGE)) == code(policy.mmap(HALF, PAGE)) == "ok"
    assert code(policy.mmap(CODE, PAGE)) == "EPERM"
