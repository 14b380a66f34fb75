"""What answers at windows: ECAM, the ports of mechanism 1, register blocks."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pci_hardware import small_machine

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.conf1 import Conf1
from fakedev.devices.pci.ecam import Ecam
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.registers import HookError, Register, RegisterBlock
from fakedev.model.memory import PhysicalMemory

NIC, PORT, NVME = Bdf(0, 0, 2, 0), Bdf(0, 0, 1, 0), Bdf(0, 1, 0, 0)
BASE = 0xE0000000


def read(target, address, size):
    views = target.buffers(address, size)
    assert sum(map(len, views)) == size
    assert all(view.readonly for view in views)
    return b"".join(views)


@pytest.fixture
def machine():
    fabric, _ = small_machine()
    fabric.memory.map_window(BASE, 256 << 20, Ecam(fabric), name="ecam")
    fabric.port_space.map_window(0xCF8, 8, Conf1(fabric), name="conf1")
    return fabric


# ECAM


def test_ecam_shows_the_spaces(machine):
    assert machine.memory.read(BASE + NVME.ecam, 4096) == machine.config_read(NVME, 0, 4096)
    nic = machine.memory.read(BASE + NIC.ecam, 4096)
    assert nic[:256] == machine.config_read(NIC, 0, 256)
    assert nic[256:] == b"\xff" * (4096 - 256)
    assert machine.memory.read(BASE + Bdf(0, 9, 0, 0).ecam, 4096) == b"\xff" * 4096


@given(start=st.integers(0, 0x4000), size=st.integers(0, 0x9000))
def test_ecam_gives_any_cut(start, size):
    fabric, _ = small_machine()
    ecam = Ecam(fabric, padding=0)
    whole = b"".join(fabric.config_read(Bdf.of(0, 0, devfn), 0, 4096) for devfn in range(0x18))
    assert read(ecam, start, size) == whole[start : start + size]


def test_ecam_is_config_space_and_back(machine):
    machine.memory.write(BASE + NVME.ecam + 0x3C, b"\x0b")
    assert machine.config_read(NVME, 0x3C, 1) == b"\x0b"
    machine.config_write(NVME, 0x3C, b"\x0c")
    assert machine.memory.read(BASE + NVME.ecam + 0x3C, 1) == b"\x0c"
    machine.memory.write(BASE + NVME.ecam, b"\0" * 8)
    assert machine.memory.read(BASE + NVME.ecam, 2) == b"\x4d\x14"


def test_a_store_in_ecam_moves_bars(machine):
    machine.memory.write(BASE + NIC.ecam + 0x10, (0xD8210000).to_bytes(4, "little"))
    assert machine.memory.read(0xD8210000, 4) == b"NIC0"


def test_a_store_over_two_functions_reaches_both(machine):
    data = bytearray(machine.memory.read(BASE + PORT.ecam, 0x9000))
    data[0x3C] = data[0x8000 + 0x3C] = 0x77
    machine.memory.write(BASE + PORT.ecam, data)
    assert machine.config_read(PORT, 0x3C, 1) == machine.config_read(NIC, 0x3C, 1) == b"\x77"


def test_ecam_of_a_later_bus_and_another_domain():
    fabric, _ = small_machine()
    memory = PhysicalMemory()
    memory.map_window(BASE + (1 << 20), 1 << 20, Ecam(fabric), offset=1 << 20)
    assert memory.read(BASE + NVME.ecam, 2) == b"\x4d\x14"
    assert read(Ecam(fabric, domain=1), 0, 4096) == b"\xff" * 4096


def test_ecam_is_quick_where_nothing_is():
    fabric, _ = small_machine()
    ecam = Ecam(fabric)
    start = time.process_time()
    for bus in range(64):
        assert sum(map(len, ecam.buffers(bus << 20, 1 << 20))) == 1 << 20
    assert time.process_time() - start < 5  # about 20 ms on an idle machine


# Mechanism 1


def test_conf1_latches_an_address(machine):
    ports = machine.port_space
    ports.write(0xCF8, (0x80000000 | NVME.bus << 16 | 0x3C).to_bytes(4, "little"))
    assert ports.read(0xCF8, 4) == bytes.fromhex("3c000180")
    ports.write(0xCFC, b"\x0a")
    assert machine.config_read(NVME, 0x3C, 1) == b"\x0a"
    ports.write(0xCF8, (0x80000000 | NVME.bus << 16).to_bytes(4, "little"))
    assert ports.read(0xCFC, 4) == machine.config_read(NVME, 0, 4)
    assert ports.read(0xCFE, 2) == machine.config_read(NVME, 2, 2)


def test_conf1_without_enable_or_function_reads_ones(machine):
    ports = machine.port_space
    assert ports.read(0xCFC, 4) == b"\xff" * 4
    ports.write(0xCF8, (0x80FF0000).to_bytes(4, "little"))
    assert ports.read(0xCFC, 4) == b"\xff" * 4
    ports.write(0xCF8, b"\x12")
    assert ports.read(0xCF8, 4) == (0x80FF0000).to_bytes(4, "little")
    assert ports.read(0xCF8, 1) == b"\xff"


# Register blocks


def block(**options):
    registers = [
        Register(0x00, 4, "ro", 0x010000ED, "ID"),
        Register(0x04, 4, "rw", 0xDEADBEEF, "SCRATCH"),
        Register(0x08, 2, "w1c", 0xFFFF, "STATUS"),
        Register(0x0A, 1, "wo", 0x55, "DOORBELL"),
        Register(0x10, 8, "rc", 0x1122334455667788, "COUNT"),
    ]
    return RegisterBlock(0x1000, registers, **options)


def test_registers_obey_their_access():
    registers = block()
    for at in range(0, 0x10, 4):
        registers.write(at, b"\x0f\xf0\x0f\xf0")
    assert registers.value("ID") == 0x010000ED
    assert registers.value("SCRATCH") == 0xF00FF00F
    assert registers.value("STATUS") == 0x0FF0
    assert registers.value("DOORBELL") == 0x0F
    assert read(registers, 0x0A, 1) == b"\0"


def test_read_to_clear_clears():
    registers = block()
    assert read(registers, 0x10, 8) == (0x1122334455667788).to_bytes(8, "little")
    assert read(registers, 0x10, 8) == bytes(8)
    registers.reset()
    assert registers.value(0x10) == 0x1122334455667788


def test_other_widths_take_their_lanes():
    registers = block()
    assert read(registers, 0x05, 2) == b"\xbe\xad"
    registers.write(0x06, b"\x12\x34\x0f")
    assert registers.value("SCRATCH") == 0x3412BEEF
    assert registers.value("STATUS") == 0xFFF0
    assert read(registers, 0x02, 4) == b"\x00\x01\xef\xbe"


def test_holes_read_as_they_are_told():
    assert read(block(), 0x0B, 5) == bytes(5)
    assert read(block(fill=0xFF), 0x0B, 5) == b"\xff" * 5
    assert read(block(fill=0xEE), 0x18, 0xFE8) == b"\xee" * 0xFE8
    assert read(RegisterBlock(0x10000), 0, 0x10000) == bytes(0x10000)
    assert read(block(), 0, 0x1000)[0x18:] == bytes(0xFE8)


def test_hooks_answer_and_decide():
    heard = []

    def on_read(registers, register):
        return registers.value("CONTROL") * 2

    def on_write(registers, register, value):
        heard.append((register.name, value))
        registers.set("READY", 1)
        return value & 0xFF

    registers = RegisterBlock(
        0x10,
        [
            Register(0, 4, "ro", 0, "DOUBLE", on_read=on_read),
            Register(4, 4, "rw", 0x1200, "CONTROL", on_write=on_write),
            Register(8, 4, "ro", 0, "READY"),
        ],
    )
    registers.write(4, b"\x34")
    assert heard == [("CONTROL", 0x1234)]
    assert registers.value("CONTROL") == 0x34
    assert read(registers, 0, 4) == b"\x68\0\0\0"
    assert registers.value("READY") == 1


def test_a_hook_that_raises_is_named():
    def broken(*_):
        raise ZeroDivisionError("no reason")

    registers = RegisterBlock(4, [Register(0, 4, "rw", 7, "X", on_read=broken, on_write=broken)])
    with pytest.raises(
        HookError, match=r"register X: .*broken raised ZeroDivisionError: no reason"
    ):
        registers.buffers(0, 4)
    with pytest.raises(HookError, match=r"register X: "):
        registers.write(0, b"1")
    assert registers.value("X") == 7


@pytest.mark.parametrize(
    "registers",
    [
        [Register(0, 4), Register(2, 2)],
        [Register(0x1000, 4)],
    ],
)
def test_registers_that_have_no_room_are_refused(registers):
    with pytest.raises(PciError):
        RegisterBlock(0x1000, registers)


@pytest.mark.parametrize(
    "options",
    [{"offset": 2}, {"width": 3}, {"access": "rx"}, {"reset": 1 << 32}, {"offset": -4}],
)
def test_impossible_registers_are_refused(options):
    with pytest.raises(PciError):
        Register(**{"offset": 0} | options)


@given(st.lists(st.tuples(st.integers(0, 30), st.binary(min_size=1, max_size=8)), max_size=20))
def test_read_write_registers_are_memory(stores):
    registers = RegisterBlock(40, [Register(at, 4) for at in range(0, 40, 4)])
    memory = bytearray(40)
    for at, data in stores:
        registers.write(at, data)
        memory[at : at + len(data)] = data
    assert read(registers, 0, 40) == memory[:40]
