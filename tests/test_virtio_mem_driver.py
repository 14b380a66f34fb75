"""The driver of virtio-mem: probe, both modes, unload; and what kernels of other versions do."""

import errno
import time
from typing import Any

import pytest
from virtio_mem_machines import ADDR, guest, hot, lines, plan

from fakedev.devices.memory.virtio_mem_plan import GIB, MIB
from fakedev.model.effects import Revoke
from fakedev.model.errors import ControlError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

REGION = "100000000-13fffffff : virtio0"
HOLE = ADDR + 900 * MIB


def loaded(auto: str = "online_movable", requested: int = 0, **changes: Any) -> Machine:
    machine = guest(plan(requested_size=requested * MIB, **changes), auto=auto)
    machine.virtio_mem.modprobe()
    return machine


def request(machine: Machine, size: int) -> int:
    """Ask for so many MiB; how many are plugged in the end."""
    return int(machine.virtio_mem.request("vm0", size * MIB).plugged_size >> 20)


def messages(machine: Machine) -> str:
    return "\n".join(event.message for event in machine.events)


# -- the region ---------------------------------------------------------------------------------


def test_before_the_driver_loads_the_region_is_open() -> None:
    machine = guest()
    assert lines(machine) == []
    assert machine.policy.mmap(ADDR, 4096).allowed
    machine.memory.place(ADDR, b"anyone")
    assert machine.peek(f"{ADDR:#x}+6") == b"anyone"


@pytest.mark.parametrize("cmdline", ["", "iomem=relaxed"])
def test_after_it_no_path_reads_writes_or_maps_it(cmdline: str) -> None:
    machine = guest(plan(requested_size=128 * MIB), cmdline=cmdline)
    machine.virtio_mem.modprobe()
    machine.blocks.online(32)
    assert lines(machine) == [REGION, "  100000000-107ffffff : System RAM (virtio_mem)"]
    policy = machine.policy
    for address in (ADDR, ADDR + 127 * MIB):
        assert policy.read(address, 8).errno == errno.EPERM
        assert policy.write(address, 8).errno == errno.EPERM
        assert policy.mmap(address, 4096).errno == errno.EPERM
    assert policy.mmap(HOLE, 4096).errno == errno.EPERM
    assert policy.iomem_is_exclusive(HOLE) is not None
    assert policy.mmap(ADDR + GIB, 4096).allowed


def test_loading_revokes_mappings_of_the_whole_region() -> None:
    machine, effects = guest(), []
    machine.subscribers.append(effects.append)
    machine.virtio_mem.modprobe()
    assert [e.span for e in effects if isinstance(e, Revoke)] == [Range(ADDR, GIB)]


def test_relaxed_revokes_too() -> None:
    machine, effects = guest(cmdline="iomem=relaxed"), []
    machine.subscribers.append(effects.append)
    machine.virtio_mem.modprobe()
    assert any(isinstance(e, Revoke) and e.span == Range(ADDR, GIB) for e in effects)


def test_before_5_16_the_flag_does_not_exist() -> None:
    """x86 refuses anyway, for System RAM; the others look for EXCLUSIVE or BUSY, and find none."""
    machine = guest(version="5.12", cmdline="iomem=relaxed")
    machine.virtio_mem.modprobe()
    assert machine.policy.iomem_is_exclusive(HOLE) is None
    assert machine.policy.mmap(HOLE, 4096).errno == errno.EPERM
    arm = guest(version="5.12", arch="aarch64")
    arm.virtio_mem.modprobe()
    assert arm.policy.mmap(HOLE, 4096).allowed
    late = guest(version="5.16", arch="aarch64", cmdline="iomem=relaxed")
    late.virtio_mem.modprobe()
    assert late.policy.mmap(HOLE, 4096).errno == errno.EPERM


@pytest.mark.parametrize(("version", "there"), [("5.4", False), ("5.8", True), ("5.10", True)])
def test_the_driver_came_with_5_8(version: str, there: bool) -> None:
    machine = guest(version=version)
    if there:
        machine.virtio_mem.modprobe()
        assert lines(machine) == [REGION]
        return
    with pytest.raises(
        ControlError, match=r"there is no driver virtio_mem in Linux 5\.4"
    ) as caught:
        machine.virtio_mem.modprobe()
    assert caught.value.errno == errno.ENOENT
    assert not machine.virtio_mem.loaded


def test_a_region_that_somebody_has_claimed() -> None:
    machine = guest()
    machine.claim(f"{ADDR:#x}+1M", "other")
    before = machine.iomem()
    machine.virtio_mem.modprobe()
    assert machine.iomem() == before
    assert "could not reserve device region" in messages(machine)
    assert "failed with error -16" in messages(machine)


# -- sub-block mode -----------------------------------------------------------------------------


def test_memory_comes_in_whole_blocks_of_the_kernel() -> None:
    machine = loaded()
    assert request(machine, 192) == 192
    assert lines(machine) == [REGION, "  100000000-10fffffff : System RAM (virtio_mem)"]
    assert hot(machine) == {32: "Movable", 33: "Movable"}
    assert machine.virtio_mem.drivers["vm0"].mode.states() == {"movable": 1, "movable_partial": 1}
    assert machine.high_memory == ADDR + 256 * MIB


def test_partial_blocks_are_filled_first() -> None:
    machine = loaded()
    request(machine, 192)
    request(machine, 320)
    assert machine.virtio_mem.device("vm0").plugged_ranges() == [Range(ADDR, 320 * MIB)]


def test_unplug_goes_downwards_and_removes_what_is_empty() -> None:
    machine = loaded()
    request(machine, 320)
    assert request(machine, 130) == 130
    assert hot(machine) == {32: "Movable", 33: "Movable"}
    assert request(machine, 128) == 128
    assert hot(machine) == {32: "Movable"}
    assert request(machine, 0) == 0
    assert lines(machine) == [REGION]


def test_what_was_unplugged_reads_as_zeros() -> None:
    machine = loaded()
    request(machine, 64)
    machine.poke(ADDR + 63 * MIB, b"secret")
    machine.poke(ADDR, b"kept")
    request(machine, 32)
    assert machine.peek(f"{ADDR + 63 * MIB:#x}+6") == bytes(6)
    assert machine.peek(f"{ADDR:#x}+4") == b"kept"


def test_offline_memory_is_unplugged_before_online_memory() -> None:
    machine = loaded("offline")
    request(machine, 256)
    machine.blocks.online(33, "online_movable")
    request(machine, 128)
    assert hot(machine) == {33: "Movable"}


def test_movable_memory_is_unplugged_before_kernel_memory() -> None:
    machine = loaded("offline", unmovable=0)
    request(machine, 256)
    machine.blocks.online(32, "online_movable")
    machine.blocks.online(33, "online_kernel")
    request(machine, 128)
    assert hot(machine) == {33: "Normal"}


def test_the_kernel_keeps_some_of_its_own_zone() -> None:
    machine = loaded("online_kernel")
    request(machine, 256)
    assert request(machine, 0) == 4
    assert hot(machine) == {32: "Normal", 33: "Normal"}
    assert messages(machine).count("cannot be moved away") == 2
    with pytest.raises(ControlError) as caught:
        machine.blocks.offline(32)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize(("unmovable", "left"), [(0, 0), (1, 2), (2 * MIB, 2), (7 * MIB, 8)])
def test_how_much_it_keeps_is_a_setting(unmovable: int, left: int) -> None:
    machine = loaded("online_kernel", unmovable=unmovable)
    request(machine, 128)
    assert request(machine, 0) == left


def test_no_more_than_1_gib_is_added_and_not_online() -> None:
    machine = guest(plan(region_size=4 * GIB), auto="offline")
    machine.virtio_mem.modprobe()
    assert request(machine, 2048) == 1024
    assert "no more before they are" in messages(machine)
    machine.blocks.online(32, "online_movable")
    assert machine.virtio_mem.device("vm0").plugged_size == (1024 + 128) * MIB
    for number in range(33, 48):
        machine.blocks.online(number, "online_movable")
    assert machine.virtio_mem.device("vm0").plugged_size == 2 * GIB


def test_a_device_block_larger_than_a_pageblock() -> None:
    machine = loaded(block_size=16 * MIB)
    mode = machine.virtio_mem.drivers["vm0"].mode
    assert (mode.name, mode.unit) == ("SBM", 16 * MIB)
    assert request(machine, 144) == 144
    assert request(machine, 16) == 16


def test_a_device_block_smaller_than_a_pageblock() -> None:
    """The driver plugs in pieces of 2 MiB: an odd MiB stays out."""
    machine = loaded(block_size=MIB)
    assert machine.virtio_mem.drivers["vm0"].mode.unit == 2 * MIB
    assert request(machine, 129) == 128
    assert request(machine, 127) == 128
    assert request(machine, 126) == 126


def test_a_region_that_is_not_aligned_to_memory_blocks() -> None:
    machine = loaded(addr=ADDR + 64 * MIB)
    assert "the alignment of the region makes some of its memory unusable" in messages(machine)
    assert request(machine, 1024) == 1024 - 128
    assert hot(machine).keys() == set(range(33, 40))
    assert lines(machine)[0] == "104000000-143ffffff : virtio0"


def test_memory_that_the_kernel_does_not_take() -> None:
    """Somebody has the second block: what was plugged for it is given back, the rest stays."""
    machine = loaded()
    machine.tree.request_region(ADDR + 128 * MIB, 4096, "in the way")
    assert request(machine, 256) == 128
    assert "adding memory failed" in messages(machine)
    assert hot(machine) == {32: "Movable"}


# -- big-block mode -----------------------------------------------------------------------------


def big(auto: str = "online_movable", **changes: Any) -> Machine:
    return loaded(auto, **{"block_size": 256 * MIB, "region_size": 4 * GIB, **changes})


def test_big_blocks_come_and_go_as_a_whole() -> None:
    machine = big()
    assert machine.virtio_mem.drivers["vm0"].mode.name == "BBM"
    assert request(machine, 768) == 768
    assert lines(machine)[1] == "  100000000-12fffffff : System RAM (virtio_mem)"
    assert machine.virtio_mem.drivers["vm0"].mode.states() == {"added": 3}
    assert request(machine, 256) == 256
    assert hot(machine) == {32: "Movable", 33: "Movable"}


def test_bbm_can_be_forced() -> None:
    machine = loaded(force_bbm=True, bbm_block_size=512 * MIB)
    mode = machine.virtio_mem.drivers["vm0"].mode
    assert (mode.name, mode.unit) == ("BBM", 512 * MIB)
    assert request(machine, 640) == 512


def test_bbm_does_not_plug_half_a_block() -> None:
    assert request(loaded(force_bbm=True), 192) == 128


def test_bbm_unplugs_offline_then_movable_then_the_rest() -> None:
    machine = big("offline", unmovable=0)
    request(machine, 768)
    for number, kind in ((34, "online_kernel"), (35, "online_kernel"), (36, "online_movable")):
        machine.blocks.online(number, kind)
    machine.blocks.online(37, "online_movable")
    request(machine, 512)
    assert set(hot(machine)) == {34, 35, 36, 37}
    request(machine, 256)
    assert set(hot(machine)) == {34, 35}
    assert request(machine, 0) == 0


def test_bbm_keeps_what_the_kernel_uses() -> None:
    machine = big("online_kernel")
    request(machine, 512)
    assert request(machine, 0) == 512
    assert "memory34 cannot be moved away" in messages(machine)


def test_a_big_block_of_which_one_memory_block_stays_is_not_taken_apart() -> None:
    machine = big()
    request(machine, 256)

    def veto(what: str, span: Range) -> None:
        if what == "going-offline" and span.start == ADDR + 128 * MIB:
            raise ControlError("no", errno=errno.EBUSY)

    machine.blocks.listeners.append(veto)
    assert request(machine, 0) == 256
    assert hot(machine) == {32: "Movable", 33: "Movable"}
    machine.blocks.listeners.remove(veto)
    assert request(machine, 0) == 0


def test_pages_that_are_listed_and_not_there() -> None:
    machine = loaded()
    request(machine, 130)
    assert machine.virtio_mem.hidden() == [Range(ADDR + 130 * MIB, 126 * MIB)]
    request(machine, 128)
    assert machine.virtio_mem.hidden() == []
    whole = big()
    request(whole, 256)
    assert whole.virtio_mem.hidden() == []


def test_bbm_waits_for_offline_memory() -> None:
    machine = big("offline")
    assert request(machine, 2048) == 1024


def test_bbm_when_the_kernel_does_not_take_it() -> None:
    machine = big()
    machine.tree.request_region(ADDR + 256 * MIB, 4096, "in the way")
    assert request(machine, 512) == 256


# -- unload -------------------------------------------------------------------------------------


def test_unload_without_memory_releases_the_region() -> None:
    machine = loaded()
    request(machine, 256)
    request(machine, 0)
    machine.virtio_mem.rmmod()
    assert lines(machine) == []
    assert machine.policy.mmap(ADDR, 4096).allowed
    machine.virtio_mem.modprobe()
    assert lines(machine) == [REGION]
    assert request(machine, 128) == 128


def test_unload_with_memory_leaks_the_region_and_reload_fails() -> None:
    machine = loaded()
    request(machine, 256)
    machine.virtio_mem.rmmod()
    left = [REGION, "  100000000-10fffffff : System RAM (virtio_mem)"]
    assert lines(machine) == left
    assert machine.virtio_mem.is_leaked("vm0")
    assert machine.policy.mmap(HOLE, 4096).errno == errno.EPERM
    machine.virtio_mem.modprobe()
    assert "vm0" not in machine.virtio_mem.drivers
    assert "failed with error -16" in messages(machine)
    machine.virtio_mem.rmmod()
    machine.virtio_mem.modprobe()
    assert "failed with error -2" in messages(machine)
    assert lines(machine) == left
    assert request(machine, 0) == 256


def test_offline_partial_blocks_are_removed_at_unload() -> None:
    machine = loaded("offline")
    request(machine, 64)
    machine.virtio_mem.rmmod()
    assert lines(machine) == []
    full = loaded("offline")
    request(full, 128)
    full.virtio_mem.rmmod()
    assert lines(full)[1:] == ["  100000000-107ffffff : System RAM (virtio_mem)"]


def test_what_a_driver_left_plugged_is_unplugged_by_the_next() -> None:
    machine = loaded("offline")
    request(machine, 64)
    machine.virtio_mem.rmmod()
    assert machine.virtio_mem.device("vm0").plugged_size == 64 * MIB
    machine.virtio_mem.request("vm0", 0)
    machine.virtio_mem.modprobe()
    assert machine.virtio_mem.device("vm0").plugged_size == 0


def test_loading_twice_and_unloading_twice() -> None:
    machine = loaded()
    machine.virtio_mem.modprobe()
    machine.virtio_mem.rmmod()
    with pytest.raises(ControlError, match="not loaded") as caught:
        machine.virtio_mem.rmmod()
    assert caught.value.errno == errno.ENOENT


# -- the machine --------------------------------------------------------------------------------


def test_two_devices() -> None:
    machine = guest(plan(), plan("vm1", addr=ADDR + GIB, node=1), auto="online_movable")
    machine.virtio_mem.modprobe()
    machine.virtio_mem.request("vm0", 128 * MIB)
    machine.virtio_mem.request("vm1", 256 * MIB)
    assert lines(machine) == [
        REGION,
        "  100000000-107ffffff : System RAM (virtio_mem)",
        "140000000-17fffffff : virtio1",
        "  140000000-14fffffff : System RAM (virtio_mem)",
    ]
    assert machine.blocks.block(40).nid == 1
    machine.virtio_mem.request("vm1", 0)
    assert lines(machine)[1:] == [
        "  100000000-107ffffff : System RAM (virtio_mem)",
        "140000000-17fffffff : virtio1",
    ]


def test_an_unknown_device() -> None:
    with pytest.raises(ControlError, match="no virtio-mem device 'vm9'; there are vm0") as caught:
        guest().virtio_mem.request("vm9", 0)
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("size", [MIB, 2 * GIB])
def test_a_request_that_is_refused_changes_nothing(size: int) -> None:
    machine = loaded()
    request(machine, 256)
    before = (machine.iomem(), machine.now, hot(machine))
    with pytest.raises(ControlError):
        machine.virtio_mem.request("vm0", size)
    assert (machine.iomem(), machine.now, hot(machine)) == before


@pytest.mark.parametrize("leak", [True, False])
def test_reset_is_as_after_boot(leak: bool) -> None:
    machine = guest(plan(requested_size=128 * MIB, loaded=True), auto="online_movable")
    boot = (machine.iomem(), hot(machine))
    assert lines(machine) == [REGION, "  100000000-107ffffff : System RAM (virtio_mem)"]
    request(machine, 512)
    if leak:
        machine.virtio_mem.rmmod()
        machine.virtio_mem.modprobe()
    machine.reset()
    assert (machine.iomem(), hot(machine)) == boot
    assert request(machine, 256) == 256
    assert len(machine.blocks.listeners) == 1


def test_reset_of_a_machine_whose_driver_was_loaded_later() -> None:
    machine = loaded(requested=128)
    machine.reset()
    assert lines(machine) == []
    assert not machine.virtio_mem.loaded
    assert machine.policy.mmap(ADDR, 4096).allowed


def test_many_blocks_come_and_go_in_time() -> None:
    """Each costs what changes by it, not what is there: 512 of them, 64 GiB."""
    machine = loaded(region_size=64 * GIB)
    begun = time.process_time()
    assert request(machine, 64 << 10) == 64 << 10
    assert request(machine, 0) == 0
    assert time.process_time() - begun < 10
