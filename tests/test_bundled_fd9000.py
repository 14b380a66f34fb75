"""The bundled profile fd-9000 against the image that specifies it."""

import hashlib
import json
import lzma
from typing import Any

import pytest
from firmware_data import DATA
from pci_data import driver_of, resource_text, space_of

from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

IMAGE_SIZE = 0x180000000
STEP = 1 << 20
# The image has ones for absent functions in 64 bytes of each on 8 buses; a machine has them everywhere.
ECAM, ECAM_SIZE = 0xE0000000, 0x10000000
SPECIFIED: dict[str, Any] = json.loads(
    lzma.decompress((DATA / "fd-9000/functions.json.xz").read_bytes())
)
FUNCTIONS: dict[str, dict[str, Any]] = SPECIFIED["functions"]
SPACES = lzma.decompress((DATA / "fd-9000/config.bin.xz").read_bytes())


@pytest.fixture(scope="module")
def machine() -> Machine:
    return build_machine(load_profile("fd-9000"))


def extents() -> list[tuple[int, int, str]]:
    lines = (DATA / "fd-9000/extents.txt").read_text().splitlines()[1:]
    every = [
        (int(start, 16), int(size, 16), digest)
        for start, size, digest in (line.split() for line in lines)
    ]
    return [extent for extent in every if extent[0] != ECAM]


def gaps() -> list[tuple[int, int]]:
    """Start and end of what is zero between the extents."""
    known = sorted(
        [(start, start + size) for start, size, _ in extents()] + [(ECAM, ECAM + ECAM_SIZE)]
    )
    ends = [0, *(end for _, end in known)]
    starts = [*(start for start, _ in known), IMAGE_SIZE]
    return [gap for gap in zip(ends, starts, strict=True) if gap[0] < gap[1]]


def config_spaces() -> dict[str, bytes]:
    """What the specification has in each function's `config`."""
    found, at = {}, 0
    for name, function in FUNCTIONS.items():
        found[name] = SPACES[at : at + function["config"]]
        at += function["config"]
    assert at == len(SPACES)
    return found


@pytest.mark.parametrize(
    ("start", "size", "digest"), extents(), ids=[f"{start:#x}" for start, _, _ in extents()]
)
def test_every_extent_of_the_image(machine: Machine, start: int, size: int, digest: str) -> None:
    assert hashlib.sha256(machine.memory.read(start, size)).hexdigest() == digest


def test_nothing_else_is_near(machine: Machine) -> None:
    for start, end in gaps():
        for at in (start, max(start, end - STEP)):
            size = min(STEP, end - at)
            assert machine.memory.read(at, size) == bytes(size), hex(at)
    assert machine.memory.read(IMAGE_SIZE, 64) == bytes(64)


def test_iomem_is_that_of_the_specification(machine: Machine) -> None:
    expected = (DATA / "fd-9000/iomem.txt").read_text()
    assert machine.tree.iomem_text(privileged=True) == expected


def test_ioports_are_those_of_the_specification(machine: Machine) -> None:
    """In a tree 0400-041f lies in the window that holds it; the text has it below the other one."""
    lines = machine.ports.iomem_text(privileged=True).splitlines()
    assert sorted(lines) == sorted(SPECIFIED["ioports"].splitlines())


@pytest.mark.parametrize(("name", "expected"), config_spaces().items())
def test_configuration_space(machine: Machine, name: str, expected: bytes) -> None:
    assert space_of(machine, name) == expected
    bus, device, function = int(name[5:7], 16), int(name[8:10], 16), int(name[11])
    window = ECAM + (bus << 20) + (device << 15) + (function << 12)
    assert machine.memory.read(window, 4096) == expected.ljust(4096, b"\0")


def test_absent_functions_read_all_ones(machine: Machine) -> None:
    present = {
        (int(name[5:7], 16) << 8) + (int(name[8:10], 16) << 3) + int(name[11]) for name in FUNCTIONS
    }
    for number in range(8 << 8):
        if number not in present:
            assert machine.memory.read(ECAM + (number << 12), 64) == b"\xff" * 64, hex(number)


def test_the_functions_are_those_of_the_specification(machine: Machine) -> None:
    devices = machine.pci.devices
    assert list(devices) == list(FUNCTIONS)
    assert {name: d.path for name, d in devices.items()} == {
        name: function["path"] for name, function in FUNCTIONS.items()
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_sysfs_says(machine: Machine, name: str) -> None:
    device, expected = machine.pci.devices[name], FUNCTIONS[name]
    assert resource_text(device) == expected["resource"]
    assert driver_of(device) == expected["driver"]
    said = {
        "irq": device.irq,
        "enable": f"{device.enable_count}\n",
        "numa_node": f"{device.numa_node}\n",
        "dma_mask_bits": f"{device.dma_mask_bits}\n",
        "consistent_dma_mask_bits": f"{device.consistent_dma_mask_bits}\n",
        "power_state": f"{device.power_state}\n",
        "d3cold_allowed": f"{device.d3cold_allowed:d}\n",
        "local_cpus": f"{device.local_cpus}\n",
        "local_cpulist": f"{device.local_cpulist}\n",
        "msi_bus": f"{device.msi_bus:d}\n",
    }
    assert said == {key: expected[key] for key in said}
    assert not device.msi_irqs


def test_slots(machine: Machine) -> None:
    slots = {name: f"{slot.address}\n" for name, slot in machine.pci.slots.items()}
    assert slots == SPECIFIED["slots"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/sys/firmware/dmi/tables/DMI", (DATA / "fd-9000/dmi.bin").read_bytes()),
        ("/sys/firmware/memmap/8/end", b"0x17fffffff\n"),
        ("/sys/class/dmi/id", b"../../devices/virtual/dmi/id"),
        ("/sys/devices/virtual/dmi/id/modalias", b"dmi:bvnFakeBIOSInc.:bvrFB-1.23:\n"),
        ("/sys/devices/system/cpu/cpu3/topology/thread_siblings", b"c\n"),
        ("/sys/devices/system/cpu/cpu1/cache/index3/size", b"8192K\n"),
        ("/sys/kernel/kexec_crash_size", b"134217728\n"),
        ("/sys/firmware/devicetree/base/compatible", b"raspberrypi,3-model-b\0brcm,bcm2837\0"),
    ],
)
def test_files(machine: Machine, path: str, content: bytes) -> None:
    assert machine.files[path].data == content


def test_rules(machine: Machine) -> None:
    assert (machine.rules.version, machine.rules.strict_devmem) == ("6.1", False)
    assert machine.high_memory == IMAGE_SIZE
