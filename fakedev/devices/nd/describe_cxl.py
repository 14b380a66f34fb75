"""`/sys/bus/cxl` as `cxl list` reads it: root, ports, decoders, regions, memory devices.

Every host bridge that a window targets is a port; every memory device is an endpoint below its port.
A region is interleaved over all memory devices behind the targets of its window.
"""

from fakedev.devices.nd.bus import NdBus
from fakedev.devices.nd.catalog import Catalog, Place
from fakedev.devices.nd.dax import DaxDevice
from fakedev.devices.nd.plan import CxlPlan, MemdevPlan, WindowPlan

BUS, NUMBERS, MAJOR = "/sys/bus/cxl", "/sys/dev/char", 251
CAPABILITIES = ("pmem", "ram", "type2", "type3")
DRIVERS = ("cxl_mem", "cxl_port", "cxl_region", "cxl_nvdimm_bridge")


def describe_cxl(state: NdBus, plan: CxlPlan, catalog: Catalog) -> None:
    """The topology of one CXL root."""
    for path in (plan.path, *(one.path for one in plan.memdevs)):
        catalog.root(path)
    bus = catalog.root(BUS)
    bus.folder("devices")
    for driver in DRIVERS:
        bus.folder("drivers").folder(driver)
    bus.action("flush", lambda _: None)
    _Topology(state, plan, catalog).describe()


class _Topology:
    """Numbers and places of everything below one root."""

    def __init__(self, state: NdBus, plan: CxlPlan, catalog: Catalog) -> None:
        self.plan = plan
        self.catalog = catalog
        windows = plan.windows
        targets = sorted({target for window in windows for target in window.targets})
        self.ports = {target: number for number, target in enumerate(targets, 1)}
        self.root = f"{plan.path}/root0"
        first = len(state.hmem) - sum(len(window.regions) for window in windows)
        self.dax = state.hmem[first:]

    def describe(self) -> None:
        """Everything."""
        root = self.catalog.at(self.root, self.plan)
        root.link("uport", self.plan.path)
        root("devtype", "cxl_port")
        root("modalias", "cxl:t3")
        self._device(root)
        for target in self.ports:
            root.link(f"dport{target}", self.plan.path)
        for target, number in self.ports.items():
            self._port(root, target, number)
        for index, memdev in enumerate(self.plan.memdevs):
            self._memdev(index, memdev)
            self._endpoint(index, memdev)
        count = 0
        for number, window in enumerate(self.plan.windows):
            self._window(root, number, window, count)
            count += len(window.regions)

    # -- ports and memory devices ---------------------------------------------------------------

    def _port(self, root: Place, target: int, number: int) -> None:
        place = root.folder(f"port{number}", self.plan)
        place.link("uport", self.plan.path)
        place.link("parent_dport", self.plan.path)
        place("devtype", "cxl_port")
        place("modalias", "cxl:t3")
        self._device(place, "cxl_port")
        for index, memdev in enumerate(self.plan.memdevs):
            if memdev.port == target:
                place.link(f"dport{index}", memdev.path)
        decoder = place.folder(f"decoder{number}.0")
        self._decoder(decoder, "cxl_decoder_switch", 0, 0, 1, 4096)
        decoder("target_list", ",".join(str(i) for i, m in self._behind((target,))))

    def _behind(self, targets: tuple[int, ...]) -> list[tuple[int, MemdevPlan]]:
        """The memory devices below host bridges."""
        return [(i, m) for i, m in enumerate(self.plan.memdevs) if m.port in targets]

    def _memdev(self, index: int, memdev: MemdevPlan) -> None:
        place = self.catalog.at(f"{memdev.path}/mem{index}", memdev)
        place("dev", f"{MAJOR}:{index}")
        place("payload_max", memdev.payload_max)
        place("label_storage_size", memdev.label_storage_size)
        place("serial", f"{memdev.serial:#x}")
        place("numa_node", memdev.numa_node)
        place("firmware_version", memdev.firmware_version)
        place("modalias", "cxl:t5")
        place.folder("ram")("size", f"{memdev.ram_size:#x}")
        place.folder("pmem")("size", f"{memdev.pmem_size:#x}")
        self._device(place, "cxl_mem")
        self.catalog.share(NUMBERS).link(f"{MAJOR}:{index}", place.path)

    def _endpoint_number(self, index: int) -> int:
        return 1 + len(self.ports) + index

    def _endpoint(self, index: int, memdev: MemdevPlan) -> None:
        number, port = self._endpoint_number(index), self.ports.get(memdev.port)
        if port is None:
            return
        place = self.catalog.at(f"{self.root}/port{port}/endpoint{number}", memdev)
        place.link("uport", f"{memdev.path}/mem{index}")
        place.link("parent_dport", memdev.path)
        place("devtype", "cxl_port")
        place("modalias", "cxl:t3")
        self._device(place, "cxl_port")
        taken = 0
        for slot, (region, ways) in enumerate(self._regions_of(memdev)):
            decoder = place.folder(f"decoder{number}.{slot}")
            share = region.span.size // ways
            self._decoder(decoder, "cxl_decoder_endpoint", region.span.start, region.span.size, ways,
                          4096)  # fmt: skip
            decoder("mode", "ram")
            decoder("region", f"region{region.region_id}")
            decoder("dpa_resource", f"{taken:#x}")
            decoder("dpa_size", f"{share:#x}")
            taken += share

    def _regions_of(self, memdev: MemdevPlan) -> list[tuple[DaxDevice, int]]:
        """Regions on a memory device: the dax device, and how many devices share it."""
        found, number = [], 0
        for window in self.plan.windows:
            ways = max(len(self._behind(window.targets)), 1)
            for _ in window.regions:
                if memdev.port in window.targets:
                    found.append((self.dax[number], ways))
                number += 1
        return found

    # -- windows and regions --------------------------------------------------------------------

    def _window(self, root: Place, number: int, window: WindowPlan, first: int) -> None:
        place = root.folder(f"decoder0.{number}", window)
        self._decoder(place, "cxl_decoder_root", window.start, window.size, len(window.targets),
                      window.granularity)  # fmt: skip
        place("target_list", ",".join(map(str, window.targets)))
        for name in CAPABILITIES:
            place(f"cap_{name}", int(name in window.capabilities))
        place("qos_class", window.qos_class)
        for kind in ("ram", "pmem"):
            if kind in window.capabilities:
                following = max((dax.region_id for dax in self.dax), default=-1) + 1
                place(f"create_{kind}_region", f"region{following}", mode=0o644)
        for index in range(first, first + len(window.regions)):
            self._region(place, index, window)

    def _region(self, above: Place, index: int, window: WindowPlan) -> None:
        dax, members = self.dax[index], self._behind(window.targets)
        place = above.folder(f"region{dax.region_id}", dax)
        place("resource", f"{dax.span.start:#x}")
        place("size", f"{dax.span.size:#x}")
        place("uuid", "")
        place("mode", "ram")
        place("commit", 1)
        place("interleave_ways", max(len(members), 1))
        place("interleave_granularity", window.granularity)
        place("modalias", "cxl:t6")
        for position, (number, memdev) in enumerate(members):
            slot = [one for one, _ in self._regions_of(memdev)].index(dax)
            place(f"target{position}", f"decoder{self._endpoint_number(number)}.{slot}")
        self._device(place, "cxl_region")

    def _decoder(
        self, place: Place, devtype: str, start: int, size: int, ways: int, granularity: int
    ) -> None:
        place("start", f"{start:#x}")
        place("size", f"{size:#x}")
        place("interleave_ways", ways)
        place("interleave_granularity", granularity)
        place("locked", 0)
        place("devtype", devtype)
        place("target_type", "expander")
        place("modalias", "cxl:t1")
        self._device(place)

    def _device(self, place: Place, driver: str = "") -> None:
        place.link("subsystem", BUS)
        name = place.path.rpartition("/")[2]
        self.catalog.at(f"{BUS}/devices", None).link(name, place.path)
        if driver:
            place.link("driver", f"{BUS}/drivers/{driver}")
            self.catalog.at(f"{BUS}/drivers/{driver}", None).link(name, place.path)
