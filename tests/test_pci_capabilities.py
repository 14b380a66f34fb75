"""Capabilities: bytes, masks, chains and what is refused."""

import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pci_hardware import bridge, endpoint

from fakedev.devices.pci import header
from fakedev.devices.pci.capabilities import NAMES, build_chain, capability, options
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.errors import PciError


def chain_of(*capabilities, size=4096):
    config = ConfigSpace(size)
    build_chain(config, capabilities)
    return config


# Bytes


def test_a_chain_is_linked_from_the_header_on():
    config = chain_of(("pm", {}), ("msi", {}), ("vendor", "aabbcc"))
    assert config.get(header.STATUS, 2) & 0x10
    assert config.data[0x34] == 0x40
    assert config.read(0x40, 2) == b"\x01\x48"
    assert config.read(0x48, 2) == b"\x05\x58"
    assert config.read(0x58, 6) == b"\x09\x00\x06\xaa\xbb\xcc"


def test_no_capabilities_no_list():
    config = chain_of()
    assert (config.get(header.STATUS, 2), config.data[0x34]) == (0, 0)


def test_pm_and_msi_take_raw_registers():
    config = chain_of(
        ("pm", {"capabilities": 3, "control": 8}), ("msi", {"control": 0x80, "at": 0x50})
    )
    assert config.read(0x40, 8) == struct.pack("<BBHHBB", 1, 0x50, 3, 8, 0, 0)
    assert config.read(0x50, 14) == struct.pack("<BBHQH", 5, 0, 0x80, 0, 0)


def test_msi_layout_follows_its_options():
    wide = chain_of(("msi", {"vectors": 8, "64bit": True, "masking": True, "enabled": True}))
    assert wide.get(0x42, 2) == 0x0187
    assert wide.writable[0x40 + 0x10] == 0xFF
    narrow = chain_of(("msi", {"64bit": False, "address": 0xFEE00000, "data": 0x4021}))
    assert narrow.read(0x40, 10) == struct.pack("<BBHIH", 5, 0, 0, 0xFEE00000, 0x4021)


def test_msix_points_into_bars():
    config = chain_of(("msix", {"vectors": 33, "table": [0, 0x3000], "pba": [2, 0x2000]}))
    assert config.read(0x40, 12) == struct.pack("<BBHII", 0x11, 0, 32, 0x3000, 0x2002)
    config.write(0x42, b"\xff\xff")
    assert config.get(0x42, 2) == 0xC020


def test_pcie_takes_every_register_raw():
    given = {
        "type": "root-port",
        "slot": 1,
        "devcap": 0x8FE0,
        "devctl": 0x2810,
        "linkcap": 0x02000103,
        "linkctl": 0,
        "linksta": 0x103,
        "slotcap": 0x40060,
        "slotctl": 0,
        "slotsta": 0x40,
        "rootctl": 0,
        "rootcap": 0,
        "devcap2": 0x11F,
        "devctl2": 0,
        "linkcap2": 0xE,
        "linkctl2": 3,
        "linksta2": 0,
    }
    expected = struct.pack("<BBHIHHIHH", 0x10, 0, 0x142, 0x8FE0, 0x2810, 0, 0x02000103, 0, 0x103)
    expected += struct.pack("<IHHHHI", 0x40060, 0, 0x40, 0, 0, 0)
    expected += struct.pack("<IHHIHHIHH", 0x11F, 0, 0, 0xE, 3, 0, 0, 0, 0)
    assert chain_of(("pcie", given)).read(0x40, 0x3C) == expected


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("endpoint", 0),
        ("legacy-endpoint", 1),
        ("root-port", 4),
        ("upstream", 5),
        ("downstream", 6),
        ("pcie-to-pci", 7),
        ("rc-endpoint", 9),
    ],
)
def test_pcie_types(name, number):
    assert chain_of(("pcie", name)).get(0x42, 2) == 2 | number << 4


def test_pcie_link_and_slot_say_what_was_asked():
    port = {"type": "downstream", "speed": 5, "width": 8, "port": 3, "slot": 7}
    config = chain_of(("pcie", port | {"hotplug": True, "surprise": True}))
    link, slot = config.get(0x4C, 4), config.get(0x54, 4)
    assert (link & 0xF, link >> 4 & 0x3F, link >> 24) == (5, 8, 3)
    assert config.get(0x52, 2) & 0x3FF == 0x85
    assert config.get(0x6C, 4) == 0x3E
    assert (slot >> 19, slot & 0x60) == (7, 0x60)


def test_extended_capabilities_start_at_0x100():
    config = chain_of(
        ("aer", {"uncorrectable_severity": 0x62030}),
        ("dsn", {"serial": "11-22-33-44-55-66-77-88", "at": 0x150}),
    )
    assert config.read(0x100, 32) == struct.pack(
        "<IIIIIIII", 0x15020001, 0, 0, 0x62030, 0, 0x2000, 0xA0, 0
    )
    assert config.read(0x150, 12) == struct.pack("<IQ", 0x10003, 0x1122334455667788)


def test_what_is_left_has_its_layout():
    config = chain_of(
        ("acs", {}),
        ("ats", {"depth": 16}),
        ("ari", {"next": 1}),
        (
            "sriov",
            {"total": 64, "offset": 128, "stride": 2, "device": 0x10ED, "bars": [0xD800000C]},
        ),
        ("ltr", {}),
        ("l1ss", {}),
        ("secpcie", {"lanes": 1}),
        ("vsec", {"id": 3, "revision": 1, "hex": "aabb"}),
        ("raw_extended", {"id": 0x1B, "version": 2, "hex": "00140000"}),
    )
    numbers, at = [], 0x100
    while at:
        word = config.get(at, 4)
        numbers.append((word & 0xFFFF, word >> 16 & 0xF))
        at = word >> 20
    assert numbers == [
        (0xD, 1),
        (0xF, 1),
        (0xE, 1),
        (0x10, 1),
        (0x18, 1),
        (0x1E, 1),
        (0x19, 1),
        (0xB, 1),
        (0x1B, 2),
    ]
    assert config.get(0x118 + 0xE, 2) == 64
    assert config.get(0x118 + 0x24, 4) == 0xD800000C


def test_raw_and_small_standard_ones():
    config = chain_of(
        ("raw", {"id": 0x03, "hex": "00 80 01:02:03:04"}),
        ("ssvid", "1af4:1100"),
        ("ht", {}),
        ("ht", {"hex": "0088"}),
        ("af", {}),
    )
    assert config.read(0x40, 8) == b"\x03\x48\x00\x80\x01\x02\x03\x04"
    assert config.read(0x48, 8) == struct.pack("<BBHHH", 0xD, 0x50, 0, 0x1AF4, 0x1100)
    assert config.read(0x50, 4) == b"\x08\x54\x03\xa8"
    assert config.read(0x54, 4) == b"\x08\x58\x00\x88"
    assert config.read(0x58, 6) == b"\x13\x00\x06\x03\x00\x00"


# What writes do


def test_capability_bits_follow_the_bus():
    function = endpoint(
        "00:01.0", capabilities=[("pm", {}), ("msi", {}), ("pcie", {}), ("aer", {})], size=4096
    )
    config, pcie = function.config, function.capability(0x10)
    config.put(pcie + 0xA, 2, 0x000F)
    config.put(0x104, 4, 0x00100000)
    for at in range(0x40, 0x140, 4):
        function.config_write(at, b"\xff" * 4)
    assert config.get(0x44, 2) == 0x1F0B  # data select, PME enable is bit 8, state
    assert config.get(0x4A, 2) == 0x00F1  # enable, and the number of vectors in use
    assert config.get(0x4C, 8) == 0xFFFFFFFFFFFFFFFC
    assert config.get(pcie + 0xA, 2) == 0
    assert config.get(0x104, 4) == 0
    assert config.get(0x108, 4) == 0x07FFF030
    assert config.data[0x34] == 0x40


# What is refused


@pytest.mark.parametrize(
    ("capabilities", "what"),
    [
        ([("pmm", {})], "did you mean 'pm'"),
        ([("xyzzy", {})], "known: pm"),
        ([("pcie", {"spede": 3})], "did you mean 'speed'"),
        ([("pcie", {"type": "rootport"})], "root-port"),
        ([("pcie", {"speed": 7})], "speed"),
        ([("pcie", {"width": 3})], "width"),
        ([("pcie", {"payload": 100})], "payload"),
        ([("pcie", {"slot": 9000})], "slot"),
        ([("pcie", {"devctl": 0x10000})], "devctl"),
        ([("pcie", {"speed": "fast"})], "wrong kind"),
        ([("msi", {"vectors": 3})], "vectors"),
        ([("msix", {"vectors": 5000})], "vectors"),
        ([("msix", {"table": [7, 0]})], "table"),
        ([("msix", {"pba": [0, 4]})], "pba"),
        ([("msix", {"pba": [0]})], "pba"),
        ([("dsn", "11-22")], "8 bytes"),
        ([("vendor", "xy")], "hexadecimal"),
        ([("ssvid", "1af4")], "vendor:device"),
        ([("ssvid", "1af41:0")], "does not fit"),
        ([("raw", {"id": 256})], "does not fit"),
        ([("raw_extended", {"id": 1, "version": 99})], "version"),
        ([("ats", {"depth": 64})], "depth"),
        ([("secpcie", {"lanes": 3})], "lanes"),
        ([("sriov", {"bars": [0] * 7})], "bars"),
        ([("sriov", {"enabled": 1})], "enabled"),
        ([("aer", {"header_log": "00" * 17})], "header_log"),
        ([("vsec", {"revision": 16})], "revision"),
        ([("pm", {"at": 0x42})], "aligned"),
        ([("pm", {"at": 0x20})], "leaves"),
        ([("pm", {"at": 0xFC})], "leaves"),
        ([("pm", {"at": 0x50}), ("msi", {"at": 0x54})], "overlaps pm"),
        ([("vendor", "00" * 100), ("vendor", "00" * 100)], "leaves"),
        ([("dsn", {"at": 0x110})], "first extended"),
    ],
)
def test_bad_values_are_named(capabilities, what):
    with pytest.raises(PciError, match=what):
        chain_of(*capabilities)


def test_extended_ones_need_room():
    with pytest.raises(PciError, match="4096"):
        chain_of(("aer", {}), size=256)


def test_one_without_a_place_goes_around_those_with():
    config = chain_of(("pm", {}), ("msi", {}), ("pcie", {"at": 0x48}))
    assert config.data[0x41] == 0x84
    assert config.data[0x85] == 0x48


def test_options_are_listed_as_people_write_them():
    assert options("msi")[:3] == ("vectors", "64bit", "masking")
    assert {"devcap", "linksta", "slotctl2"} <= set(options("pcie"))
    with pytest.raises(PciError):
        options("nothing")


@given(name=st.sampled_from(sorted(NAMES)), data=st.data())
def test_junk_values_give_our_error_or_a_capability(name, data):
    key = data.draw(st.sampled_from(options(name)))
    value = data.draw(
        st.one_of(
            st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers(), max_size=3)
        )
    )
    try:
        made = capability(name, {key: value})
    except PciError:
        return
    assert len(made.data) == len(made.writable) == len(made.clear)


# A judge from outside


def dump(function):
    data = function.config.data
    rows = [f"{at:02x}: {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)]
    return "\n".join([f"{function.bdf} test", *rows, "", ""])


def everything(name, extra=()):
    standard = [("pm", {}), ("msi", {"masking": True}), ("pcie", {"type": name, **dict(extra)})]
    return [*standard, ("aer", {}), ("acs", {}), ("ltr", {}), ("l1ss", {}), ("secpcie", {})]


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci is not installed")
def test_lspci_has_nothing_to_complain_about(tmp_path):
    slot = {"slot": 1, "hotplug": True, "surprise": True, "speed": 4, "width": 16}
    window = (0xD8000000, 0xD80FFFFF)
    functions = [
        bridge("00:01.0", 1, 3, window, capabilities=everything("root-port", slot.items())),
        bridge("01:00.0", 2, 3, window, capabilities=everything("upstream")),
        bridge("02:00.0", 3, 3, window, capabilities=everything("downstream", {"slot": 2}.items())),
        endpoint("03:00.0", size=4096, capabilities=everything("endpoint")),
        endpoint("00:1f.0", size=4096, capabilities=everything("rc-endpoint")),
    ]
    path = tmp_path / "dump"
    path.write_text("".join(map(dump, functions)))
    done = subprocess.run(
        ["lspci", "-F", str(path), "-vvv"], capture_output=True, text=True, timeout=30, check=True
    )
    assert "!!!" not in done.stdout
    assert "<?>" not in done.stdout
    assert "Chain" not in done.stdout
    assert [line for line in done.stderr.splitlines() if "libkmod" not in line] == []
    assert done.stdout.count("Express (v2)") == 5
    assert done.stdout.count("Advanced Error Reporting") == 5
