"""virtio-mem of the bundled `pc-q35` against what a real Debian 6.1 kernel showed and answered."""

import errno
import re
from typing import Any

import pytest
from pci_tree import node_at, read
from recordings import records
from virtio_mem_machines import STATE, Recording, recorded_machine, stages

from fakedev.model.machine import Machine
from fakedev.views.tree import Tree

STAGES = sorted(stages())
ASKED = {"pread": "read", "pwrite": "write", "mmap": "mmap", "mmap+touch": "mmap"}


@pytest.fixture(scope="module")
def walked() -> dict[str, dict[str, str]]:
    """`/proc/iomem`, and each block in the words of the recording, at every stage."""
    machine = recorded_machine()
    shown = {}
    for name, step in Recording(machine).steps():
        step()
        shown[name] = {"iomem": machine.iomem(), "memory": _blocks(machine)}
    return shown


def _blocks(machine: Machine) -> str:
    tree, text = Tree(machine), ""
    for number in machine.blocks.blocks:
        path = f"/sys/devices/system/memory/memory{number}"
        state, zones = (
            read(node_at(tree, f"{path}/{file}")).decode().strip()
            for file in ("state", "valid_zones")
        )
        text += f"{path}: state={state} online=? valid_zones={zones} \n"
    return text


@pytest.mark.parametrize("stage", STAGES)
def test_iomem_at_every_stage(walked: dict[str, dict[str, str]], stage: str) -> None:
    assert walked[stage]["iomem"] == stages()[stage]["iomem"]


@pytest.mark.parametrize("stage", [name for name in STAGES if name.startswith("vmem")])
def test_memory_blocks_at_every_stage(walked: dict[str, dict[str, str]], stage: str) -> None:
    recorded = STATE.findall(stages()[stage]["memory"])
    assert STATE.findall(walked[stage]["memory"]) == recorded
    assert len(recorded) >= 5


def differences(machine: Machine, asked: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """How many accesses were judged, and those with another errno than recorded."""
    count, wrong = 0, []
    for record in asked:
        if record["op"] not in ASKED or "off" not in record["args"]:
            continue
        count += 1
        start, size = (int(record["args"][key], 16) for key in ("off", "len"))
        verdict = getattr(machine.policy, ASKED[record["op"]])(start, size)
        expected = getattr(errno, record["errno"]) if record["errno"] else 0
        if verdict.errno != expected:
            wrong.append(f"{record['seq']} {record['case']}: {record['errno']}, not {verdict.rule}")
    return count, wrong


# Mappings with O_SYNC whose cache type conflicts with one that is there: no cache types here.
CACHE_TYPES = [
    "2125 low-ram-unaligned: EAGAIN",
    "2215 whole-low-1M: EAGAIN",
    "2422 flash-top-16: EAGAIN",
]


@pytest.mark.parametrize(
    ("phase", "count", "known"),
    [("matrix-vmem-loaded", 275, []), ("matrix-vmem-online", 799, CACHE_TYPES)],
)
def test_every_recorded_errno_of_the_matrices(phase: str, count: int, known: list[str]) -> None:
    machine = recorded_machine()
    Recording(machine).to(phase)
    judged, wrong = differences(machine, records(phase))
    assert (judged, [text.partition(",")[0] for text in wrong]) == (count, known)


SECTIONS = [
    ("vmem-0-before", 1743, 1757, 4),
    ("vmem-2-online", 2048, 2056, 9),
    ("vmem-3-640M", 2864, 2865, 2),
    ("vmem-4-64M", 2868, 2870, 3),
    ("vmem-5-offlined", 2872, 2873, 2),
    ("vmem-6-after-offline-attempts", 2882, 2884, 3),
    ("vmem-7-0", 2888, 2889, 2),
    ("vmem-8-rmmod", 2891, 2894, 4),
    ("vmem-9-reloaded", 2898, 2898, 1),
    ("vmem-a-rmmod-with-memory", 2900, 2903, 4),
]


@pytest.mark.parametrize(("stage", "first", "last", "count"), SECTIONS)
def test_every_recorded_errno_of_the_phase(stage: str, first: int, last: int, count: int) -> None:
    machine = recorded_machine()
    Recording(machine).to(stage)
    asked = [r for r in records("vmem") if first <= r["seq"] <= last]
    assert differences(machine, asked) == (count, [])


def test_every_access_of_the_phase_is_in_a_section() -> None:
    judged = {r["seq"] for r in records("vmem") if r["op"] in ASKED and "off" in r["args"]}
    assert all(any(low <= n <= high for _, low, high, _ in SECTIONS) for n in judged)


def test_plugged_sizes_as_the_hypervisor_saw_them() -> None:
    machine = recorded_machine()
    device, seen = machine.virtio_mem.device("vm0"), []
    for name, step in Recording(machine).steps():
        step()
        if name in {"vmem-0-before", "vmem-2-online", "vmem-3-640M", "vmem-4-64M", "vmem-7-0"}:
            seen.append((device.requested_size, device.plugged_size))
    recorded = [
        tuple(
            int(re.search(rf"^  {key}: (\d+)", r["data"], re.MULTILINE)[1])
            for key in ("requested-size", "size")
        )  # type: ignore[index]
        for r in records("vmem")
        if r["case"] == "memory-devices"
    ]
    assert seen == recorded


def test_messages_of_the_driver() -> None:
    machine = recorded_machine()
    Recording(machine).to("vmem-b-third")
    said = "\n".join(event.message for event in machine.events)
    for text in (
        "start address: 0x100000000",
        "region size: 0x40000000",
        "device block size: 0x200000",
        "memory block size: 0x8000000",
        "subblock size: 0x200000",
        "plugged size: 0x0, requested size: 0x11000000",
        "plugged size: 0x11000000, requested size: 0x28000000",
        "plugged size: 0x28000000, requested size: 0x4000000",
        "plugged size: 0x4000000, requested size: 0x0",
        "device still has system memory added",
        "could not reserve device region",
        "reloading the driver is not supported",
        "probe of virtio0 failed with error -16",
        "probe of virtio0 failed with error -2",
    ):
        assert text in said


@pytest.mark.parametrize("case", ["offline-memory0", "offline-memory2", "offline-memory3"])
def test_blocks_of_boot_do_not_go_offline(case: str) -> None:
    machine = recorded_machine()
    Recording(machine).to("vmem-5-offlined")
    record = next(r for r in records("vmem") if r["case"] == case)
    with pytest.raises(Exception) as caught:
        machine.blocks.offline(int(case[-1]))
    assert errno.errorcode[caught.value.errno] == record["errno"]  # type: ignore[attr-defined]
