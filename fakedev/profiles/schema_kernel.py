"""Schema of `kernel:`; names and meanings are those of `KernelRules`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fakedev.model.errors import FakedevError
from fakedev.model.kernel import parse_version
from fakedev.profiles.fields import LooseText, Number, Part, refuse


def to_version(text: str) -> str:
    """Check that a text is a kernel version."""
    try:
        parse_version(text)
    except FakedevError as error:
        refuse(str(error))
    return text


Version = Annotated[LooseText, AfterValidator(to_version)]


class Kernel(Part):
    """What the kernel of the machine is and how it was built. Keys not given follow the version."""

    version: Version | None = Field(
        None, description="the kernel's version", examples=["6.1", "6.12"]
    )
    arch: Literal["x86_64", "aarch64", "riscv64"] | None = Field(None, description="architecture")
    devmem: bool | None = Field(None, description="CONFIG_DEVMEM: /dev/mem exists")
    strict_devmem: bool | None = Field(None, description="CONFIG_STRICT_DEVMEM")
    io_strict_devmem: bool | None = Field(None, description="CONFIG_IO_STRICT_DEVMEM")
    cmdline: str | None = Field(None, description="kernel command line", examples=["iomem=relaxed"])
    lockdown: Literal["none", "integrity", "confidentiality"] | None = Field(
        None, description="lockdown level"
    )
    phys_bits: Number | None = Field(
        None, description="physical address bits of the CPU", ge=32, le=64
    )
    pat: bool | None = Field(None, description="x86: the page attribute table is on")
    claim_policy: Literal["revoke", "deny-claim", "ignore"] | None = Field(
        None, description="what a claim does to mappings that exist"
    )
    descend_region_intersects: bool | None = Field(
        None, description="region_intersects looks below the top level (6.12 and stable back-ports)"
    )
