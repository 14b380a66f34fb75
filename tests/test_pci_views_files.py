"""What the files of PCI show and accept, one by one."""

import os
import stat
from typing import Any

import pytest
from pci_recorded import recorded, recorded_machine
from pci_tree import (
    E1000,
    EDU,
    NVME,
    PORT,
    ROOT,
    USER,
    WRITER,
    Setup,
    device_path,
    directory_at,
    entries_of,
    node_at,
    read,
    refused,
    write,
)

from fakedev.model.files import StaticFile
from fakedev.views.node import Opener


@pytest.fixture
def boot() -> Setup:
    return Setup(recorded_machine())


def test_permission_bits_hold_for_root_too(boot: Setup) -> None:
    vendor, remove = boot.attribute(EDU, "vendor"), boot.attribute(EDU, "remove")
    assert refused(vendor.open, WRITER) == "EACCES"
    assert refused(remove.open, ROOT) == "EACCES"
    assert refused(boot.attribute(EDU, "config").open, Opener(1, 1000, os.O_RDWR)) == "EACCES"
    handle = vendor.open(ROOT)
    assert [b"".join(handle.read(*at)) for at in ((0, 3), (3, 9), (7, 9), (100, 4))] == [
        b"0x1", b"234\n", b"", b"",
    ]  # fmt: skip


def test_enable_counts(boot: Setup) -> None:
    enable = boot.attribute(EDU, "enable")
    assert write(enable, "1") == 1
    assert read(enable) == b"1\n"
    assert write(enable, "0") == 1
    assert refused(write, enable, "0") == "EIO"
    assert refused(write, enable, "x") == "EINVAL"
    assert refused(write, boot.attribute(PORT, "enable"), "1") == "EBUSY"
    handle = enable.open(Opener(1, 0, os.O_RDWR))
    handle._opener = Opener(1, 1000, os.O_RDWR)  # type: ignore[attr-defined]
    assert refused(handle.write, 0, memoryview(b"x")) == "EPERM"


@pytest.mark.parametrize(
    ("attribute", "good", "shown", "bad"),
    [
        ("numa_node", "0\n", "0\n", "7"),
        ("msi_bus", "0", "0\n", ""),
        ("broken_parity_status", "0x5", "1\n", "y"),
        ("d3cold_allowed", "1", "1\n", "--"),
        ("driver_override", "pci-stub\nrest", "pci-stub\n", "x" * 4095),
        ("uevent", "change", None, "changed"),
        ("uevent", "add 01234567-89ab-cdef-0123-456789abcdef A=1", None, "add nothing"),
    ],
)
def test_settings(boot: Setup, attribute: str, good: str, shown: str | None, bad: str) -> None:
    node = boot.attribute(EDU, attribute)
    assert write(node, good) == len(good)
    if shown is not None:
        assert read(node) == shown.encode()
    assert refused(write, node, bad) == "EINVAL"


def test_reset_and_its_methods(boot: Setup) -> None:
    reset, method = boot.attribute(NVME, "reset"), boot.attribute(NVME, "reset_method")
    assert write(reset, "1") == 1
    assert refused(write, reset, "2") == "EINVAL"
    assert refused(write, method, "warm") == "EINVAL"
    assert write(method, "\n") == 1
    assert refused(write, reset, "1") == "ENOTTY"
    assert read(method) == b"\n"
    assert write(boot.attribute(PORT, "reset_subordinate"), "1") == 1


def test_configuration_by_privilege(boot: Setup) -> None:
    config = boot.attribute(E1000, "config")
    assert read(config, offset=1, size=3) == bytes.fromhex("800e10")
    assert [len(read(config, size=n, offset=at)) for n, at in ((5000, 0), (16, 0xFC), (16, 256))] == [
        256, 4, 0,
    ]  # fmt: skip
    assert [len(read(config, USER, size=n, offset=at)) for n, at in ((256, 0), (8, 60), (4, 64))] == [
        64, 4, 0,
    ]  # fmt: skip
    assert write(config, b"\x03\x00", 4) == 2
    assert read(config, offset=4, size=2) == b"\x03\x00"
    assert write(config, bytes(16), 0xFC) == 4
    assert refused(write, config, b"x", 256) == "EFBIG"
    held = config.open(ROOT)
    assert len(held.read(0, 256)[0]) == 256
    boot.machine.rules = boot.machine.rules.preset("6.1", phys_bits=40, lockdown="integrity")
    assert refused(write, config, b"\x03\x00", 4) == "EPERM"


def test_configuration_in_procfs(boot: Setup) -> None:
    node = node_at(boot.tree, "/proc/bus/pci/01/00.0")
    assert len(read(node, size=4096)) == 4096
    assert len(read(node, USER, size=4096)) == 64
    assert write(node, b"\x00" * 4, 4096) == 0
    assert write(node, b"\x07", 4) == 1
    held = node.open(ROOT)
    write(boot.attribute("0000:01:00.0", "remove"), "1")
    assert refused(held.read, 0, 4) == "EIO"
    assert refused(held.write, 0, memoryview(b"1")) == "EIO"


class Stubborn:
    """A model with a fault."""

    def config_written(self, function: Any, offset: int, size: int) -> None:
        raise ZeroDivisionError("no reason")


def test_a_model_that_raises(boot: Setup) -> None:
    boot.machine.pci.devices[EDU].function.model = Stubborn()
    assert refused(write, boot.attribute(EDU, "config"), b"\x07", 4) == "EIO"
    event = boot.machine.events[-1]
    assert event.kind == "error"
    assert "Stubborn raised ZeroDivisionError: no reason" in event.message
    assert read(boot.attribute(EDU, "vendor")) == b"0x1234\n"


def test_ports_of_a_bar(boot: Setup) -> None:
    node = boot.attribute(E1000, "resource1")
    assert write(node, b"\x11\x22\x33\x44", 8) == 4
    assert read(node, offset=9, size=2) == b"\x22\x33"
    assert boot.machine.port_space.read(0xD108, 4) == b"\x11\x22\x33\x44"
    assert [refused(read, node, size=size) for size in (3, 8)] == ["EINVAL", "EINVAL"]
    assert read(node, offset=0x40) == b""
    assert len(read(node, offset=0x3E, size=4)) == 2  # cut at the end first
    assert refused(write, node, b"x", 0x40) == "EFBIG"


def rom_image(size: int, *, last: bool) -> bytes:
    image = bytearray(size)
    image[:2], image[24:26] = b"\x55\xaa", (28).to_bytes(2, "little")
    image[28:32] = b"PCIR"
    image[44:46] = (size // 512).to_bytes(2, "little")
    image[49] = 0x80 if last else 0
    return bytes(image)


def test_rom(boot: Setup) -> None:
    rom = boot.attribute(E1000, "rom")
    assert refused(read, rom) == "EINVAL"
    write(rom, "1")
    assert refused(read, rom) == "EIO"
    target = boot.machine.pci.devices[E1000].resources[6].bar.target
    target.write(0, rom_image(1024, last=False) + rom_image(512, last=True))
    assert read(rom) == rom_image(1024, last=False) + rom_image(512, last=True)
    assert read(rom, offset=1500) == bytes(36)
    assert read(rom, offset=2000) == b""
    write(rom, "0\n")
    assert refused(read, rom) == "EINVAL"


def test_power_directory(boot: Setup) -> None:
    power = directory_at(boot.tree, f"{device_path(EDU)}/power")
    assert list(power.entries()) == [
        "autosuspend_delay_ms", "control", "runtime_active_time", "runtime_status",
        "runtime_suspended_time",
    ]  # fmt: skip
    assert refused(read, power.lookup("autosuspend_delay_ms")) == "EIO"
    control = power.lookup("control")
    assert read(control) == b"on\n"
    assert write(control, "auto\n") == 5
    assert read(control) == b"auto\n"
    assert refused(write, control, "off") == "EINVAL"


def test_buses(boot: Setup) -> None:
    links = directory_at(boot.tree, "/sys/class/pci_bus")
    assert entries_of(links) == {
        "0000:00": [stat.S_IFLNK | 0o777, 0, "../../devices/pci0000:00/pci_bus/0000:00"],
        "0000:01": [
            stat.S_IFLNK | 0o777, 0, "../../devices/pci0000:00/0000:00:0b.0/pci_bus/0000:01",
        ],
    }  # fmt: skip
    assert links.lookup("0000:02") is None
    bus = directory_at(boot.tree, f"{device_path(PORT)}/pci_bus/0000:01")
    shown = entries_of(bus)
    assert {name: value[2] for name, value in shown.items() if value[2]} == {
        "device": "../../../0000:00:0b.0", "subsystem": "../../../../../class/pci_bus",
    }  # fmt: skip
    assert read(bus.lookup("cpuaffinity")) == b"3\n"
    assert read(bus.lookup("cpulistaffinity")) == b"0-1\n"
    assert write(bus.lookup("rescan"), "0") == 1
    assert refused(write, bus.lookup("rescan"), "x") == "EINVAL"


def test_slots(boot: Setup) -> None:
    path = "/sys/bus/pci/slots/0"
    slot = directory_at(boot.tree, path)
    assert entries_of(slot)["module"][2] == "../../../../module/pciehp"
    machine = recorded_machine()
    machine.files[f"{path}/module"] = StaticFile.symlink("../../../../module/acpiphp")
    assert entries_of(directory_at(Setup(machine).tree, path)) == recorded()["bus"][path]
    names = ("address", "adapter", "power", "latch", "cur_bus_speed", "max_bus_speed")
    assert [read(slot.lookup(name)).decode().strip() for name in names] == [
        "0000:01:00", "1", "1", "0", "2.5 GT/s PCIe", "16.0 GT/s PCIe",
    ]  # fmt: skip
    write(slot.lookup("attention"), "2")
    assert read(slot.lookup("attention")) == b"2\n"
    assert refused(write, slot.lookup("power"), "7") == "EINVAL"
    write(slot.lookup("power"), "0")
    assert read(slot.lookup("power")) == b"0\n"
    assert boot.device(PORT).lookup("0000:01:00.0") is None
