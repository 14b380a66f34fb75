"""The bundled profile pc-q35 against what was recorded on the machine."""

from collections.abc import Iterator
from typing import Any

import pytest
from firmware_data import DATA
from pci_data import driver_of, resource_text, space_of
from pci_recorded import recorded
from recordings import records

from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

# config-read records of the phase sysfs: offset, bytes
HEADERS = {
    "0000:00:02.0": [(0x00, "f41a1011030100000100000500000000"), (0x3C, "0000000000000000")],
    "0000:00:03.0": [(0x00, "86800e10030100000300000200000000"), (0x3C, "0b01000000000000")],
    "0000:00:05.0": [(0x00, "3412e811030110001000ff0000000000"), (0x3C, "0a01000005008000")],
    "0000:00:0c.0": [(0x00, "361b0500030100000000ff0000000000"), (0x3C, "0000000000000000")],
}
# state records: the command register before a driver came
COMMANDS = {
    "00:02.0": 0x103, "00:03.0": 0x103, "00:04.0": 0x107, "00:05.0": 0x103, "00:07.0": 0x103,
    "00:08.0": 0x103, "00:09.0": 0x103, "00:1f.2": 0x107, "01:00.0": 0x103,
}  # fmt: skip
BOUND_COMMANDS = {
    "00:03.0": 0x107, "00:04.0": 0x507, "00:07.0": 0x103, "00:08.0": 0x507, "00:09.0": 0x507,
    "00:1f.2": 0x507,
}  # fmt: skip
BUILT_IN = [
    "8250_mid", "8250_pericom", "agpgart-intel", "agpgart-sis", "agpgart-via", "iosf_mbi_pci",
    "pcieport", "serial", "shpchp", "xen-platform-pci",
]  # fmt: skip
LOADED_IN_THE_END = ["nvme", "ahci", "xhci_pci", "snd_hda_intel", "i2c_i801", "virtio_pci", "bochs"]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return build_machine(load_profile("pc-q35"))


@pytest.fixture(scope="module")
def driven() -> Machine:
    """After everything that the recording did to PCI: devices moved, all drivers loaded."""
    driven = build_machine(load_profile("pc-q35"))
    bus = driven.pci
    bus.modprobe("uio_pci_generic")
    bus.new_id("uio_pci_generic", "1234 11e8")
    for name in ("0000:00:02.0", "0000:00:05.0"):
        bus.remove(bus.devices[name], "1")
        bus.rescan("1")
    bus.modprobe("e1000")
    bus.remove(bus.devices["0000:00:03.0"], "1")
    bus.rescan("1")
    for module in LOADED_IN_THE_END:
        bus.modprobe(module)
    return driven


def touches() -> Iterator[dict[str, Any]]:
    """Successful loads through mappings at boot."""
    for record in (*records("matrix-boot"), *records("lowram")):
        loads = record["op"] in {"mmap+touch", "touch_read"} and record["result"] == 0
        if loads and record["data"]:
            yield record


def test_memory_holds_what_the_real_one_held(machine: Machine) -> None:
    checked = of_functions = 0
    for record in touches():
        args = record["args"]
        address = int(args.get("off") or args["phys"], 16)
        if record["case"] == "lowram-second-mapping-sees-write":
            continue
        data = bytes.fromhex(record["data"])
        assert machine.memory.read(address, len(data)) == data, record
        last = record["extra"].get("last_u32")
        if last is not None:
            end = address + int(args["len"], 16)
            assert machine.memory.read(end - 4, 4) == int(last, 16).to_bytes(4, "little"), record
        checked += 1
        of_functions += " > 0000:" in args.get("iomem", "")
    assert checked > 100
    assert of_functions > 30


def test_low_ram_is_empty_where_it_was(machine: Machine) -> None:
    pages = [p for p in range(0x1000, 0x9F000, 0x1000) if any(machine.memory.read(p, 0x1000))]
    recorded_pages = "6 10 11 12 13 14 15 16 1f 20 98 99 9a 9b 9c 9d 9e"
    assert " ".join(f"{page >> 12:x}" for page in pages) == recorded_pages


def test_roms_drop_stores(machine: Machine) -> None:
    before = machine.memory.read(0xF0000, 16)
    machine.memory.write(0xF0000, b"overwritten")
    assert machine.memory.read(0xF0000, 16) == before
    assert any(before)


def test_iomem_is_that_of_the_machine(machine: Machine) -> None:
    assert machine.tree.iomem_text(privileged=True) == (DATA / "iomem-root-boot.txt").read_text()


def test_ioports_are_those_of_the_machine(machine: Machine) -> None:
    assert machine.ports.iomem_text(privileged=True) == recorded()["ioports"]


def test_high_memory_is_the_end_of_ram(machine: Machine) -> None:
    assert machine.high_memory == 0x1FFD6000
    assert machine.rules.phys_bits == 40


def test_the_functions_are_those_of_the_machine(machine: Machine) -> None:
    assert list(machine.pci.devices) == list(recorded()["boot"])


@pytest.mark.parametrize("name", recorded()["boot"])
def test_what_sysfs_said_at_boot(machine: Machine, name: str) -> None:
    device, shown = machine.pci.devices[name], recorded()["boot"][name]
    texts, entries = shown["texts"], shown["entries"]
    said = {
        "vendor": f"{device.vendor:#06x}\n",
        "device": f"{device.device:#06x}\n",
        "subsystem_vendor": f"{device.subvendor:#06x}\n",
        "subsystem_device": f"{device.subdevice:#06x}\n",
        "class": f"{device.class_:#08x}\n",
        "revision": f"{device.revision:#04x}\n",
        "irq": f"{device.irq}\n",
        "enable": f"{device.enable_count}\n",
        "resource": resource_text(device),
        "power_state": f"{device.power_state}\n",
        "d3cold_allowed": f"{device.d3cold_allowed:d}\n",
        "dma_mask_bits": f"{device.dma_mask_bits}\n",
        "consistent_dma_mask_bits": f"{device.consistent_dma_mask_bits}\n",
        "numa_node": f"{device.numa_node}\n",
        "local_cpus": f"{device.local_cpus}\n",
        "local_cpulist": f"{device.local_cpulist}\n",
        "msi_bus": f"{device.msi_bus:d}\n",
    }
    assert said == {key: texts[key] for key in said}
    assert " ".join(device.reset_methods) == texts.get("reset_method", "").strip()
    assert device.boot_vga is ("boot_vga" in entries)
    assert device.function.config.size == entries["config"][1]
    assert bool(device.msi_irqs) is ("msi_irqs" in entries)


@pytest.mark.parametrize("name", HEADERS)
def test_recorded_bytes_of_configuration_space(machine: Machine, name: str) -> None:
    space = space_of(machine, name)
    for offset, expected in HEADERS[name]:
        data = bytes.fromhex(expected)
        assert space[offset : offset + len(data)] == data, hex(offset)
    assert len(space) == 256
    assert space[0xFC:] == bytes(4)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_registers(machine: Machine, name: str) -> None:
    assert int.from_bytes(space_of(machine, f"0000:{name}")[4:6], "little") == COMMANDS[name]


def test_drivers_at_boot(machine: Machine) -> None:
    assert sorted(machine.pci.drivers) == BUILT_IN
    bound = {name: driver_of(device) for name, device in machine.pci.devices.items()}
    assert {name: driver for name, driver in bound.items() if driver} == {
        "0000:00:0b.0": "pcieport"
    }


def test_the_slot(machine: Machine) -> None:
    assert {name: slot.address for name, slot in machine.pci.slots.items()} == {"0": "0000:01:00"}


def test_drivers_claim_what_they_claimed(driven: Machine) -> None:
    """All of /proc/iomem that is PCI's; the recording has added memory besides."""
    assert _pci_lines(driven.tree.iomem_text(privileged=True)) == _pci_lines(
        (DATA / "iomem-all-drivers.txt").read_text()
    )


@pytest.mark.parametrize("name", recorded()["bound"])
def test_what_sysfs_said_with_all_drivers(driven: Machine, name: str) -> None:
    device, texts = driven.pci.devices[name], recorded()["bound"][name]["texts"]
    first = texts["uevent"].partition("\n")[0]
    assert (driver_of(device) or "") == (
        first.removeprefix("DRIVER=") if first.startswith("DRIVER=") else ""
    )
    said = {
        "resource": resource_text(device),
        "dma_mask_bits": f"{device.dma_mask_bits}\n",
        "consistent_dma_mask_bits": f"{device.consistent_dma_mask_bits}\n",
    }
    said["enable"] = f"{device.enable_count}\n"
    assert said == {key: texts[key] for key in said}
    # the port's card was pulled and plugged again in the recording, and numbers of messages depend
    # on what else happened
    if name != "0000:01:00.0" and device.msi != "msi":
        assert f"{device.irq}\n" == texts["irq"]


@pytest.mark.parametrize("name", BOUND_COMMANDS)
def test_command_registers_of_bound_functions(driven: Machine, name: str) -> None:
    space = space_of(driven, f"0000:{name}")
    assert int.from_bytes(space[4:6], "little") == BOUND_COMMANDS[name]


def _pci_lines(iomem: str) -> list[str]:
    """The lines of the windows of the host bridge and of everything in them."""
    kept, inside = [], False
    for line in iomem.splitlines():
        if not line.startswith(" "):
            inside = line.endswith("PCI Bus 0000:00")
        if inside:
            kept.append(line)
    return kept
