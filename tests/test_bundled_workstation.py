"""The bundled profile workstation: what it has, and what lspci makes of its configuration spaces."""

import subprocess
from pathlib import Path

import pytest
from firmware_data import tool
from pci_data import driver_of, lspci_dump, space_of

from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

GPU, DISK, DOCK, PORT = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:00:07.0"
TREE = """\
-[0000:00]-+-00.0
           +-01.0-[01]--+-00.0
           |            \\-00.1
           +-06.0-[02]----00.0
           +-07.0-[03-2c]----00.0-[04-2c]--+-00.0-[05]----00.0
           |                               \\-01.0-[06-2c]--
           +-0d.0
           +-0d.2
           +-14.0
           +-14.2
           +-16.0
           +-17.0
           +-1c.0-[2d-30]----00.0-[2e-30]--+-08.0-[2f]--+-00.0
           |                               |            \\-00.1
           |                               \\-09.0-[30]--
           +-1d.0-[31]----00.0
           +-1f.0
           +-1f.3
           +-1f.4
           \\-1f.5
"""
DRIVERS = {
    "0000:00:0d.0": "xhci_hcd",
    "0000:00:0d.2": "thunderbolt",
    "0000:00:17.0": "ahci",
    "0000:00:1f.3": "snd_hda_intel",
    "0000:00:1f.4": "i801_smbus",
    GPU: "nvidia",
    "0000:01:00.1": "snd_hda_intel",
    DISK: "nvme",
    "0000:05:00.0": "atlantic",
    "0000:2f:00.0": "i40e",
    "0000:2f:00.1": "i40e",
    "0000:31:00.0": "igc",
}


@pytest.fixture(scope="module")
def machine() -> Machine:
    return build_machine(load_profile("workstation"))


@pytest.fixture(scope="module")
def shown(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`lspci -vvvxxxx` of a dump of all configuration spaces."""
    return _lspci(tmp_path_factory.mktemp("lspci"), machine, "-vvvxxxx")


def _lspci(directory: Path, machine: Machine, option: str) -> str:
    dump = directory / "dump"
    dump.write_text(lspci_dump(machine))
    command = [tool("lspci", "pciutils"), "-F", str(dump), option]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # modules of the host have nothing to do with it
    errors = [line for line in ran.stderr.splitlines() if "libkmod" not in line]
    assert errors == []
    return ran.stdout


@pytest.mark.parametrize("name", ["arm64-server", "fd-9000", "pc-q35", "workstation"])
def test_lspci_warns_of_nothing(name: str, tmp_path: Path) -> None:
    text = _lspci(tmp_path, build_machine(load_profile(name)), "-vvvxxxx")
    for bad in ("!!!", "Unknown header", "rev ff", "<chain looped>", "<chain broken>", "<error>"):
        assert bad not in text


def test_the_topology(machine: Machine, tmp_path: Path) -> None:
    assert _lspci(tmp_path, machine, "-t") == TREE


def test_a_64_bit_bar_of_16_gib(machine: Machine) -> None:
    gpu = machine.pci.devices[GPU]
    bar = gpu.resources[1]
    assert (bar.start, bar.size, bar.flags) == (0x40_0000_0000, 16 << 30, 0x14220C)
    assert machine.memory.read(bar.start, 4) == b"VRAM"
    assert machine.memory.read(bar.end - 7, 8) == bytes(8)


def test_drivers_and_message_interrupts(machine: Machine) -> None:
    devices = machine.pci.devices
    assert {name: driver_of(devices[name]) for name in DRIVERS} == DRIVERS
    bridges = [device for device in devices.values() if device.is_bridge]
    assert len(bridges) == 11
    assert {driver_of(bridge) for bridge in bridges} == {"pcieport"}
    disk = devices[DISK]
    assert (disk.msi, len(disk.msi_irqs)) == ("msix", 17)
    numbers = [number for device in devices.values() for number in device.msi_irqs]
    assert len(numbers) == len(set(numbers))


def test_claims_are_in_iomem(machine: Machine) -> None:
    lines = machine.tree.iomem_text(privileged=True).splitlines()
    for line in (
        "  4000000000-4401ffffff : PCI Bus 0000:01",
        "    4000000000-43ffffffff : 0000:01:00.0",
        "      80000000-80ffffff : nvidia",
        "      81200000-81203fff : nvme",
        "  82000000-8e0fffff : PCI Bus 0000:03",
        "        82000000-8200ffff : 0000:05:00.0",
        "          82000000-8200ffff : atlantic",
        "          6100800000-6100ffffff : i40e",
    ):
        assert line in lines


def test_the_usb4_port_takes_its_subtree_along(machine: Machine) -> None:
    bus = machine.pci
    names = [name for name in bus.devices if name > "0000:03" and name < "0000:2d"]
    assert len(names) == 4
    port = bus.devices[PORT]
    assert port.function.hotplug_port
    before = machine.tree.iomem_text(privileged=True)
    bus.unplug("03:00.0")
    assert not set(names) & set(bus.devices)
    assert machine.pci.fabric.config_read(port.bdf, 0, 2) == b"\x86\x80"
    bus.plug("03:00.0")
    assert set(names) <= set(bus.devices)
    machine.reset()
    assert machine.tree.iomem_text(privileged=True) == before


@pytest.mark.parametrize(
    "text",
    [
        "SR-IOV)",
        "Initial VFs: 64, Total VFs: 64",
        "BAR 1: current size: 16GB, supported: 64MB 128MB 256MB 512MB 1GB 2GB 4GB 8GB 16GB",
        "MSI-X: Enable+ Count=130 Masked-",
        "Express (v2) Upstream Port",
        "Express (v2) Downstream Port (Slot+)",
        "Express (v2) Root Port (Slot+)",
        "HotPlug+ Surprise+",
        "Device Serial Number 3c-fd-fe-ff-ff-9e-50-08",
        "Alternative Routing-ID Interpretation (ARI)",
        "Address Translation Service (ATS)",
        "L1 PM Substates",
        "USB4 Host Interface",
    ],
)
def test_lspci_shows(shown: str, text: str) -> None:
    assert text in shown


def test_configuration_spaces_are_in_the_window(machine: Machine) -> None:
    for name, device in machine.pci.devices.items():
        space = space_of(machine, name)
        at = 0xC0000000 + device.bdf.ecam
        assert machine.memory.read(at, len(space)) == space, name


def test_registers_behind_a_bar(machine: Machine) -> None:
    spi = machine.pci.devices["0000:00:1f.5"].resources[0].start
    assert machine.memory.read(spi, 8) == bytes.fromhex("0000ff1f 00e00000")
    machine.memory.write(spi, b"\xff" * 8)
    assert machine.memory.read(spi, 8) == bytes.fromhex("0000ff1f 00000000")
    machine.reset()
    assert machine.memory.read(spi + 4, 4) == bytes.fromhex("00e00000")


def test_rules_and_memory(machine: Machine) -> None:
    rules = machine.rules
    assert (rules.version, rules.strict_devmem, rules.io_strict_devmem) == ("6.12", True, True)
    assert machine.high_memory == 0x10_9000_0000
    ram = [node for node in machine.tree.root.children if node.name == "System RAM"]
    assert sum(node.end - node.start + 1 for node in ram) > 62 << 30
