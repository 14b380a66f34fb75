"""The structures of SMBIOS (DSP0134 3.8) as tables: name, format, default, and since which version.

Formats: a letter of `struct` (`B`, `H`, `I`, `Q`), `4B` or the like (that many numbers, as a list
or as hexadecimal text), and

* `text`: a string; the byte is its number in the set of strings behind the structure
* `uuid`: as dmidecode and sysfs print it; the first three parts are little-endian since 2.6
* `texts`: a count; the strings stand in the set only (OEM strings)
* `handles`: a count, then that many handles
* `records`: a count and a length, then hexadecimal records of one length
* `peers`: a count, then records of five bytes

`since` is the version that brought the field: an older table ends before it. A default of
`@baseboard` stands for the handle of the first structure of that name.
"""

from typing import NamedTuple

Version = tuple[int, int]


class Field(NamedTuple):
    """One field of a structure."""

    name: str
    format: str
    default: int | str | bytes = 0
    since: Version = (2, 0)


class StructureType(NamedTuple):
    """A structure: its type number and its fields in order, from offset 4."""

    number: int
    fields: tuple[Field, ...]


def _fields(*groups: tuple[Version, str]) -> tuple[Field, ...]:
    """Fields from lines of `name format [default]`, each group with the version that brought it."""
    return tuple(
        _field(line, since) for since, lines in groups for line in lines.strip().splitlines()
    )


def _field(line: str, since: Version) -> Field:
    name, form, *rest = line.split()
    if not rest:
        return Field(name, form, "" if form in {"text", "uuid"} else 0, since)
    text = rest[0]
    return Field(name, form, text if text.startswith("@") else int(text, 0), since)


_BIOS = _fields(
    ((2, 0), "vendor text\nversion text\nstarting_segment H 0xe800\nrelease_date text\nrom_size B"),
    ((2, 0), "characteristics Q 0x08"),
    ((2, 1), "characteristics_ext 2B"),
    ((2, 4), "bios_release 2B 0xffff\nec_release 2B 0xffff"),
    ((3, 1), "extended_rom_size H"),
)
_SYSTEM = _fields(
    ((2, 0), "manufacturer text\nproduct text\nversion text\nserial text"),
    ((2, 1), "uuid uuid\nwakeup_type B 6"),
    ((2, 4), "sku text\nfamily text"),
)
_BASEBOARD = _fields(
    ((2, 0), "manufacturer text\nproduct text\nversion text\nserial text"),
    ((2, 0), "asset_tag text\nfeatures B 9\nlocation text\nchassis_handle H @chassis"),
    ((2, 0), "board_type B 10\ncontained_objects handles"),
)
_CHASSIS = _fields(
    ((2, 0), "manufacturer text\nchassis_type B 3\nversion text\nserial text\nasset_tag text"),
    ((2, 1), "bootup_state B 3\npower_supply_state B 3\nthermal_state B 3\nsecurity B 2"),
    ((2, 3), "oem_defined I\nheight B\npower_cords B\ncontained_elements records"),
    ((2, 7), "sku text"),
)
_PROCESSOR = _fields(
    ((2, 0), "socket text\nprocessor_type B 3\nfamily B 2\nmanufacturer text\nprocessor_id Q"),
    ((2, 0), "version text\nvoltage B\nexternal_clock H\nmax_speed H\ncurrent_speed H"),
    ((2, 0), "status B 0x41\nupgrade B 2"),
    ((2, 1), "l1_cache_handle H 0xffff\nl2_cache_handle H 0xffff\nl3_cache_handle H 0xffff"),
    ((2, 3), "serial text\nasset_tag text\npart_number text"),
    ((2, 5), "core_count B 1\ncore_enabled B 1\nthread_count B 1\ncharacteristics H 4"),
    ((2, 6), "family2 H 2"),
    ((3, 0), "core_count2 H 1\ncore_enabled2 H 1\nthread_count2 H 1"),
    ((3, 6), "thread_enabled H 1"),
    ((3, 8), "socket_type text"),
)
_CACHE = _fields(
    ((2, 0), "designation text\nconfiguration H 0x180\nmaximum_size H\ninstalled_size H"),
    ((2, 0), "supported_sram H 2\ncurrent_sram H 2"),
    ((2, 1), "speed B\nerror_correction B 2\ncache_type B 2\nassociativity B 2"),
    ((3, 1), "maximum_size2 I\ninstalled_size2 I"),
)
_PORT = _fields(
    ((2, 0), "internal_designator text\ninternal_type B\nexternal_designator text"),
    ((2, 0), "external_type B\nport_type B"),
)
_SLOT = _fields(
    ((2, 0), "designation text\nslot_type B 2\nbus_width B 2\ncurrent_usage B 2\nslot_length B 2"),
    ((2, 0), "slot_id H\ncharacteristics1 B 1"),
    ((2, 1), "characteristics2 B"),
    ((2, 6), "segment H\nbus B\ndevice_function B"),
    ((3, 2), "base_bus_width B\npeers peers"),
    ((3, 4), "information B\nphysical_width B\npitch H"),
    ((3, 5), "height B"),
)
_MEMORY_ARRAY = _fields(
    ((2, 1), "location B 3\nuse B 3\nerror_correction B 3\nmaximum_capacity I"),
    ((2, 1), "error_handle H 0xfffe\ndevice_count H 1"),
    ((2, 7), "extended_maximum_capacity Q"),
)
_MEMORY_DEVICE = _fields(
    ((2, 1), "array_handle H @physical_memory_array\nerror_handle H 0xfffe\ntotal_width H 0xffff"),
    ((2, 1), "data_width H 0xffff\nsize H\nform_factor B 2\ndevice_set B\nlocator text"),
    ((2, 1), "bank_locator text\nmemory_type B 2\ntype_detail H 4"),
    ((2, 3), "speed H\nmanufacturer text\nserial text\nasset_tag text\npart_number text"),
    ((2, 6), "attributes B"),
    ((2, 7), "extended_size I\nconfigured_speed H"),
    ((2, 8), "minimum_voltage H\nmaximum_voltage H\nconfigured_voltage H"),
    ((3, 2), "memory_technology B 2\noperating_mode_capability H 4\nfirmware_version text"),
    ((3, 2), "module_manufacturer_id H\nmodule_product_id H\ncontroller_manufacturer_id H"),
    ((3, 2), "controller_product_id H\nnonvolatile_size Q\nvolatile_size Q\ncache_size Q"),
    ((3, 2), "logical_size Q"),
    ((3, 3), "extended_speed I\nextended_configured_speed I"),
    ((3, 7), "pmic0_manufacturer_id H\npmic0_revision H\nrcd_manufacturer_id H\nrcd_revision H"),
)
_ARRAY_ADDRESS = _fields(
    ((2, 1), "start I\nend I\narray_handle H @physical_memory_array\npartition_width B 1"),
    ((2, 7), "extended_start Q\nextended_end Q"),
)
_DEVICE_ADDRESS = _fields(
    ((2, 1), "start I\nend I\ndevice_handle H @memory_device"),
    ((2, 1), "array_address_handle H @memory_array_mapped_address\nrow_position B 0xff"),
    ((2, 1), "interleave_position B\ninterleave_depth B"),
    ((2, 7), "extended_start Q\nextended_end Q"),
)
_IPMI = _fields(
    ((2, 0), "interface_type B 1\nspecification B 0x20\ni2c_address B 0x20\nnv_storage B 0xff"),
    ((2, 0), "base_address Q 0xca2\nbase_modifier B\nirq B"),
)

STRUCTURES = {
    "bios_information": StructureType(0, _BIOS),
    "system_information": StructureType(1, _SYSTEM),
    "baseboard": StructureType(2, _BASEBOARD),
    "chassis": StructureType(3, _CHASSIS),
    "processor": StructureType(4, _PROCESSOR),
    "cache": StructureType(7, _CACHE),
    "port_connector": StructureType(8, _PORT),
    "system_slots": StructureType(9, _SLOT),
    "oem_strings": StructureType(11, _fields(((2, 0), "texts texts"))),
    "physical_memory_array": StructureType(16, _MEMORY_ARRAY),
    "memory_device": StructureType(17, _MEMORY_DEVICE),
    "memory_array_mapped_address": StructureType(19, _ARRAY_ADDRESS),
    "memory_device_mapped_address": StructureType(20, _DEVICE_ADDRESS),
    "system_boot": StructureType(32, _fields(((2, 3), "reserved 6B\nboot_status B"))),
    "ipmi": StructureType(38, _IPMI),
    "end_of_table": StructureType(127, ()),
}
