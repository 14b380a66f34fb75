"""The PCI Express capability, version 2: registers of a part that is up and running.

Values that are not given are those of a modern machine after its firmware and Linux set it up: the
link trained to its full speed and width, nothing in error.
"""

from dataclasses import dataclass, fields

from fakedev.devices.pci import express
from fakedev.devices.pci.capability import Body, Capability
from fakedev.devices.pci.errors import PciError

TYPES = {
    "endpoint": express.ENDPOINT,
    "legacy-endpoint": express.LEGACY_ENDPOINT,
    "root-port": express.ROOT_PORT,
    "upstream": express.UPSTREAM,
    "downstream": express.DOWNSTREAM,
    "pcie-to-pci": express.PCIE_TO_PCI,
    "pci-to-pcie": express.PCI_TO_PCIE,
    "rc-endpoint": express.RC_ENDPOINT,
    "rc-event-collector": express.RC_EVENT_COLLECTOR,
}
_WIDTHS = (0, 1, 2, 4, 8, 12, 16, 32)
_PAYLOADS = {128: 0, 256: 1, 512: 2, 1024: 3, 2048: 4, 4096: 5}
_FASTEST = 6
_SLOTS = 0x1FFF


@dataclass(frozen=True)
class _Register:
    """Where a register lies; what a write does to it, and to that of a port."""

    at: int
    width: int
    writable: int = 0
    clear: int = 0
    port: int = 0


_REGISTERS = {
    "devcap": _Register(express.DEVICE_CAPS, 4),
    "devctl": _Register(express.DEVICE_CONTROL, 2, writable=0x7FFF),
    "devsta": _Register(express.DEVICE_STATUS, 2, clear=0x000F),
    "linkcap": _Register(express.LINK_CAPS, 4),
    "linkctl": _Register(express.LINK_CONTROL, 2, writable=0x03CB, port=0x0C10),
    "linksta": _Register(express.LINK_STATUS, 2, clear=0xC000),
    "slotcap": _Register(express.SLOT_CAPS, 4),
    "slotctl": _Register(express.SLOT_CONTROL, 2, port=0x1FFF),
    "slotsta": _Register(express.SLOT_STATUS, 2, clear=0x011F),
    "rootctl": _Register(express.ROOT_CONTROL, 2, port=0x001F),
    "rootcap": _Register(express.ROOT_CAPS, 2),
    "rootsta": _Register(express.ROOT_STATUS, 4, clear=0x00010000),
    "devcap2": _Register(express.DEVICE_CAPS_2, 4),
    "devctl2": _Register(express.DEVICE_CONTROL_2, 2, writable=0x7FFF),
    "devsta2": _Register(express.DEVICE_STATUS_2, 2),
    "linkcap2": _Register(express.LINK_CAPS_2, 4),
    "linkctl2": _Register(express.LINK_CONTROL_2, 2, writable=0xFFFF),
    "linksta2": _Register(express.LINK_STATUS_2, 2, clear=0x0020),
    "slotcap2": _Register(express.SLOT_CAPS_2, 4),
    "slotctl2": _Register(express.SLOT_CONTROL_2, 2),
    "slotsta2": _Register(express.SLOT_STATUS_2, 2),
}


@dataclass(frozen=True)
class Pcie:
    """The options; from `devcap` on they are whole registers and beat everything above.

    `type` is a name of TYPES. `slot` is the physical slot number of a port: without it, the port
    has no slot. `speed` is 1 (2.5 GT/s) to 6 (64 GT/s), `width` the number of lanes; both are what
    the link can do and what it does. `payload` is in bytes. `surprise`: removal without warning.
    """

    type: str = "endpoint"
    speed: int = 3
    width: int = 4
    port: int = 0
    slot: int | None = None
    hotplug: bool = False
    surprise: bool = False
    flr: bool = False
    payload: int = 256
    version: int = 2
    msi: int = 0
    devcap: int | None = None
    devctl: int | None = None
    devsta: int | None = None
    linkcap: int | None = None
    linkctl: int | None = None
    linksta: int | None = None
    slotcap: int | None = None
    slotctl: int | None = None
    slotsta: int | None = None
    rootctl: int | None = None
    rootcap: int | None = None
    rootsta: int | None = None
    devcap2: int | None = None
    devctl2: int | None = None
    devsta2: int | None = None
    linkcap2: int | None = None
    linkctl2: int | None = None
    linksta2: int | None = None
    slotcap2: int | None = None
    slotctl2: int | None = None
    slotsta2: int | None = None

    def build(self) -> Capability:
        """60 bytes."""
        self._check()
        kind = TYPES[self.type]
        port = kind in (express.ROOT_PORT, express.DOWNSTREAM)
        body = Body("pcie", 0x10, express.LENGTH)
        slot = express.FLAGS_SLOT if self.slot is not None else 0
        body.put(express.FLAGS, 2, self.version | kind << 4 | slot | self.msi << 9, "flags")
        values = self._values(port=port)
        for field in fields(self):
            register = _REGISTERS.get(field.name)
            if register is None:
                continue
            given = getattr(self, field.name)
            value = values.get(field.name, 0) if given is None else given
            writable = register.writable | (register.port if port else 0)
            name, at, width = field.name, register.at, register.width
            body.put(at, width, value, name, writable=writable, clear=register.clear)
        return body.done()

    def _check(self) -> None:
        if self.type not in TYPES:
            raise PciError(f"pcie: type is one of {', '.join(TYPES)}, not {self.type!r}")
        if not 1 <= self.speed <= _FASTEST:
            raise PciError(f"pcie: speed is 1 (2.5 GT/s) to 6 (64 GT/s), not {self.speed}")
        if self.width not in _WIDTHS:
            raise PciError(f"pcie: width is a number of lanes {_WIDTHS[1:]}, not {self.width}")
        if self.payload not in _PAYLOADS:
            raise PciError(
                f"pcie: payload is 128 to 4096 bytes, a power of two, not {self.payload}"
            )
        for what, value, largest in (
            ("port", self.port, 0xFF),
            ("slot", self.slot or 0, _SLOTS),
            ("msi", self.msi, 0x1F),
            ("version", self.version, 0xF),
        ):
            if not 0 <= value <= largest:
                raise PciError(f"pcie: {what} is at most {largest}, not {value}")

    def _values(self, *, port: bool) -> dict[str, int]:
        values = self._device(port=port)
        if TYPES[self.type] not in (express.RC_ENDPOINT, express.RC_EVENT_COLLECTOR):
            values |= self._link(port=port)
        if self.slot is not None:
            values |= self._slot()
        if TYPES[self.type] == express.ROOT_PORT:
            values |= {"rootctl": 0x0010, "rootcap": 0x0001}  # retry status is visible to software
        return values

    def _device(self, *, port: bool) -> dict[str, int]:
        payload = _PAYLOADS[self.payload]
        capabilities = 0x8020 | payload  # role-based error reporting, extended tags
        endpoint = TYPES[self.type] in (express.ENDPOINT, express.LEGACY_ENDPOINT)
        if endpoint:
            capabilities |= 0x0FC0  # any exit latency is acceptable
        if self.flr:
            capabilities |= express.FLR_CAPABLE
        return {
            "devcap": capabilities,
            # extended tags, relaxed ordering, no snoop; reads of 512 bytes
            "devctl": 0x0100 | payload << 5 if port else 0x2910 | payload << 5,
            # completion timeout ranges and disable, LTR; forwarding of alternative routing ids
            "devcap2": 0x081F | (0x20 if port else 0),
            "devctl2": 0x0400,
        }

    def _link(self, *, port: bool) -> dict[str, int]:
        link = self.speed | self.width << 4
        capabilities = link | 0x00400800 | 6 << 15 | self.port << 24  # ASPM L1, left in 64 us
        status = link | 0x1000  # common clock
        if port:
            capabilities |= express.REPORTS_LINK | 0x00200000  # bandwidth notification
            capabilities |= 0x00080000 if self.surprise else 0
            status |= express.LINK_ACTIVE
        return {
            "linkcap": capabilities,
            "linkctl": 0x0040,
            "linksta": status,
            "linkcap2": (2 << self.speed) - 2,
            "linkctl2": self.speed,
            "linksta2": 0x001E if self.speed >= 3 else 0,  # equalisation complete
        }

    def _slot(self) -> dict[str, int]:
        capabilities = 0x00040000 | (self.slot or 0) << 19 | 75 << 7  # no command event, 75 W
        control = 0
        if self.hotplug:
            capabilities |= express.HOTPLUG | (0x20 if self.surprise else 0)
            control = 0x1028  # interrupts for presence and link changes
        return {"slotcap": capabilities, "slotctl": control, "slotsta": express.PRESENCE}
