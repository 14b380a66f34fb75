"""Files of PCIe links and of virtual functions."""

import pytest
from pci_tree import Setup, directory_at, entries_of, read, refused, write

from fakedev.devices.pci import header
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.capabilities import build_chain
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.settings import Facts, PciSettings
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resources import ResourceTree

PORT = "/sys/devices/pci0000:00/0000:00:01.0"
CARD = f"{PORT}/0000:01:00.0"
ASPM, CLOCK = 3 << 10, 1 << 18  # L0s and L1, clock power management
LINKCAP = 0x43 | ASPM | CLOCK


def function(bdf: str, *capabilities: tuple[str, object], secondary: int = 0) -> Function:
    config = ConfigSpace(4096)
    if secondary:
        header.write_bridge(config, header.Bridge(0, secondary, secondary))
    header.write_identity(config, header.Identity(0x8086, 0x1572, 0x020000))
    build_chain(config, capabilities)
    return Function(Bdf.parse(bdf), config)


@pytest.fixture
def card() -> Setup:
    fabric = Fabric(
        [
            function(
                "00:01.0",
                ("pcie", {"type": "root-port", "linkcap": LINKCAP, "devctl2": 0x20}),
                ("l1ss", {}),
                secondary=1,
            ),
            function(
                "01:00.0",
                ("pm", {"capabilities": 0xC803}),
                ("pcie", {"speed": 4, "width": 16, "linkcap": LINKCAP, "linkctl": 0x102}),
                ("aer", {}),
                ("sriov", {"total": 64, "offset": 16, "stride": 1, "device": 0x154C}),
                ("l1ss", {"capabilities": 0x1F & ~2}),
            ),
            function("01:00.1", ("pcie", {"speed": 3, "width": 8})),
        ],
        PhysicalMemory(),
        PhysicalMemory(),
    )
    iomem, ports = ResourceTree(), ResourceTree.ioports()
    facts = {Bdf.parse("01:00.1"): Facts(link_speed="Unknown", link_width=0, max_link_width=255)}
    bus = PciBus(fabric, iomem=iomem, ioports=ports, settings=PciSettings(facts=facts))
    bus.boot()
    machine = Machine(KernelRules.preset("6.1", phys_bits=40), PhysicalMemory(), iomem, ports=ports)
    machine.pci = bus
    bus.attach(machine)
    return Setup(machine)


def texts(setup: Setup, path: str, *names: str) -> list[str]:
    directory = directory_at(setup.tree, path)
    return [read(directory.lookup(name)).decode().strip() for name in names]


def test_speeds_and_widths(card: Setup) -> None:
    names = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
    assert texts(card, CARD, *names) == ["16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "4"]
    assert texts(card, f"{PORT}/0000:01:00.1", *names) == ["Unknown", "0", "8.0 GT/s PCIe", "255"]


def test_power_saving_of_a_link(card: Setup) -> None:
    states = directory_at(card.tree, f"{CARD}/link")
    assert list(states.entries()) == [
        "clkpm", "l0s_aspm", "l1_1_aspm", "l1_2_aspm", "l1_2_pcipm", "l1_aspm",
    ]  # fmt: skip
    assert texts(card, f"{CARD}/link", "clkpm", "l0s_aspm", "l1_aspm") == ["1", "0", "1"]
    assert write(states.lookup("l0s_aspm"), "on\n") == 3
    assert write(states.lookup("l1_aspm"), "0") == 1
    assert texts(card, f"{CARD}/link", "l0s_aspm", "l1_aspm") == ["1", "0"]
    write(states.lookup("l1_1_aspm"), "n")
    assert texts(card, f"{CARD}/link", "l1_1_aspm") == ["0"]
    assert refused(write, states.lookup("clkpm"), "maybe") == "EINVAL"
    assert not directory_at(card.tree, f"{PORT}/link").entries()


def test_virtual_functions_are_shown(card: Setup) -> None:
    names = [f"sriov_{n}" for n in ("totalvfs", "numvfs", "offset", "stride", "vf_device")]
    assert texts(card, CARD, *names, "sriov_drivers_autoprobe") == [
        "64", "0", "16", "1", "154c", "1",
    ]  # fmt: skip
    numvfs = directory_at(card.tree, CARD).lookup("sriov_numvfs")
    assert write(numvfs, "0") == 1
    assert [refused(write, numvfs, text) for text in ("x", "65", "4")] == [
        "EINVAL", "ERANGE", "ENOENT",
    ]  # fmt: skip


def test_what_else_a_card_has(card: Setup) -> None:
    assert texts(card, CARD, "ari_enabled") == ["1"]
    assert "aer_dev_fatal" in entries_of(directory_at(card.tree, CARD))
    assert "aer_rootport_total_err_cor" not in entries_of(directory_at(card.tree, CARD))
    power = directory_at(card.tree, f"{CARD}/power")
    wakeup, count = power.lookup("wakeup"), power.lookup("wakeup_count")
    assert [read(wakeup), read(count)] == [b"disabled\n", b"\n"]
    write(wakeup, "enabled")
    assert [read(wakeup), read(count)] == [b"enabled\n", b"0\n"]
