"""State that the verbs of persistent memory and dax share, and how a change of it is told."""

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fakedev.devices.nd.catalog import Catalog
from fakedev.devices.nd.dax import DaxDevice, minor_of
from fakedev.devices.nd.pins import Pins
from fakedev.devices.nd.plan import NdPlan
from fakedev.devices.nd.region import Namespace, Region
from fakedev.model.effects import NodesChanged
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.flags import (
    IORES_DESC_NONE,
    IORESOURCE_BUSY,
    IORESOURCE_MEM,
)
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree

BLOCK = 128 << 20


class NdCore:
    """Regions, namespaces and dax devices of one machine, and the tree that they claim from.

    `host` is the machine, or what stands for it at boot; it is used as the bus of PCI uses it.
    `modules` are those of nvdimm and dax that are loaded; `kmem_first` the dax devices that kmem takes.
    """

    def __init__(self, plan: NdPlan, host: Any, tree: ResourceTree, memory: Any) -> None:
        self.plan = plan
        self.host = host
        self.tree = tree
        self.memory = memory
        self.pins = Pins()
        self.regions = [Region(number, one) for number, one in enumerate(plan.regions)]
        self.hmem: list[DaxDevice] = []
        self.dax_ids: dict[str, set[str]] = {"device_dax": set(), "kmem": set()}
        self.modules: set[str] = set()
        self.kmem_first = {
            f"dax{region.number}.{n.index}"
            for region in self.regions for n in region.namespaces if n.plan.mode == "kmem"
        }  # fmt: skip
        self.rebooting = False
        self.denials: list[str] = []  # of `deny-claim`, since a module was loaded
        self.describe: Callable[[], Catalog] = Catalog
        self.catalog = Catalog()

    # -- looking things up --------------------------------------------------------------------

    @property
    def blocks(self) -> Any:
        """The memory blocks of the machine, None where it has none (and at boot)."""
        return getattr(self.host, "blocks", None)

    @property
    def block_size(self) -> int:
        """Bytes of a memory block: what kmem trims to."""
        return getattr(self.blocks, "block_size", BLOCK)

    def namespaces(self) -> list[Namespace]:
        """Namespaces that the kernel knows."""
        return [n for region in self.regions if region.enabled for n in region.namespaces]

    def dax_devices(self) -> list[DaxDevice]:
        """Every `daxR.I`, of namespaces and of soft-reserved memory."""
        mine = [n.dax for n in self.namespaces() if n.dax is not None]
        burned = [n.dax for r in self.regions if r.burned and not r.enabled
                  for n in r.namespaces if n.dax is not None]  # fmt: skip
        return [*mine, *burned, *self.hmem]

    def namespace(self, name: str) -> Namespace:
        """A namespace by name. ControlError (ENODEV) that lists them."""
        for one in self.namespaces():
            if name in {one.name, one.block, one.dax.name if one.dax else ""}:
                return one
        known = ", ".join(one.name for one in self.namespaces()) or "none"
        raise ControlError(f"there is no namespace {name!r}; there are {known}", errno=errno.ENODEV)

    def region(self, name: str) -> Region:
        """A region by name, plugged in or not. ControlError (ENODEV) that lists them."""
        for one in self.regions:
            if name == one.name:
                return one
        known = ", ".join(one.name for one in self.regions) or "none"
        raise ControlError(f"there is no region {name!r}; there are {known}", errno=errno.ENODEV)

    def dax_device(self, name: str) -> DaxDevice:
        """A dax device by name. ControlError (ENODEV)."""
        for one in self.dax_devices():
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.dax_devices()) or "none"
        raise ControlError(f"there is no dax device {name!r}; there are {known}",
                           errno=errno.ENODEV)  # fmt: skip

    # -- changes ------------------------------------------------------------------------------

    def verb(self) -> AbstractContextManager[Any]:
        """Hold while a verb runs."""
        held: AbstractContextManager[Any] = self.host.verb()
        return held

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold while state changes; at the end the files that came or went are told of."""
        with self.verb():
            try:
                yield
            finally:
                self.retell()

    def retell(self) -> None:
        """Make the catalogue anew and publish what is another than before."""
        before, self.catalog = self.catalog, self.describe()
        self.host.publish(*self.catalog.changes(before), *self.device_nodes())

    def device_nodes(self) -> list[NodesChanged]:
        """Names below /dev that may have come or gone."""
        names = {d.name for d in self.dax_devices()} | set(self.possible_nodes())
        files = [NodesChanged("/dev/pmem-fs", tuple(n.block for r in self.regions
                                                    for n in r.namespaces))]  # fmt: skip
        return [NodesChanged("/dev", tuple(sorted(names))), *files] if names else []

    def possible_nodes(self) -> list[str]:
        """Every name below /dev that can ever be one of ours."""
        mine = [n for r in self.regions if r.plan.listed for n in r.namespaces]
        found = [f"dax{n.region.number}.{n.index}" for n in mine] + [n.block for n in mine]
        return [*found, *(d.name for d in self.hmem if d.listed)]

    def possible_numbers(self) -> list[str]:
        """Every name below /sys/dev/char that can ever be one of ours."""
        found = [
            "0:0",
            "247:0",
            *(f"246:{name.removeprefix('nmem')}" for name, _ in self.plan.dimms),
        ]
        ids = [minor_of(r.number, n.index) for r in self.regions for n in r.namespaces]
        ids += [d.minor for d in self.hmem]
        memdevs = self.plan.cxl.memdevs if self.plan.cxl else ()
        found += [f"251:{number}" for number, _ in enumerate(memdevs)]
        return [*found, *(f"252:{number}" for number in ids)]

    # -- the tree -----------------------------------------------------------------------------

    def claim(self, span: Range, name: str) -> Resource:
        """`request_mem_region`: it revokes. ResourceConflictError (EBUSY).

        At a reset it is made as at boot: nobody has it mapped, and it is no claim that reset drops.
        """
        if self.rebooting:
            return self.insert(span, name, busy=True)
        try:
            made: Resource = self.host.claim(span, name)
        except ResourceConflictError as error:
            self.denials += [str(error)] if error.denied else []
            raise
        return made

    def insert(
        self, span: Range, name: str, desc: int = IORES_DESC_NONE, *, busy: bool = False
    ) -> Resource:
        """A container, or a claim, in the innermost one around it; one that is there is used."""
        place = self.tree.root
        while True:
            inner = place.first_overlap(span.start, span.end - 1)
            if inner is None or not inner.contains(span.start, span.end - 1):
                break
            if (inner.start, inner.end, inner.name) == (span.start, span.end - 1, name):
                return inner
            place = inner
        node = Resource(span.start, span.end - 1, name, IORESOURCE_MEM, desc)
        node.flags |= IORESOURCE_BUSY if busy else 0
        self.host.insert_resource(place, node)
        return node


def refusal(why: str, number: int) -> ControlError:
    """An error that says its errno."""
    return ControlError(f"{why} ({errno.errorcode[number]})", errno=number)
