"""Schema of `pci:`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fakedev.profiles.fields import Part
from fakedev.profiles.fields_pci import CpuList, EcamBase
from fakedev.profiles.schema_memory import IomemEntry
from fakedev.profiles.schema_pci_capabilities import chain_schema
from fakedev.profiles.schema_pci_drivers import PciDriver
from fakedev.profiles.schema_pci_functions import PciFunction

FUNCTION_LIMIT = 65_536


class Pci(Part):
    """The PCI functions of the machine, and the drivers of its kernel."""

    sysfs: Literal["replace", "merge"] = Field(
        "replace", description="merge: the host's own PCI devices stay visible beside"
    )
    ecam: EcamBase | None = Field(
        None, description="address of the configuration window (not given: as the MCFG table says)"
    )
    ecam_padding: Literal["ones", "zeros"] = Field(
        "ones", description="what ECAM reads behind the 256 bytes of a conventional function"
    )
    conf1: bool = Field(False, description="ports CF8 and CFC; /dev/port exists")
    ports: list[IomemEntry] = Field(
        [], description="resources of /proc/ioports; BARs come by themselves"
    )
    cpus: CpuList = Field("0", description="local_cpulist of every function")
    functions: dict[str, PciFunction] = Field(
        {}, max_length=FUNCTION_LIMIT, description='functions by address: "00:1f.2"'
    )
    drivers: dict[str, PciDriver] = Field(
        {}, max_length=4096, description="drivers by name; each claims all BARs unless it says else"
    )


def pci_schema(definitions: dict[str, Any], iomem: dict[str, Any]) -> None:
    """Put the short forms and the mappings with null members into the schema of `pci:`."""
    members = definitions["Pci"]["properties"]
    members["ports"] = {
        **iomem,
        "description": "resources of /proc/ioports as it prints them; BARs come by themselves",
    }
    for key in ("functions", "drivers"):
        entry = members[key]["additionalProperties"]
        members[key]["additionalProperties"] = {"anyOf": [entry, {"type": "null"}]}
    members["functions"]["propertyNames"] = {
        "pattern": r"^([0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{1,2}:[01]?[0-9a-fA-F]\.[0-7]$"
    }
    chain = definitions["PciFunction"]["properties"]
    chain["capabilities"] = {**chain_schema(), "description": chain["capabilities"]["description"]}
    bars = definitions["Bars"]["properties"]
    for key, member in bars.items():
        if not any(option.get("type") == "null" for option in member.get("anyOf", ())):
            bars[key] = {"anyOf": [member, {"type": "null"}]}
