"""What the parts of the bus share: its tables, its trees, and writes to configuration space."""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from fakedev.devices.pci import header, nodes
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.device import PciDevice, PciResource
from fakedev.devices.pci.driver import PciDriver
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.host import Boot, Host, settle_all
from fakedev.devices.pci.parsing import streq
from fakedev.devices.pci.settings import PciSettings
from fakedev.model.effects import Reopened
from fakedev.model.errors import ResourceConflictError
from fakedev.model.flags import IORESOURCE_IO, IORESOURCE_MEM
from fakedev.model.ranges import Range, page_round
from fakedev.model.resource import Resource, conflict_text
from fakedev.model.resources import ResourceTree

if TYPE_CHECKING:
    from fakedev.devices.pci.uio import UioDevice

_PAGE = 4096
_PREFETCH = 0x2000


class BindingListener(Protocol):
    """Called in the verb that binds or unbinds."""

    def __call__(self, device: PciDevice, driver: PciDriver, *, bound: bool) -> None: ...


class RootBus:
    """A root bus: its directory in sysfs, the functions on it, the windows of its host bridge."""

    __slots__ = ("bus", "children", "domain", "name", "path", "windows")

    def __init__(self, domain: int, bus: int) -> None:
        self.domain = domain
        self.bus = bus
        self.name = f"{domain:04x}:{bus:02x}"
        self.path = f"/sys/devices/pci{self.name}"
        self.children: dict[str, PciDevice] = {}
        self.windows: tuple[PciResource, ...] = ()


class BusState:
    """Tables that readers may look at any time: each is replaced as a whole when it changes.

    `devices` by name, in order; `drivers` are loaded, `known_drivers` could be.
    """

    def __init__(
        self,
        fabric: Fabric,
        *,
        iomem: ResourceTree,
        ioports: ResourceTree,
        drivers: Sequence[PciDriver] = (),
        settings: PciSettings | None = None,
    ) -> None:
        self.fabric = fabric
        self.iomem = iomem
        self.ioports = ioports
        self.settings = settings or PciSettings()
        self.known_drivers = {driver.name: driver for driver in drivers}
        self.drivers: dict[str, PciDriver] = {}
        self.devices: dict[str, PciDevice] = {}
        self.roots: list[RootBus] = []
        self.uio: dict[int, UioDevice] = {}
        self.autoprobe = True
        # Who else has something to do when a driver has taken a function, or is about to leave it.
        self.binding_listeners: list[BindingListener] = []
        self.host: Host = Boot(iomem, ioports)
        self._quiet = False
        self._ecam_pages: dict[Bdf, list[Range]] = {}

    @property
    def booting(self) -> bool:
        """No machine yet."""
        return isinstance(self.host, Boot)

    def verb(self) -> AbstractContextManager[Any]:
        """Hold while a verb runs."""
        return self.host.verb()

    # -- looking things up ------------------------------------------------------------------

    def named(self, text: str) -> PciDevice | None:
        """`bus_find_device_by_name`: the exact name, a newline may follow."""
        device = self.devices.get(text.removesuffix("\n"))
        return device if device is not None and streq(text, device.name) else None

    def known_function(self, text: str) -> Function:
        """A function that exists, plugged in or not. Raises PciError (ENODEV) that lists them."""
        bdf = Bdf.parse(text)
        function = self.fabric.functions.get(bdf)
        if function is None:
            known = ", ".join(str(at) for at in list(self.fabric.functions)[:32]) or "none"
            raise PciError(
                f"{bdf}: there is no such function; there are {known}", errno=errno.ENODEV
            )
        return function

    def device_of(self, function: Function) -> PciDevice | None:
        """What the kernel knows of a function, if it knows it."""
        return self.devices.get(str(function.bdf))

    def root_of(self, device: PciDevice) -> RootBus:
        """The root bus that a function hangs from, at any depth."""
        top = device
        while top.parent is not None:
            top = top.parent
        return next(r for r in self.roots if (r.domain, r.bus) == (top.bdf.domain, top.bdf.bus))

    @staticmethod
    def alive(device: PciDevice) -> None:
        """Raise PciError (ENODEV) for a function that was removed."""
        if device.gone:
            raise PciError(f"{device.name} has been removed", errno=errno.ENODEV)

    @staticmethod
    def subtree(devices: Iterable[PciDevice]) -> Iterator[PciDevice]:
        """The functions and everything behind them, bridges first."""
        for device in devices:
            yield device
            yield from BusState.subtree(device.children.values())

    # -- the trees --------------------------------------------------------------------------

    def tree_of(self, resource: PciResource) -> ResourceTree:
        """`/proc/iomem` or `/proc/ioports`."""
        return self.ioports if resource.is_io else self.iomem

    def place(self, resource: PciResource, name: str) -> None:
        """Give a resource its node: the one that is listed already, or a new one.

        Raises ResourceConflictError.
        """
        tree = self.tree_of(resource)
        node = listed(tree, resource.start, resource.end, name)
        if node is None:
            kind = IORESOURCE_IO if resource.is_io else IORESOURCE_MEM
            keep = resource.flags & ~0xF
            node = Resource(resource.start, resource.end, name, keep | kind)
            self.host.insert_resource(self._window_around(tree, node), node)
        resource.node = node

    def _window_around(self, tree: ResourceTree, node: Resource) -> Resource:
        """The smallest idle node around a new one that is not a BAR; of two equal ones the inner.

        Raises ResourceConflictError when a BAR of a function, or a claim around it, is in the way
        of a BAR; what else there is inside goes below the new node.
        """
        place: Resource = tree.root
        while (inner := self._inside(place, node)) is not None:
            place = inner
        return place

    def _inside(self, place: Resource, node: Resource) -> Resource | None:
        bar = node.name in self.devices
        for other in place.overlapping(node.start, node.end):
            same = (other.start, other.end) == (node.start, node.end)
            around = other.contains(node.start, node.end) and not same
            other_bar = other.name in self.devices
            if bar and (other_bar or (around and other.busy)):
                why = conflict_text(other, node.start, node.end)
                raise ResourceConflictError(f"cannot claim {node}: {why}", conflict=other)
            if around or (same and not other_bar and not other.busy):
                return other
        return None

    def unplace(self, resource: PciResource) -> None:
        """Take its node out of the tree, with everything below it, be it somebody's claim."""
        node, resource.node = resource.node, None
        if node is None or not in_tree(node, self.tree_of(resource)):
            return
        claimed = [] if resource.is_io else list(node.descend(node.start, node.end))
        self.host.drop_resource(node)
        self.host.publish(*(Reopened(page_round(c.span)) for c in claimed if c.busy))

    # -- effects ----------------------------------------------------------------------------

    def tell(self, entries: Iterable[nodes.Entry]) -> None:
        """Publish that entries of directories came or went."""
        if self.booting:
            return
        self.host.publish(*nodes.changes(entries))

    def log(self, kind: str, message: str, span: Range | None = None) -> None:
        """One line in the machine's log."""
        self.host.record(kind, message, span)

    # -- configuration space ----------------------------------------------------------------

    def write_config(self, bdf: Bdf, offset: int, data: bytes) -> None:
        """Write while no file caches the function's page of the ECAM or memory that the write moves.

        What a model raises goes through.
        """
        self.settle_ecam(bdf)
        moved = self.fabric.plan_config_write(bdf, offset, data)
        self.quietly(
            [*moved, *self.ecam_pages(bdf)], lambda: self.fabric.config_write(bdf, offset, data)
        )
        if moved:
            where = ", ".join(str(span) for span in moved[:4])
            self.log("config", f"{bdf}: decoding of {where} changed", moved[0])

    def kernel_write(self, device: PciDevice, offset: int, value: int, width: int) -> None:
        """Write a register on behalf of the kernel: a model that raises is logged, not obeyed."""
        data = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        self.guarded(device, lambda: self.write_config(device.bdf, offset, data))

    def guarded(self, device: PciDevice, action: Callable[[], Any]) -> None:
        """Let the kernel touch a function: what its model raises is logged."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - models are other people's code
            self.model_raised(device.function, error)

    def model_raised(self, function: Function, error: Exception) -> None:
        """Log what behaviour in Python raised while the kernel touched a function."""
        model = function.model
        name = f"{type(model).__module__}.{type(model).__qualname__}" if model else "its model"
        self.log("error", f"{function.bdf}: {name} raised {type(error).__name__}: {error}")

    def command(self, device: PciDevice, *, on: int = 0, off: int = 0) -> None:
        """Set and clear bits of the command register."""
        self.settle_ecam(device.bdf)
        old = device.function.config.get(header.COMMAND, 2)
        new = old & ~off | on
        if new != old:
            self.kernel_write(device, header.COMMAND, new, 2)

    def settle_config(self, device: PciDevice) -> None:
        """Let stores through mapped pages of the ECAM land. The caller does not hold the machine's lock."""
        self.settle_ecam(device.bdf)

    def settle_ecam(self, bdf: Bdf) -> None:
        """The same, by address."""
        pages = self.ecam_pages(bdf)
        if pages:
            self.host.settle(pages, lambda: None)

    def ecam_pages(self, bdf: Bdf) -> list[Range]:
        """Where the function's configuration space lies in memory."""
        pages = self._ecam_pages.get(bdf)
        if pages is None:
            pages = self._ecam_pages[bdf] = [
                Range(window.base + bdf.ecam, _PAGE)
                for window in self.settings.ecam
                if window.domain == bdf.domain and window.first <= bdf.bus <= window.last
            ]
        return pages

    def quietly(self, spans: Iterable[Range], action: Any) -> Any:
        """Change what the hardware decodes while no file caches any of `spans`."""

        def act() -> Any:
            before, self._quiet = self._quiet, True
            try:
                return action()
            finally:
                self._quiet = before

        return settle_all(self.host, spans, act)


def in_tree(node: Resource, tree: ResourceTree) -> bool:
    """A node is there still: nobody released it, or what it lay in."""
    while node.parent is not None:
        node = node.parent
    return node is tree.root


def listed(tree: ResourceTree, start: int, end: int, name: str) -> Resource | None:
    """The node of exactly this range and name, if the profile lists it."""
    node: Resource | None = tree.root
    while node is not None:
        node = node.first_overlap(start, end)
        if node is None or not node.contains(start, end):
            return None
        if (node.start, node.end, node.name) == (start, end, name):
            return node
    return None
