"""The texts of PCI attributes, as the kernel prints them (`drivers/pci/pci-sysfs.c`, `proc.c`)."""

import errno

from fakedev.devices.pci.device import PciDevice
from fakedev.views.node import Refused

_FLAG_MASK = 0xF  # PCI_REGION_FLAG_MASK: the low bits that /proc/bus/pci/devices shows
_NOTHING = " ".join([f"0x{0:016x}"] * 3) + "\n"


def modalias(device: PciDevice) -> str:
    """`modalias_show`, without the newline."""
    cls = device.class_
    return (
        f"pci:v{device.vendor:08X}d{device.device:08X}"
        f"sv{device.subvendor:08X}sd{device.subdevice:08X}"
        f"bc{cls >> 16 & 0xFF:02X}sc{cls >> 8 & 0xFF:02X}i{cls & 0xFF:02X}"
    )


def uevent(device: PciDevice) -> str:
    """`uevent_show`: the environment of a uevent, one variable a line."""
    driver = device.driver
    return (
        (f"DRIVER={driver.name}\n" if driver else "")
        + f"PCI_CLASS={device.class_:04X}\n"
        + f"PCI_ID={device.vendor:04X}:{device.device:04X}\n"
        + f"PCI_SUBSYS_ID={device.subvendor:04X}:{device.subdevice:04X}\n"
        + f"PCI_SLOT_NAME={device.name}\n"
        + f"MODALIAS={modalias(device)}\n"
    )


def resource(device: PciDevice) -> str:
    """`resource_show`: start, end and flags of every resource."""
    return "".join([
        f"0x{item.start:016x} 0x{item.end:016x} 0x{item.flags:016x}\n" if item.flags else _NOTHING
        for item in device.resources
    ])  # fmt: skip


def proc_line(device: PciDevice) -> str:
    """`show_device`: one line of `/proc/bus/pci/devices`."""
    bdf, items = device.bdf, device.resources[:7]
    starts = (item.start | item.flags & _FLAG_MASK for item in items)
    sizes = (item.end - item.start + 1 if item.start < item.end else 0 for item in items)
    numbers = "".join(f"\t{number:16x}" for number in (*starts, *sizes))
    driver = device.driver.name if device.driver else ""
    return (
        f"{bdf.bus:02x}{bdf.devfn:02x}\t{device.vendor:04x}{device.device:04x}"
        f"\t{device.irq:x}{numbers}\t{driver}\n"
    )


def kstrtobool(text: str) -> bool:
    """`kstrtobool`: y, Y, t, T, 1, on and n, N, f, F, 0, off; only the first letters count."""
    head = text[:2].lower()
    if head[:1] in {"y", "t", "1"} or head == "on":
        return True
    if head[:1] in {"n", "f", "0"} or head == "of":
        return False
    raise Refused(errno.EINVAL)
