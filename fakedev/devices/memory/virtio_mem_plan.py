"""What a profile says of one virtio-mem device, as plain values."""

from typing import NamedTuple

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK_SIZE = 2 * MIB
"""What QEMU takes on x86 unless told: the size of a transparent huge page."""
MIN_BLOCK_SIZE = MIB
USABLE_EXTENT = 256 * MIB
"""How far the usable region reaches beyond the requested size in QEMU."""
FIRST_RELEASE = (5, 8)
"""The first Linux that has the driver."""


class VirtioMemPlan(NamedTuple):
    """One device; sizes and addresses in bytes.

    `pci` is its function (empty: another transport, and nobody has to bind anything first). `usable`
    is the usable size at power-on, `unmovable` what the kernel keeps for itself in each memory block
    that is onlined to a kernel zone (None for both: the usual). `loaded`: the driver is there at boot.
    `force_bbm` and `bbm_block_size` (0: the smallest that works) are parameters of the module.
    """

    name: str
    addr: int
    region_size: int
    block_size: int = BLOCK_SIZE
    node: int = 0
    requested_size: int = 0
    usable: int | None = None
    pci: str = ""
    loaded: bool = False
    force_bbm: bool = False
    bbm_block_size: int = 0
    unmovable: int | None = None
