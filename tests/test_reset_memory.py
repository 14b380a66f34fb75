"""What a reset makes of hot-plugged memory, and what is left of a change of mode that fails."""

from pathlib import Path
from typing import Any

import pytest
from memory_machines import machine_of
from nd_machines import DEV, FS, PROFILE, M, pmem_machine
from virtio_mem_machines import ADDR, MIB, guest, plan

from fakedev.devices.memory.plan import DimmPlan
from fakedev.model.effects import Mapper
from fakedev.model.errors import ResourceConflictError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

SLOT = DimmPlan("dimm0", 0x2_0000_0000, 256 * MIB, 0, plugged=True)
SOFT = Range(0x180000000, 256 * M)
DENY = "kernel.claim_policy=deny-claim"


def state(machine: Machine) -> tuple[Any, ...]:
    """Resources and memory blocks."""
    blocks = machine.blocks.blocks.values()
    return machine.iomem(), [(b.number, b.state, b.zone, b.nid) for b in blocks], machine.claims


def held(machine: Machine, span: Range) -> None:
    """From now on somebody maps a range."""
    machine.holders = lambda asked: [Mapper(7, "gdb", span)] if asked.overlaps(span) else []


def soft_reserved(tmp_path: Path, *settings: str) -> Machine:
    """A machine whose soft-reserved memory is RAM of kmem from boot on."""
    path = tmp_path / "soft.yaml"
    path.write_text(
        f"fakedev: 1\nname: soft\nextends: [{PROFILE}]\n"
        f"dax:\n  - {{range: {SOFT.start:#x}+256M, mode: kmem, target_node: 0}}\n"
    )
    return build_machine(load_profile(str(path), overrides=list(settings)))


# -- reset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_a_dimm_of_boot_that_was_out_and_is_back(times: int) -> None:
    machine = machine_of(dimms=(SLOT,))
    boot = state(machine)
    for _ in range(times):
        machine.blocks.dimms.unplug("dimm0")
        machine.blocks.dimms.plug("dimm0")
        machine.reset()
        assert state(machine) == boot


def test_a_claim_where_a_dimm_was_goes() -> None:
    machine = machine_of(dimms=(SLOT,))
    boot = state(machine)
    machine.blocks.dimms.unplug("dimm0")
    machine.claim(Range(SLOT.at, 4096), "fpga")
    machine.reset()
    assert state(machine) == boot


def test_a_reset_does_not_ask_who_maps_what_it_claims(tmp_path: Path) -> None:
    machine = machine_of(dimms=(SLOT,), rules={"claim_policy": "deny-claim"})
    boot = state(machine)
    machine.blocks.dimms.unplug("dimm0")
    held(machine, Range(SLOT.at, 4096))
    machine.reset()
    assert state(machine) == boot
    machine.blocks.dimms.unplug("dimm0")
    with pytest.raises(ResourceConflictError):
        machine.blocks.dimms.plug("dimm0")
    soft = soft_reserved(tmp_path, DENY)
    boot = state(soft)
    soft.blocks.offline_all([b.number for b in soft.blocks.within(SOFT)])
    soft.nd.unbind("kmem", "dax2.0")
    held(soft, SOFT)
    soft.reset()
    assert state(soft) == boot


def test_memory_of_kmem_survives_a_second_reset(tmp_path: Path) -> None:
    machine = soft_reserved(tmp_path)
    boot = state(machine)
    machine.blocks.offline_all([b.number for b in machine.blocks.within(SOFT)])
    machine.nd.unbind("kmem", "dax2.0")
    for _ in range(3):
        machine.reset()
        assert state(machine) == boot


def test_a_claim_in_the_region_of_virtio_mem_is_no_ram_of_boot() -> None:
    machine = guest(plan(loaded=True, requested_size=256 * MIB))
    boot = state(machine)
    machine.claim(Range(ADDR + 512 * MIB, 4096), "fpga")  # System RAM like what it lies in
    machine.reset()
    assert state(machine) == boot


# -- verbs that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [2 * MIB, 256 * MIB])
def test_virtio_mem_that_may_not_add_memory_stops_there(block: int) -> None:
    machine = guest(
        plan(block_size=block), version="5.10", auto="online", claim_policy="deny-claim"
    )
    machine.virtio_mem.modprobe()
    held(machine, Range(ADDR + 256 * MIB, 4096))
    device = machine.virtio_mem.request("vm0", 512 * MIB)
    assert device.plugged_size == 256 * MIB
    assert "adding memory failed" in "\n".join(event.message for event in machine.events)
    machine.holders = lambda _: []
    assert machine.virtio_mem.request("vm0", 512 * MIB).plugged_size == 512 * MIB


@pytest.mark.parametrize("mode", ["raw", "fsdax"])
def test_a_mode_that_is_denied_leaves_the_one_before(mode: str) -> None:
    machine = pmem_machine(DENY)
    before = machine.iomem()
    held(machine, Range(DEV, 4096))
    with pytest.raises(ResourceConflictError):
        machine.nd.set_mode("dax1.0", mode)
    assert machine.iomem() == before
    assert machine.nd.namespace("namespace1.0").mode == "devdax"


def test_a_driver_that_is_denied_leaves_the_one_before(tmp_path: Path) -> None:
    machine = soft_reserved(tmp_path, DENY)
    machine.blocks.offline_all([b.number for b in machine.blocks.within(SOFT)])
    before = machine.iomem()
    held(machine, Range(SOFT.start, 4096))
    with pytest.raises(ResourceConflictError):
        machine.nd.set_mode("dax2.0", "devdax")
    assert machine.iomem() == before
    assert machine.nd.dax_device("dax2.0").driver == "kmem"


def test_a_region_whose_place_is_taken_is_plugged_but_not_found() -> None:
    machine = pmem_machine()
    boot = machine.iomem()
    machine.nd.unplug("region0")
    machine.claim(Range(FS, 4096), "fpga")
    region = machine.nd.plug("region0")
    assert (region.present, region.known) == (True, False)
    assert [event.kind for event in machine.events][-1] == "error"
    machine.release(Range(FS, 4096))
    machine.nd.unplug("region0")
    machine.nd.plug("region0")
    assert machine.iomem() == boot


def test_one_region_in_the_way_does_not_stop_the_module() -> None:
    machine = pmem_machine("nvdimm.loaded=false")
    machine.claim(Range(FS, 4096), "fpga")
    assert machine.nd.modprobe("nfit")
    assert [region.known for region in machine.nd.regions] == [False, True]


def test_two_namespaces_of_a_region_are_two_dax_devices() -> None:
    machine = pmem_machine()
    machine.nd.set_mode("namespace1.1", "devdax")
    assert [dax.name for dax in machine.nd.dax_devices()] == ["dax1.0", "dax1.1"]
    assert len({dax.minor for dax in machine.nd.dax_devices()}) == 2
    assert {"dax1.0", "dax1.1"} <= set(machine.nd.possible_nodes())
    machine.nd.unbind("device_dax", "dax1.1")
    assert machine.nd.dax_device("dax1.0").driver == "device_dax"
