"""What the files of PCI functions answer to mmap, lseek and ioctl."""

import os

import pytest
from calling import (
    FIONREAD,
    PAGE,
    X,
    at,
    call,
    ioctl,
    mapped,
    remove,
    said,
    sought,
)
from pci_tree import EDU, IVSHMEM, Setup

from fakedev.model.lockdown import lock_kernel_down
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views import kinds
from fakedev.views.calls import IoctlCall
from fakedev.views.pci import proc_file as proc
from fakedev.views.pci.resource import ResourceFile


@pytest.fixture
def pc() -> Setup:
    return Setup(build_machine(load_profile("pc-q35")))


# -- resourceN ------------------------------------------------------------------------------------


def resource(setup: Setup, name: str, file: str) -> ResourceFile:
    node = setup.attribute(name, file)
    assert isinstance(node, ResourceFile)
    return node


def test_mmap_of_a_bar(pc: Setup) -> None:
    node = resource(pc, EDU, "resource0")
    size = node.bar.size
    assert mapped(node, 0, size) is None
    assert mapped(node, size - PAGE) is None
    assert mapped(node, 0, size + 1) == "EINVAL"
    assert mapped(node, size) == "EINVAL"
    assert mapped(node, prot=X) == "EPERM"
    assert mapped(node, 1 << 63) == "EOVERFLOW"
    assert mapped(resource(pc, IVSHMEM, "resource2_wc")) is None


def test_the_first_page_of_a_bar_decides(pc: Setup) -> None:
    node = resource(pc, EDU, "resource0")
    pc.machine.claim(Range(node.bar.start + PAGE, PAGE), "second")
    assert mapped(node, PAGE) is None
    pc.machine.claim(Range(node.bar.start, 16), "first")
    assert mapped(node, 5 * PAGE) == "EINVAL"
    answer = node.mmap(call())
    assert answer is not None
    assert "first" in answer.rule


def test_a_bar_that_is_no_page(pc: Setup) -> None:
    node = resource(pc, IVSHMEM, "resource0")
    assert node.bar.size == 0x100
    assert mapped(node) is None
    assert mapped(node, 0, PAGE + 1) == "EINVAL"


def test_lockdown_comes_before_the_claim_and_the_size(pc: Setup) -> None:
    node = resource(pc, EDU, "resource0")
    pc.machine.claim(Range(node.bar.start, 16), "driver")
    lock_kernel_down(pc.machine, "integrity", "a test", "me")
    assert mapped(node) == "EPERM"
    assert mapped(node, node.bar.size) == "EPERM"


def test_a_removed_function(pc: Setup) -> None:
    bar, io, config = (
        pc.attribute("0000:00:03.0", n) for n in ("resource0", "resource1", "config")
    )
    entry = at(pc, "/proc/bus/pci/00/03.0")
    remove(pc, "0000:00:03.0")
    lock_kernel_down(pc.machine, "integrity", "a test", "me")
    assert [mapped(node) for node in (bar, io, config, entry)] == ["ENODEV"] * 3 + ["EIO"]
    assert mapped(bar, prot=X) == "EPERM"
    assert sought(bar, 0, os.SEEK_END) == 0
    assert sought(entry, 0, os.SEEK_END) == "EINVAL"
    assert said(entry.ioctl(IoctlCall(proc.PCIIOC_CONTROLLER, 0, {}))) == "ENOTTY"


@pytest.mark.parametrize(
    ("version", "ends"),
    [
        ("5.10", (0x100000, 0x100001, None)),
        ("6.1", (0, 1, "ENXIO")),
        ("6.12", (0x100000, "EINVAL", "EINVAL")),
    ],
)
def test_the_end_of_a_bar(version: str, ends: tuple[str | int | None, ...]) -> None:
    node = resource(versioned(version), EDU, "resource0")
    data = sought(node, 0, kinds.SEEK_DATA)
    found = (sought(node, 0, os.SEEK_END), sought(node, 1, os.SEEK_END), data or None)
    assert found == ends


def versioned(version: str) -> Setup:
    profile = load_profile("pc-q35", overrides=[f"kernel.version={version}"])
    return Setup(build_machine(profile))


def test_a_removed_bar_has_no_end_from_6_12() -> None:
    setup = versioned("6.12")
    node = resource(setup, EDU, "resource0")
    remove(setup, EDU)
    assert sought(node, 0, os.SEEK_END) == "ENODEV"


def test_io_bars_from_7_2() -> None:
    setup = versioned("7.2")
    node = setup.attribute("0000:00:03.0", "resource1")
    assert mapped(node) == "EINVAL"
    lock_kernel_down(setup.machine, "integrity", "a test", "me")
    assert mapped(node) == "EPERM"
    remove(setup, "0000:00:03.0")
    assert mapped(node) == "ENODEV"


# -- /proc/bus/pci --------------------------------------------------------------------------------


def test_commands_of_proc_bus_pci(pc: Setup) -> None:
    node = at(pc, "/proc/bus/pci/00/05.0")
    assert ioctl(node, proc.PCIIOC_CONTROLLER) == (0, {})
    assert ioctl(node, proc.PCIIOC_MMAP_IS_IO) == ("EINVAL", {})
    assert ioctl(node, proc.PCIIOC_MMAP_IS_MEM)[0] == 0
    assert ioctl(node, proc.PCIIOC_WRITE_COMBINE + 1) == ("EINVAL", {})
    assert ioctl(node, FIONREAD) == (None, {})
    lock_kernel_down(pc.machine, "integrity", "a test", "me")
    assert ioctl(node, proc.PCIIOC_CONTROLLER) == ("EPERM", {})


def test_mmap_of_proc_bus_pci(pc: Setup) -> None:
    node, bar = at(pc, "/proc/bus/pci/00/05.0"), resource(pc, EDU, "resource0").bar
    assert mapped(node, bar.start) == "EINVAL"
    _, state = ioctl(node, proc.PCIIOC_MMAP_IS_MEM)
    assert mapped(node, bar.start, bar.size, state=state) is None
    assert mapped(node, bar.start, bar.size + 1, state=state) == "ENODEV"
    assert mapped(node, 0, state=state) == "ENODEV"
    assert mapped(node, bar.start, prot=X, state=state) == "EPERM"
    assert mapped(node, bar.start, state=state, capable=lambda _: False) == "EPERM"
    ioctl(node, proc.PCIIOC_WRITE_COMBINE, 1)
    combined = state | ioctl(node, proc.PCIIOC_WRITE_COMBINE, 1)[1]
    assert mapped(node, bar.start, state=combined) == "EINVAL"  # not prefetchable
    assert mapped(node, bar.start, state=state | ioctl(node, proc.PCIIOC_WRITE_COMBINE)[1]) is None
    pc.machine.claim(Range(bar.start, 16), "driver")
    assert mapped(node, bar.start + PAGE, state=state) == "EINVAL"
    lock_kernel_down(pc.machine, "integrity", "a test", "me")
    assert mapped(node, 0, state=state) == "EPERM"


def test_a_prefetchable_bar_is_write_combined(pc: Setup) -> None:
    node = at(pc, "/proc/bus/pci/00/02.0")
    bar = resource(pc, IVSHMEM, "resource2").bar
    _, state = ioctl(node, proc.PCIIOC_MMAP_IS_MEM)
    assert mapped(node, bar.start, state=state | {"write_combine": 1}) is None


def test_the_end_of_a_configuration_space(pc: Setup) -> None:
    node = at(pc, "/proc/bus/pci/00/05.0")
    assert sought(node, 0, os.SEEK_END) == 256
    assert sought(node, 1, os.SEEK_END) == "EINVAL"
    assert sought(node, 0, kinds.SEEK_HOLE) == "EINVAL"
    assert said(node.call("splice")) == "EINVAL"
