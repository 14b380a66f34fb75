"""Where userspace I/O stands in the tree: `/dev/uioN`, its directory in sysfs, `/sys/class/uio`."""

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from fakedev.devices.pci.uio import CLASS, MAJOR, MAX_UIO_MAPS, NUMBERS, VERSION, UioDevice
from fakedev.model.machine import Machine
from fakedev.views.live import Attribute
from fakedev.views.node import Node, Symlink
from fakedev.views.pci.power import power_directory
from fakedev.views.pci.site import Site
from fakedev.views.pci.subject import Subject
from fakedev.views.pci.uio import UioFile
from fakedev.views.sysfs import link, take_uevent

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

Makers = Mapping[str, Callable[[], Node]]
_FILE = re.compile(rf"uio(0|[1-9]\d*)(?::([1-{MAX_UIO_MAPS - 1}]))?", re.ASCII)
_MODES = {"/dev": stat.S_IFREG | 0o600, CLASS: stat.S_IFLNK | 0o777, NUMBERS: stat.S_IFLNK | 0o777}


def has_uio(machine: Machine) -> bool:
    """Whether the machine knows a driver that makes such devices."""
    return any(driver.uio for driver in machine.pci.known_drivers.values())


def paths(machine: Machine) -> dict[str, int]:
    """Each name that can ever be one of ours, with its `st_mode`."""
    found = dict.fromkeys(directories(machine), stat.S_IFDIR | 0o755)
    for minor in range(len(machine.pci.fabric.functions)):
        for directory, name in _names(minor).items():
            found[f"{directory}/{name}"] = _MODES[directory]
    return found


def directories(machine: Machine) -> dict[str, bool]:
    """The class, which may have the host's beside ours, and the links by number."""
    return {CLASS: not machine.pci.settings.replace_sysfs, NUMBERS: True}


def _names(minor: int) -> dict[str, str]:
    """Directory to the name in it."""
    return {"/dev": f"uio{minor}", CLASS: f"uio{minor}", NUMBERS: f"{MAJOR}:{minor}"}


def install(tree: "Tree", machine: Machine) -> None:
    """Put what comes and goes before what is there."""
    devices = machine.pci

    def file(name: str) -> Node | None:
        match = _FILE.fullmatch(name)
        uio = devices.uio.get(int(match[1])) if match else None
        index = int(match[2] or 0) if match else 0
        return UioFile(machine, uio, index) if uio and index < max(len(uio.maps), 1) else None

    def linked(directory: str, name: str) -> Node | None:
        uios = (uio for minor, uio in devices.uio.items() if _names(minor)[directory] == name)
        uio = next(uios, None)
        return link(directory, uio.path) if uio else None

    def listed(directory: str) -> Iterable[str]:
        return [_names(minor)[directory] for minor in devices.uio]

    tree.overlay("/dev", partial(listed, "/dev"), file)
    for directory in (CLASS, NUMBERS):
        tree.overlay(directory, partial(listed, directory), partial(linked, directory))


# -- sysfs --------------------------------------------------------------------------------------


def uio_directory(subject: Subject) -> Node | None:
    """`uio/` of a function."""
    uio = subject.device.uio
    if uio is None:
        return None
    shown = _Shown(subject.site, uio)
    return shown.directory(f"{subject.device.path}/uio", {uio.name: shown.device})


class _Shown:
    """The directories of one device, which die with it."""

    __slots__ = ("_site", "_uio")

    def __init__(self, site: Site, uio: UioDevice) -> None:
        self._site = site
        self._uio = uio

    def _alive(self) -> bool:
        return self._uio.end.alive

    def directory(self, path: str, makers: Makers) -> Node:
        """A directory of fixed entries."""
        return self._site.fixed(path, makers, alive=self._alive)

    def _texts(self, texts: Mapping[str, str]) -> Makers:
        return {name: partial(self._text, text) for name, text in texts.items()}

    def _text(self, text: str) -> Node:
        return Attribute(lambda: f"{text}\n", alive=self._alive)

    def device(self) -> Node:
        """`uioN/`."""
        uio, path = self._uio, self._uio.path
        number = f"{MAJOR}:{uio.minor}"
        uevent = f"MAJOR={MAJOR}\nMINOR={uio.minor}\nDEVNAME={uio.name}\n"
        texts = {"name": uio.driver.name, "version": VERSION, "event": "0", "dev": number}
        makers: dict[str, Callable[[], Node]] = {
            **self._texts(texts),
            "uevent": lambda: Attribute(lambda: uevent, take_uevent, mode=0o644, alive=self._alive),
            "device": lambda: Symlink(f"../../../{uio.device.name}".encode()),
            "subsystem": lambda: link(path, CLASS),
            "power": lambda: power_directory(
                self._site, f"{path}/power", runtime=False, alive=self._alive
            ),
        }
        return self.directory(path, makers | ({"maps": self._maps} if uio.maps else {}))

    def _maps(self) -> Node:
        maps = range(len(self._uio.maps))
        return self.directory(
            f"{self._uio.path}/maps", {f"map{index}": partial(self._map, index) for index in maps}
        )

    def _map(self, index: int) -> Node:
        """`mapN/`; address and size as `%pa` prints them."""
        one = self._uio.maps[index]
        texts = {
            "name": one.name,
            "addr": f"{one.span.start:#018x}",
            "size": f"{one.span.size:#018x}",
            "offset": f"{one.offset:#x}",
        }
        return self.directory(f"{self._uio.path}/maps/map{index}", self._texts(texts))
