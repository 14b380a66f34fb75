"""Finding functions (`pci_scan_child_bus`), and giving those of the firmware their nodes."""

from collections.abc import Iterable

from fakedev.devices.pci import header
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.device import ROM, WINDOWS, PciDevice, PciResource
from fakedev.devices.pci.identity import identify, routed_vga, shadow_rom
from fakedev.devices.pci.state import BusState, RootBus
from fakedev.devices.pci.texts import resource_name, resource_text
from fakedev.model.errors import ResourceConflictError
from fakedev.model.flags import IORESOURCE_IO, IORESOURCE_MEM, IORESOURCE_UNSET
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree


class Enumeration(BusState):
    """Makes `PciDevice`s of functions."""

    _vga: Bdf | None = None

    def find_roots(self) -> None:
        """One root bus for each bus that no bridge leads to; windows are the nodes of its name."""
        self.roots = [RootBus(domain, bus) for domain, bus in self.fabric.roots()]
        named: dict[str, list[PciResource]] = {}
        for tree, kind in ((self.ioports, IORESOURCE_IO), (self.iomem, IORESOURCE_MEM)):
            for node in _windows(tree):
                window = PciResource(node.start, node.end, kind, node)
                named.setdefault(node.name, []).append(window)
        for root in self.roots:
            found = named.get(f"PCI Bus {root.name}", [])
            root.windows = tuple(found) or (
                PciResource(0, self.ioports.root.end, IORESOURCE_IO, self.ioports.root),
                PciResource(0, self.iomem.root.end, IORESOURCE_MEM, self.iomem.root),
            )

    def scan(self, *, boot: bool) -> list[PciDevice]:
        """Find what is new on every bus. Returns it, bridges before what is behind them."""
        return self.register(
            device for root in self.roots for device in self._scan_root(root, boot=boot)
        )

    def scan_bus(self, domain: int, bus: int) -> list[PciDevice]:
        """Find what is new on one bus and behind it. Nothing when no known bridge leads there."""
        for root in self.roots:
            if (root.domain, root.bus) == (domain, bus):
                return self.register(self._scan_root(root, boot=False))
        for device in self.devices.values():
            if device.is_bridge and (device.bdf.domain, device.function.secondary) == (domain, bus):
                return self.register(self._scan_behind(device, boot=False))
        return []

    def register(self, found: Iterable[PciDevice]) -> list[PciDevice]:
        """Put new functions into the table."""
        fresh = list(found)
        if fresh:
            with self.host.lock:
                table = self.devices | {device.name: device for device in fresh}
                self.devices = dict(sorted(table.items(), key=lambda item: item[1].bdf))
        return fresh

    def _scan_root(self, root: RootBus, *, boot: bool) -> list[PciDevice]:
        fresh, found = self._scan(root.domain, root.bus, None, root.path, root.children, boot=boot)
        if fresh:
            root.children = _sorted(root.children | fresh)
        return found

    def _scan_behind(self, bridge: PciDevice, *, boot: bool) -> list[PciDevice]:
        function = bridge.function
        domain, secondary = bridge.bdf.domain, function.secondary
        if (
            not function.link_up
            or self.fabric.upstream(Bdf(domain, secondary, 0, 0)) is not function
        ):
            return []
        fresh, found = self._scan(
            domain, secondary, bridge, bridge.path, bridge.children, boot=boot
        )
        if fresh:
            bridge.children = _sorted(bridge.children | fresh)
        return found

    def _scan(
        self,
        domain: int,
        bus: int,
        parent: PciDevice | None,
        directory: str,
        known: dict[str, PciDevice],
        *,
        boot: bool,
    ) -> tuple[dict[str, PciDevice], list[PciDevice]]:
        fresh: dict[str, PciDevice] = {}
        found: list[PciDevice] = []
        for function in self.fabric.on_bus(domain, bus):
            if not function.present:
                continue
            device = known.get(str(function.bdf))
            if device is None:
                device = PciDevice(function, parent, directory)
                identify(device, self.settings, boot=boot)
                self._display(device)
                fresh[device.name] = device
                found.append(device)
            if device.is_bridge:
                found += self._scan_behind(device, boot=boot)
        return fresh, found

    def _display(self, device: PciDevice) -> None:
        """The first VGA function that is routed to is the boot display; its ROM is shadowed."""
        if self._vga is None and routed_vga(device):
            self._vga = device.bdf
        if self._vga == device.bdf:
            device.boot_vga = True
            if ROM in device.function.bars and device.function.config.get(header.COMMAND, 1) & 3:
                shadow_rom(device)

    # -- what the firmware has assigned -----------------------------------------------------

    def claim_firmware(self, devices: Iterable[PciDevice]) -> None:
        """`pcibios_resource_survey`: what lies where the firmware put it gets its node.

        Windows first: `devices` has bridges before what is behind them.
        """
        for device in devices:
            for index, resource in reversed(list(enumerate(device.resources))):
                if resource.flags and not resource.unlisted and resource.node is None:
                    self._claim_firmware(device, index, resource)

    def _claim_firmware(self, device: PciDevice, index: int, resource: PciResource) -> None:
        name = node_name(device, index)
        why = "it has no address"
        if resource.start or index >= WINDOWS:
            try:
                self.place(resource, name)
            except ResourceConflictError as error:
                why = str(error)
            else:
                return
        text = resource_text(resource.start, resource.end, resource.flags)
        self.log("error", f"{device.name}: {resource_name(index)} {text}: not claimed: {why}")
        resource.end -= resource.start
        resource.start = 0
        resource.flags |= IORESOURCE_UNSET


def node_name(device: PciDevice, index: int) -> str:
    """What a resource is called in the trees: the function, or the bus that a window leads to."""
    return f"PCI Bus {device.secondary_name}" if index >= WINDOWS else device.name


def _windows(tree: ResourceTree) -> Iterable[Resource]:
    """Idle nodes called `PCI Bus ...`, outermost only."""
    stack = list(reversed(tree.root.children))
    while stack:
        node = stack.pop()
        if node.name.startswith("PCI Bus ") and not node.busy:
            yield node
        else:
            stack.extend(reversed(node.children))


def _sorted(devices: dict[str, PciDevice]) -> dict[str, PciDevice]:
    return dict(sorted(devices.items(), key=lambda item: item[1].bdf))
