"""PCIe links: speeds and widths, and the directory `link/` (`pcie/aspm.c`)."""

import errno
from functools import partial

from fakedev.devices.pci import express
from fakedev.views.node import Opener, Refused
from fakedev.views.pci.spec import Spec, Specs, group, shown
from fakedev.views.pci.subject import Subject
from fakedev.views.pci.texts import kstrtobool

_LINKED = frozenset(range(9)) - {2, 3}  # types with link registers (pcie_cap_has_lnkctl)
_UNKNOWN = "Unknown"
_SPEEDS = (
    _UNKNOWN,
    *(f"{speed} GT/s PCIe" for speed in ("2.5", "5.0", "8.0", "16.0", "32.0", "64.0")),
)
_WIDTH_UNKNOWN = 255


def speed_text(number: int) -> str:
    """`pci_speed_string` of a link speed field: 1 is 2.5 GT/s."""
    return _SPEEDS[number] if number < len(_SPEEDS) else _UNKNOWN


def _linked(subject: Subject) -> bool:
    return subject.device.function.port_type in _LINKED


def _register(subject: Subject, offset: int, width: int) -> int:
    """`pcie_capability_read_*`: 0 where there is no such register, or nobody to ask any more."""
    old = offset >= express.LINK_CAPS_2 and subject.version < 2
    if old or not _linked(subject) or subject.device.unplugged:
        return 0
    return subject.get(subject.express + offset, width)


def _status(subject: Subject) -> int:
    if subject.device.unplugged:
        raise Refused(errno.EINVAL)
    return _register(subject, express.LINK_STATUS, 2)


def current_speed(subject: Subject) -> str:
    """`current_link_speed`."""
    fact = subject.device.facts.link_speed
    return fact if fact is not None else speed_text(_status(subject) & 0xF)


def current_width(subject: Subject) -> int:
    """`current_link_width`."""
    fact = subject.device.facts.link_width
    return fact if fact is not None else _status(subject) >> 4 & 0x3F


def max_speed(subject: Subject) -> str:
    """`pcie_get_speed_cap`: the fastest of the supported speeds, or what older ports say."""
    fact = subject.device.facts.max_link_speed
    if fact is not None:
        return fact
    supported = _register(subject, express.LINK_CAPS_2, 4) >> 1 & 0x3F
    if supported:
        return speed_text(supported.bit_length())
    speed = _register(subject, express.LINK_CAPS, 4) & 0xF
    return speed_text(speed) if speed <= 2 else _UNKNOWN


def max_width(subject: Subject) -> int:
    """`pcie_get_width_cap`."""
    fact = subject.device.facts.max_link_width
    if fact is not None:
        return fact
    capabilities = _register(subject, express.LINK_CAPS, 4)
    return capabilities >> 4 & 0x3F if capabilities else _WIDTH_UNKNOWN


SPEEDS: Specs = group(
    lambda subject: bool(subject.express),
    {
        "current_link_speed": shown(current_speed),
        "current_link_width": shown(current_width),
        "max_link_speed": shown(max_speed),
        "max_link_width": shown(max_width),
    },
)


# -- link/: power saving states of the link above a function ------------------------------------


def _upstream(subject: Subject) -> Subject | None:
    """The port above, when this is a function of a PCIe link."""
    parent = subject.device.parent
    if parent is None or not _linked(subject):
        return None
    port = Subject(subject.site, parent)
    return port if _linked(port) else None


def _aspm_capable(bit: int, subject: Subject) -> bool:
    port = _upstream(subject)
    if port is None:
        return False
    both = _register(port, express.LINK_CAPS, 4) & _register(subject, express.LINK_CAPS, 4)
    return bool(both & bit)


def _substate_capable(bit: int, subject: Subject) -> bool:
    port = _upstream(subject)
    if port is None or not port.l1ss or not subject.l1ss:
        return False
    return bool(port.get(port.l1ss + 4, 4) & subject.get(subject.l1ss + 4, 4) & bit)


def _clkpm_capable(subject: Subject) -> bool:
    return _upstream(subject) is not None and bool(
        _register(subject, express.LINK_CAPS, 4) & 1 << 18
    )


def _control(bit: int, subject: Subject) -> str:
    return f"{int(bool(_register(subject, express.LINK_CONTROL, 2) & bit))}\n"


def _set_control(bit: int, subject: Subject, text: str, _: Opener) -> None:
    _change(subject, subject.express + express.LINK_CONTROL, 2, bit, on=kstrtobool(text))


def _substate(bit: int, subject: Subject) -> str:
    return f"{int(bool(subject.get(subject.l1ss + 8, 4) & bit))}\n"


def _set_substate(bit: int, subject: Subject, text: str, _: Opener) -> None:
    _change(subject, subject.l1ss + 8, 4, bit, on=kstrtobool(text))


def _change(subject: Subject, offset: int, width: int, bit: int, *, on: bool) -> None:
    value = subject.get(offset, width)
    value = value | bit if on else value & ~bit
    subject.bus.config_write(subject.device, offset, value.to_bytes(width, "little"))


def _aspm(bit: int) -> Spec:
    return Spec(
        0o644,
        partial(_control, bit),
        partial(_set_control, bit),
        when=partial(_aspm_capable, bit << 10),
        verb=True,
    )


def _sub(bit: int) -> Spec:
    return Spec(
        0o644,
        partial(_substate, bit),
        partial(_set_substate, bit),
        when=partial(_substate_capable, bit),
        verb=True,
    )


_CLKPM = 1 << 8
STATES: Specs = {
    "clkpm": Spec(
        0o644,
        partial(_control, _CLKPM),
        partial(_set_control, _CLKPM),
        when=_clkpm_capable,
        verb=True,
    ),
    "l0s_aspm": _aspm(1),
    "l1_aspm": _aspm(2),
    "l1_1_aspm": _sub(8),
    "l1_2_aspm": _sub(4),
    "l1_1_pcipm": _sub(2),
    "l1_2_pcipm": _sub(1),
}
