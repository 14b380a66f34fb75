"""The files of PCI against the listings of the recorded machine, and what they accept."""

import re
import stat

import pytest
from pci_recorded import recorded, recorded_machine
from pci_tree import (
    USER,
    Setup,
    directory_at,
    entries_of,
    node_at,
    read,
)

# Made by other subsystems: profiles add them as files of their own.
OTHERS = re.compile(
    r".*:pcie0..|net|nvme|pools|usb.|uio|drm|graphics|sound|i2c-.|virtio.|ata..|remapped_nvme"
)
DEVICES = sorted(recorded()["boot"])


@pytest.fixture
def boot() -> Setup:
    return Setup(recorded_machine())


@pytest.fixture(scope="module")
def states() -> dict[str, Setup]:
    return {state: Setup(recorded_machine(state)) for state in ("boot", "bound")}


# -- the recorded listings ----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["boot", "bound"])
@pytest.mark.parametrize("name", DEVICES)
def test_the_directory_of_a_function(states: dict[str, Setup], state: str, name: str) -> None:
    expected = recorded()[state][name]["entries"]
    expected = {name: value for name, value in expected.items() if not OTHERS.fullmatch(name)}
    assert entries_of(states[state].device(name)) == expected


@pytest.mark.parametrize("state", ["boot", "bound"])
@pytest.mark.parametrize("name", DEVICES)
def test_the_texts_of_a_function(states: dict[str, Setup], state: str, name: str) -> None:
    expected = recorded()[state][name]["texts"]
    device = states[state].device(name)
    shown = {entry: read(device.lookup(entry)).decode() for entry in expected if entry not in {
        "pools", "remapped_nvme",
    }}  # fmt: skip
    assert shown == {entry: expected[entry] for entry in shown}
    for entry, node in device.entries().items():
        if stat.S_ISREG(node.attr().mode) and node.attr().mode & 0o444 == 0o444:
            assert entry in expected or entry == "config"


def test_the_directories_of_the_bus(boot: Setup) -> None:
    expected = recorded()["bus"]
    for path in ("/sys/bus/pci", "/sys/bus/pci/devices", "/sys/bus/pci/drivers/pcieport"):
        assert entries_of(directory_at(boot.tree, path)) == expected[path]
    assert list(directory_at(boot.tree, "/sys/bus/pci/drivers").entries()) == ["pcieport"]
    assert boot.machine.pci.modprobe("pci-stub") is None
    stub = directory_at(boot.tree, "/sys/bus/pci/drivers/pci-stub")
    assert entries_of(stub) == recorded()["pci-stub"]


def test_procfs(boot: Setup) -> None:
    shown = read(node_at(boot.tree, "/proc/bus/pci/devices"), size=1 << 16).decode()
    expected = recorded()["proc"].replace("\t123411e8\t15\t", "\t123411e8\ta\t")  # enabled by then
    assert shown == expected
    buses = directory_at(boot.tree, "/proc/bus/pci")
    assert list(buses.entries()) == ["00", "01", "devices"]
    assert entries_of(directory_at(boot.tree, "/proc/bus/pci/01")) == {
        "00.0": [stat.S_IFREG | 0o644, 4096, ""]
    }
    assert buses.lookup("0000:00") is None
    assert buses.lookup("zz") is None


def test_ioports(boot: Setup) -> None:
    node = node_at(boot.tree, "/proc/ioports")
    shown = read(node).decode()
    assert "  c000-cfff : PCI Bus 0000:01\n    c000-c01f : 0000:01:00.0\n" in shown
    assert set(shown.splitlines()) <= set(recorded()["ioports"].splitlines()) | {
        "  0700-073f : 0000:00:1f.3"
    }
    assert "c000" not in read(node, USER).decode()
