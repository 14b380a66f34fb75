"""`/proc/bus/pci` and `/proc/ioports` (`drivers/pci/proc.c`, `kernel/resource.c`)."""

from collections.abc import Iterable

from fakedev.model.machine import Machine
from fakedev.views.kinds import SEQ_FILE
from fakedev.views.live import LiveDirectory
from fakedev.views.node import CAP_SYS_ADMIN, Node, Opener, TextFile
from fakedev.views.pci.places import PROC as PATH
from fakedev.views.pci.proc_file import ProcConfigFile
from fakedev.views.pci.site import Site
from fakedev.views.pci.texts import proc_line

_MODE = 0o555
_DOMAIN_0 = "0000:"


def proc_directory(site: Site) -> LiveDirectory:
    """`/proc/bus/pci`: a directory for each bus, and the file `devices`."""

    def names() -> Iterable[str]:
        return ["devices", *(bus.removeprefix(_DOMAIN_0) for bus in site.buses())]

    def make(name: str) -> Node | None:
        if name == "devices":
            return TextFile(lambda _: _devices(site), kind=SEQ_FILE)
        bus = name if ":" in name else _DOMAIN_0 + name
        known = not name.startswith(_DOMAIN_0) and site.owner(bus) is not None
        return _bus(site, name, bus) if known else None

    return site.directory(PATH, names, make, mode=_MODE)


def _bus(site: Site, name: str, bus: str) -> LiveDirectory:
    """`BB` or, in another domain than 0, `DDDD:BB`: a file for each function on the bus."""

    def names() -> Iterable[str]:
        found = [device.name for device in site.devices() if device.bus_name == bus]
        return [function.removeprefix(f"{bus}:") for function in found]

    def make(wanted: str) -> Node | None:
        device = site.bus.devices.get(f"{bus}:{wanted}")
        return ProcConfigFile(site.machine, device) if device is not None else None

    return site.directory(f"{PATH}/{name}", names, make, mode=_MODE)


def _devices(site: Site) -> bytes:
    with site.machine.lock:
        return "".join(proc_line(device) for device in site.bus.devices.values()).encode()


def ioports(machine: Machine) -> TextFile:
    """`/proc/ioports`; numbers are zeros for openers without CAP_SYS_ADMIN."""

    def text(opener: Opener) -> bytes:
        with machine.lock:
            return machine.ports.iomem_text(
                privileged=opener.capable(CAP_SYS_ADMIN), depth_cap=machine.rules.iomem_depth_cap
            ).encode()

    return TextFile(text, kind=SEQ_FILE)
