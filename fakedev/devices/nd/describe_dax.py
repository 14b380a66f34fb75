"""`/sys/bus/dax` and the devices behind it (kernel-semantics 6.6)."""

from functools import partial

from fakedev.devices.nd.bus import NdBus
from fakedev.devices.nd.catalog import Catalog
from fakedev.devices.nd.dax import DRIVERS, DaxDevice

BUS, NUMBERS, MAJOR, NO_NUMBER = "/sys/bus/dax", "/sys/dev/char", 252, "0:0"


def describe_dax(state: NdBus, catalog: Catalog) -> None:
    """Drivers and devices of the dax bus."""
    for dax in state.hmem:
        if not dax.path.startswith(tuple(catalog.roots)):
            catalog.root(dax.path)
    bus = catalog.root(BUS)
    bus.folder("devices")
    for name in DRIVERS:
        place = bus.folder("drivers").folder(name)
        place.action("bind", partial(state.bind, name))
        place.action("unbind", partial(state.unbind, name))
        place.action("new_id", partial(state.new_id, name))
        place.action("remove_id", partial(state.remove_id, name))
        # libkmod asks here whether a driver has to be loaded before daxctl uses it.
        catalog.root(f"/sys/module/{name}")("initstate", "live")
    devices = state.dax_devices()
    for dax in devices:
        _device(catalog, dax)
    if devices:
        # A regular file has the number 0:0, and daxctl asks by number whether a node is of this bus.
        catalog.share(NUMBERS).link(NO_NUMBER, f"{devices[0].path}/{devices[0].name}")


def _device(catalog: Catalog, dax: DaxDevice) -> None:
    region = catalog.at(f"{dax.path}/dax_region", dax)
    region("id", dax.region_id)
    region("size", dax.region_span.size)
    region("available_size", 0)
    region("align", dax.align, mode=0o400)
    place = catalog.at(f"{dax.path}/{dax.name}", dax)
    place("size", dax.span.size)
    place("align", dax.align)
    place("resource", f"{dax.span.start:#x}", mode=0o400)
    if dax.target_node >= 0:
        place("target_node", dax.target_node)
    place("numa_node", dax.numa_node)
    place("modalias", "dax:t0")
    place("memmap_on_memory", 0, mode=0o644)
    place("dev", f"{MAJOR}:{dax.minor}")
    catalog.share(NUMBERS).link(f"{MAJOR}:{dax.minor}", place.path)
    mapping = place.folder("mapping0")
    mapping("start", f"{dax.span.start:#x}", mode=0o400)
    mapping("end", f"{dax.span.end - 1:#x}", mode=0o400)
    mapping("page_offset", "0x0", mode=0o400)
    place.link("subsystem", BUS)
    catalog.at(f"{BUS}/devices", None).link(dax.name, place.path)
    if dax.driver:
        driver = f"{BUS}/drivers/{dax.driver}"
        place.link("driver", driver)
        catalog.at(driver, None).link(dax.name, place.path)
