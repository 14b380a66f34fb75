"""`/sys/bus/nd`, `/sys/class/nd` and the devices behind them (kernel-semantics 6.7)."""

import errno

from fakedev.devices.nd.catalog import Catalog, Place
from fakedev.devices.nd.plan import DimmPlan
from fakedev.devices.nd.region import SEEDS, Namespace, Region
from fakedev.devices.nd.taking import Taking
from fakedev.model.errors import ControlError

BUS, CLASS, NUMBERS = "/sys/bus/nd", "/sys/class/nd", "/sys/dev/char"
DRIVERS = ("nd_region", "nvdimm", "nd_pmem", "dax_pmem")
_COMMANDS = "ars_cap ars_start ars_status clear_error "
_SUPPORTED = "4096 2097152 1073741824"


def describe_nd(state: Taking, catalog: Catalog) -> None:
    """The nvdimm bus, when its drivers are loaded."""
    for path in (BUS, CLASS, state.plan.path):
        catalog.root(path)
    bus = catalog.root(BUS)
    bus.folder("devices")
    drivers = bus.folder("drivers")
    if not state.modules:
        return
    for name in DRIVERS:
        drivers.folder(name)
    _ndbus(state, catalog)
    for name, dimm in state.plan.dimms:
        _dimm(state, catalog, name, dimm)
    for region in state.regions:
        if region.known:
            _region(state, catalog, region)


def _device(catalog: Catalog, place: Place, driver: str = "") -> None:
    """What every device of the bus has: its links."""
    name = place.path.rpartition("/")[2]
    place.link("subsystem", BUS)
    catalog.at(f"{BUS}/devices", None).link(name, place.path)
    if driver:
        place.link("driver", f"{BUS}/drivers/{driver}")
        catalog.at(f"{BUS}/drivers/{driver}", None).link(name, place.path)


def _ndbus(state: Taking, catalog: Catalog) -> None:
    place = catalog.at(state.bus_path, state)
    place("commands", _COMMANDS.rstrip())
    place("provider", state.plan.provider)
    place("wait_probe", 1)
    place("uevent", "DEVTYPE=nd_bus", mode=0o644)
    _device(catalog, place)
    nfit = place.folder("nfit")
    nfit("revision", 1)
    nfit("scrub", 0, mode=0o644)
    nfit("dsm_mask", "0x1e")
    control = place.folder("nd").folder("ndctl0")
    control("dev", "247:0")
    control.link("device", state.bus_path)
    catalog.at(CLASS, None).link("ndctl0", control.path)
    catalog.share(NUMBERS).link("247:0", control.path)


def _dimm(state: Taking, catalog: Catalog, name: str, dimm: DimmPlan) -> None:
    place = catalog.at(f"{state.bus_path}/{name}", dimm)
    number = name.removeprefix("nmem")
    place("commands", dimm.commands)
    place("dev", f"246:{number}")
    catalog.share(NUMBERS).link(f"246:{number}", place.path)
    place("flags", dimm.flags)
    place("modalias", "nd:t1")
    place("state", dimm.state)
    place("available_slots", dimm.available_slots)
    place("devtype", "nvdimm")
    place("uevent", "DRIVER=nvdimm\nDEVTYPE=nvdimm\nMODALIAS=nd:t1", mode=0o644)
    _device(catalog, place, "nvdimm")
    nfit = place.folder("nfit")
    for key, text in dimm.nfit:
        nfit(key, text)


def _region(state: Taking, catalog: Catalog, region: Region) -> None:
    plan = region.plan
    place = catalog.at(f"{state.bus_path}/{region.name}", region)
    label = not all(one.io for one in plan.namespaces) or not plan.namespaces
    place("size", plan.size)
    place("mappings", len(plan.mappings))
    for number, one in enumerate(plan.mappings):
        place(f"mapping{number}", f"{one.dimm},{one.start},{one.size},{one.position}")
    place("nstype", 5 if label else 4)
    place("set_cookie", f"{plan.set_cookie:#x}")
    left = plan.size - sum(one.size for one in plan.namespaces)
    place("available_size", left)
    place("max_available_extent", left)
    active = sum(1 for one in region.namespaces if one.life or one.dax)
    place("init_namespaces", f"{active}/{len(region.namespaces)}")
    seed = f"namespace{region.number}.{len(region.namespaces)}" if label else ""
    place("namespace_seed", seed)
    for kind in SEEDS:
        place(f"{kind}_seed", f"{kind}{region.number}.{region.seeds[kind]}")
    place("read_only", int(plan.read_only), mode=0o644)
    place("align", f"{plan.align:#x}", mode=0o644)
    place("deep_flush", int(plan.deep_flush), mode=0o644)
    place("badblocks", "")
    place("resource", f"{plan.start:#x}", mode=0o400)
    place("persistence_domain", plan.persistence_domain)
    place("numa_node", plan.numa_node)
    place("target_node", plan.target_node)
    place("modalias", "nd:t2")
    place("devtype", "nd_pmem")
    place("uevent", "DRIVER=nd_region\nDEVTYPE=nd_pmem\nMODALIAS=nd:t2", mode=0o644)
    place.folder("nfit")("range_index", plan.range_index)
    _device(catalog, place, "nd_region")
    for namespace in region.namespaces:
        _namespace(catalog, place, namespace)
    for kind in SEEDS:
        _seed(catalog, place, region, kind)


def _namespace(catalog: Catalog, above: Place, namespace: Namespace) -> None:
    plan, region = namespace.plan, namespace.region.plan
    place = above.folder(namespace.name, namespace)
    modes = {"fsdax": "memory", "devdax": "dax", "kmem": "dax"}
    place("size", plan.size)
    place("mode", lambda: modes.get(namespace.mode, namespace.mode))
    place("nstype", 4 if plan.io else 5)
    place("resource", f"{plan.start:#x}", mode=0o400)
    place("force_raw", 0, mode=0o644)
    place("holder", lambda: namespace.holder)
    place("holder_class", lambda: namespace.holder[:3])
    place("numa_node", region.numa_node)
    place("target_node", region.target_node)
    place("modalias", f"nd:t{4 if plan.io else 5}")
    place("devtype", f"nd_namespace_{'io' if plan.io else 'pmem'}")
    if not plan.io:
        place("uuid", plan.uuid, mode=0o644)
        place("alt_name", plan.alt_name, mode=0o644)
        place("dpa_extents", len(region.mappings))
        sizes = [f"[{s}]" if s == plan.sector_size else str(s) for s in plan.sector_sizes]
        place("sector_size", " ".join(sizes), mode=0o644)
    held = namespace.life is not None or namespace.dax is not None
    raw = namespace.mode == "raw"
    _device(catalog, place, "nd_pmem" if held and not namespace.dax else "")
    if namespace.life is not None and raw:
        place.folder("block").folder(namespace.block)("size", plan.size >> 9)
    if namespace.holder:
        _holder(catalog, above, namespace)


def _holder(catalog: Catalog, above: Place, namespace: Namespace) -> None:
    """The pfn (fsdax) or dax device that is stacked on a namespace."""
    place = above.folder(namespace.holder, namespace)
    kind = namespace.holder[:3]
    place("mode", "pmem", mode=0o644)
    place("align", namespace.plan.align, mode=0o644)
    place("uuid", namespace.plan.uuid, mode=0o644)
    place("namespace", namespace.name, mode=0o644)
    place("size", namespace.data.size)
    place("resource", f"{namespace.data.start:#x}", mode=0o400)
    place("supported_alignments", _SUPPORTED)
    place("numa_node", namespace.region.plan.numa_node)
    place("target_node", namespace.region.plan.target_node)
    place("modalias", "nd:t7" if kind == "dax" else "nd:t5")
    place("devtype", f"nd_{kind}")
    _device(catalog, place, "dax_pmem" if kind == "dax" else "nd_pmem")
    if kind == "pfn":
        place.folder("block").folder(namespace.block)("size", namespace.data.size >> 9)


def _seed(catalog: Catalog, above: Place, region: Region, kind: str) -> None:
    """The idle device that the next stacking will use."""
    place = above.folder(f"{kind}{region.number}.{region.seeds[kind]}")
    place("uuid", "", mode=0o644)
    place("namespace", "", mode=0o644)
    place("numa_node", region.plan.numa_node)
    place("modalias", "nd:t7" if kind == "dax" else "nd:t5")
    place("devtype", f"nd_{kind}")
    if kind == "btt":
        place("sector_size", "512 520 528 4096 4104 4160 4224", mode=0o644)
        place("size", _unbound)
        place("log_zero_flags", "N", mode=0o444)
    else:
        place("mode", "none", mode=0o644)
        place("align", 2 << 20, mode=0o644)
        place("supported_alignments", _SUPPORTED)
        place("size", _unbound)
        place("resource", _unbound, mode=0o400)
    _device(catalog, place)


def _unbound() -> str:
    raise ControlError("the device is not bound", errno=errno.ENXIO)
