"""Addresses for what a rescan found (`pci_assign_unassigned_bus_resources`), and programming them."""

from collections.abc import Iterable, Iterator

from fakedev.devices.pci import header
from fakedev.devices.pci.device import ROM, WINDOWS, PciDevice, PciResource
from fakedev.devices.pci.enumerate import Enumeration, node_name
from fakedev.devices.pci.header import Span
from fakedev.devices.pci.space import Area, find, merged
from fakedev.devices.pci.state import RootBus
from fakedev.devices.pci.texts import resource_name, resource_text
from fakedev.devices.pci.windows import Wish, bar_wishes, window_wishes
from fakedev.model.errors import ResourceConflictError
from fakedev.model.flags import IORESOURCE_UNSET
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource

_SET_WINDOW = (header.set_io_window, header.set_memory_window, header.set_prefetch_window)
_DECODE = header.COMMAND_IO | header.COMMAND_MEMORY


class Allocation(Enumeration):
    """Finds places, puts nodes into the trees and addresses into the registers."""

    def assign(self, owner: RootBus | PciDevice) -> list[str]:
        """Give addresses to everything below a root bus or a bridge that has none.

        Returns what was assigned and what failed, as the kernel logs it.
        """
        known: dict[PciDevice, list[Wish]] = {}
        for device in owner.children.values():
            self._size(device, known)
        return list(self._assign(owner, known))

    def assign_behind(self, bridge: PciDevice) -> list[str]:
        """The same for what is behind a bridge; windows that it lacks are made."""
        known: dict[PciDevice, list[Wish]] = {}
        self._size(bridge, known)
        here = list(self._satisfy(bridge.parent or self.root_of(bridge), known[bridge]))
        return here + list(self._assign(bridge, known))

    def _size(self, device: PciDevice, known: dict[PciDevice, list[Wish]]) -> None:
        """What a function wants, with windows for what is behind it; leaves first."""
        wishes = bar_wishes(device)
        if device.is_bridge:
            inside: list[Wish] = []
            for child in device.children.values():
                self._size(child, known)
                inside += known[child]
            wishes += window_wishes(device, inside)
        if wishes and self.fabric.at(device.bdf) is None:
            wishes = []  # it does not answer: there is nothing to program
        known[device] = wishes

    def _assign(
        self, owner: RootBus | PciDevice, known: dict[PciDevice, list[Wish]]
    ) -> Iterator[str]:
        wishes = [wish for device in owner.children.values() for wish in known.get(device, ())]
        yield from self._satisfy(owner, wishes)
        for device in owner.children.values():
            if device.is_bridge:
                yield from self._assign(device, known)

    def _satisfy(self, owner: RootBus | PciDevice, wishes: list[Wish]) -> Iterator[str]:
        """Largest alignment first, then in order of address and index."""
        placed: dict[PciDevice, list[int]] = {}
        for wish in sorted(wishes, key=lambda w: -w.align):
            done = self._try(owner, wish, wish.size) or (
                wish.least != wish.size and wish.least > 0 and self._try(owner, wish, wish.least)
            )
            name, what = wish.device.name, resource_name(wish.number)
            if done:
                placed.setdefault(wish.device, []).append(wish.number)
                item = wish.resource
                yield f"{name}: {what} {resource_text(item.start, item.end, item.flags)}: assigned"
            else:
                flags = wish.resource.flags | IORESOURCE_UNSET
                wish.resource.clear()
                yield f"{name}: {what} {resource_text(0, wish.size - 1, flags)}: failed to assign"
        for device, indexes in placed.items():
            self._program(device, indexes)

    def _try(self, owner: RootBus | PciDevice, wish: Wish, size: int) -> bool:
        resource = wish.resource
        found = find(self._areas(owner, resource), resource.flags, size, wish.align)
        if found is None:
            return False
        area, start = found
        flags = resource.flags & ~IORESOURCE_UNSET
        node = Resource(start, start + size - 1, node_name(wish.device, wish.number), flags & ~0xF)
        if not resource.unlisted:
            parent = area.window.node or self.tree_of(resource).placement(start, node.end)[0]
            try:
                self.host.insert_resource(parent, node)
            except ResourceConflictError:
                return False
            resource.node = node
        resource.start, resource.end, resource.flags = start, node.end, flags
        return True

    def _areas(self, owner: RootBus | PciDevice, wanted: PciResource) -> list[Area]:
        """The windows of a bus that are of the right type, and what is taken in each."""
        hidden = [
            (item.start, item.end)
            for device in owner.children.values()
            for item in device.resources
            if item.unlisted and item.size and item.is_io == wanted.is_io
        ]
        areas = []
        for window in owner.windows:
            if window.is_io == wanted.is_io and window.assigned:
                inside = window.node or self._around(window)
                spans = [(c.start, c.end) for c in inside.children]
                areas.append(Area(window, merged(spans + hidden) if hidden else spans))
        return areas

    def _around(self, window: PciResource) -> Resource:
        """The smallest listed node around a window that is not listed itself."""
        return self.tree_of(window).placement(window.start, window.end)[0]

    # -- registers --------------------------------------------------------------------------

    def _program(self, device: PciDevice, indexes: Iterable[int]) -> None:
        """`pci_update_resource` and `pci_setup_bridge`: decoding is off meanwhile."""
        chosen = [(index, device.resources[index]) for index in indexes]
        bdf = device.bdf
        spans = [item.span for _, item in chosen if item.is_memory] + self.ecam_pages(bdf)
        for function in [device.function, *self.fabric.below(bdf)]:
            windows = self.fabric.decoded(function.bdf)
            spans += [Range(w.start, w.size) for w in windows if w.kind == "mem"]
        self.quietly(spans, lambda: self._set_windows(device, chosen))
        bars = [item for index, item in chosen if index < WINDOWS]
        if bars:
            self.quietly(spans, lambda: self._set_bars(device, bars))

    def _set_bars(self, device: PciDevice, bars: list[PciResource]) -> None:
        config = device.function.config
        command = config.get(header.COMMAND, 2)
        self._store(device, header.COMMAND, 2, command & ~_DECODE)
        for item in bars:
            bar = item.bar
            if bar is not None:
                enable = config.get(bar.register, 1) & 1 if bar.index == ROM else 0
                value = item.start | bar.low_bits | enable
                for at in range(0, bar.register_size, 4):
                    self._store(device, bar.register + at, 4, value >> 8 * at & 0xFFFFFFFF)
        self._store(device, header.COMMAND, 2, command)

    def _store(self, device: PciDevice, offset: int, width: int, value: int) -> None:
        data = value.to_bytes(width, "little")
        self.guarded(device, lambda: self.fabric.config_write(device.bdf, offset, data))

    def _set_windows(self, device: PciDevice, chosen: list[tuple[int, PciResource]]) -> None:
        changed = False
        for index, item in chosen:
            if index >= WINDOWS:
                _SET_WINDOW[index - WINDOWS](device.function.config, Span(item.start, item.end))
                changed = True
        if changed:
            self.fabric.decode(device.function)
