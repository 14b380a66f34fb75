"""What nodes answer to mmap, lseek, ioctl and calls by name, class by class, in the kernel's order of checks."""

import os
import stat

import pytest
from calling import (
    FIONREAD,
    MAP_FIXED,
    MAP_SYNC,
    OFFSET_LIMIT,
    PAGE,
    PRIVATE,
    SHARED,
    VALIDATE,
    R,
    W,
    X,
    at,
    call,
    mapped,
    said,
    sought,
)
from machines import BAR, RAM, small_machine
from nd_machines import DEV, M, pmem_machine
from pci_recorded import recorded_machine
from pci_tree import Setup, node_at

from fakedev.model.lockdown import lock_kernel_down
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views import kinds
from fakedev.views.calls import IoctlCall, MapCall, SeekCall
from fakedev.views.devmem import DevMem
from fakedev.views.node import TextFile
from fakedev.views.tree import Tree


@pytest.fixture
def pc() -> Setup:
    return Setup(build_machine(load_profile("pc-q35")))


# -- what is the same for all files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (call(1), None),  # EINVAL, by the host
        (call(length=0), None),  # EINVAL
        (call(length=OFFSET_LIMIT - 1), None),  # ENOMEM: it rounds to nothing
        (call(length=1 << 48), None),  # ENOMEM
        (call(flags=SHARED | 0x40000), None),  # MAP_HUGETLB: EINVAL
        (call((1 << 63) - PAGE), "EOVERFLOW"),
        (call(flags=0), "EINVAL"),
        (call(flags=VALIDATE | MAP_SYNC), "EOPNOTSUPP"),
        (call(flags=VALIDATE | MAP_SYNC, prot=W, status=os.O_RDONLY), "EOPNOTSUPP"),
        (call(flags=VALIDATE, prot=R), "ENODEV"),
        (call(prot=R | W, status=os.O_RDONLY), "EACCES"),
        (call(prot=R | W, status=os.O_RDONLY, flags=PRIVATE), "ENODEV"),
        (call(prot=X, status=os.O_WRONLY), "EACCES"),
        (call(prot=X, flags=PRIVATE), "EPERM"),
        (call(prot=0), "ENODEV"),
    ],
)
def test_the_order_of_do_mmap(given: MapCall, expected: str | None) -> None:
    node = TextFile(lambda _: b"", kind=kinds.SYSFS)
    assert said(node.mmap(given)) == expected


def test_a_file_of_no_kind_is_the_hosts() -> None:
    root = Tree(small_machine()).root
    assert root.mmap(call()) is None
    assert root.seek(SeekCall(0, os.SEEK_END, 0)) is None
    assert root.ioctl(IoctlCall(FIONREAD, 0, {})) is None
    assert root.call("fsync") is None
    assert root.look() is None


@pytest.mark.parametrize(
    ("offset", "whence", "position", "expected"),
    [
        (0, os.SEEK_SET, 7, 0),
        (16, os.SEEK_CUR, PAGE, PAGE + 16),
        (-1, os.SEEK_CUR, 0, "EOVERFLOW"),
        (1, os.SEEK_CUR, (1 << 63) - 1, -(1 << 63)),
        (2, os.SEEK_CUR, OFFSET_LIMIT - PAGE - 2, -PAGE),
        (PAGE, os.SEEK_CUR, OFFSET_LIMIT - PAGE, 0),
        (-4095, os.SEEK_SET, 0, "EOVERFLOW"),
        (-4096, os.SEEK_SET, 0, -4096),
        (0, os.SEEK_END, 0, "EINVAL"),
        (0, kinds.SEEK_DATA, 0, "EINVAL"),
        (0, 99, 0, "EINVAL"),
    ],
)
def test_memory_lseek(offset: int, whence: int, position: int, expected: str | int) -> None:
    node = DevMem(small_machine())
    assert sought(node, offset, whence, position) == expected


@pytest.mark.parametrize(
    ("offset", "whence", "expected"),
    [
        (0, os.SEEK_END, PAGE),
        (-PAGE, os.SEEK_END, 0),
        (-PAGE - 1, os.SEEK_END, "EINVAL"),
        (-1, os.SEEK_SET, "EINVAL"),
        (5, os.SEEK_END, PAGE + 5),
        (0, kinds.SEEK_DATA, 0),
        (1, kinds.SEEK_HOLE, PAGE),
        (PAGE, kinds.SEEK_DATA, "ENXIO"),
        (0, 5, None),
    ],
)
def test_generic_file_llseek(offset: int, whence: int, expected: str | int | None) -> None:
    assert sought(TextFile(lambda _: b"", size=PAGE), offset, whence) == expected


# -- /dev/mem and /dev/port -----------------------------------------------------------------------


def test_devmem_is_a_character_device() -> None:
    look = DevMem(small_machine()).look()
    assert (stat.S_IFMT(look.mode), look.rdev, look.size) == (stat.S_IFCHR, os.makedev(1, 1), 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (call(BAR), None),
        (call(0x100000), "EPERM"),
        (call(0x100000, flags=PRIVATE), "EPERM"),
        (call(0xFF000, 0x1001), "EPERM"),  # one page of two
        (call(0x1000), None),  # below 1 MiB
        (call(0x100000, prot=R | W, status=os.O_RDONLY), "EACCES"),
        (call(1 << 40), "EINVAL"),  # wider than the CPU's addresses
        (call(1 << 63), "EINVAL"),
        (call(1 << 63, prot=W, status=os.O_RDONLY), "EACCES"),
        (call(OFFSET_LIMIT - PAGE), "EINVAL"),
        (call(OFFSET_LIMIT - PAGE, PAGE + 1), "EOVERFLOW"),
        (call(BAR, prot=X), None),  # devtmpfs is not SB_I_NOEXEC
    ],
)
def test_mmap_of_devmem(given: MapCall, expected: str | None) -> None:
    assert said(DevMem(small_machine()).mmap(given)) == expected


def test_an_answer_has_the_rule_and_the_range() -> None:
    machine = small_machine()
    machine.claim(Range(BAR, PAGE), "driver")
    answer = DevMem(machine).mmap(call(BAR - PAGE, 2 * PAGE + 1))
    assert answer is not None
    assert "iomem_is_exclusive" in answer.rule
    assert "driver" in answer.rule
    assert answer.span == Range(BAR - PAGE, 3 * PAGE)


def test_lockdown_spares_open_devmem() -> None:
    machine = small_machine()
    lock_kernel_down(machine, "integrity", "a test", "me")
    assert mapped(DevMem(machine), BAR) is None


def test_ram_without_strict_devmem() -> None:
    loose = {"strict_devmem": False}
    assert mapped(DevMem(small_machine("6.1", **loose)), 0x100000) == "EINVAL"
    assert mapped(DevMem(small_machine("7.2", **loose)), 0x100000) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fsync", "EINVAL"), ("fdatasync", "EINVAL"), ("ftruncate", "EINVAL"), ("sendfile", "EINVAL"),
        ("splice", "EINVAL"), ("copy_file_range", "EINVAL"), ("readahead", "EINVAL"), ("fcntl", "EINVAL"),
        ("sync_file_range", "ESPIPE"), ("fadvise64", None),
    ],
)  # fmt: skip
def test_calls_on_a_device(name: str, expected: str | None) -> None:
    assert said(DevMem(small_machine()).call(name)) == expected


def test_a_device_knows_no_commands_of_files() -> None:
    node = DevMem(small_machine())
    assert said(node.ioctl(IoctlCall(FIONREAD, 0, {}))) == "ENOTTY"
    assert node.ioctl(IoctlCall(0x5401, 0, {})) is None  # TCGETS: the host knows


def test_ports_cannot_be_mapped() -> None:
    port = node_at(Tree(recorded_machine(port=True)), "/dev/port")
    look = port.look()
    assert look is not None
    assert (stat.S_IFMT(look.mode), look.rdev) == (stat.S_IFCHR, os.makedev(1, 4))
    assert mapped(port) == "ENODEV"
    assert sought(port, 0, os.SEEK_END) == "EINVAL"


# -- /proc and /sys -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/proc/iomem", "/proc/ioports", "/proc/bus/pci/devices"])
def test_files_of_proc(pc: Setup, path: str) -> None:
    node = at(pc, path)
    assert mapped(node) == "EIO"
    assert mapped(node, prot=R | X) == "EPERM"
    assert sought(node, 0, os.SEEK_END) == "EINVAL"
    assert sought(node, 0, os.SEEK_SET) is None
    assert said(node.call("fsync")) == "EINVAL"
    assert node.call("sendfile") is None


def test_kcore_has_an_end(pc: Setup) -> None:
    node = at(pc, "/proc/kcore")
    assert mapped(node) == "EIO"
    assert sought(node, 0, os.SEEK_END) == node.attr().size
    assert node.look() is None


@pytest.mark.parametrize("name", ["vendor", "config", "rom", "resource1", "remove"])
def test_attributes_have_no_mmap(pc: Setup, name: str) -> None:
    node = pc.attribute("0000:00:03.0", name)
    assert mapped(node) == "ENODEV"
    assert mapped(node, prot=R | X) == "EPERM"
    assert mapped(node, prot=W, status=os.O_RDONLY) == "EACCES"
    assert node.call("fsync") is None
    assert sought(node, 0, os.SEEK_END) == node.attr().size


def test_a_profiles_own_files_are_of_their_place(pc: Setup) -> None:
    kind = {
        path: node.kind for path, node in pc.tree.walk(live=False) if isinstance(node, TextFile)
    }
    assert kind["/sys/firmware/dmi/tables/DMI"] is kinds.SYSFS
    assert all(one is kinds.SEQ_FILE for path, one in kind.items() if path.startswith("/proc/"))


# -- persistent memory ----------------------------------------------------------------------------


@pytest.fixture
def pmem() -> Machine:
    return pmem_machine()


def test_device_dax(pmem: Machine) -> None:
    node = node_at(Tree(pmem), "/dev/dax1.0")
    look = node.look()
    assert look is not None
    assert (stat.S_IFMT(look.mode), look.rdev) == (stat.S_IFCHR, os.makedev(252, 1))
    assert mapped(node, 0, 2 * M) is None
    assert mapped(node, 0, PAGE) == "EINVAL"
    assert mapped(node, PAGE, 2 * M) == "EINVAL"
    assert mapped(node, PAGE, 2 * M, flags=SHARED | MAP_FIXED) is None
    assert mapped(node, 1 << 40, 2 * M) is None  # the touch fails
    assert mapped(node, 0, 2 * M, flags=PRIVATE) == "EINVAL"
    assert sought(node, 5, os.SEEK_END, 7) == 7
    assert said(node.call("fsync")) == "EINVAL"
    pmem.nd.unplug("region1")
    assert mapped(node, 0, PAGE, flags=PRIVATE) == "ENXIO"


def test_a_block_device(pmem: Machine) -> None:
    node = node_at(Tree(pmem), "/dev/pmem0")
    look, size = node.look(), node.attr().size
    assert look is not None
    assert (stat.S_IFMT(look.mode), look.rdev) == (stat.S_IFBLK, os.makedev(259, 0))
    assert sought(node, 0, os.SEEK_END) == size
    assert sought(node, 1, os.SEEK_END) == "EINVAL"
    assert said(node.call("ftruncate")) == "EINVAL"
    assert node.call("fsync") is None
    assert mapped(node, DEV, PAGE) is None  # behind its end: the touch fails


def test_a_file_of_a_file_system(pmem: Machine) -> None:
    node = node_at(Tree(pmem), "/dev/pmem-fs/pmem0/data0")
    assert node.look() is None
    assert mapped(node, flags=PRIVATE) is None
    assert sought(node, 0, os.SEEK_END) == node.attr().size


def test_mailboxes_of_cxl() -> None:
    node = node_at(Tree(build_machine(load_profile("server-pmem-cxl"))), "/dev/cxl/mem1")
    look = node.look()
    assert look is not None
    assert (stat.S_IFMT(look.mode), look.rdev) == (stat.S_IFCHR, os.makedev(251, 1))
    assert mapped(node) == "ENODEV"


def test_ram_that_is_plugged_in_is_refused_at_once() -> None:
    machine = small_machine()
    node = DevMem(machine)
    start = 0x800000000
    assert mapped(node, start) is None
    with machine.lock:
        machine.tree.insert_resource(Resource(start, start + M - 1, "System RAM", RAM))
        machine.policy = machine.policy.updated(machine.tree, start, start + M)
    assert mapped(node, start) == "EPERM"
