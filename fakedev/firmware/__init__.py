"""What the firmware leaves behind: SMBIOS, ACPI and the e820 map, as bytes and as files."""
