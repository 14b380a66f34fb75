"""Physical slots, `struct pci_slot`: what is in them, and whether it has power."""

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function


class Slot:
    """One slot. `address` as sysfs shows it; `port` is the bridge above it, or the function in it.

    `held` are functions that are in the slot while it has no power. The bus behind a bridge is that
    of boot, whatever its bus number registers say by now.
    """

    __slots__ = ("_bus", "_fabric", "address", "function", "held", "name", "port")

    def __init__(self, fabric: Fabric, function: Function) -> None:
        self._fabric = fabric
        self.function = function
        self.name = function.slot or ""
        self.port = function.bdf
        self.held: tuple[Bdf, ...] = ()
        self._bus = function.secondary
        bdf = function.bdf
        if function.is_bridge:
            bdf = Bdf(bdf.domain, self._bus, 0, 0)
        self.address = bdf.slot_name

    @property
    def hotplug(self) -> bool:
        """It can be switched (`power` and friends exist)."""
        return self.function.hotplug_port

    @property
    def inside(self) -> list[Function]:
        """The functions that sit in it, right behind the port; plugged in or not."""
        if self.function.is_bridge:
            return self._fabric.on_bus(self.port.domain, self._bus)
        return [self.function]

    @property
    def adapter(self) -> bool:
        """A card is in it, with power or without (presence detect)."""
        return bool(self.held) or any(function.present for function in self.inside)

    @property
    def powered(self) -> bool:
        """It has power."""
        return not self.held and any(function.present for function in self.inside)

    def hold(self, functions: list[Function]) -> None:
        """Power is off: these stay in the slot."""
        self.held = tuple(function.bdf for function in functions)
