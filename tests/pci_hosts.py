"""Hosts with PCI of their own, and machines to be shown on them, for the tests of plans."""

from fakedev.sandbox.protocols import Kind

FILE, DIRECTORY, LINK = Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK

#: A machine with one root bus, as its service lists it.
REPLACED = ("/sys/bus/pci", "/sys/devices/pci0000:00", "/sys/class/pci_bus", "/proc/bus/pci")
MACHINE: dict[str, Kind] = dict.fromkeys(REPLACED, DIRECTORY) | {"/proc/ioports": FILE}
#: The same machine with `sysfs: merge`.
MERGED = (
    "/sys/bus/pci",
    "/sys/bus/pci/devices",
    "/sys/bus/pci/drivers",
    "/sys/class/pci_bus",
    "/sys/devices/pci0000:00",
)
INSIDE = ("/sys/bus/pci/drivers/nvme", "/sys/devices/pci0000:00/0000:00:02.0", "/proc/bus/pci")
MERGING: dict[str, Kind] = {
    **dict.fromkeys((*MERGED, *INSIDE), DIRECTORY),
    "/sys/bus/pci/devices/0000:00:02.0": LINK,
    "/sys/bus/pci/rescan": FILE,
    "/sys/class/pci_bus/0000:00": LINK,
    "/sys/devices/pci0000:00/pci_bus": DIRECTORY,
}
NIC = "/sys/devices/pci0000:00/0000:00:02.0/net/eth0"
DISK = "/sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda"
#: A host with a network card that has the address of the machine's function, and a virtio disk.
HOST: dict[str, str] = {
    "/proc/bus/pci/devices": "file",
    "/proc/ioports": "file",
    "/sys/block/loop0": "link:../devices/virtual/block/loop0",
    "/sys/block/vda": "link:../devices/pci0000:00/0000:00:05.0/virtio1/block/vda",
    "/sys/bus/acpi/devices/LNXSYSTM:00": "link:../../../devices/LNXSYSTM:00",
    "/sys/bus/pci/devices/0000:00:02.0": "link:../../../devices/pci0000:00/0000:00:02.0",
    "/sys/bus/pci/devices/0000:00:05.0": "link:../../../devices/pci0000:00/0000:00:05.0",
    "/sys/bus/pci/drivers/nvme/bind": "file",
    "/sys/bus/pci/drivers/virtio-pci/0000:00:05.0": "link:../../../../devices/pci0000:00/0000:00:05.0",
    "/sys/bus/pci/drivers/virtio-pci/bind": "file",
    "/sys/bus/pci/rescan": "file",
    "/sys/bus/virtio/devices/virtio1": "link:../../../devices/pci0000:00/0000:00:05.0/virtio1",
    "/sys/bus/virtio/drivers/virtio_blk/bind": "file",
    "/sys/bus/virtio/drivers/virtio_blk/module": "link:../../../../module/virtio_blk",
    "/sys/bus/virtio/drivers/virtio_blk/virtio1": (
        "link:../../../../devices/pci0000:00/0000:00:05.0/virtio1"
    ),
    "/sys/bus/virtio/drivers/virtio_rng/bind": "file",
    "/sys/class/net/bonding_masters": "file",
    "/sys/class/net/eth0": "link:../../devices/pci0000:00/0000:00:02.0/net/eth0",
    "/sys/class/net/lo": "link:../../devices/virtual/net/lo",
    "/sys/class/pci_bus/0000:00": "link:../../devices/pci0000:00/pci_bus/0000:00",
    "/sys/class/tty/tty0": "link:../../devices/virtual/tty/tty0",
    "/sys/dev/char/4:0": "link:../../devices/virtual/tty/tty0",
    "/sys/dev/block/254:0": "link:../../devices/pci0000:00/0000:00:05.0/virtio1/block/vda",
    "/sys/devices/pci0000:00/pci_bus/0000:00/rescan": "file",
    "/sys/devices/virtual/block/loop0/dev": "file",
    "/sys/devices/virtual/net/lo/mtu": "file",
    "/sys/devices/virtual/tty/tty0/dev": "file",
    "/sys/module/virtio_blk/refcnt": "file",
    f"{DISK}/dev": "file",
    f"{NIC}/mtu": "file",
}
SECOND_ROOT = {
    "/sys/class/pci_bus/0000:40": "link:../../devices/pci0000:40/pci_bus/0000:40",
    "/sys/class/pci_bus/0000:41": "link:../../devices/pci0000:40/0000:40:01.0/pci_bus/0000:41",
    "/sys/class/nvme/nvme0": "link:../../devices/pci0000:40/0000:40:01.0/0000:41:00.0/nvme/nvme0",
    "/sys/devices/pci0000:40/0000:40:01.0/0000:41:00.0/nvme/nvme0/model": "file",
}
GROUPS = {
    "/sys/kernel/iommu_groups/0/type": "file",
    "/sys/kernel/iommu_groups/0/devices/0000:00:02.0": (
        "link:../../../../devices/pci0000:00/0000:00:02.0"
    ),
    "/sys/kernel/iommu_groups/1/devices/gpu": "link:../../../../devices/platform/gpu",
}
NO_PCI = {path: what for path, what in HOST.items() if "pci" not in path + what}
