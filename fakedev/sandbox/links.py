"""What of the host's /sys is left out of a sandbox: its PCI, and the links that would lead nowhere.

A machine that replaces directories of /sys hides the host's devices in them. The host's classes and
buses still link there (`/sys/class/net/eth0` to `../../devices/pci0000:00/...`): each directory that
has such a link is replaced by one without it.
"""

import re
from collections.abc import Callable, Collection

from fakedev.sandbox.host import Host

PCI = "/sys/bus/pci"
_SYSFS = "/sys/"
_ROOT_BUS = re.compile(r".*?/pci[0-9a-f]{4,}:[0-9a-f]{2}(?=/)")
_GROUPS = "/sys/kernel/iommu_groups"
# Buses with many devices, all of them in one place: spared unless that place is hidden.
_ALL_IN = {
    "acpi": "/sys/devices/LNXSYSTM:00",
    "memory": "/sys/devices/system/memory",
    "workqueue": "/sys/devices/virtual/workqueue",
}

#: Directory to the names in it that are not shown.
LeftOut = dict[str, set[str]]


def left_out(host: Host, replaced: Collection[str], exists: Callable[[str], bool]) -> LeftOut:
    """Return what must not be shown of the host when `replaced` directories are the machine's.

    `exists` tells whether the machine has a path in one of them. Whoever replaces /sys/bus/pci
    hides all of the host's root buses, also those that the machine has not.
    """
    roots = root_buses(host) - set(replaced) if PCI in replaced else set()
    search = _Search(host, {path for path in replaced if path.startswith(_SYSFS)} | roots, exists)
    for root in roots:
        parent, _, name = root.rpartition("/")
        search.leave_out(parent, {name})
    search.everywhere()
    return search.found


def root_buses(host: Host) -> set[str]:
    """Return the directories of the host's PCI root buses, wherever in /sys/devices they are."""
    matches = (_ROOT_BUS.match(_absolute(to)) for _, to in host.links("/sys/class/pci_bus"))
    return {match.group() for match in matches if match}


def _absolute(target: str) -> str:
    """Where a link of /sys/class, /sys/bus or /sys/dev leads: it climbs to /sys and descends again."""
    return _SYSFS + target.lstrip("./")


class _Search:
    """Looks for links into `hidden` directories."""

    __slots__ = ("_exists", "_hidden", "_host", "_inside", "found")

    def __init__(self, host: Host, hidden: set[str], exists: Callable[[str], bool]) -> None:
        self._host = host
        self._hidden = hidden
        self._inside = tuple(path + "/" for path in hidden)
        self._exists = exists
        self.found: LeftOut = {}

    def everywhere(self) -> None:
        """Look at all directories that tools list in search of devices."""
        if not self._hidden:
            return
        for name in self._host.names("/sys/class"):
            self._look(f"/sys/class/{name}")
        for name in self._host.names("/sys/bus"):
            if name not in _ALL_IN or _ALL_IN[name] in self._hidden:
                self._look_at_bus(f"/sys/bus/{name}")
        for path in ("/sys/block", "/sys/dev/block", "/sys/dev/char"):
            self._look(path)
        for name in self._host.names(_GROUPS):
            if self._dangling(f"{_GROUPS}/{name}/devices"):
                self.leave_out(_GROUPS, {name})

    def _look_at_bus(self, path: str) -> None:
        if self._look(f"{path}/devices"):  # only then do its drivers link to such devices
            for name in self._host.names(f"{path}/drivers"):
                self._look_at_driver(f"{path}/drivers/{name}")

    def _look_at_driver(self, path: str) -> None:
        """Without its hidden devices a driver is shown without `bind`, `unbind` and the like.

        These would act on devices that nobody sees here, and cost a mount each.
        """
        if self._look(path):
            links = {name for name, _target in self._host.links(path)}
            self.leave_out(path, set(self._host.names(path)) - links)

    def _look(self, path: str) -> bool:
        names = self._dangling(path)
        if names:
            self.leave_out(path, names)
        return bool(names)

    def _dangling(self, path: str) -> set[str]:
        """The links in a directory of the host that lead to something hidden."""
        if (path + "/").startswith(self._inside):
            return set()  # nothing of the host is seen there
        links = [(name, _absolute(target) + "/") for name, target in self._host.links(path)]
        into = [(name, target[:-1]) for name, target in links if target.startswith(self._inside)]
        return {name for name, target in into if not self._exists(target)}

    def leave_out(self, path: str, names: set[str]) -> None:
        """Do not show `names` in the directory `path`."""
        self.found.setdefault(path, set()).update(names)
