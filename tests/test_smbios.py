"""SMBIOS: tables by name, entry points, what Linux shows in sysfs, what dmidecode reads."""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from firmware_data import DATA, blob, firmware_of, tool
from hypothesis import given
from hypothesis import strategies as st

from fakedev.firmware.base import Firmware, FirmwareError
from fakedev.firmware.dmi_table import parse_table
from fakedev.firmware.smbios import KEYS, build_smbios, entry_point_30, parse_entry_point
from fakedev.firmware.smbios_structures import STRUCTURES

ID = "/sys/devices/virtual/dmi/id"


def one(kind: str | int, *, version: str = "2.8", **fields: Any) -> bytes:
    """The table of a single structure."""
    description = {"version": version, "structures": [{"type": kind, **fields}]}
    return build_smbios(description).placed[1].data


def text_files(firmware: Firmware, folder: str) -> dict[str, str]:
    return {
        path.rpartition("/")[2]: file.data.decode()
        for path, file in firmware.files.items()
        if path.startswith(folder + "/")
    }


def test_fd_9000_is_byte_for_byte_its_specification() -> None:
    entry, table = build_smbios(firmware_of("fd-9000")["smbios"]).placed
    assert entry.data == (DATA / "fd-9000/smbios_entry_point.bin").read_bytes()
    assert table.data == (DATA / "fd-9000/dmi.bin").read_bytes()
    assert (entry.address, table.address) == (0xF0010, 0xF1000)


def test_pc_q35_raw_tables_lie_where_its_bios_put_them() -> None:
    entry = bytes.fromhex("5f534d5f2e1f02084b000000000000005f444d495f767801e0590f00090028")
    description = firmware_of("pc-q35")["smbios"]
    for made in (False, True):
        if made:
            del description["raw_entry_point"]
        placed = build_smbios(description, blob=blob).placed
        assert [item.address for item in placed] == [0xF59C0, 0xF59E0]
        assert [item.data for item in placed] == [entry, blob("pc-q35/dmi.bin")]


def test_sysfs_tables_and_entries() -> None:
    files = build_smbios(firmware_of("pc-q35")["smbios"], blob=blob).files
    tables = "/sys/firmware/dmi/tables"
    assert files[f"{tables}/DMI"].data == blob("pc-q35/dmi.bin")
    assert files[f"{tables}/smbios_entry_point"].mode & 0o777 == 0o400
    entries = "/sys/firmware/dmi/entries/"
    found = {path.removeprefix(entries).split("/")[0] for path in files if path.startswith(entries)}
    assert found == {"0-0", "1-0", "127-0", "16-0", "17-0", "19-0", "3-0", "32-0", "4-0"}
    shown = text_files(
        Firmware(files={k: v for k, v in files.items() if not k.endswith("raw")}), f"{entries}17-0"
    )
    assert shown == {
        "length": "40\n", "handle": "4352\n", "type": "17\n", "instance": "0\n", "position": "5\n"
    }  # fmt: skip


def test_identity_of_fd_9000() -> None:
    firmware = build_smbios(firmware_of("fd-9000")["smbios"])
    shown = text_files(firmware, ID)
    assert shown["product_name"] == "FD-9000\n"
    assert shown["product_uuid"] == "33221100-5544-7766-8899-aabbccddeeff\n"
    assert shown["chassis_type"] == "17\n"
    assert shown["bios_release"] == "4.2\n"
    assert "ec_firmware_release" not in shown
    assert shown["modalias"] == (
        "dmi:bvnFakeBIOSInc.:bvrFB-1.23:bd02/29/2024:br4.2:svnFakedevCorp:pnFD-9000:pvrrevA:"
        "rvnFakedevCorp:rnFDB-1:rvrb1:cvnFakedevCorp:ct17:cvrc1:skuSKU-77:\n"
    )
    modes = {
        name: firmware.files[f"{ID}/{name}"].mode & 0o777 for name in shown if "serial" in name
    }
    assert set(modes.values()) == {0o400}
    assert firmware.files["/sys/class/dmi/id"].data == b"../../devices/virtual/dmi/id"


def test_an_empty_uuid_and_a_missing_board_have_no_attributes() -> None:
    shown = text_files(build_smbios(firmware_of("pc-q35")["smbios"], blob=blob), ID)
    assert "product_uuid" not in shown
    assert "board_name" not in shown
    assert shown["product_serial"] == "\n"


def test_sysfs_can_be_left_out() -> None:
    assert build_smbios({"sysfs": False}).files == {}


def lengths(*rows: tuple[str, str, int]) -> list[Any]:
    return [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in rows]


@pytest.mark.parametrize(
    ("kind", "version", "length"),
    lengths(
        ("bios_information", "2.0", 0x12), ("bios_information", "2.4", 0x18),
        ("bios_information", "3.1", 0x1A), ("system_information", "2.0", 0x08),
        ("system_information", "2.1", 0x19), ("system_information", "2.4", 0x1B),
        ("baseboard", "2.8", 0x0F), ("chassis", "2.0", 0x09), ("chassis", "2.1", 0x0D),
        ("chassis", "2.3", 0x15), ("chassis", "2.7", 0x16), ("processor", "2.0", 0x1A),
        ("processor", "2.1", 0x20), ("processor", "2.3", 0x23), ("processor", "2.5", 0x28),
        ("processor", "2.6", 0x2A), ("processor", "3.0", 0x30), ("processor", "3.6", 0x32),
        ("processor", "3.8", 0x33), ("cache", "2.0", 0x0F), ("cache", "2.1", 0x13),
        ("cache", "3.1", 0x1B), ("port_connector", "2.8", 0x09), ("system_slots", "2.0", 0x0C),
        ("system_slots", "2.1", 0x0D), ("system_slots", "2.6", 0x11), ("system_slots", "3.2", 0x13),
        ("physical_memory_array", "2.1", 0x0F), ("physical_memory_array", "2.7", 0x17),
        ("memory_device", "2.1", 0x15), ("memory_device", "2.3", 0x1B),
        ("memory_device", "2.6", 0x1C), ("memory_device", "2.7", 0x22),
        ("memory_device", "2.8", 0x28), ("memory_device", "3.2", 0x54),
        ("memory_device", "3.3", 0x5C), ("memory_device", "3.7", 0x64),
        ("memory_array_mapped_address", "2.1", 0x0F), ("memory_array_mapped_address", "2.7", 0x1F),
        ("memory_device_mapped_address", "2.1", 0x13),
        ("memory_device_mapped_address", "2.7", 0x23), ("oem_strings", "2.8", 0x05),
        ("system_boot", "2.8", 0x0B), ("ipmi", "2.8", 0x12), ("end_of_table", "2.8", 0x04),
    ),
)  # fmt: skip
def test_the_length_follows_the_version(kind: str, version: str, length: int) -> None:
    first = parse_table(one(kind, version=version))[0]
    assert len(first.formatted) == first.formatted[1] == length
    assert first.type == STRUCTURES[kind].number


def test_strings_are_numbered_in_the_order_of_the_fields() -> None:
    table = one("system_information", product="P", manufacturer="M", sku="S")
    assert table.startswith(bytes([1, 0x1B, 0, 1, 1, 2, 0, 0]))
    assert table[0x1B:].startswith(b"M\0P\0S\0\0")


def test_a_structure_without_strings_ends_with_two_zeros() -> None:
    assert one("end_of_table") == bytes([127, 4, 0, 0x7F, 0, 0])


def test_raw_bodies_of_any_type() -> None:
    table = one(221, raw="01 02 03", strings=["vendor", "data"], handle=0xDD00)
    assert table.startswith(bytes([221, 7, 0, 0xDD, 1, 2, 3]) + b"vendor\0data\0\0")


def test_handles_are_made_and_references_follow_them() -> None:
    description = {
        "structures": [
            {"type": "physical_memory_array", "handle": 0x55},
            {"type": "memory_device"},
            {"type": "memory_device"},
            {"type": "baseboard"},
        ]
    }
    found = parse_table(build_smbios(description).placed[1].data)
    assert [item.handle for item in found] == [0x55, 0x1100, 0x1101, 0x200, 0x7F00]
    assert [item.formatted[4:6] for item in found[1:3]] == [b"\x55\0"] * 2
    assert found[3].formatted[0x0B:0x0D] == b"\xff\xff"


def test_lists_inside_structures() -> None:
    assert one("oem_strings", texts=["a", "bc"])[4:].startswith(b"\2a\0bc\0\0")
    assert one("baseboard", contained_objects=[0x400, 0x401])[14:].startswith(b"\2\0\4\1\4")
    elements = one("chassis", contained_elements=["01 02 03", "04 05 06"])
    assert elements[0x13:].startswith(bytes([2, 3, 1, 2, 3, 4, 5, 6]))
    assert one("bios_information", bios_release=[4, 2], version="2.4")[0x14:0x16] == b"\4\2"


def test_uuid_has_its_old_byte_order_before_2_6() -> None:
    text = "00112233-4455-6677-8899-aabbccddeeff"
    assert one("system_information", version="2.5", uuid=text)[8:12] == bytes.fromhex("00112233")
    assert one("system_information", version="2.6", uuid=text)[8:12] == bytes.fromhex("33221100")


@pytest.mark.parametrize(("entry", "size"), [("2.1", 31), ("3.0", 24)])
def test_entry_points_add_up_and_can_be_read(entry: str, size: int) -> None:
    placed = build_smbios({"version": "3.4", "entry": entry, "table": 0xF2000}).placed
    data = placed[0].data
    assert len(data) == size
    assert sum(data) & 0xFF == 0
    assert entry == "3.0" or sum(data[16:]) & 0xFF == 0
    assert parse_entry_point(data) == ((3, 4), 0xF2000, len(placed[1].data))


def test_entry_point_30_leads_above_4_gib() -> None:
    assert parse_entry_point(entry_point_30(1 << 40, 99, (3, 2))).table == 1 << 40


BAD = [
    ({"structurs": []}, ("structurs",), "did you mean 'structures'"),
    ({"version": "9.9"}, ("version",), "not a version of SMBIOS"),
    ({"entry": "4"}, ("entry",), "known: 2.1 and 3.0"),
    ({"entry_point": 0xF0011}, ("entry_point",), "not a multiple of 16"),
    ({"entry_point": 0xF1000}, (), "overlaps"),
    ({"table": 1 << 33}, ("entry",), "needs entry 3.0"),
    ({"table": "lots"}, ("table",), "not a number"),
    ({"raw": "x", "structures": []}, ("raw",), "not both"),
    ({"raw": "missing.bin"}, ("raw",), "missing.bin"),
    ({"raw_entry_point": b"nonsense"}, ("raw_entry_point",), "starts with _SM_"),
    ({"structures": [{"type": "bios"}]}, ("structures", 0, "type", "bios"), "there is no 'bios'"),
    ({"structures": [{"type": 200}]}, ("structures", 0, "type"), "give its body as raw"),
    ({"structures": [{}]}, ("structures", 0), "needs a type"),
    ({"structures": ["x"]}, ("structures", 0), "a mapping"),
    ({"structures": [{"type": 0, "vendr": "x"}]}, ("structures", 0, "vendr"), "did you mean 'vendor'"),
    ({"structures": [{"type": 0, "vendor": 7}]}, ("structures", 0, "vendor"), "write it in quotes"),
    ({"structures": [{"type": 0, "rom_size": 256}]}, ("structures", 0, "rom_size"), "fit in 8 bits"),
    ({"structures": [{"type": 0, "vendor": "a\0b"}]}, ("structures", 0, "vendor"), "NUL"),
    ({"structures": [{"type": 1, "uuid": "12"}]}, ("structures", 0, "uuid"), "not a UUID"),
    ({"structures": [{"type": 0, "extended_rom_size": 1}]},
     ("structures", 0, "extended_rom_size"), "came with SMBIOS 3.1; this table is 2.8"),
    ({"structures": [{"type": 0, "length": 2}]}, ("structures", 0, "length"), "not a length"),
    ({"structures": [{"type": 0, "handle": 1}, {"type": 1, "handle": 1}]},
     ("structures", 1, "handle"), "is the handle of another"),
    ({"structures": [{"type": 9, "raw": "0g"}]}, ("structures", 0, "raw"), "hexadecimal"),
]  # fmt: skip


@pytest.mark.parametrize(("description", "path", "words"), BAD)
def test_errors(description: dict[str, Any], path: tuple[object, ...], words: str) -> None:
    def missing(name: str) -> bytes:
        raise FileNotFoundError(2, "no such file", name)

    with pytest.raises(FirmwareError, match=words) as caught:
        build_smbios(description, blob=missing)
    assert path in [problem.path for problem in caught.value.problems]


def test_all_problems_are_reported_at_once() -> None:
    structures = [{"type": "bios_information", "vendr": 1}, {"type": "chasis"}]
    with pytest.raises(FirmwareError) as caught:
        build_smbios({"versio": "2.8", "structures": structures})
    assert str(caught.value).splitlines() == [
        "versio: there is no 'versio' here; did you mean 'version'?",
        "structures[0].vendr: there is no 'vendr' here; did you mean 'vendor'?",
        "structures[1].type.chasis: there is no 'chasis' here; did you mean 'chassis'?",
    ]


@given(st.lists(st.tuples(st.sampled_from(sorted(STRUCTURES)), st.lists(st.text(
    st.characters(min_codepoint=32, max_codepoint=0x24F), min_size=1, max_size=20), max_size=3)),
    max_size=8))  # fmt: skip
def test_every_table_reads_back(given: list[tuple[str, list[str]]]) -> None:
    structures = [
        {"type": kind, "strings": strings} for kind, strings in given if "end" not in kind
    ]
    table = build_smbios({"structures": structures}).placed[1].data
    found = parse_table(table)
    assert b"".join(item.data for item in found) == table
    assert [item.type for item in found] == [STRUCTURES[s["type"]].number for s in structures] + [
        127
    ]


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text("a1-+ \0é", max_size=6)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
names = sorted({field.name for kind in STRUCTURES.values() for field in kind.fields})
structure = st.dictionaries(
    st.sampled_from(["type", "raw", "strings", "length", "handle", *names]), junk, max_size=4
) | st.fixed_dictionaries({"type": st.sampled_from(sorted(STRUCTURES))})


@given(st.dictionaries(st.sampled_from(KEYS), junk | st.lists(structure, max_size=3), max_size=4))
def test_junk_is_built_or_refused(description: dict[str, Any]) -> None:
    with suppress(FirmwareError):
        build_smbios(description, blob=lambda name: name.encode())


def test_dmidecode_reads_it(tmp_path: Path) -> None:
    program = tool("dmidecode", "dmidecode")
    description = firmware_of("fd-9000")["smbios"] | {"entry_point": 0, "table": 0x20}
    extra = {kind: {"type": kind} for kind in STRUCTURES if kind != "end_of_table"}
    for one_more in ({"structures": description["structures"]},
                     {"version": "3.8", "entry": "3.0", "structures": list(extra.values())}):  # fmt: skip
        entry, table = build_smbios(description | one_more).placed
        dump = tmp_path / "dump.bin"
        dump.write_bytes(entry.data.ljust(32, b"\0") + table.data)
        done = subprocess.run(
            [program, "--from-dump", str(dump)],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        assert "<BAD INDEX>" not in done.stdout
        assert "Wrong DMI" not in done.stdout + done.stderr
        assert "broken" not in done.stdout + done.stderr
        assert done.stdout.count("Handle 0x") == len(parse_table(table.data))
        if "version" not in one_more:
            assert "Product Name: FD-9000\n" in done.stdout
            assert done.stdout.count("Size: 2 GB") == 2
