"""Persistent memory and device-dax in the model: modes, claims, blocks, removal, pins."""

import contextlib
import errno
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nd_machines import (
    DEV,
    FS,
    M,
    blocks_of,
    listing,
    pmem_machine,
    refused,
    text_at,
    tree,
    until,
)

from fakedev.model.effects import Effect, NodesChanged, Revoke
from fakedev.model.errors import ControlError, ProfileError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

STAGES = Path(__file__).parent / "data" / "truth-nd"
BUS = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0"


@pytest.fixture
def machine() -> Machine:
    return pmem_machine()


@pytest.fixture(scope="module")
def q35() -> Machine:
    return build_machine(load_profile("pc-q35"))


def errnos(machine: Machine, address: int) -> tuple[str, str]:
    """What a read of 16 bytes and an mmap of a page answer."""
    verdicts = machine.policy.read(address, 16), machine.policy.mmap(address, 4096)
    names = ["" if v.allowed else errno.errorcode[v.errno] for v in verdicts]
    return names[0], names[1]


def test_the_recorded_stages(q35: Machine) -> None:
    """Phase `nvdimm` of the recording: the tree, and what /dev/mem answers, at each stage."""
    near, far = 0x150000000, 0x140000000
    expected = [
        ("0", None, {near: ("EFAULT", "")}),
        ("1-pmem", lambda: q35.nd.modprobe("nfit"),
         {near: ("EFAULT", "EPERM"), far: ("EFAULT", "EPERM")}),
        ("2-devdax", lambda: q35.nd.set_mode("namespace0.0", "devdax"),
         {near: ("EFAULT", "EPERM"), near + 64 * M: ("EFAULT", "EPERM")}),
        ("3-kmem", lambda: q35.nd.set_mode("namespace0.0", "kmem"),
         {near: ("EPERM", "EPERM"), near + 128 * M: ("EPERM", "EPERM"),
          near + 200 * M: ("EPERM", "EPERM")}),
    ]  # fmt: skip
    for name, step, answers in expected:
        if step is not None:
            step()
        recorded = (STAGES / f"iomem-nd-{name}.txt").read_text()
        assert listing(q35.iomem()) == listing(recorded), name
        assert {at: errnos(q35, at) for at in answers} == answers, name
    assert [b.state for b in q35.blocks.within(Range(near + 128 * M, 128 * M))] == ["offline"]


def test_each_mode_and_back(machine: Machine) -> None:
    boot = machine.iomem()
    assert tree(machine) == [
        "100000000-11fffffff : Persistent Memory",
        "  100000000-11fffffff : namespace0.0",
        "140000000-15fffffff : Persistent Memory",
        "  140000000-1405fffff : namespace1.0",
        "  140600000-14fffffff : dax1.0",
        "  150000000-15fffffff : namespace1.1",
    ]
    machine.nd.set_mode("namespace1.0", "system-ram")
    assert tree(machine)[3:6] == [
        "  140000000-1405fffff : namespace1.0",
        "  148000000-14fffffff : dax1.0",
        "    148000000-14fffffff : System RAM (kmem)",
    ]
    assert machine.high_memory == 0x150000000
    machine.nd.set_mode("namespace1.0", "raw")
    assert tree(machine)[3] == "  140000000-14fffffff : namespace1.0"
    machine.nd.set_mode("namespace1.0", "devdax")
    assert machine.iomem() == boot


def test_online_memory_keeps_its_mode(machine: Machine) -> None:
    machine.nd.set_mode("namespace1.0", "kmem")
    number = blocks_of(machine, 0x148000000, 128 * M)[0]
    machine.blocks.online(number, "online_movable")
    before = machine.iomem()
    with refused(errno.EBUSY):
        machine.nd.set_mode("namespace1.0", "devdax")
    assert machine.iomem() == before
    machine.blocks.offline(number)
    machine.nd.set_mode("namespace1.0", "devdax")


def test_unbind_of_online_memory_leaks_it(machine: Machine) -> None:
    machine.nd.set_mode("namespace1.0", "kmem")
    number = blocks_of(machine, 0x148000000, 128 * M)[0]
    machine.blocks.online(number, "online_movable")
    before = machine.iomem()
    machine.nd.unbind("kmem", "dax1.0\n")
    assert machine.iomem() == before
    assert any("cannot be hotremoved until the next reboot" in e.message for e in machine.events)
    for driver in ("kmem", "device_dax"):
        with refused(errno.EBUSY):
            machine.nd.bind(driver, "dax1.0")
    machine.reset()
    assert tree(machine)[3:5] == [
        "  140000000-1405fffff : namespace1.0",
        "  140600000-14fffffff : dax1.0",
    ]
    assert machine.nd.dax_device("dax1.0").driver == "device_dax"


def test_drivers_as_sysfs_has_them(machine: Machine) -> None:
    nd = machine.nd
    with refused(errno.EBUSY):
        nd.bind("kmem", "dax1.0")
    with refused(errno.ENODEV):
        nd.unbind("kmem", "dax1.0")
    with refused(errno.ENODEV):
        nd.bind("kmem", "dax9.0")
    with refused(errno.EINVAL):
        nd.new_id("kmem", "hello")
    nd.unbind("device_dax", "dax1.0\n")
    assert all("dax1.0" not in line for line in tree(machine))
    nd.new_id("kmem", "dax1.0")
    assert nd.dax_device("dax1.0").driver == "kmem"
    nd.unbind("kmem", "dax1.0")
    nd.bind("device_dax", "dax1.0")
    assert "  140600000-14fffffff : dax1.0" in tree(machine)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("nvdimm.regions.1.target_node=-1", "invalid node"),
        ("memory_blocks.size=1G", "no whole memory block"),
    ],
)
def test_what_kmem_cannot_have(setting: str, why: str) -> None:
    machine = pmem_machine(setting)
    before = machine.iomem()
    with pytest.raises(ControlError, match=why) as caught:
        machine.nd.set_mode("namespace1.0", "kmem")
    assert caught.value.errno == errno.EINVAL
    assert machine.iomem() == before


def test_a_mode_that_cannot_be_claimed_leaves_the_old_one(machine: Machine) -> None:
    before = machine.nd.namespace("namespace1.1").mode
    for mode, number in (("fast", errno.EINVAL), ("", errno.EINVAL)):
        with refused(number):
            machine.nd.set_mode("namespace1.1", mode)
    with refused(errno.ENODEV):
        machine.nd.set_mode("namespace7.0", "raw")
    assert machine.nd.namespace("namespace1.1").mode == before


def test_claims_revoke_and_files_change(machine: Machine) -> None:
    effects: list[Effect] = []
    machine.subscribers.append(effects.append)
    machine.nd.set_mode("namespace1.1", "devdax")
    spans = [e.span for e in effects if isinstance(e, Revoke)]
    assert Range(0x150000000, 256 * M) in spans
    names = {
        (e.directory, name) for e in effects if isinstance(e, NodesChanged) for name in e.names
    }
    assert (f"{BUS}/region1", "dax1.2") in names
    assert ("/dev", "pmem1.1") in names


def test_what_sysfs_says(machine: Machine) -> None:
    at = f"{BUS}/region1/namespace1.0"
    assert text_at(machine, f"{at}/mode") == "dax"
    assert text_at(machine, f"{at}/holder") == "dax1.0"
    assert text_at(machine, f"{BUS}/region1/dax_seed") == "dax1.1"
    assert text_at(machine, f"{BUS}/region0/namespace0.0/holder_class") == "pfn"
    assert text_at(machine, f"{BUS}/region1/dax1.0/dax1.0/resource") == "0x140600000"
    with refused(errno.ENXIO):
        text_at(machine, f"{BUS}/region1/dax1.1/resource")
    machine.nd.set_mode("namespace1.0", "raw")
    assert text_at(machine, f"{at}/mode") == "raw"
    assert f"{BUS}/region1/dax1.0/dax1.0" not in machine.nd.catalog.entries


# -- surprise removal ---------------------------------------------------------------------------


def test_a_region_that_is_pulled_out_is_gone(machine: Machine) -> None:
    machine.poke(FS + 0x3000, b"old")
    machine.nd.unplug("region0")
    assert tree(machine)[0] == "140000000-15fffffff : Persistent Memory"
    assert machine.peek(Range(FS + 0x3000, 3)) == b"\xff\xff\xff"
    with refused(errno.ENODEV):
        machine.nd.unplug("region0")
    machine.nd.plug("region0")
    assert machine.peek(Range(FS + 0x3000, 3)) == b"old"
    with refused(errno.EBUSY):
        machine.nd.plug("region0")
    assert machine.nd.namespace("namespace0.0").mode == "fsdax"


def test_another_device_is_empty(machine: Machine) -> None:
    machine.poke(FS + 0x3000, b"old")
    life = machine.nd.namespace("namespace0.0").life
    machine.nd.unplug("region0")
    machine.nd.plug("region0", replace=True)
    assert machine.peek(Range(FS + 0x3000, 3)) == bytes(3)
    assert not life.alive
    assert machine.nd.namespace("namespace0.0").life is not life


def test_ram_in_use_burns_the_range(machine: Machine) -> None:
    machine.nd.set_mode("namespace1.0", "kmem")
    machine.blocks.online(blocks_of(machine, 0x148000000, 128 * M)[0], "online_movable")
    machine.nd.unplug("region1")
    assert tree(machine)[2:] == [
        "140000000-15fffffff : Persistent Memory",
        "  148000000-14fffffff : dax1.0",
        "    148000000-14fffffff : System RAM (kmem)",
    ]
    assert machine.nd.region("region1").burned
    machine.nd.plug("region1", replace=True)
    assert not machine.nd.region("region1").known
    machine.reset()
    assert not machine.nd.region("region1").burned
    assert tree(machine)[-1] == "  150000000-15fffffff : namespace1.1"


def test_reset_again_and_again(machine: Machine) -> None:
    boot = machine.iomem()
    for _ in range(3):
        machine.nd.set_mode("namespace1.1", "kmem")
        machine.nd.unplug("region0")
        machine.reset()
        assert machine.iomem() == boot
        machine.reset()
        assert machine.iomem() == boot
        assert not machine.claims


# -- pins ---------------------------------------------------------------------------------------


def test_a_long_term_pin_holds_an_unbind(machine: Machine) -> None:
    pin = machine.nd.pin(Range(DEV + 16 * M, 4096), longterm=True)
    done = threading.Thread(target=lambda: machine.nd.unbind("device_dax", "dax1.0"))
    done.start()
    until(lambda: any(e.kind == "wait" for e in machine.events))
    waits = [e.message for e in machine.events if e.kind == "wait"]
    assert waits == [f"dax1.0 waits for pin {pin.number} of 141000000-141000fff"]
    assert "  140600000-14fffffff : dax1.0" in tree(machine)
    with refused(errno.EBUSY):
        machine.nd.unbind("device_dax", "dax1.0")
    machine.nd.unpin(pin.number)
    done.join(5)
    assert not done.is_alive()
    assert "  140600000-14fffffff : dax1.0" not in tree(machine)


def test_a_transient_pin_delays(machine: Machine) -> None:
    machine.nd.pin(Range(DEV + 16 * M, 4096), longterm=False, seconds=0.2)
    began = time.monotonic()
    machine.nd.unbind("device_dax", "dax1.0")
    assert time.monotonic() - began >= 0.15


def test_what_cannot_be_pinned(machine: Machine) -> None:
    with refused(errno.EOPNOTSUPP):
        machine.nd.pin(Range(FS + 16 * M, 4096), longterm=True)
    with refused(errno.EFAULT):
        machine.nd.pin(Range(0x2000, 4096), longterm=False)
    with refused(errno.ENOENT):
        machine.nd.unpin(77)


def test_what_is_out_cannot_be_pinned(machine: Machine) -> None:
    nd = machine.nd
    nd.set_mode("dax1.0", "kmem")
    machine.blocks.online_all(
        [block.number for block in machine.blocks.within(nd.dax_device("dax1.0").ram)]
    )
    nd.unplug("region1")  # its RAM leaks, so its device is still known
    with refused(errno.EFAULT):
        nd.pin(nd.dax_device("dax1.0").ram, longterm=False)
    assert nd.pins.all() == []


# -- kmem that leaks ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unbind", "unplug", "nd_unbind"])
def test_memory_that_has_leaked_stays_until_the_next_boot(machine: Machine, how: str) -> None:
    boot, nd, blocks = tree(machine), machine.nd, machine.blocks
    nd.set_mode("dax1.0", "kmem")
    ram = nd.dax_device("dax1.0").ram
    numbers = [block.number for block in blocks.within(ram)]
    blocks.online_all(numbers, "online_movable")
    verbs = {
        "unbind": lambda: nd.unbind("kmem", "dax1.0"),
        "unplug": lambda: nd.unplug("region1"),
        "nd_unbind": lambda: nd.nd_unbind("nd_region", "region1"),
    }
    verbs[how]()
    blocks.offline_all(numbers)  # nobody uses it any more, and nobody is there to remove it
    if how == "unplug":
        nd.plug("region1")
    else:
        nd.unplug("region1")
        nd.plug("region1", replace=True)
    nd.unplug("region1")
    assert any("dax1.0" in line for line in tree(machine))
    assert any("System RAM (kmem)" in line for line in tree(machine))
    assert [block.number for block in blocks.within(ram)] == numbers
    machine.reset()
    assert tree(machine) == boot
    assert not nd.dax_device("dax1.0").leaked


# -- a file as medium ---------------------------------------------------------------------------


def test_a_file_keeps_the_bytes(tmp_path: Path) -> None:
    setting = f"nvdimm.regions.0.file={tmp_path / 'medium.img'}"
    pmem_machine(setting).poke(FS + 0x5000, b"kept")
    assert (tmp_path / "medium.img").stat().st_size == 512 * M
    assert pmem_machine(setting).peek(Range(FS + 0x5000, 4)) == b"kept"


def test_one_machine_at_a_time_has_the_file(tmp_path: Path) -> None:
    setting = f"nvdimm.regions.0.file={tmp_path / 'medium.img'}"
    first = pmem_machine(setting)
    with pytest.raises(ProfileError, match=r"medium\.img: another machine uses it"):
        pmem_machine(setting)
    first.poke(FS + 0x5000, b"kept")
    del first
    assert pmem_machine(setting).peek(Range(FS + 0x5000, 4)) == b"kept"


def test_names_are_those_of_the_kernel(machine: Machine) -> None:
    for path in machine.nd.catalog.entries:
        assert re.fullmatch(r"/[A-Za-z0-9_.:/-]+", path)


def test_nothing_else_happens_to_what_is_ending(machine: Machine) -> None:
    """The device, its namespace and its region are one piece of memory."""
    machine.nd.pin(Range(DEV + 16 * M, 4096), longterm=True)
    caught: list[int] = []

    def unbind() -> None:
        try:
            machine.nd.unbind("device_dax", "dax1.0")
        except ControlError as error:
            caught.append(error.errno)

    waiting = threading.Thread(target=unbind)
    waiting.start()
    until(lambda: any(e.kind == "wait" for e in machine.events))
    for verb in (
        lambda: machine.nd.set_mode("namespace1.0", "raw"),
        lambda: machine.nd.bind("kmem", "dax1.0"),
        lambda: machine.nd.unplug("region1"),
    ):
        with refused(errno.EBUSY):
            verb()
    with refused(errno.EFAULT):
        machine.nd.pin(Range(DEV + 32 * M, 4096), longterm=False)
    boot = tree(pmem_machine())
    machine.reset()
    waiting.join(5)
    assert caught == [errno.EINTR]
    assert tree(machine) == boot
    assert machine.nd.dax_device("dax1.0").driver == "device_dax"


def test_two_who_pull_at_one_module(machine: Machine) -> None:
    machine.poke(FS + 0x3000, b"old")
    threads = [threading.Thread(target=_tolerant(machine)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    machine.nd.plug("region0")
    assert machine.peek(Range(FS + 0x3000, 3)) == b"old"


def _tolerant(machine: Machine) -> Callable[[], None]:
    def pull() -> None:
        with contextlib.suppress(ControlError):
            machine.nd.unplug("region0")

    return pull
