"""Addresses, configuration spaces, BARs, functions and the fabric of PCI."""

import errno
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pci_hardware import bar_memory, bridge, endpoint, fabric_of, mem_bar, small_machine

from fakedev.devices.pci import header
from fakedev.devices.pci.bars import Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.fabric import Fabric, pieces
from fakedev.devices.pci.function import Function
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range

NIC, PORT, NVME = Bdf(0, 0, 2, 0), Bdf(0, 0, 1, 0), Bdf(0, 1, 0, 0)


# Addresses


def test_bdf_reads_both_forms_and_prints_the_long_one():
    assert Bdf.parse("00:1f.2") == Bdf.parse("0000:00:1F.2") == Bdf(0, 0, 0x1F, 2)
    assert str(Bdf.parse("1f:02.0")) == "0000:1f:02.0"
    assert str(Bdf.parse("10000:e1:00.0")) == "10000:e1:00.0"


def test_bdf_has_the_numbers_of_the_kernel():
    bdf = Bdf.parse("02:1f.7")
    assert (bdf.devfn, bdf.ecam, bdf.slot_name) == (0xFF, 0x2FF000, "0000:02:1f")
    assert Bdf.of(0, 2, 0xFF) == bdf


@pytest.mark.parametrize("text", ["", "00:1f", "00:20.0", "00:1f.8", "100:00.0", "0:0:0:0.0", "x"])
def test_bdf_refuses_what_is_no_address(text):
    with pytest.raises(PciError) as error:
        Bdf.parse(text)
    assert error.value.errno == errno.EINVAL


# Configuration space


def test_config_bits_follow_their_masks():
    config = ConfigSpace(256)
    config.put(0x40, 4, 0xAABBCCDD)
    config.declare(0x40, 4, writable=0x0000FFFF, clear=0x00FF0000)
    config.write(0x40, (0xFF0F1234).to_bytes(4, "little"))
    assert config.get(0x40, 4) == 0xAAB01234


def test_config_keeps_its_boot_state():
    config = ConfigSpace(256)
    config.set(0, b"\x86\x80")
    config.freeze()
    config.set(0, b"\0\0")
    config.reset()
    assert config.read(0, 2) == b"\x86\x80"


def test_config_without_boot_state_stays():
    config = ConfigSpace(256)
    config.set(0, b"\x86\x80")
    config.reset()
    assert config.read(0, 2) == b"\x86\x80"


def test_config_ends_where_it_ends():
    config = ConfigSpace(256)
    config.declare(252, 4, writable=0xFFFFFFFF)
    config.write(254, b"\1\2\3\4")
    assert config.read(252, 99) == b"\0\0\1\2"
    with pytest.raises(PciError):
        config.set(254, b"\1\2\3\4")
    with pytest.raises(PciError):
        ConfigSpace(512)


@given(
    old=st.integers(0, 2**32 - 1),
    new=st.integers(0, 2**32 - 1),
    writable=st.integers(0, 2**32 - 1),
    clear=st.integers(0, 2**32 - 1),
)
def test_every_bit_obeys_its_own_rule(old, new, writable, clear):
    config = ConfigSpace(256)
    config.put(0x80, 4, old)
    config.declare(0x80, 4, writable=writable, clear=clear)
    config.write(0x80, new.to_bytes(4, "little"))
    got = config.get(0x80, 4)
    for bit in (1 << n for n in range(32)):
        written = old & ~new if clear & bit else new if writable & bit else old
        assert got & bit == written & bit


@given(offset=st.integers(0, 300), data=st.binary(max_size=40))
def test_an_access_is_cut_into_aligned_pieces(offset, data):
    cut = list(pieces(offset, data))
    assert b"".join(piece for _, piece in cut) == data
    at = offset
    for where, piece in cut:
        assert where == at
        assert len(piece) in (1, 2, 4)
        assert where % len(piece) == 0
        at += len(piece)


def test_the_pieces_are_those_of_pci_write_config():
    assert [(at, len(piece)) for at, piece in pieces(1, bytes(14))] == [
        (1, 1),
        (2, 2),
        (4, 4),
        (8, 4),
        (12, 2),
        (14, 1),
    ]


# BARs


@pytest.mark.parametrize(
    ("bar", "flags", "low_bits"),
    [
        (mem_bar(0, 4096), 0x40200, 0),
        (mem_bar(0, 4096, width=64), 0x140204, 4),
        (mem_bar(0, 4096, width=64, prefetch=True), 0x14220C, 12),
        (mem_bar(0, 4096, prefetch=True), 0x42208, 8),
        (Bar(4, "io", 32, bar_memory(32)), 0x40101, 1),
        (mem_bar(6, 65536), 0x46200, 0),
    ],
)
def test_flags_are_those_of_the_resource_file(bar, flags, low_bits):
    assert (bar.flags, bar.low_bits) == (flags, low_bits)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 3000},
        {"size": 8},
        {"size": 0},
        {"index": 7},
        {"index": 5, "width": 64},
        {"index": 2, "bridge": True},
        {"kind": "io", "prefetch": True},
        {"index": 6, "size": 1024},
        {"size": 1 << 32},
        {"kind": "io", "size": 2},
    ],
)
def test_impossible_bars_are_refused(options):
    values = {"index": 0, "kind": "mem", "size": 4096, "target": bar_memory(16)} | options
    with pytest.raises(PciError):
        Bar(**values)


@given(
    power=st.integers(4, 40),
    wide=st.booleans(),
    prefetch=st.booleans(),
    page=st.integers(1, 2**20),
)
def test_writing_ones_tells_the_size(power, wide, prefetch, page):
    size = 1 << min(power, 40 if wide else 28)
    width = 64 if wide else 32
    bar = Bar(2, "mem", size, bar_memory(16), width, prefetch)
    config = ConfigSpace(256)
    address = page * size % (1 << width - 2)
    function = Function(Bdf(0, 0, 0, 0), config, [bar])
    function.bars[2].place(config, address)
    before = config.read(0x18, 8)
    function.config_write(0x18, b"\xff" * 4)
    if wide:
        function.config_write(0x1C, b"\xff" * 4)
    value = config.get(0x18, width // 8)
    assert value & 0xF == bar.low_bits
    assert (1 << width) - (value & ~0xF) == size
    assert not wide or config.get(0x20, 4) == 0
    function.config_write(0x18, before[:4])
    function.config_write(0x1C, before[4:])
    assert function.bars[2].address(config.data) == address


def test_io_and_rom_tell_their_sizes():
    places = [(Bar(4, "io", 32, bar_memory(32)), 0xC000), (mem_bar(6, 0x10000), 0xD8000000)]
    function = endpoint("00:01.0", places)
    function.config_write(0x20, b"\xff" * 4)
    function.config_write(0x30, b"\xff" * 4)
    assert function.config.get(0x20, 4) == 0xFFFFFFE1
    assert function.config.get(0x30, 4) == 0xFFFF0001


def test_a_bar_is_placed_where_it_is_aligned():
    bar, config = mem_bar(0, 0x1000), ConfigSpace(256)
    bar.install(config)
    for address in (0x800, 0xFFFFFFFF000, 0x1_0000_0000):
        with pytest.raises(PciError):
            bar.place(config, address)


def test_bars_cannot_share_a_register():
    with pytest.raises(PciError, match="share"):
        endpoint("00:01.0", [(mem_bar(0, 16, width=64), 0), (mem_bar(1, 16), 0)])


def test_the_rom_of_a_bridge_lies_elsewhere():
    config = ConfigSpace(256)
    config.data[header.HEADER_TYPE] = 1
    function = Function(Bdf(0, 0, 0, 0), config, [mem_bar(6, 0x800)])
    assert function.bars[6].register == 0x38


# Functions


def test_a_function_decodes_what_command_and_bars_say():
    function = endpoint(
        "00:01.0", [(mem_bar(0, 4096), 0xD8000000), (Bar(1, "io", 32, bar_memory(32)), 0xC000)]
    )
    assert [(w.kind, w.start, w.size) for w in function.windows()] == [
        ("mem", 0xD8000000, 4096),
        ("io", 0xC000, 32),
    ]
    function.config_write(header.COMMAND, b"\1\0")
    assert [w.kind for w in function.windows()] == ["io"]
    function.config_write(header.COMMAND, b"\2\0")
    assert [w.kind for w in function.windows()] == ["mem"]
    function.present = False
    assert function.windows() == []


def test_a_rom_needs_its_own_enable_bit():
    function = endpoint("00:01.0", [(mem_bar(6, 0x800), 0xD8000000)])
    assert function.windows() == []
    function.config_write(header.ROM, b"\1")
    assert [w.start for w in function.windows()] == [0xD8000000]


def test_a_function_asleep_decodes_nothing():
    function = endpoint("00:01.0", [(mem_bar(0, 16), 0xD8000000)], capabilities=[("pm", {})])
    function.config_write(0x44, b"\3\0")
    assert (function.power_state, function.windows()) == (3, [])
    function.config_write(0x44, b"\0\0")
    assert len(function.windows()) == 1


def test_a_bar_during_sizing_decodes_nothing():
    function = endpoint("00:01.0", [(mem_bar(0, 0x1000), 0xD8000000)])
    function.config_write(0x10, b"\xff" * 4)
    assert function.windows() == []
    function.config_write(0x10, b"\0" * 4)
    assert function.windows() == []


def test_read_only_parts_of_a_header_stay():
    function = endpoint("00:01.0")
    before = function.config_read(0, 64)
    for at in (0, 8, 0x28, 0x2C, 0x34):
        function.config_write(at, b"\xff" * 4)
    assert function.config_read(0, 64) == before


def test_a_kernel_reset_keeps_bars_and_command_and_forgets_the_rest():
    function = endpoint(
        "00:01.0", [(mem_bar(0, 0x1000), 0xD8000000)], capabilities=[("msi", {}), ("pm", {})]
    )
    function.freeze()
    function.config_write(0x10, (0xD9000000).to_bytes(4, "little"))
    function.config_write(0x42, b"\1\0")
    function.reset()
    assert [w.start for w in function.windows()] == [0xD9000000]
    assert function.config.get(0x42, 2) & 1 == 0


def test_a_function_level_reset_by_the_bus_loses_everything():
    function = endpoint(
        "00:01.0",
        [(mem_bar(0, 0x1000, width=64), 0xD8000000)],
        capabilities=[("pcie", {"flr": True})],
    )
    function.freeze()
    at = function.capability(0x10)
    function.config_write(at + 8, b"\0\x80")
    assert function.windows() == []
    assert function.config.get(0x10, 8) == 4
    assert function.config.get(at + 8, 2) & 0x8000 == 0


def test_a_function_without_flr_ignores_the_bit():
    function = endpoint("00:01.0", [(mem_bar(0, 16), 0x1000)], capabilities=[("pcie", {})])
    function.freeze()
    function.config_write(function.capability(0x10) + 8, b"\0\x80")
    assert len(function.windows()) == 1


def test_a_model_hears_of_writes_and_resets_and_its_errors_go_through():
    class Model:
        def __init__(self):
            self.heard = []

        def config_written(self, function, offset, size):
            if offset == 0x60:
                raise ValueError("broken model")
            self.heard.append((offset, size, function.config.get(offset, size)))

        def reset(self):
            self.heard.append("reset")

    model = Model()
    fabric, _ = fabric_of(endpoint("00:01.0", model=model))
    fabric.config_write(Bdf(0, 0, 1, 0), 0x3C, b"\7\0\0\0")
    assert model.heard == [(0x3C, 4, 7)]
    with pytest.raises(ValueError, match="broken"):
        fabric.config_write(Bdf(0, 0, 1, 0), 0x60, b"\0")
    fabric.reset()
    assert model.heard[-1] == "reset"


# The fabric: topology


def test_topology_follows_the_bus_numbers():
    inner = bridge("01:00.0", 2, 2, (0xD8000000, 0xD80FFFFF))
    leaf = endpoint("02:00.0")
    fabric, _ = fabric_of(bridge("00:01.0", 1, 2, (0xD8000000, 0xD80FFFFF)), inner, leaf)
    assert fabric.below(Bdf(0, 0, 1, 0)) == [inner, leaf]
    assert fabric.upstream(leaf.bdf) is inner
    assert fabric.upstream(Bdf(0, 0, 1, 0)) is None
    assert fabric.roots() == [(0, 0)]
    assert fabric.on_bus(0, 2) == [leaf]
    assert list(fabric.functions) == sorted(fabric.functions)


def test_an_unconfigured_bridge_leads_nowhere():
    fabric, _ = fabric_of(bridge("00:01.0", 0, 0), endpoint("00:02.0"))
    assert fabric.below(Bdf(0, 0, 1, 0)) == []
    assert fabric.roots() == [(0, 0)]


def test_two_functions_at_one_address_are_refused():
    with pytest.raises(PciError, match="two functions"):
        fabric_of(endpoint("00:01.0"), endpoint("00:01.0"))
    fabric, _ = fabric_of(endpoint("00:01.0"))
    with pytest.raises(PciError, match="two functions"):
        fabric.add(endpoint("00:01.0"))


def test_a_function_may_come_later():
    fabric, moved = small_machine()
    late = endpoint("00:03.0", [(mem_bar(0, 0x1000, b"LATE"), 0xD9000000)])
    fabric.add(late)
    assert fabric.decode(late) == moved == [Range(0xD9000000, 0x1000)]
    assert list(fabric.functions) == [PORT, NIC, Bdf(0, 0, 3, 0), NVME]


def test_absent_functions_read_ones_and_lose_writes():
    fabric, _ = small_machine()
    nobody = Bdf(0, 7, 0, 0)
    fabric.config_write(nobody, 0, b"\0" * 4)
    assert fabric.config_read(nobody, 0, 4) == b"\xff" * 4
    assert fabric.at(nobody) is None


# The fabric: decoding


def test_bars_answer_in_memory_and_ports():
    fabric, _ = small_machine()
    assert fabric.memory.read(0xD8000000, 4) == b"NVME"
    assert fabric.memory.read(0xD8200000, 4) == b"NIC0"
    fabric.memory.write(0xD8000010, b"stored")
    assert fabric.functions[NVME].bars[0].target.read(0x10, 6) == b"stored"
    fabric.port_space.write(0xC004, b"\x55")
    assert fabric.functions[NIC].bars[4].target.read(4, 1) == b"\x55"
    assert fabric.memory.read(0xD8004000, 4) == b"\xff" * 4


def test_a_moved_bar_answers_at_its_new_place_only():
    fabric, moved = small_machine()
    new = (0xD8210000).to_bytes(4, "little")
    plan = fabric.plan_config_write(NIC, 0x10, new)
    assert plan == [Range(0xD8200000, 0x10000), Range(0xD8210000, 0x10000)]
    assert fabric.memory.read(0xD8200000, 4) == b"NIC0"
    fabric.config_write(NIC, 0x10, new)
    assert moved == plan
    assert fabric.memory.read(0xD8200000, 4) == b"\xff" * 4
    assert fabric.memory.read(0xD8210000, 4) == b"NIC0"


def test_a_write_that_moves_nothing_plans_nothing():
    fabric, moved = small_machine()
    for at, data in ((header.INTERRUPT_LINE, b"\1"), (header.COMMAND, b"\7\0"), (0x44, b"\0")):
        assert fabric.plan_config_write(NIC, at, data) == []
        fabric.config_write(NIC, at, data)
    assert moved == []


def test_the_command_register_switches_decoding():
    fabric, moved = small_machine()
    fabric.config_write(NIC, header.COMMAND, b"\0\0")
    assert fabric.memory.read(0xD8200000, 4) == b"\xff" * 4
    assert fabric.port_space.read(0xC000, 1) == b"\xff"
    fabric.config_write(NIC, header.COMMAND, b"\3\0")
    assert fabric.memory.read(0xD8200000, 4) == b"NIC0"
    assert moved == [Range(0xD8200000, 0x10000)] * 2


def test_a_bridge_forwards_its_windows_only():
    fabric, moved = small_machine()
    plan = fabric.plan_config_write(PORT, header.COMMAND, b"\0\0")
    assert plan == [Range(0xD8000000, 0x4000)]
    fabric.config_write(PORT, header.COMMAND, b"\0\0")
    assert fabric.memory.read(0xD8000000, 4) == b"\xff" * 4
    fabric.config_write(PORT, header.COMMAND, b"\7\0")
    fabric.config_write(PORT, header.MEMORY_BASE, b"\x10\xd8\x10\xd8")
    assert fabric.memory.read(0xD8000000, 4) == b"\xff" * 4
    fabric.config_write(PORT, header.MEMORY_BASE, b"\x00\xd8\x00\xd8")
    assert fabric.memory.read(0xD8000000, 4) == b"NVME"
    assert len(moved) == 4


def test_prefetchable_and_io_windows_forward():
    high = 0x40_0000_0000
    far = endpoint(
        "01:00.0",
        [
            (mem_bar(0, 0x1000, b"FAR!", width=64, prefetch=True), high),
            (Bar(2, "io", 32, bar_memory(32, b"\x11")), 0xD000),
        ],
    )
    port = bridge("00:01.0", 1, 1, prefetch=(high, high + 0xFFFFFFF), io=(0xD000, 0xDFFF))
    fabric, _ = fabric_of(port, far)
    assert fabric.memory.read(high, 4) == b"FAR!"
    assert fabric.port_space.read(0xD000, 1) == b"\x11"
    fabric.config_write(port.bdf, header.PREFETCH_UPPER, b"\x41\0\0\0\x41\0\0\0")
    assert fabric.memory.read(high, 4) == b"\xff" * 4


def test_memory_that_is_there_stays_in_front():
    memory = PhysicalMemory()
    memory.add(0, 0x1000, b"RAM!")
    fabric, _ = fabric_of(
        endpoint("00:01.0", [(mem_bar(0, 0x2000, b"BAR!"), 0x2000)]), memory=memory
    )
    fabric.config_write(Bdf(0, 0, 1, 0), 0x10, b"\0\0\0\0")
    assert memory.read(0, 4) == b"RAM!"


def test_of_two_bars_at_one_place_the_other_appears_when_one_goes():
    one = endpoint("00:01.0", [(mem_bar(0, 0x1000, b"ONE!"), 0xD8000000)])
    two = endpoint("00:02.0", [(mem_bar(0, 0x1000, b"TWO!"), 0xD8000000)])
    fabric, _ = fabric_of(one, two)
    assert fabric.memory.read(0xD8000000, 4) == b"ONE!"
    fabric.config_write(one.bdf, header.COMMAND, b"\0\0")
    assert fabric.memory.read(0xD8000000, 4) == b"TWO!"


def test_a_long_write_moves_a_wide_bar_once():
    bar = mem_bar(0, 0x1000, b"WIDE", width=64)
    fabric, moved = fabric_of(endpoint("00:01.0", [(bar, 0xD8000000)]))
    fabric.config_write(Bdf(0, 0, 1, 0), 0x10, (0x12_3456_7000).to_bytes(8, "little"))
    assert moved == [Range(0xD8000000, 0x1000), Range(0x1234567000, 0x1000)]
    assert fabric.memory.read(0x1234567000, 4) == b"WIDE"


def test_a_function_level_reset_takes_the_bars_away():
    fabric, moved = small_machine()
    at = fabric.functions[NVME].capability(0x10)
    assert fabric.plan_config_write(NVME, at + 8, b"\0\x80") == [Range(0xD8000000, 0x4000)]
    fabric.config_write(NVME, at + 8, b"\0\x80")
    assert moved == [Range(0xD8000000, 0x4000)]


def test_writes_behind_the_end_are_lost():
    fabric, _ = small_machine()
    fabric.config_write(NVME, 4094, b"\1\2\3\4")
    fabric.config_write(NIC, 0x200, b"\1\2\3\4")
    assert fabric.config_read(NIC, 0x200, 4) == b"\0\0\0\0"


# The fabric: what happens to it


def test_an_unplugged_function_is_gone_and_its_place_reads_ones():
    memory = PhysicalMemory(undecoded=0)
    bar = mem_bar(0, 0x1000, b"CARD")
    fabric, moved = fabric_of(endpoint("00:02.0", [(bar, 0xD8000000)]), memory=memory)
    card = fabric.functions[NIC]
    assert fabric.unplug(card) == moved == [Range(0xD8000000, 0x1000)]
    assert fabric.at(NIC) is None
    assert memory.read(0xD8000FFE, 4) == b"\xff\xff\0\0"
    assert fabric.plug(card) == []
    assert memory.read(0xD8000000, 1) == b"\0"
    fabric.config_write(NIC, 0x10, (0xD8000000).to_bytes(4, "little"))
    fabric.config_write(NIC, header.COMMAND, b"\2\0")
    assert memory.read(0xD8000000, 4) == b"CARD"


def test_a_new_bar_takes_the_place_of_one_that_was_pulled():
    memory = PhysicalMemory(undecoded=0)
    fabric, _ = fabric_of(
        endpoint("00:02.0", [(mem_bar(0, 0x1000), 0xD8000000)]),
        endpoint("00:03.0", [(mem_bar(0, 0x1000, b"HERE"), 0xD9000000)]),
        memory=memory,
    )
    fabric.unplug(fabric.functions[NIC])
    fabric.config_write(Bdf(0, 0, 3, 0), 0x10, (0xD8000000).to_bytes(4, "little"))
    assert memory.read(0xD8000000, 4) == b"HERE"


def test_a_subtree_goes_with_its_port():
    fabric, moved = small_machine()
    port = fabric.functions[PORT]
    fabric.unplug(port)
    assert fabric.at(NVME) is None
    assert moved == [Range(0xD8000000, 0x4000)]
    fabric.plug(port)
    assert fabric.at(NVME) is not None
    assert port.secondary == 1


def test_a_pulled_card_shows_in_the_slot_status_of_its_port():
    fabric, _ = small_machine()
    port = fabric.functions[PORT]
    status = port.capability(0x10) + 0x1A
    fabric.unplug(fabric.functions[NVME])
    assert port.config.get(status, 2) == 0x08
    fabric.config_write(PORT, status, b"\x08\0")
    assert port.config.get(status, 2) == 0
    fabric.plug(fabric.functions[NVME])
    assert port.config.get(status, 2) == 0x48


def test_a_link_that_is_down_hides_what_is_below():
    fabric, moved = small_machine()
    port = fabric.functions[PORT]
    fabric.set_link(port, up=False)
    assert fabric.config_read(NVME, 0, 4) == b"\xff" * 4
    assert fabric.memory.read(0xD8000000, 4) == b"\xff" * 4
    assert port.config.get(port.capability(0x10) + 0x12, 2) & 0x2000 == 0
    fabric.set_link(port, up=True)
    assert fabric.memory.read(0xD8000000, 4) == b"NVME"
    assert moved == [Range(0xD8000000, 0x4000)] * 2


def test_software_can_disable_a_link():
    fabric, _ = small_machine()
    control = fabric.functions[PORT].capability(0x10) + 0x10
    assert fabric.plan_config_write(PORT, control, b"\x10\0") == [Range(0xD8000000, 0x4000)]
    fabric.config_write(PORT, control, b"\x10\0")
    assert fabric.at(NVME) is None
    fabric.config_write(PORT, control, b"\0\0")
    assert fabric.at(NVME) is not None


def test_reset_brings_the_boot_state_back():
    fabric, _ = small_machine()
    boot = {bdf: fabric.config_read(bdf, 0, 4096) for bdf in fabric.functions}
    fabric.memory.write(0xD8000000, b"changed")
    fabric.config_write(NIC, header.COMMAND, b"\0\0")
    fabric.set_link(fabric.functions[PORT], up=False)
    fabric.unplug(fabric.functions[NVME])
    fabric.reset()
    assert {bdf: fabric.config_read(bdf, 0, 4096) for bdf in fabric.functions} == boot
    assert fabric.memory.read(0xD8000000, 7) == b"NVME\0\0\0"
    assert fabric.memory.read(0xD8200000, 4) == b"NIC0"


def test_reset_and_a_snapshot_of_the_memory_agree_in_either_order():
    for memory_first in (True, False):
        fabric, _ = small_machine()
        snapshot = fabric.memory.snapshot()
        fabric.config_write(NIC, 0x10, (0xD8210000).to_bytes(4, "little"))
        for step in (0, 1):
            if memory_first == (step == 0):
                fabric.memory.restore(snapshot)
            else:
                fabric.reset()
        assert fabric.memory.read(0xD8200000, 4) == b"NIC0"
        assert fabric.memory.read(0xD8210000, 4) == b"\xff" * 4


def test_undecode_takes_everything_away():
    fabric, _ = small_machine()
    fabric.undecode(fabric.functions[PORT])
    assert fabric.memory.read(0xD8000000, 4) == b"\xff" * 4
    assert fabric.decoded(NVME) == ()


# Speed


def test_thousands_of_functions_are_quick():
    start = time.process_time()
    functions = []
    for index in range(4096):
        bar = Bar(0, "mem", 0x10000, bar_memory(0x10000))
        bdf = str(Bdf.of(0, index >> 8, index & 0xFF))
        functions.append(endpoint(bdf, [(bar, 0x80000000 + index * 0x10000)]))
    fabric = Fabric(functions, PhysicalMemory(), PhysicalMemory())
    fabric.decode_all()
    fabric.freeze()
    built = time.process_time() - start
    start = time.process_time()
    for _ in range(1000):
        fabric.config_write(functions[0].bdf, 0x3C, b"\1")
    written = time.process_time() - start
    assert built < 8  # about 0.4 s on an idle machine
    assert written < 2
