"""A descriptor of a device that is gone never reaches the one that stands in its place."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hostneeds import needs_sandbox
from nd_machines import pmem_machine
from pci_tree import EDU
from test_exact_supervisor import exact, faults

from fakedev import Machine, build_machine, load_profile

pytestmark = needs_sandbox
UIO = "uio_pci_generic"
BEGIN = """
import errno, mmap, os, sys
def tried(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]
path, size, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
old = os.open(path, os.O_RDWR)
before = mmap.mmap(old, size)
before[0:3] = b"old"
print("mapped", flush=True)
sys.stdin.readline()
if how == "map":
    found = tried(lambda: mmap.mmap(old, size))
    print(found if isinstance(found, str) else "mapped", flush=True)
    if not isinstance(found, str):
        found[0]
else:
    print(tried(lambda: os.pread(old, 3, 0)), tried(lambda: os.pwrite(old, b"old", 0)))
"""


def run(machine: Machine, path: str, size: int, how: str, replace: Callable[[], None]) -> Any:
    command = [sys.executable, "-c", BEGIN, path, str(size), how]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with exact(machine).popen(command, **pipes) as tool:
        try:
            assert tool.stdout is not None
            assert tool.stdout.readline() == "mapped\n"
            replace()
            output = tool.communicate("\n", timeout=20)[0]
        finally:
            tool.kill()
    assert faults(machine) == []
    return tool.returncode, output


def see(machine: Machine, path: str) -> str:
    command = ["head", "-c", "3", path]
    return str(exact(machine).run(command, capture_output=True, timeout=20).stdout)


@pytest.mark.parametrize("path", ["/dev/pmem0", "/dev/pmem-fs/pmem0/data0"])
@pytest.mark.parametrize(
    ("how", "expected"),
    [("map", (-signal.SIGBUS, "mapped\n")), ("read", (0, "EIO EIO\n"))],
)
def test_a_module_of_persistent_memory(path: str, how: str, expected: tuple[int, str]) -> None:
    machine = pmem_machine()

    def replace() -> None:
        machine.nd.unplug("region0")
        machine.nd.plug("region0", replace=True)

    assert run(machine, path, 4096, how, replace) == expected
    assert see(machine, path) == str(bytes(3))


def test_a_dax_device() -> None:
    machine = pmem_machine()

    def replace() -> None:
        machine.nd.unplug("region1")
        machine.nd.plug("region1", replace=True)

    assert run(machine, "/dev/dax1.0", 2 << 20, "map", replace) == (0, "ENXIO\n")


@pytest.mark.parametrize(("how", "expected"), [("map", "ENODEV\n"), ("read", "ENODEV ENODEV\n")])
def test_a_bar_of_a_function_that_was_replaced(how: str, expected: str) -> None:
    machine = build_machine(load_profile("pc-q35"))

    def replace() -> None:
        machine.pci.unplug(EDU)
        machine.pci.plug(EDU)

    path = f"/sys/bus/pci/devices/{EDU}/resource0"
    assert run(machine, path, 4096, how, replace) == (0, expected)


def test_a_uio_device() -> None:
    machine = build_machine(load_profile("pc-q35"))
    bus = machine.pci
    bus.modprobe(UIO)
    bus.new_id(UIO, "1234 11e8")

    def replace() -> None:
        bus.unplug(EDU)
        bus.plug(EDU)

    assert run(machine, "/dev/uio0", 4096, "map", replace) == (0, "EINVAL\n")
