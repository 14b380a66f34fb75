"""Which paths the files of PCI take on a host: as a whole, or name by name beside the host's own."""

import stat
from collections.abc import Iterator

from fakedev.devices.pci.conf1 import Conf1
from fakedev.model.machine import Machine
from fakedev.model.window import WindowBacking

BUS = "/sys/bus/pci"
CLASS = "/sys/class/pci_bus"
PROC = "/proc/bus/pci"
IOPORTS = "/proc/ioports"
PORT = "/dev/port"

_BUS_FILES = ("drivers_autoprobe", "drivers_probe", "rescan", "resource_alignment", "uevent")
_FILE, _LINK, _DIRECTORY = stat.S_IFREG | 0o444, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755


def paths(machine: Machine) -> dict[str, int]:
    """Each path that is to be placed, with its `st_mode`; what is below an opaque directory is not."""
    bus = machine.pci
    found = dict.fromkeys(directories(machine), _DIRECTORY)
    if not bus.settings.replace_sysfs:
        found |= dict(_entries(machine))
    found[IOPORTS] = _FILE
    if conf1_of(machine) is not None:
        found[PORT] = stat.S_IFREG | 0o640
    links = (path for facts in bus.settings.facts.values() for path, _ in facts.links)
    return found | dict.fromkeys(links, _LINK)


def directories(machine: Machine) -> dict[str, bool]:
    """Directories whose content is not listed in full: whether the host's entries stay beside ours.

    Where they do, every name that can ever be one of ours is listed, also of functions that are
    not there now and of drivers that are not loaded.
    """
    bus = machine.pci
    roots = [root.path for root in bus.roots]
    if bus.settings.replace_sysfs:
        return dict.fromkeys((BUS, CLASS, PROC, *roots), False)
    merged = (BUS, f"{BUS}/devices", f"{BUS}/drivers", f"{BUS}/slots", CLASS, *roots)
    return dict.fromkeys(merged, True) | dict.fromkeys((*_own(machine), PROC), False)


def _own(machine: Machine) -> Iterator[str]:
    """Directories that are ours as a whole, in those that are shared."""
    bus = machine.pci
    roots = {(root.domain, root.bus): root.path for root in bus.roots}
    for bdf, function in bus.fabric.functions.items():
        if (bdf.domain, bdf.bus) in roots:
            yield f"{roots[bdf.domain, bdf.bus]}/{bdf}"
        if function.slot:
            yield f"{BUS}/slots/{function.slot}"
    for path in roots.values():
        yield f"{path}/pci_bus"
        yield f"{path}/power"
    for name in bus.known_drivers:
        yield f"{BUS}/drivers/{name}"


def _entries(machine: Machine) -> Iterator[tuple[str, int]]:
    """Files and links of ours in directories that are shared."""
    bus = machine.pci
    for name in _BUS_FILES:
        yield f"{BUS}/{name}", _FILE
    for root in bus.roots:
        yield f"{root.path}/uevent", _FILE
        yield f"{CLASS}/{root.name}", _LINK
    for bdf, function in bus.fabric.functions.items():
        yield f"{BUS}/devices/{bdf}", _LINK
        if function.is_bridge:
            yield f"{CLASS}/{bdf.domain:04x}:{function.secondary:02x}", _LINK


def conf1_of(machine: Machine) -> Conf1 | None:
    """Configuration mechanism #1, for which `/dev/port` is there."""
    backings = (segment.backing for segment in machine.port_space.segments)
    targets = (backing.target for backing in backings if isinstance(backing, WindowBacking))
    return next((target for target in targets if isinstance(target, Conf1)), None)
