"""Where persistent memory, dax and CXL stand in the tree of a machine."""

import os
import stat
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from fakedev.devices.nd.bus import NdBus
from fakedev.devices.nd.catalog import Link, Text
from fakedev.devices.nd.dax import DaxDevice, Life
from fakedev.devices.nd.describe_cxl import MAJOR as CXL_MAJOR
from fakedev.devices.nd.describe_dax import MAJOR as DAX_MAJOR
from fakedev.devices.nd.plan import FilePlan
from fakedev.devices.nd.region import Namespace
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.kinds import CHAR_DEVICE
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.nd.files import MediumFile, Number
from fakedev.views.node import Attr, Directory, Node, Opener
from fakedev.views.sysfs import link

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

FILES, CXL = "/dev/pmem-fs", "/dev/cxl"
BLOCK_EXT_MAJOR = 259
_FILE, _LINK, _DIRECTORY = stat.S_IFREG | 0o600, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755


def paths(machine: Machine) -> dict[str, int]:
    """Each path that is to be placed, with its `st_mode`; names below /dev that can ever be ours."""
    bus: NdBus = machine.nd
    found = dict.fromkeys(directories(machine), _DIRECTORY)
    for path in bus.catalog.shared:
        found |= dict.fromkeys((f"{path}/{name}" for name in bus.possible_numbers()), _LINK)
    return found | dict.fromkeys((f"/dev/{name}" for name in bus.possible_nodes()), _FILE)


def directories(machine: Machine) -> dict[str, bool]:
    """Directories that are ours as a whole."""
    bus: NdBus = machine.nd
    found = {path: path in bus.catalog.shared for path in bus.catalog.roots}
    found |= {FILES: False} if _has_files(bus) else {}
    return found | ({CXL: False} if _memdevs(bus) else {})


def _has_files(bus: NdBus) -> bool:
    return any(n.plan.files for region in bus.regions for n in region.namespaces)


def install(tree: "Tree", machine: Machine) -> None:
    """Put the files into a tree. What the profile adds below them may come later."""
    bus: NdBus = machine.nd
    for path in bus.catalog.roots:
        tree.mount(path, _catalogued(tree, bus, path))
    if bus.possible_nodes() or _memdevs(bus):
        tree.mount("/dev", _dev(tree, machine, bus))


def _catalogued(tree: "Tree", bus: NdBus, path: str) -> LiveDirectory:
    def make(name: str) -> Node | None:
        at = f"{path}/{name}"
        entry = bus.catalog.entries.get(at)
        if entry is None and at not in bus.catalog.children:
            return None
        if isinstance(entry, Text):
            return _attribute(bus, at, entry)
        if isinstance(entry, Link):
            return link(path, entry.target)
        return _catalogued(tree, bus, at)

    return LiveDirectory(
        lambda: tuple(bus.catalog.children.get(path, ())), make, extras=tree.extras(path)
    )


class _Verb(Attribute):
    """A file whose write may wait for pins."""

    __slots__ = ()
    waits = True


def _attribute(bus: NdBus, path: str, made: Text) -> Attribute:
    """The file of an entry: it says what the catalogue of the day says, as long as that has the same owner."""
    owner = bus.catalog.owners[path]

    def alive() -> bool:
        return path in bus.catalog.entries and bus.catalog.owners[path] is owner

    def entry() -> Text:
        now = bus.catalog.entries.get(path)
        return now if isinstance(now, Text) else made

    def show() -> str:
        said = entry().show
        return said() if said is not None else ""

    def take(text: str, _: Opener) -> None:
        store = entry().store
        if store is not None:
            store(text)

    shown = show if made.show is not None else None
    if made.store is None:
        return Attribute(shown, mode=made.mode, alive=alive)
    return _Verb(shown, take, mode=made.mode, verb=True, alive=alive)


# -- /dev ---------------------------------------------------------------------------------------


def _dev(tree: "Tree", machine: Machine, bus: NdBus) -> LiveDirectory:
    def names() -> Iterable[str]:
        with machine.lock:
            more = [*(["pmem-fs"] if _has_files(bus) else []), *(["cxl"] if _memdevs(bus) else [])]
            return [*_nodes(bus), *more]

    def make(name: str) -> Node | None:
        if name == "pmem-fs" and _has_files(bus):
            return _file_systems(machine, bus)
        if name == "cxl" and _memdevs(bus):
            return _mailboxes(bus)
        found = _nodes(bus).get(name)
        if found is None:
            return None
        life, span, number = found
        return MediumFile(machine, f"/dev/{name}", span, life, mode=0o600, number=number)

    return LiveDirectory(names, make, extras=_former(tree, "/dev"))


def _memdevs(bus: NdBus) -> int:
    return len(bus.plan.cxl.memdevs) if bus.plan.cxl else 0


def _mailboxes(bus: NdBus) -> Directory:
    """`/dev/cxl`: a node for each memory device; commands to it are not simulated."""
    directory = Directory()
    for number in range(_memdevs(bus)):
        directory.add(f"mem{number}", _Mailbox(number))
    return directory


class _Mailbox(Attribute):
    """`/dev/cxl/memN`."""

    __slots__ = ("_number",)
    kind = CHAR_DEVICE

    def __init__(self, number: int) -> None:
        super().__init__(None, mode=0o600)
        self._number = number

    def look(self) -> Attr:
        """A character device."""
        return Attr(stat.S_IFCHR | self.mode, rdev=os.makedev(CXL_MAJOR, self._number))


def _former(tree: "Tree", path: str) -> Directory:
    """What is at a path already, to be shown beside."""
    there = tree.known(path)
    return there if there is not None else Directory()


def _nodes(bus: NdBus) -> dict[str, tuple[Life, Range, Number]]:
    """The device nodes that there are now: who gives them life, and what they show."""
    found: dict[str, tuple[Life, Range, Number]] = {}
    for dax in bus.dax_devices():
        if dax.listed:  # the node is there without a driver, too: open is ENXIO then
            number = Number(DAX_MAJOR, dax.minor, dax.align)
            found[dax.name] = dax.life or _dead(dax), dax.span, number
    for index, namespace in enumerate(bus.namespaces()):
        if namespace.region.plan.listed and namespace.life is not None and namespace.life.alive:
            span = namespace.span if namespace.mode == "raw" else namespace.data
            found[namespace.block] = namespace.life, span, Number(BLOCK_EXT_MAJOR, index)
    return found


def _dead(dax: DaxDevice) -> Life:
    life = Life(dax.name)
    life.alive = False
    return life


def _file_systems(machine: Machine, bus: NdBus) -> LiveDirectory:
    """`/dev/pmem-fs`: a directory for each file system that is on an fsdax namespace now."""

    def mounted() -> dict[str, Namespace]:
        return {
            n.block: n for n in bus.namespaces() if n.files and n.life is not None and n.life.alive
        }

    def make(name: str) -> Node | None:
        namespace = mounted().get(name)
        return _file_system(machine, namespace) if namespace is not None else None

    return LiveDirectory(mounted, make)


def _file_system(machine: Machine, namespace: Namespace) -> LiveDirectory:
    life = namespace.life or Life(namespace.name)
    plans = {plan.name: plan for plan in namespace.files}

    def file(plan: FilePlan) -> MediumFile:
        name = f"/{namespace.block}/{plan.name}"
        span = Range(namespace.data.start + plan.offset, plan.size)
        return MediumFile(machine, name, span, life, mode=plan.mode)

    made = partial(_made, plans, file)
    return LiveDirectory(lambda: plans, made, alive=lambda: life.alive)


def _made(plans: dict[str, FilePlan], make: "object", name: str) -> Node | None:
    plan = plans.get(name)
    return make(plan) if plan is not None and callable(make) else None
