"""The PCI Express capability: its registers, and what some of their bits do."""

from fakedev.devices.pci.config import ConfigSpace

FLAGS, DEVICE_CAPS, DEVICE_CONTROL, DEVICE_STATUS = 0x02, 0x04, 0x08, 0x0A
LINK_CAPS, LINK_CONTROL, LINK_STATUS = 0x0C, 0x10, 0x12
SLOT_CAPS, SLOT_CONTROL, SLOT_STATUS = 0x14, 0x18, 0x1A
ROOT_CONTROL, ROOT_CAPS, ROOT_STATUS = 0x1C, 0x1E, 0x20
DEVICE_CAPS_2, DEVICE_CONTROL_2, DEVICE_STATUS_2 = 0x24, 0x28, 0x2A
LINK_CAPS_2, LINK_CONTROL_2, LINK_STATUS_2 = 0x2C, 0x30, 0x32
SLOT_CAPS_2, SLOT_CONTROL_2, SLOT_STATUS_2 = 0x34, 0x38, 0x3A
LENGTH = 0x3C

ENDPOINT, LEGACY_ENDPOINT, ROOT_PORT, UPSTREAM, DOWNSTREAM = 0, 1, 4, 5, 6
PCIE_TO_PCI, PCI_TO_PCIE, RC_ENDPOINT, RC_EVENT_COLLECTOR = 7, 8, 9, 10

FLAGS_SLOT = 0x0100
FLR_CAPABLE, START_FLR = 1 << 28, 0x8000
REPORTS_LINK, LINK_DISABLE, LINK_ACTIVE = 1 << 20, 0x10, 0x2000
HOTPLUG, PRESENCE, PRESENCE_CHANGED, LINK_CHANGED = 0x40, 0x40, 0x08, 0x100


def port_type(data: bytes | bytearray, at: int) -> int:
    """Return the device/port type of the capability at `at`: ENDPOINT, ROOT_PORT and so on."""
    return data[at + FLAGS] >> 4


def hotplug(config: ConfigSpace, at: int) -> bool:
    """True for a port with a slot that is hot-plug capable (PCI_EXP_SLTCAP_HPC)."""
    slot = config.get(at + FLAGS, 2) & FLAGS_SLOT
    return bool(slot and config.get(at + SLOT_CAPS, 4) & HOTPLUG)


def link_disabled(data: bytes | bytearray, at: int) -> bool:
    """True when a port was told to switch its link off."""
    down = port_type(data, at) in (ROOT_PORT, DOWNSTREAM)
    return down and bool(data[at + LINK_CONTROL] & LINK_DISABLE)


def starts_reset(config: ConfigSpace, at: int, offset: int, data: bytes) -> bool:
    """True for a write that starts a function level reset, in a function that can do it."""
    high = at + DEVICE_CONTROL + 1
    if not offset <= high < offset + len(data):
        return False
    return bool(
        data[high - offset] << 8 & START_FLR and config.get(at + DEVICE_CAPS, 4) & FLR_CAPABLE
    )


def set_link(config: ConfigSpace, at: int, *, up: bool) -> None:
    """Show in link and slot status that the link is up or down, in a port that reports it."""
    if not config.get(at + LINK_CAPS, 4) & REPORTS_LINK:
        return
    status = config.get(at + LINK_STATUS, 2) & ~LINK_ACTIVE
    config.put(at + LINK_STATUS, 2, status | (LINK_ACTIVE if up else 0))
    _event(config, at, LINK_CHANGED)


def set_presence(config: ConfigSpace, at: int, *, present: bool) -> None:
    """Show in slot status that a card is there or is not, in a port with a slot."""
    if not config.get(at + FLAGS, 2) & FLAGS_SLOT:
        return
    status = config.get(at + SLOT_STATUS, 2) & ~PRESENCE
    config.put(at + SLOT_STATUS, 2, status | (PRESENCE if present else 0))
    _event(config, at, PRESENCE_CHANGED)


def _event(config: ConfigSpace, at: int, bit: int) -> None:
    if hotplug(config, at):
        config.put(at + SLOT_STATUS, 2, config.get(at + SLOT_STATUS, 2) | bit)
