"""PCI functions as control verbs name and show them."""

import errno
from typing import TYPE_CHECKING, Any

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.errors import PciError
from fakedev.model.errors import ControlError
from fakedev.model.words import closest

if TYPE_CHECKING:  # `fakedev run` starts without the code of PCI
    from fakedev.devices.pci.bus import PciBus
    from fakedev.devices.pci.device import PciDevice, PciResource

_IO, _PREFETCH, _MEM_64 = 0x100, 0x2000, 0x100000
_ROM = 6
_LIST = "(fakedev ctl pci lists them)"


def function_at(bus: "PciBus", text: str) -> Bdf:
    """The function that a person means by `00:02.0` or `0000:00:02.0`, plugged or not.

    A text without a domain means domain 0, else the only function of that number in any domain.
    Raises ControlError (EINVAL, ENODEV) that says what would be right.
    """
    try:
        bdf = Bdf.parse(text)
    except PciError as error:
        raise ControlError(f"{error} {_LIST}", errno=errno.EINVAL) from None
    known = _known(bus)
    if bdf in known:
        return bdf
    others = [found for found in known if found[1:] == bdf[1:]]
    if len(others) == 1 and text.count(":") == 1:
        return others[0]
    near = closest(str(bdf), map(str, known))
    hint = f"; did you mean {near}?" if near else ""
    raise ControlError(f"there is no function {bdf}{hint} {_LIST}", errno=errno.ENODEV)


def device_at(bus: "PciBus", text: str) -> "PciDevice":
    """The device that the kernel has at a function. Raises ControlError (EINVAL, ENODEV)."""
    bdf = function_at(bus, text)
    device = bus.devices.get(str(bdf))
    if device is None:
        remedy = f"{bdf} is {state_of(bus, bdf)}: {_remedy(bus, bdf)}"
        raise ControlError(remedy, errno=errno.ENODEV)
    return device


def state_of(bus: "PciBus", bdf: Bdf) -> str:
    """What has become of a function.

    `present`; `link down`: the kernel has it, it does not answer; `removed`: it answers, the kernel
    does not have it; `unplugged`; `without power`: in a slot that is off; `unreachable`.
    """
    answers = bus.fabric.at(bdf) is not None
    if str(bdf) in bus.devices:
        return "present" if answers else "link down"
    if _slot_without_power(bus, bdf) is not None:
        return "without power"
    if not bus.fabric.functions[bdf].present:
        return "unplugged"
    return "removed" if answers else "unreachable"


def _remedy(bus: "PciBus", bdf: Bdf) -> str:
    """What brings a function back that the kernel does not have."""
    bridge = bus.fabric.upstream(bdf)
    if bridge is not None and bus.fabric.at(bridge.bdf) is None:
        return _remedy(bus, bridge.bdf)
    if bridge is not None and not bridge.link_up:
        return f"fakedev ctl link-up {bridge.bdf}"
    slot = _slot_without_power(bus, bdf)
    if slot is not None:
        return f"fakedev ctl slot-power {slot} on"
    present = bus.fabric.functions[bdf].present
    return "fakedev ctl rescan" if present else f"fakedev ctl plug {bdf}"


def _slot_without_power(bus: "PciBus", bdf: Bdf) -> str | None:
    return next((name for name, slot in bus.slots.items() if bdf in slot.held), None)


def table(bus: "PciBus") -> list[dict[str, Any]]:
    """Every function, those that the kernel does not see now as well."""
    return [_row(bus, bdf) for bdf in _known(bus)]


def _known(bus: "PciBus") -> list[Bdf]:
    return sorted({*bus.fabric.functions, *(device.bdf for device in bus.devices.values())})


def _row(bus: "PciBus", bdf: Bdf) -> dict[str, Any]:
    device = bus.devices.get(str(bdf))
    row: dict[str, Any] = {"bdf": str(bdf), "state": state_of(bus, bdf)}
    if device is None:
        config = bus.fabric.functions[bdf].config
        ids, class_code, revision = config.read(0, 4), config.get(9, 3), config.get(8, 1)
        vendor, product = int.from_bytes(ids[:2], "little"), int.from_bytes(ids[2:], "little")
    else:
        vendor, product = device.vendor, device.device
        class_code, revision = device.class_, device.revision
    row["id"] = f"{vendor:04x}:{product:04x}"
    row["class"], row["revision"] = f"{class_code:06x}", f"{revision:02x}"
    return row | (_kernel_side(device) if device else {"driver": None, "bars": []})


def _kernel_side(device: "PciDevice") -> dict[str, Any]:
    """What only the kernel knows of a function."""
    return {
        "subsystem": f"{device.subvendor:04x}:{device.subdevice:04x}",
        "driver": device.driver.name if device.driver else None,
        "enabled": device.enable_count,
        "numa_node": device.numa_node,
        "irq": device.irq,
        "parent": device.parent.name if device.parent else None,
        "path": device.path,
        "bars": [
            _bar(index, resource)
            for index, resource in enumerate(device.resources[: _ROM + 1])
            if resource.flags
        ],
    }


def _bar(index: int, resource: "PciResource") -> dict[str, Any]:
    flags = resource.flags
    kind = "io" if flags & _IO else "mem64" if flags & _MEM_64 else "mem32"
    return {
        "index": index,
        "kind": "rom" if index == _ROM else kind,
        "prefetch": bool(flags & _PREFETCH) and index != _ROM,
        "range": f"{resource.start:08x}-{resource.end:08x}",
        "size": resource.end - resource.start + 1,
    }
