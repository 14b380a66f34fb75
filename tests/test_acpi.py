"""ACPI: tables from fields and from files, root pointers, placement, sysfs, what iasl reads."""

import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from firmware_data import DATA, blob, firmware_of, tool
from hypothesis import given
from hypothesis import strategies as st

from fakedev.firmware.acpi import KEYS, build_acpi
from fakedev.firmware.acpi_tables import FADT, MADT_ENTRIES
from fakedev.firmware.base import Firmware, FirmwareError, Placed
from fakedev.model.ranges import Range

AREA = "7ffe0000-7ffeffff"
TABLES = "/sys/firmware/acpi/tables"


def build(*tables: dict[str, Any], **more: Any) -> Firmware:
    return build_acpi({"tables_at": AREA, "tables": list(tables)} | more, blob=blob)


def table(signature: str, firmware: Firmware) -> Placed:
    return next(item for item in firmware.placed if item.name == signature)


def test_fd_9000_is_byte_for_byte_its_specification() -> None:
    *tables, rsdp = build_acpi(firmware_of("fd-9000")["acpi"]).placed
    expected = (DATA / "fd-9000/acpi-tables.bin").read_bytes()
    image = bytearray(len(expected))
    for item in tables:
        at = item.address - 0x7FFE0000
        image[at : at + len(item.data)] = item.data
    assert bytes(image) == expected
    assert (rsdp.address, rsdp.data) == (0xF5A40, (DATA / "fd-9000/rsdp.bin").read_bytes())


def test_pc_q35_has_the_addresses_that_its_kernel_logged() -> None:
    placed = build_acpi(firmware_of("pc-q35")["acpi"], blob=blob).placed
    assert {item.name: item.address for item in placed} == {
        "RSDP": 0xF59A0, "RSDT": 0x1FFE2E19, "FACP": 0x1FFE1A90, "DSDT": 0x1FFDF040,
        "FACS": 0x1FFDF000, "APIC": 0x1FFE1B84, "HPET": 0x1FFE1C04, "SRAT": 0x1FFE1C3C,
        "MCFG": 0x1FFE1D54, "SSDT": 0x1FFE1D90, "NFIT": 0x1FFE2C59, "WAET": 0x1FFE2DF1,
    }  # fmt: skip
    # As the machine's own memory showed it.
    assert placed[-1].data.hex() == "5253442050545220ee424f4348532000192efe1f"


def test_sysfs_numbers_equal_names_and_hides_the_roots() -> None:
    files = build_acpi(firmware_of("fd-9000")["acpi"]).files
    names = {path.removeprefix(TABLES + "/") for path in files if path.startswith(TABLES)}
    assert names == {
        "DSDT", "FACS", "FACP", "APIC", "MCFG", "HPET", "SSDT1", "SSDT2", "data", "dynamic"
    }  # fmt: skip
    assert files[f"{TABLES}/MCFG"].mode & 0o777 == 0o400
    assert files[f"{TABLES}/SSDT2"].data.endswith(b"FAK2\x0a\x22")
    assert files["/sys/firmware/acpi/pm_profile"].data == b"0\n"
    assert build(sysfs=False).files == {}


def test_every_made_table_adds_up() -> None:
    for item in build_acpi(firmware_of("fd-9000")["acpi"]).placed:
        if item.name != "FACS":
            assert sum(item.data) & 0xFF == 0, item.name
    rsdp = build().placed[-1].data
    assert (len(rsdp), sum(rsdp[:20]) & 0xFF, sum(rsdp) & 0xFF) == (36, 0, 0)


def test_revision_0_has_no_xsdt() -> None:
    placed = build({"signature": "MCFG"}, revision=0).placed
    assert [item.name for item in placed] == ["MCFG", "RSDT", "RSDP"]
    assert len(placed[-1].data) == 20
    assert struct.unpack_from("<I", placed[-1].data, 16)[0] == placed[1].address


def test_roots_list_all_but_dsdt_and_facs() -> None:
    given = [{"signature": "DSDT", "aml": ""}, {"signature": "FACS"}, {"signature": "FACP"}]
    firmware = build(*given, {"signature": "OEM1", "body": "00"})
    wanted = (table("FACP", firmware).address, table("OEM1", firmware).address)
    assert struct.unpack("<2I", table("RSDT", firmware).data[36:]) == wanted
    assert struct.unpack("<2Q", table("XSDT", firmware).data[36:]) == wanted


def test_the_fadt_leads_to_facs_and_dsdt_unless_told_otherwise() -> None:
    given = [{"signature": "FACS"}, {"signature": "DSDT", "aml": ""}]
    firmware = build(*given, {"signature": "FACP"})
    facs, dsdt = table("FACS", firmware).address, table("DSDT", firmware).address
    fadt = table("FACP", firmware).data
    assert struct.unpack_from("<II", fadt, 36) == (facs, dsdt)
    assert struct.unpack_from("<QQ", fadt, 132) == (facs, dsdt)
    fadt = table("FACP", build(*given, {"signature": "FACP", "dsdt": 0x1234, "x_dsdt": 0})).data
    assert struct.unpack_from("<II", fadt, 36) == (facs, 0x1234)


@pytest.mark.parametrize(
    ("field", "offset"),
    [("sci_interrupt", 46), ("pm_timer_block", 76), ("century", 108), ("boot_flags", 109),
     ("flags", 112), ("reset_value", 128), ("minor_revision", 131), ("hypervisor_vendor", 268)],
)  # fmt: skip
def test_fields_of_the_fadt_have_their_offsets(field: str, offset: int) -> None:
    fadt = table("FACP", build({"signature": "FACP", field: 0x5A})).data
    assert fadt[offset] == 0x5A
    assert len(fadt) == 276


def test_the_last_address_of_the_fadt_has_its_offset() -> None:
    register = {"space": "io", "width": 8, "access": 1, "address": 0xCF9}
    fadt = table("FACP", build({"signature": "FACP", "sleep_status": register})).data
    assert fadt[256:268] == bytes([1, 8, 0, 1]) + struct.pack("<Q", 0xCF9)


@pytest.mark.parametrize(("revision", "length"), [(1, 116), (3, 244), (4, 244), (5, 268), (6, 276)])
def test_the_length_of_a_fadt_follows_its_revision(revision: int, length: int) -> None:
    fadt = table("FACP", build({"signature": "FACP", "revision": revision})).data
    assert (len(fadt), fadt[8]) == (length, revision)
    short = table("FACP", build({"signature": "FACP", "revision": revision, "length": 84})).data
    assert len(short) == 84


def test_entries_of_the_madt() -> None:
    sizes = {
        "local_apic": 8, "io_apic": 12, "interrupt_override": 10, "nmi_source": 8,
        "local_apic_nmi": 6, "local_apic_address": 12, "local_x2apic": 16, "local_x2apic_nmi": 12,
        "gicc": 80, "gicd": 24, "gicr": 16,
    }  # fmt: skip
    assert set(sizes) == set(MADT_ENTRIES)
    for kind, size in sizes.items():
        madt = table("APIC", build({"signature": "APIC", "entries": [{"type": kind}]})).data
        assert (len(madt) - 44, madt[45], madt[44]) == (size, size, MADT_ENTRIES[kind].number)
    assert (
        table("APIC", build({"signature": "APIC", "entries": [{"raw": "7f 02"}]})).data[44:]
        == b"\x7f\2"
    )


def test_headers_inherit_and_override() -> None:
    one = {"signature": "SSDT", "aml": "", "oem_table_id": "OTHER", "revision": 9}
    header = table("SSDT", build(one, oem_id="ACME", oem_table_id="ALL", creator_id="ME")).data
    assert header[8] == 9
    assert header[10:24] == b"ACME  OTHER   "
    assert header[28:32] == b"ME  "


def test_raw_tables_stay_as_they_are() -> None:
    raw = blob("pc-q35/acpi/WAET.bin")
    for source in ({"file": "pc-q35/acpi/WAET.bin"}, {"hex": raw.hex(" ")}):
        assert table("WAET", build({"signature": "WAET"} | source)).data == raw
    made = table("WAET", build({"signature": "WAET", "body": raw[36:].hex()})).data
    assert made[36:] == raw[36:]


def test_placement() -> None:
    given = [{"signature": "OEM1", "body": "00"}, {"signature": "OEM2", "body": "00", "at": 0x1000}]
    firmware = build(*given, {"signature": "OEM3", "body": "00"}, alignment=0x100)
    addresses = [item.address for item in firmware.placed[:3]]
    assert addresses == [0x7FFE0000, 0x1000, 0x7FFE0100]
    area = Range(0x5000, 0x1000)
    assert build_acpi({"tables": []}, area=area).placed[0].address == 0x5000


BAD = [
    ({"tabels": []}, ("tabels",), "did you mean 'tables'"),
    ({"revision": 1}, ("revision",), "revision 0 or 2"),
    ({"alignment": 3}, ("alignment",), "power of two"),
    ({"rsdp": 0xF5A41}, ("rsdp",), "not a multiple of 16"),
    ({"rsdp": 0x7FFE0000}, (), "overlaps"),
    ({"tables_at": None}, ("tables_at",), "an address or a range"),
    ({"tables_at": "7ffe0000-7ffe003f"}, ("tables_at",), "is too small: XSDT would end at"),
    ({"tables_at": 1 << 33}, ("tables_at",), "above 4 GiB"),
    ({"oem_id": "TOOLONGID"}, ("oem_id",), "at most 6 ASCII"),
    ({"tables": [{"signature": "ABC", "body": ""}]}, ("tables", 0, "signature"), "four ASCII"),
    ({"tables": [{"signature": "OEM1"}]}, ("tables", 0, "signature"), "needs content"),
    ({"tables": [{"signature": "FACP", "sci_interupt": 9}]},
     ("tables", 0, "sci_interupt"), "did you mean 'sci_interrupt'"),
    ({"tables": [{"signature": "FACS", "hardware": 9}]},
     ("tables", 0, "hardware"), "did you mean 'hardware_signature'"),
    ({"tables": [{"signature": "FACP", "sci_interrupt": 70000}]},
     ("tables", 0, "sci_interrupt"), "does not fit in 16 bits"),
    ({"tables": [{"signature": "DSDT", "aml": "0g"}]}, ("tables", 0, "aml"), "hexadecimal"),
    ({"tables": [{"signature": "DSDT", "aml": "", "body": ""}]}, ("tables", 0, "body"), "not both"),
    ({"tables": [{"signature": "DSDT", "file": "gone.bin"}]}, ("tables", 0, "file"), "gone.bin"),
    ({"tables": [{"signature": "DSDT", "file": "pc-q35/acpi/HPET.bin"}]},
     ("tables", 0, "file"), "not 'DSDT'"),
    ({"tables": [{"signature": "OEM1", "hex": "4f454d31 99000000"}]},
     ("tables", 0, "hex"), "says 153 bytes; there are 8"),
    ({"tables": [{"signature": "APIC", "entries": [{"type": "ioapic"}]}]},
     ("tables", 0, "entries", 0, "type", "ioapic"), "did you mean 'io_apic'"),
    ({"tables": [{"signature": "APIC", "entries": [{"type": "io_apic", "adress": 1}]}]},
     ("tables", 0, "entries", 0, "adress"), "did you mean 'address'"),
    ({"tables": [{"signature": "MCFG", "allocations": [{"bus": 1}]}]},
     ("tables", 0, "allocations", 0, "bus"), "there is no 'bus'"),
    ({"tables": [{"signature": "HPET", "address": {"spice": 1}}]},
     ("tables", 0, "address", "spice"), "did you mean 'space'"),
    ({"tables": [{"signature": "OEM1", "body": "", "at": 0x7FFE0010}, {"signature": "FACS"}]},
     (), "overlaps"),
    ({"tables": ["x"]}, ("tables", 0), "a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("description", "path", "words"), BAD)
def test_errors(description: dict[str, Any], path: tuple[object, ...], words: str) -> None:
    with pytest.raises(FirmwareError, match=words) as caught:
        build_acpi({"tables_at": AREA} | description, blob=blob)
    assert path in [problem.path for problem in caught.value.problems]


def test_no_place_is_an_error_of_its_own() -> None:
    with pytest.raises(FirmwareError, match="a place for the tables is missing"):
        build_acpi({"tables": []})


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text("a1-+ é", max_size=6)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = [
    "revision",
    "aml",
    "aml_file",
    "body",
    "file",
    "hex",
    "entries",
    "allocations",
    "at",
    "length",
]
one_table = st.fixed_dictionaries(
    {"signature": st.sampled_from(["FACP", "APIC", "MCFG", "HPET", "FACS", "DSDT", "RSDT"]) | junk},
    optional=dict.fromkeys([*keys, "address", *[field.name for field in FADT[:6]]], junk),
)


@given(st.dictionaries(st.sampled_from(KEYS), junk | st.lists(one_table, max_size=3), max_size=5))
def test_junk_is_built_or_refused(description: dict[str, Any]) -> None:
    with suppress(FirmwareError):
        build_acpi({"tables_at": AREA} | description, blob=lambda name: name.encode())


def test_iasl_takes_every_table_apart(tmp_path: Path) -> None:
    program = tool("iasl", "acpica-tools")
    for path, file in build_acpi(firmware_of("fd-9000")["acpi"]).files.items():
        if not path.startswith(TABLES) or not file.data:
            continue
        name = path.rpartition("/")[2]
        (tmp_path / f"{name}.dat").write_bytes(file.data)
        done = subprocess.run(
            [program, "-d", f"{name}.dat"],
            cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        assert "Incorrect checksum" not in done.stdout + done.stderr
        # the FADT of FD-9000 gives its register blocks no length, and iasl says so
        assert name == "FACP" or "Error" not in done.stdout + done.stderr
        text = (tmp_path / f"{name}.dsl").read_text()
        assert f'"{name[:4]}"' in text


def test_acpidump_reads_the_sysfs_tables(tmp_path: Path) -> None:
    program = tool("acpidump", "acpica-tools")
    raw = tmp_path / "MCFG.dat"
    raw.write_bytes(table("MCFG", build_acpi(firmware_of("fd-9000")["acpi"])).data)
    done = subprocess.run(
        [program, "-f", str(raw)], capture_output=True, text=True, check=True, timeout=20
    )
    assert "0030: 00 00 00 00 00 00 00 FF 00 00 00 00" in done.stdout
