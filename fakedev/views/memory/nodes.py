"""`/sys/devices/system/node` (`drivers/base/node.c`)."""

from collections.abc import Callable, Iterable

from fakedev.devices.memory.nodes import cpu_mask, cpus_of, list_text
from fakedev.devices.memory.zones import MOVABLE
from fakedev.views.live import Attribute, LiveDirectory
from fakedev.views.memory.blocks import find
from fakedev.views.memory.site import NODE_BUS, NODES, Site, relative
from fakedev.views.node import Node, Opener
from fakedev.views.sysfs import link, take_uevent

_PREFIX = "node"


def nodes_directory(site: Site) -> LiveDirectory:
    """Which nodes there are, and a directory for each. Files of the profile win, unless it names nodes."""
    own = site.extras(NODES)
    blocks = site.blocks

    def holders(movable: bool) -> Iterable[int]:  # noqa: FBT001
        with site.machine.lock:
            found = {b.nid for b in blocks.blocks.values()
                     if b.online and (movable or b.zone != MOVABLE)}  # fmt: skip
        return sorted(found)

    lists: dict[str, Callable[[], Iterable[int]]] = {
        "has_cpu": lambda: [n.id for n in blocks.nodes.values() if cpus_of(n.cpus)],
        "has_memory": lambda: holders(True),
        "has_normal_memory": lambda: holders(False),
        "online": lambda: list(blocks.nodes),
        "possible": lambda: list(blocks.nodes),
    }
    makers: dict[str, Callable[[], Node]] = {
        name: lambda of=of: Attribute(lambda: f"{list_text(of())}\n")  # type: ignore[misc]
        for name, of in lists.items()
    }
    makers["power"] = lambda: site.power(f"{NODES}/power")
    makers["uevent"] = lambda: Attribute(lambda: "", take_uevent, mode=0o644)

    def names() -> list[str]:
        return [*makers, *(f"node{nid}" for nid in blocks.nodes)]

    def make(name: str) -> Node | None:
        if name in makers:
            return makers[name]() if blocks.told or own.lookup(name) is None else None
        nid = node_number(site, name)
        return _node(site, nid) if nid is not None else None

    return site.directory(NODES, names, make)


def node_number(site: Site, name: str) -> int | None:
    """The id of a node's directory, None where there is no such node."""
    digits = name.removeprefix(_PREFIX)
    if digits == name or not (digits.isascii() and digits.isdigit()) or str(int(digits)) != digits:
        return None
    return int(digits) if int(digits) in site.blocks.nodes else None


def _node(site: Site, nid: int) -> LiveDirectory:
    path = f"{NODES}/node{nid}"
    own = site.extras(path)
    blocks = site.blocks
    node = blocks.nodes[nid]
    makers: dict[str, Callable[[], Node]] = {
        "compact": lambda: Attribute(None, _ignore, mode=0o200),
        "cpulist": lambda: Attribute(lambda: f"{list_text(cpus_of(node.cpus))}\n"),
        "cpumap": lambda: Attribute(lambda: f"{cpu_mask(cpus_of(node.cpus))}\n"),
        "distance": lambda: Attribute(lambda: f"{_distances(site, nid)}\n"),
        "meminfo": lambda: Attribute(lambda: _meminfo(site, nid)),
        "numastat": lambda: Attribute(lambda: _NUMASTAT),
        "power": lambda: site.power(f"{path}/power"),
        "subsystem": lambda: relative("../../../../bus/node"),
        "uevent": lambda: Attribute(lambda: "", take_uevent, mode=0o644),
        "vmstat": lambda: Attribute(lambda: f"nr_free_pages {_free(site, nid) // 4096}\n"),
    }
    cpus = {f"cpu{cpu}": f"../../cpu/cpu{cpu}" for cpu in cpus_of(node.cpus)}

    def names() -> list[str]:
        with site.machine.lock:
            own_blocks = [b.name for b in blocks.blocks.values() if b.nid == nid]
        return [*makers, *cpus, *own_blocks]

    def make(name: str) -> Node | None:
        if not blocks.told and own.lookup(name) is not None:
            return None
        if name in makers:
            return makers[name]()
        if name in cpus:
            return relative(cpus[name])
        block = find(site, name)
        there = block is not None and block.nid == nid
        return relative(f"../../memory/{name}") if there else None

    return site.directory(path, names, make)


def _distances(site: Site, nid: int) -> str:
    """As the firmware says; 10 to itself and 20 to others where it says nothing."""
    nodes = site.blocks.nodes
    given = nodes[nid].distances
    usual = [10 if other == nid else 20 for other in nodes]
    return " ".join(map(str, [*given, *usual[len(given) :]]))


def _total(site: Site, nid: int) -> int:
    with site.machine.lock:
        found = site.blocks.blocks.values()
        return sum(block.present for block in found if block.nid == nid and block.online)


def _free(site: Site, nid: int) -> int:
    """Nobody allocates here; the kernel itself has a sixteenth of the memory of node 0."""
    total = _total(site, nid)
    return total - (total // 16 & -4096 if nid == 0 else 0)


def _meminfo(site: Site, nid: int) -> str:
    total, free = _total(site, nid), _free(site, nid)
    values = (("MemTotal", total), ("MemFree", free), ("MemUsed", total - free))
    return "".join(f"Node {nid} {name + ':':16}{size >> 10:8} kB\n" for name, size in values)


_NUMASTAT = "".join(
    f"{name} 0\n"
    for name in (
        "numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node",
    )
)  # fmt: skip


def node_bus_directory(site: Site) -> LiveDirectory:
    """`/sys/bus/node`: links to the nodes."""
    devices = f"{NODE_BUS}/devices"

    def make(name: str) -> Node | None:
        return link(devices, f"{NODES}/{name}") if node_number(site, name) is not None else None

    def names() -> list[str]:
        return [f"node{nid}" for nid in site.blocks.nodes]

    return site.fixed(NODE_BUS, {
        "devices": lambda: site.directory(devices, names, make),
        "drivers": lambda: site.fixed(f"{NODE_BUS}/drivers", {}),
        "drivers_autoprobe": lambda: Attribute(lambda: "1\n", _ignore, mode=0o644),
        "drivers_probe": lambda: Attribute(None, _ignore, mode=0o200),
        "uevent": lambda: Attribute(None, take_uevent, mode=0o200),
    })  # fmt: skip


def _ignore(_text: str, _opener: Opener) -> None:
    """Nothing to do."""
