"""The ACPI tables that can be made of fields (specification 6.5, chapter 5), as tables of fields.

Formats: a letter of `struct`; `7x` for reserved bytes; `gas` for a generic address structure.
Fields stand in order behind the common header of 36 bytes (FACS: behind signature and length).
"""

from typing import NamedTuple


class Field(NamedTuple):
    """One field; `default` of an address is a template: space, width, offset, access."""

    name: str
    format: str
    default: int = 0
    template: tuple[int, int, int, int] = (0, 0, 0, 0)


class TableType(NamedTuple):
    """A table: its default revision, its fields, and the key of its list of entries, if it has one.

    `lengths`: pairs of a revision and the length of the table up to that revision.
    """

    revision: int
    fields: tuple[Field, ...]
    entries: str = ""
    lengths: tuple[tuple[int, int], ...] = ()


class EntryType(NamedTuple):
    """One kind of entry in a list; `number` None: entries without type and length bytes."""

    number: int | None
    fields: tuple[Field, ...]


SPACES = {
    "memory": 0,
    "io": 1,
    "pci_config": 2,
    "embedded_controller": 3,
    "smbus": 4,
    "fixed": 0x7F,
}


def _fields(text: str) -> tuple[Field, ...]:
    """Fields from `name format [default]`, separated by commas."""
    fields = []
    for part in text.split(","):
        name, form, *default = part.split()
        fields.append(Field(name, form, int(default[0], 0) if default else 0))
    return tuple(fields)


FADT = _fields(
    "firmware_ctrl I, dsdt I, int_model B, preferred_profile B, sci_interrupt H, smi_command I,"
    "acpi_enable B, acpi_disable B, s4bios_request B, pstate_control B, pm1a_event_block I,"
    "pm1b_event_block I, pm1a_control_block I, pm1b_control_block I, pm2_control_block I,"
    "pm_timer_block I, gpe0_block I, gpe1_block I, pm1_event_length B, pm1_control_length B,"
    "pm2_control_length B, pm_timer_length B, gpe0_length B, gpe1_length B, gpe1_base B,"
    "cstate_control B, c2_latency H, c3_latency H, flush_size H, flush_stride H, duty_offset B,"
    "duty_width B, day_alarm B, month_alarm B, century B, boot_flags H, reserved 1x, flags I,"
    "reset_register gas, reset_value B, arm_boot_flags H, minor_revision B, x_firmware_ctrl Q,"
    "x_dsdt Q, x_pm1a_event_block gas, x_pm1b_event_block gas, x_pm1a_control_block gas,"
    "x_pm1b_control_block gas, x_pm2_control_block gas, x_pm_timer_block gas, x_gpe0_block gas,"
    "x_gpe1_block gas, sleep_control gas, sleep_status gas, hypervisor_vendor Q"
)
# the length of a FADT by its revision: the first pair whose revision is not below it
_FADT_LENGTHS = ((1, 116), (2, 132), (4, 244), (5, 268), (255, 276))

FACS = _fields(
    "hardware_signature I, waking_vector I, global_lock I, flags I, x_waking_vector Q, version B 2,"
    "reserved 3x, ospm_flags I, reserved 24x"
)
_HPET = (
    Field("block_id", "I"),
    Field("address", "gas", 0, (0, 64, 0, 0)),
    *_fields("number B, minimum_tick H, page_protection B"),
)

TABLES = {
    "FACP": TableType(6, FADT, lengths=_FADT_LENGTHS),
    "APIC": TableType(3, _fields("local_apic_address I 0xfee00000, flags I 1"), "entries"),
    "MCFG": TableType(1, _fields("reserved 8x"), "allocations"),
    "HPET": TableType(1, _HPET),
}

# What a CPU of arm64 has of the interrupt controller.
_GICC = _fields(
    "reserved 2x, cpu_interface I, processor I, flags I 1, parking_version I, performance_gsi I,"
    "parked_address Q, address Q, gicv Q, gich Q, maintenance_gsi I, gicr Q, mpidr Q, efficiency B,"
    "reserved 1x, spe_gsi H"
)

MADT_ENTRIES = {
    "local_apic": EntryType(0, _fields("processor B, apic B, flags I 1")),
    "io_apic": EntryType(1, _fields("id B, reserved 1x, address I 0xfec00000, gsi_base I")),
    "interrupt_override": EntryType(2, _fields("bus B, source B, gsi I, flags H")),
    "nmi_source": EntryType(3, _fields("flags H, gsi I")),
    "local_apic_nmi": EntryType(4, _fields("processor B 0xff, flags H, lint B 1")),
    "local_apic_address": EntryType(5, _fields("reserved 2x, address Q 0xfee00000")),
    "local_x2apic": EntryType(9, _fields("reserved 2x, apic I, flags I 1, processor I")),
    "local_x2apic_nmi": EntryType(10, _fields("flags H, processor I, lint B 1, reserved 3x")),
    "gicc": EntryType(11, _GICC),
    "gicd": EntryType(
        12, _fields("reserved 2x, id I, address Q, vector_base I, version B 3, reserved 3x")
    ),
    "gicr": EntryType(14, _fields("reserved 2x, address Q, length I")),
}
MCFG_ALLOCATION = EntryType(
    None, _fields("base Q, segment H, start_bus B, end_bus B 255, reserved 4x")
)
