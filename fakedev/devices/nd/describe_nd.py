"""`/sys/bus/nd`, `/sys/class/nd` and the devices behind them (kernel-semantics 6.7)."""

from functools import partial

from fakedev.devices.nd.catalog import Catalog
from fakedev.devices.nd.describe_stack import BUS, describe_stack, device, unbound
from fakedev.devices.nd.driving import ND_DRIVERS
from fakedev.devices.nd.plan import DimmPlan
from fakedev.devices.nd.region import SEEDS, Region
from fakedev.devices.nd.settings import Settings

CLASS, NUMBERS = "/sys/class/nd", "/sys/dev/char"
_COMMANDS = "ars_cap ars_start ars_status clear_error "


def describe_nd(state: Settings, catalog: Catalog) -> None:
    """The nvdimm bus, when its drivers are loaded."""
    for path in (BUS, CLASS, state.plan.path):
        catalog.root(path)
    bus = catalog.root(BUS)
    bus.folder("devices")
    drivers = bus.folder("drivers")
    if "nfit" not in state.modules:
        return
    drivers.folder("nvdimm")
    for name, module in ND_DRIVERS.items():
        if module in state.modules:
            driver = drivers.folder(name)
            driver.action("bind", partial(state.nd_bind, name))
            driver.action("unbind", partial(state.nd_unbind, name))
    _ndbus(state, catalog)
    for name, dimm in state.plan.dimms:
        _dimm(state, catalog, name, dimm)
    for region in state.regions:
        if region.known:
            _region(state, catalog, region)


def _ndbus(state: Settings, catalog: Catalog) -> None:
    place = catalog.at(state.bus_path, state)
    place("commands", _COMMANDS.rstrip())
    place("provider", state.plan.provider)
    place("wait_probe", 1)
    place("uevent", "DEVTYPE=nd_bus", mode=0o644)
    device(catalog, place)
    nfit = place.folder("nfit")
    nfit("revision", 1)
    nfit("scrub", 0, mode=0o644)
    nfit("dsm_mask", "0x1e")
    control = place.folder("nd").folder("ndctl0")
    control("dev", "247:0")
    control.link("device", state.bus_path)
    catalog.at(CLASS, None).link("ndctl0", control.path)
    catalog.share(NUMBERS).link("247:0", control.path)


def _dimm(state: Settings, catalog: Catalog, name: str, dimm: DimmPlan) -> None:
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
    device(catalog, place, "nvdimm")
    nfit = place.folder("nfit")
    for key, text in dimm.nfit:
        nfit(key, text)


def _region(state: Settings, catalog: Catalog, region: Region) -> None:
    plan = region.plan
    place = catalog.at(f"{state.bus_path}/{region.name}", region)
    place("size", plan.size)
    place("mappings", len(plan.mappings))
    for number, one in enumerate(plan.mappings):
        place(f"mapping{number}", f"{one.dimm},{one.start},{one.size},{one.position}")
    place("nstype", 5 if region.labelled else 4)
    place("set_cookie", f"{plan.set_cookie:#x}")
    free = [n.plan.size - n.span.size for n in region.namespaces]
    place("available_size", sum(free))
    place("max_available_extent", max(free, default=0))
    active = sum(1 for one in region.namespaces if one.enabled)
    initial = f"{active}/{sum(1 for one in region.namespaces if one.span.size)}"
    place("init_namespaces", initial if region.enabled else unbound)
    idle = next((one.name for one in region.namespaces if not one.span.size), None)
    seed = (idle or f"namespace{region.number}.{len(region.namespaces)}") if region.labelled else ""
    place("namespace_seed", seed if region.enabled else "")
    for kind in SEEDS:
        place(f"{kind}_seed", region.seeds[kind].name if kind in region.seeds else "")
    place.writable("read_only", int(region.read_only), partial(state.set_read_only, region))
    place.writable("align", f"{region.align:#x}", partial(state.set_region_align, region))
    place.writable("deep_flush", int(plan.deep_flush), state.flush)
    place("badblocks", "" if region.enabled else unbound)
    place("resource", f"{plan.start:#x}", mode=0o400)
    place("persistence_domain", plan.persistence_domain)
    place("numa_node", plan.numa_node)
    place("target_node", plan.target_node)
    place("modalias", "nd:t2")
    place("devtype", "nd_pmem")
    driver = "DRIVER=nd_region\n" if region.enabled else ""
    place("uevent", f"{driver}DEVTYPE=nd_pmem\nMODALIAS=nd:t2", mode=0o644)
    place.folder("nfit")("range_index", plan.range_index)
    device(catalog, place, "nd_region" if region.enabled else "")
    if region.enabled:
        describe_stack(state, catalog, place, region)
