"""The bundled profile arm64-server: what its rules make of each place, and its story."""

import errno
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from pci_data import driver_of
from support import BIN, need

from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

STORY = Path(__file__).parent.parent / "docs" / "stories" / "arm64-server.md"
UART, GPIO, DISK, CODE, NOMAP = 0x0900_0000, 0x0901_0000, 0x1020_0000, 0x8021_0000, 0xFC01_0000
HIGH = 0x80_8000_0000


@pytest.fixture(scope="module")
def machine() -> Machine:
    return build_machine(load_profile("arm64-server"))


def code(machine: Machine, operation: str, address: int) -> str:
    number = machine.explain(operation, Range(address, 4096)).errno
    return errno.errorcode[number] if number else "ok"


@pytest.mark.parametrize(
    ("address", "read", "mmap"),
    [
        (GPIO, "EFAULT", "ok"),  # registers can be mapped, never read
        (UART, "EFAULT", "EPERM"),
        (DISK, "EFAULT", "EPERM"),
        (0x1100_0000, "EFAULT", "ok"),  # a BAR without a driver
        (0x4000_0000, "EFAULT", "EPERM"),  # the configuration window
        (CODE, "EPERM", "EPERM"),
        (NOMAP, "EFAULT", "ok"),  # firmware's memory is in no memory block
        (HIGH, "EPERM", "EPERM"),
        (0, "EFAULT", "ok"),  # the first MiB is nothing special
    ],
)
def test_the_rules(machine: Machine, address: int, read: str, mmap: str) -> None:
    assert code(machine, "read", address) == code(machine, "write", address) == read
    assert code(machine, "mmap", address) == mmap


def test_its_memory(machine: Machine) -> None:
    assert machine.rules.arch == "aarch64"
    ram = [node for node in machine.tree.root.children if node.name == "System RAM"]
    assert sum(node.end + 1 - node.start for node in ram) == (128 << 30) - (2 << 20) - (64 << 10)
    assert machine.memory.read(CODE, 2) == b"MZ"
    assert machine.memory.read(CODE + 0x38, 4) == b"ARMd"
    assert machine.memory.read(UART + 0x18, 1) == b"\x90"
    assert "/sys/firmware/memmap/0/start" not in machine.files  # that is of the PC


def test_its_drivers(machine: Machine) -> None:
    devices = machine.pci.devices
    drivers = {name: driver_of(device) for name, device in devices.items()}
    assert drivers == {
        "0000:00:00.0": None,
        "0000:00:01.0": "pcieport",
        "0000:00:02.0": "pcieport",
        "0000:00:03.0": None,
        "0000:01:00.0": "nvme",
        "0000:02:00.0": "igb",
    }


def test_its_interrupt_controller(machine: Machine) -> None:
    table = machine.files["/sys/firmware/acpi/tables/APIC"].data
    kinds, at = [], 44
    while at < len(table):
        kinds.append((table[at], table[at + 1]))
        at += table[at + 1]
    # as the specification numbers and sizes them: distributor, redistributors, a CPU each
    assert kinds == [(12, 24), (14, 16), *[(11, 80)] * 32]
    assert sum(table) & 0xFF == 0


def transcript() -> list[tuple[str, str]]:
    """Commands of the story with what they print."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", STORY.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@needs_sandbox
@pytest.mark.parametrize(("command", "output"), transcript(), ids=[c for c, _ in transcript()])
def test_the_story_is_real(command: str, output: str) -> None:
    if "busybox" in shlex.split(command):
        need("busybox", "busybox-static")
    path = f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )
    assert done.stdout + done.stderr == output
