"""The profile document as users write it, and its JSON schema.

These models check shapes and single values. What concerns several places at once (overlaps,
content outside memory, conflicts of resources) is checked in `compile.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from fakedev.profiles.fields import HEX_SCHEMA, NUMBER_SCHEMA, LooseText, Part
from fakedev.profiles.nodes import kind
from fakedev.profiles.schema_blocks import MemoryBlocks
from fakedev.profiles.schema_files import FILES_SCHEMA, FileEntry
from fakedev.profiles.schema_firmware import Firmware
from fakedev.profiles.schema_kernel import Kernel
from fakedev.profiles.schema_memory import IOMEM_SCHEMA, IomemEntry, Memory
from fakedev.profiles.schema_nd import Cxl, DaxMemory, Nvdimm
from fakedev.profiles.schema_pci import Pci, pci_schema
from fakedev.profiles.schema_virtio_mem import DEVICE_LIMIT, VirtioMemEntry

SCHEMA_VERSION = 1


def to_version(value: object) -> int:
    """The schema version; 1 is the only one."""
    if value == str(SCHEMA_VERSION):
        return SCHEMA_VERSION
    raise ValueError(
        f"the schema version is {kind(value)}; this fakedev reads `fakedev: {SCHEMA_VERSION}`"
    )


_EXTENDS_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "profiles to start from: bundled names, or paths relative to this file; later ones win",
    "examples": ["fd-9000", ["base.yaml", "devices.yaml"]],
}
Version = Annotated[int, BeforeValidator(to_version), WithJsonSchema({"const": SCHEMA_VERSION})]
Extends = Annotated[object, WithJsonSchema(_EXTENDS_SCHEMA)]


class Document(Part):
    """A fakedev machine profile."""

    fakedev: Version = Field(description="version of this schema: 1")
    name: LooseText | None = Field(None, description="name of the machine", min_length=1)
    description: str = Field("", description="one paragraph about the machine")
    extends: Extends = None
    kernel: Kernel = Field(default_factory=Kernel, description="the kernel and its rules")
    memory: Memory = Field(default_factory=Memory, description="physical memory and its contents")
    firmware: Firmware = Field(
        default_factory=Firmware, description="what the firmware tells the kernel"
    )
    iomem: list[IomemEntry] = Field(
        default_factory=list, description="resources beside the e820 map"
    )
    pci: Pci | None = Field(None, description="PCI functions and drivers")
    nvdimm: Nvdimm | None = Field(None, description="persistent memory")
    dax: list[DaxMemory] = Field([], max_length=64, description="soft-reserved memory as dax")
    cxl: Cxl | None = Field(None, description="CXL windows and memory devices")
    virtio_mem: dict[str, VirtioMemEntry] = Field(
        {}, max_length=DEVICE_LIMIT, description="virtio-mem devices by name"
    )
    memory_blocks: MemoryBlocks | None = Field(
        None, description="memory hot-plug: blocks, NUMA nodes, DIMM slots"
    )
    files: dict[str, FileEntry] = Field(default_factory=dict, description="extra files")


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of profiles as users write them, short forms included."""
    from fakedev.profiles.schema_tables import structure_schema, table_schema  # noqa: PLC0415

    schema = Document.model_json_schema(by_alias=True, mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "fakedev machine profile"
    schema["properties"]["iomem"] = IOMEM_SCHEMA
    schema["properties"]["files"] = FILES_SCHEMA
    definitions = schema["$defs"]
    definitions["IomemEntry"]["properties"]["children"] = IOMEM_SCHEMA
    _list_of(definitions, "Smbios", "structures", structure_schema())
    _list_of(definitions, "Acpi", "tables", table_schema())
    pci_schema(definitions, IOMEM_SCHEMA)
    for definition in definitions.values():
        for member in definition.get("properties", {}).values():
            # pydantic copies its own words for bounds into a schema that it has not made
            for part in (member, *member.get("anyOf", ())):
                part.pop("ge", None)
                part.pop("le", None)
    definitions |= {"Number": NUMBER_SCHEMA, "HexBytes": HEX_SCHEMA}
    return schema


def _list_of(definitions: dict[str, Any], owner: str, key: str, item: dict[str, Any]) -> None:
    described = definitions[owner]["properties"][key].get("description", "")
    definitions[owner]["properties"][key] = {
        "anyOf": [{"type": "array", "items": item}, {"type": "null"}],
        "description": described,
    }
