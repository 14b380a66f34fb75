"""The control verbs about virtio-mem, PCI below it, and the bundled guest."""

import errno
from typing import Any

import pytest
from machines import small_machine
from virtio_mem_machines import guest, hot, lines, plan

from fakedev.control.verbs import Verbs
from fakedev.devices.memory.virtio_mem_plan import GIB, MIB
from fakedev.model.errors import ControlError
from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

FUNCTION = "0000:00:01.0"


def caller(machine: Machine) -> Any:
    verbs = Verbs(machine)
    return lambda verb, **values: verbs(verb, values, lambda: False)


@pytest.fixture
def bundled() -> Machine:
    return build_machine(load_profile("virtio-mem-guest"))


@pytest.fixture
def recorded() -> Machine:
    return build_machine(load_profile("pc-q35"))


def test_the_table(bundled: Machine) -> None:
    assert caller(bundled)("virtio-mem")["devices"] == [
        {
            "name": "vm0",
            "device": "virtio0",
            "pci": FUNCTION,
            "range": "100000000-17fffffff",
            "block_size": 2 * MIB,
            "node": 0,
            "requested_size": 768 * MIB,
            "plugged_size": 768 * MIB,
            "usable_size": GIB,
            "plugged": ["100000000-12fffffff"],
            "driver": "virtio_mem",
            "mode": "SBM",
            "blocks": {"movable": 6},
            "leaked": False,
        }
    ]


def test_a_request_tells_its_steps(bundled: Machine) -> None:
    done = caller(bundled)("virtio-mem-request", name="vm0", size=700 * MIB)
    assert done["plugged_size"] == 700 * MIB
    assert done["steps"] == [
        "vm0: requested size is 700 MiB",
        "virtio0: plugged size: 0x30000000, requested size: 0x2bc00000",
        "virtio0: unplugged 68 MiB at 0x12bc00000",
    ]
    assert done["event"] == bundled.now


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"name": "vm0"}, errno.EINVAL),
        ({"name": "vm0", "size": -1}, errno.EINVAL),
        ({"name": "vm0", "size": True}, errno.EINVAL),
        ({"name": "vm0", "size": "640M"}, errno.EINVAL),
        ({"name": "vm7", "size": 0}, errno.ENODEV),
        ({"name": "vm0", "size": 3 * GIB}, 0),
        ({"name": "vm0", "size": 0, "more": 1}, errno.EINVAL),
    ],
)
def test_requests_that_are_refused(bundled: Machine, values: dict[str, Any], code: int) -> None:
    before = (bundled.iomem(), bundled.now)
    with pytest.raises(ControlError) as caught:
        caller(bundled)("virtio-mem-request", **values)
    assert caught.value.errno == code
    assert (bundled.iomem(), bundled.now) == before


def test_a_machine_without_one() -> None:
    for verb, values in (("virtio-mem", {}), ("virtio-mem-request", {"name": "vm0", "size": 0})):
        with pytest.raises(ControlError, match="no `virtio_mem:` section") as caught:
            caller(small_machine())(verb, **values)
        assert caught.value.errno == errno.ENODEV


# -- behind virtio-pci --------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("virtio_pci", "virtio_mem"), ("virtio-mem", "virtio-pci")])
def test_both_modules_are_needed(recorded: Machine, order: tuple[str, str]) -> None:
    call = caller(recorded)
    assert call("virtio-mem")["devices"][0]["device"] is None
    call("modprobe", name=order[0])
    assert lines(recorded)[0] != "100000000-13fffffff : virtio0"
    done = call("modprobe", name=order[1])
    assert lines(recorded)[0] == "100000000-13fffffff : virtio0"
    assert done["failed"] == []


def test_modprobe_and_rmmod_say_what_changed(recorded: Machine) -> None:
    call = caller(recorded)
    call("modprobe", name="virtio_pci")
    done = call("modprobe", name="virtio_mem")
    assert (done["bound"], done["unbound"]) == ({"virtio0": "virtio_mem"}, {})
    done = call("rmmod", name="virtio_mem")
    assert (done["bound"], done["unbound"]) == ({}, {"virtio0": "virtio_mem"})
    with pytest.raises(ControlError, match="not loaded"):
        call("rmmod", name="virtio_mem")
    assert call("virtio-mem")["devices"][0]["leaked"] is True
    (failed,) = call("modprobe", name="virtio_mem")["failed"]
    assert "could not reserve device region" in failed


def test_other_modules_are_those_of_pci(recorded: Machine) -> None:
    call = caller(recorded)
    assert call("modprobe", name="nvme")["bound"] == {"0000:00:04.0": "nvme"}
    assert call("rmmod", name="nvme")["unbound"] == {"0000:00:04.0": "nvme"}
    with pytest.raises(ControlError, match="there is no driver 'nothing'"):
        call("modprobe", name="nothing")


def test_unbinding_the_function_removes_the_device(bundled: Machine) -> None:
    call = caller(bundled)
    call("virtio-mem-request", name="vm0", size=0)
    call("unbind", driver=None, device=FUNCTION)
    assert not [line for line in lines(bundled) if "virtio" in line]
    assert call("virtio-mem")["devices"][0]["device"] is None
    call("bind", driver="virtio-pci", device=FUNCTION)
    assert lines(bundled)[0] == "100000000-17fffffff : virtio0"
    call("virtio-mem-request", name="vm0", size=128 * MIB)
    assert hot(bundled) == {32: "Movable"}


@pytest.mark.parametrize("verb", ["remove", "unplug"])
def test_a_function_that_goes_with_memory_in_use_leaks_the_region(
    bundled: Machine, verb: str
) -> None:
    call = caller(bundled)
    call(verb, device=FUNCTION)
    assert lines(bundled)[:2] == [
        "100000000-17fffffff : virtio0",
        "  100000000-12fffffff : System RAM (virtio_mem)",
    ]
    assert call("virtio-mem")["devices"][0]["leaked"] is True
    if verb == "unplug":
        call("plug", device=FUNCTION)
    done = call("rescan")
    assert bundled.virtio_mem.drivers == {}
    assert any("could not reserve device region" in event.message for event in bundled.events), done


def test_numbers_of_virtio_devices_are_in_order_of_functions(recorded: Machine) -> None:
    call = caller(recorded)
    call("modprobe", name="virtio_pci")
    call("unbind", driver=None, device=FUNCTION)
    assert recorded.virtio_mem.virtio_name("vm0") is None
    call("bind", driver="virtio-pci", device=FUNCTION)
    assert recorded.virtio_mem.virtio_name("vm0") == "virtio0"


def test_without_pci_the_module_is_loaded_all_the_same() -> None:
    machine = guest(plan(requested_size=128 * MIB), auto="online")
    done = caller(machine)("modprobe", name="virtio_mem")
    assert done["bound"] == {"virtio0": "virtio_mem"}
    assert hot(machine) == {32: "Normal"}


def test_an_old_kernel_has_no_such_module() -> None:
    with pytest.raises(ControlError, match=r"came with 5\.8") as caught:
        caller(guest(version="5.4"))("modprobe", name="virtio_mem")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("name", ["virtio-mem-guest", "pc-q35"])
def test_reset_is_as_after_boot(name: str) -> None:
    machine = build_machine(load_profile(name))
    call, boot = caller(machine), machine.iomem()
    blocks = hot(machine)
    call("modprobe", name="virtio_pci")
    call("modprobe", name="virtio_mem")
    call("virtio-mem-request", name="vm0", size=640 * MIB)
    call("rmmod", name="virtio_mem")
    call("modprobe", name="virtio_mem")
    machine.reset()
    assert (machine.iomem(), hot(machine)) == (boot, blocks)
    call("virtio-mem-request", name="vm0", size=256 * MIB)


def test_deny_claim_lets_the_driver_fail_while_somebody_maps_the_region() -> None:
    from fakedev.model.effects import Mapper
    from fakedev.model.ranges import Range

    machine = guest(claim_policy="deny-claim")
    held = [Mapper(1, "gdb", Range(4 * GIB, 4096))]
    machine.holders = lambda _: held
    with pytest.raises(ControlError, match=r"gdb\[1\]") as caught:
        caller(machine)("modprobe", name="virtio_mem")
    assert caught.value.errno == errno.EBUSY
    assert (lines(machine), machine.virtio_mem.loaded) == ([], False)
    held.clear()
    assert caller(machine)("modprobe", name="virtio_mem")["failed"] == []
    assert lines(machine) == ["100000000-13fffffff : virtio0"]
