"""A plan to the devices of a machine."""

from typing import Any

from fakedev.devices.nd.bus import NdBus
from fakedev.devices.nd.catalog import Catalog
from fakedev.devices.nd.dax import DaxDevice
from fakedev.devices.nd.describe_cxl import describe_cxl
from fakedev.devices.nd.describe_dax import NUMBERS, describe_dax
from fakedev.devices.nd.describe_nd import describe_nd
from fakedev.devices.nd.plan import NdPlan
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.resources import ResourceTree


def build_nd(plan: NdPlan, host: Any, tree: ResourceTree, memory: PhysicalMemory) -> NdBus:
    """The devices as they are after boot, with their claims in the tree. ResourceConflictError."""
    bus = NdBus(plan, host, tree, memory)
    first = sum(1 for one in plan.regions if one.listed)  # one counter for all (`memregion_alloc`)
    for number, one in enumerate(bus.hmem_plans(), first):
        bus.hmem.append(
            DaxDevice(
                number, Range(one.start, one.size), path=one.path, align=one.align,
                numa_node=one.numa_node, target_node=one.target_node, listed=one.listed,
            )
        )  # fmt: skip
    bus.describe = lambda: _describe(bus)
    bus.boot()
    return bus


def top_of_kmem(bus: NdBus) -> int:
    """The end of the RAM that kmem added at boot, 0 without."""
    return max((dax.ram.end for dax in bus.dax_devices() if dax.ram), default=0)


def _describe(bus: NdBus) -> Catalog:
    catalog = Catalog()
    catalog.share(NUMBERS)
    if bus.plan.regions or bus.plan.dimms:
        describe_nd(bus, catalog)
    if bus.plan.cxl is not None:
        describe_cxl(bus, bus.plan.cxl, catalog)
    describe_dax(bus, catalog)
    return catalog
