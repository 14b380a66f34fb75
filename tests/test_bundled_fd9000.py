"""The bundled profile fd-9000 against the image that specifies it."""

import hashlib

import pytest
from firmware_data import DATA

from fakedev.profiles.build import Parts, build_parts
from fakedev.profiles.loader import load_profile

IMAGE_SIZE = 0x180000000
STEP = 1 << 20


@pytest.fixture(scope="module")
def machine() -> Parts:
    return build_parts(load_profile("fd-9000"))


def extents() -> list[tuple[int, int, str]]:
    lines = (DATA / "fd-9000/extents.txt").read_text().splitlines()[1:]
    return [
        (int(start, 16), int(size, 16), digest)
        for start, size, digest in (line.split() for line in lines)
    ]


def gaps() -> list[tuple[int, int]]:
    """Start and end of what is zero between the extents."""
    known = [(start, start + size) for start, size, _ in extents()]
    ends = [0, *(end for _, end in known)]
    starts = [*(start for start, _ in known), IMAGE_SIZE]
    return [gap for gap in zip(ends, starts, strict=True) if gap[0] < gap[1]]


@pytest.mark.parametrize(
    ("start", "size", "digest"), extents(), ids=[f"{start:#x}" for start, _, _ in extents()]
)
def test_every_extent_of_the_image(machine: Parts, start: int, size: int, digest: str) -> None:
    assert hashlib.sha256(machine.memory.read(start, size)).hexdigest() == digest


def test_nothing_else_is_near(machine: Parts) -> None:
    for start, end in gaps():
        for at in (start, max(start, end - STEP)):
            size = min(STEP, end - at)
            assert machine.memory.read(at, size) == bytes(size), hex(at)
    assert machine.memory.read(IMAGE_SIZE, 64) == bytes(64)


def test_iomem_is_that_of_the_specification(machine: Parts) -> None:
    expected = (DATA / "fd-9000/iomem.txt").read_text()
    assert machine.tree.iomem_text(privileged=True) == expected


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
def test_files(machine: Parts, path: str, content: bytes) -> None:
    assert machine.files[path].data == content


def test_rules(machine: Parts) -> None:
    assert (machine.rules.version, machine.rules.strict_devmem) == ("6.1", False)
    assert machine.high_memory == IMAGE_SIZE
