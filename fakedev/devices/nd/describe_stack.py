"""Namespaces and what is stacked on them, as files of `/sys/bus/nd` (kernel-semantics 6.7)."""

import errno
from functools import partial

from fakedev.devices.nd.catalog import Catalog, Place
from fakedev.devices.nd.infoblock import ALIGNMENTS
from fakedev.devices.nd.region import Namespace, Personality, Region
from fakedev.devices.nd.settings import SECTOR_SIZES, Settings
from fakedev.model.errors import ControlError

BUS = "/sys/bus/nd"


def device(catalog: Catalog, place: Place, driver: str = "") -> None:
    """What every device of the bus has: its links."""
    name = place.path.rpartition("/")[2]
    place.link("subsystem", BUS)
    catalog.at(f"{BUS}/devices", None).link(name, place.path)
    if driver:
        place.link("driver", f"{BUS}/drivers/{driver}")
        catalog.at(f"{BUS}/drivers/{driver}", None).link(name, place.path)


def describe_stack(state: Settings, catalog: Catalog, above: Place, region: Region) -> None:
    """The children of a region."""
    for namespace in region.namespaces:
        _namespace(state, catalog, above, namespace)
    for one in region.stack:
        _personality(state, catalog, above, one)


def _namespace(state: Settings, catalog: Catalog, above: Place, namespace: Namespace) -> None:
    plan, region, label = namespace.plan, namespace.region, namespace.label
    place = above.folder(namespace.name, namespace)
    modes = {"fsdax": "memory", "devdax": "dax", "kmem": "dax", "sector": "safe"}
    claim = namespace.claim
    place("mode", modes.get(namespace.mode, namespace.mode))
    place("nstype", 4 if plan.io else 5)
    place("resource", f"{plan.start:#x}" if label.size else unbound, mode=0o400)
    place.writable("force_raw", int(namespace.force_raw), partial(state.set_force_raw, namespace))
    place("holder", claim.name if claim else "")
    place.writable("holder_class", label.holder_class, partial(state.set_holder_class, namespace))
    place("numa_node", region.plan.numa_node)
    place("target_node", region.plan.target_node)
    place("modalias", f"nd:t{4 if plan.io else 5}")
    place("devtype", f"nd_namespace_{'io' if plan.io else 'pmem'}")
    if plan.io:
        place("size", label.size)
    else:
        _label(state, place, namespace)
    device(catalog, place, namespace.driver)
    if namespace.driver:
        place.folder("block").folder(namespace.block)("size", label.size >> 9)


def _label(state: Settings, place: Place, namespace: Namespace) -> None:
    label = namespace.label
    place.writable("size", label.size, partial(state.set_size, namespace))
    place.writable("uuid", label.uuid or "", partial(state.set_label_uuid, namespace))
    place.writable("alt_name", label.alt_name, partial(state.set_alt_name, namespace))
    place("dpa_extents", len(namespace.region.plan.mappings) if label.size else 0)
    sizes = _sizes(namespace.plan.sector_sizes, label.sector_size)
    place.writable("sector_size", sizes, partial(state.set_label_sector_size, namespace))


def _personality(state: Settings, catalog: Catalog, above: Place, which: Personality) -> None:
    place = above.folder(which.name, which)
    data, region = which.data, which.region
    place.writable("uuid", which.uuid or "", partial(state.set_uuid, which))
    name = which.namespace.name if which.namespace else ""
    place.writable("namespace", name, partial(state.set_namespace, which))
    place("size", data.size if data else unbound)
    place("numa_node", region.plan.numa_node)
    place("target_node", region.plan.target_node)
    place("modalias", f"nd:t{7 if which.kind == 'dax' else 5 if region.labelled else 4}")
    place("devtype", f"nd_{which.kind}")
    if which.kind == "btt":
        sizes = _sizes(SECTOR_SIZES, which.sector_size)
        place.writable("sector_size", sizes, partial(state.set_sector_size, which))
        place("log_zero_flags", "Y")
    else:
        place.writable("mode", which.mode, partial(state.set_pfn_mode, which))
        place.writable("align", which.align, partial(state.set_align, which))
        place("supported_alignments", _sizes(ALIGNMENTS, 0))
        place("resource", f"{data.start:#x}" if data else unbound, mode=0o400)
    device(catalog, place, which.driver)
    if which.kind == "pfn" and data and which.namespace:
        place.folder("block").folder(which.namespace.block)("size", data.size >> 9)


def _sizes(supported: tuple[int, ...], chosen: int) -> str:
    """`nd_size_select_show`: the chosen one in brackets, a blank behind each."""
    return "".join(f"[{one}] " if one == chosen else f"{one} " for one in supported)


def unbound() -> str:
    """What some files say of a device without a driver."""
    raise ControlError("the device is not bound", errno=errno.ENXIO)
