"""Schema of `pci.drivers:`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fakedev.profiles.fields import Number, Part
from fakedev.profiles.fields_pci import Claims, DriverId, Errno


class PciDriver(Part):
    """A PCI driver of the machine's kernel. Its key is its name, as in /sys/bus/pci/drivers."""

    ids: list[DriverId] = Field(
        [],
        max_length=4096,
        description='its id table: "8086:100e", "8086:100e:1af4:1100", or "class:010802"',
    )
    claims: Claims = Field(None, description="the BARs that it claims: all, none, or [0, 2]")
    claim_name: str | None = Field(None, description="the name of its claims (not given: its own)")
    exclusive: bool = Field(False, description="it claims with IORESOURCE_EXCLUSIVE")
    module: str | None = Field(None, description="its module (not given: named as the driver)")
    loaded: bool = Field(True, description="false: `fakedev ctl modprobe` loads it")
    builtin: bool = Field(False, description="it is no module")
    msi: Literal["", "none", "msi", "msix"] = Field(
        "", description="message interrupts it asks for"
    )
    vectors: Number = Field(1, ge=1, le=2048, description="how many of them")
    probe_error: Errno = Field(0, description="its probe fails with this: EBUSY, ENODEV, ...")
    enables: bool | None = Field(
        None, description="it enables the device (not given: true, but not pci-stub and vfio-pci)"
    )
    bus_master: bool | None = Field(
        None, description="it enables bus mastering (not given: when it claims something)"
    )
    override_only: bool | None = Field(
        None, description="it binds only where driver_override names it (not given: vfio-pci)"
    )
    dma_mask_bits: Number | None = Field(None, le=64, description="the DMA mask that it sets")
    uio: bool | None = Field(
        None, description="it registers /dev/uioN (not given: uio_pci_generic does)"
    )
