"""Schema of `virtio_mem:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fakedev.devices.memory.virtio_mem_plan import BLOCK_SIZE, MIN_BLOCK_SIZE
from fakedev.profiles.fields import LooseText, Number, Part, refuse

DEVICE_LIMIT = 256


def to_block_size(size: int) -> int:
    """Check that a size is one that blocks can have."""
    if size < MIN_BLOCK_SIZE or size & (size - 1):
        refuse(f"a block is a power of two from 1M on, not {size:#x}")
    return size


BlockSize = Annotated[Number, AfterValidator(to_block_size)]


class VirtioMemEntry(Part):
    """One virtio-mem device: a region of which the hypervisor lets the guest have a part."""

    addr: Number = Field(description="physical address of the region")
    region_size: Number = Field(description="how large it is: the most that can be plugged")
    block_size: BlockSize = Field(BLOCK_SIZE, description="what can be plugged at a time")
    requested_size: Number = Field(0, description="what the hypervisor asks for at power-on")
    usable_size: Number | None = Field(
        None,
        description="how much of the region may be plugged at power-on; not given: 256M more "
        "than asked for",
    )
    node: Number = Field(0, le=1023, description="NUMA node of the memory")
    pci: LooseText | None = Field(
        None, description="its PCI function; not given: another transport", examples=["00:01.0"]
    )
    loaded: bool = Field(False, description="the driver is there at boot, for every device")
    force_bbm: bool = Field(False, description="parameter of the module: big-block mode")
    bbm_block_size: BlockSize | None = Field(
        None, description="parameter of the module: size of a big block"
    )
    unmovable: Number | None = Field(
        None,
        description="what the kernel keeps for itself in each memory block that goes to a kernel zone; "
        "not given: one block of the device",
    )
