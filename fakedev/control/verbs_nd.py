"""The verbs about persistent memory, device-dax and pins."""

import errno
from typing import TYPE_CHECKING, Any

from fakedev.control.arguments import Arguments
from fakedev.control.verbs_pci import PciVerbs
from fakedev.model.errors import ControlError, FakedevError

if TYPE_CHECKING:
    from fakedev.devices.nd.bus import NdBus
    from fakedev.devices.nd.pins import Pin
    from fakedev.devices.nd.region import Namespace, Region


class NdVerbs(PciVerbs):
    """Verbs of a machine that has persistent memory or dax devices, on top of the others."""

    __slots__ = ()

    def do_pmem(self, arguments: Arguments) -> dict[str, Any]:
        """Every region with its namespaces, every dax device, every pin."""
        arguments.finish()
        bus = self._nd()
        with self.machine.verb():
            return {
                "regions": [_region_json(bus, region) for region in bus.regions],
                "dax": [
                    {
                        "name": dax.name,
                        "range": str(dax.span),
                        "driver": "leaked" if dax.leaked else dax.driver,
                        "ram": str(dax.ram) if dax.ram else None,
                    }
                    for dax in bus.dax_devices()
                ],
                "pins": [_pin_json(pin) for pin in bus.pins.all()],
            }

    def do_dax_mode(self, arguments: Arguments) -> dict[str, Any]:
        """Use a namespace or a dax device as raw, fsdax, devdax or kmem. Waits for pins."""
        name, mode = arguments.take("name", str), arguments.take("mode", str)
        arguments.finish()
        done = self._refusing(lambda: self._nd().set_mode(name, mode))
        return {"name": done, "mode": mode, "event": self.machine.now}

    def do_unplug_pmem(self, arguments: Arguments) -> dict[str, Any]:
        """The modules of a region are pulled out, without a word. Waits for pins."""
        name = arguments.take("region", str)
        after = arguments.take("on_unplug", str, default=None)
        arguments.finish()
        region = self._refusing(lambda: self._nd().unplug(name, on_unplug=after))
        return {**_region_json(self._nd(), region), "event": self.machine.now}

    def do_plug_pmem(self, arguments: Arguments) -> dict[str, Any]:
        """The modules of a region are put back; with `replace` others, which are empty."""
        name = arguments.take("region", str)
        replace = arguments.take("replace", bool, default=False)
        arguments.finish()
        region = self._refusing(lambda: self._nd().plug(name, replace=replace))
        return {**_region_json(self._nd(), region), "event": self.machine.now}

    def do_pin(self, arguments: Arguments) -> dict[str, Any]:
        """Hold pages as a transfer does (for `seconds`), or as RDMA does (`longterm`)."""
        span = arguments.range()
        longterm = arguments.take("longterm", bool, default=False)
        seconds = arguments.seconds("seconds")
        arguments.finish()
        pin = self._refusing(lambda: self._nd().pin(span, longterm=longterm, seconds=seconds))
        return {**_pin_json(pin), "event": self.machine.now}

    def do_unpin(self, arguments: Arguments) -> dict[str, Any]:
        """Let a pin go."""
        number = arguments.take("pin", int)
        arguments.finish()
        return {**_pin_json(self._nd().unpin(number)), "event": self.machine.now}

    def modprobe(self, name: str) -> dict[str, Any]:
        """Load a driver: of persistent memory, or another."""
        bus: NdBus | None = self.machine.nd
        if bus is not None and bus.modprobe(name.replace("-", "_")):
            return self._loading(name)
        return super().modprobe(name)

    def rmmod(self, name: str) -> dict[str, Any]:
        """Unload a module of persistent memory or dax, or another driver. Waits for pins."""
        bus: NdBus | None = self.machine.nd
        if bus is not None and self._refusing(lambda: bus.rmmod(name.replace("-", "_"))):
            return self._loading(name)
        return super().rmmod(name)

    def _loading(self, name: str) -> dict[str, Any]:
        """The answer for a module that has no functions of PCI."""
        nothing: dict[str, Any] = {"removed": [], "added": [], "unbound": {}, "bound": {}}
        return {"driver": name, **nothing, "failed": [], "event": self.machine.now}

    # -- what they share --------------------------------------------------------------------

    def _nd(self) -> "NdBus":
        bus: NdBus | None = self.machine.nd
        if bus is None:
            raise ControlError(
                f"{self.machine.name} has no persistent memory: its profile has no `nvdimm:`, "
                "`dax:` or `cxl:`",
                errno=errno.ENODEV,
            )
        return bus

    @staticmethod
    def _refusing(action: Any) -> Any:
        """Do `action`; a conflict in the resource tree is a refusal with its errno."""
        try:
            return action()
        except ControlError:
            raise
        except FakedevError as error:
            number = getattr(error, "errno", errno.EINVAL)
            name = errno.errorcode.get(number, "")
            raise ControlError(f"{error} ({name})", errno=number) from None


def _region_json(bus: "NdBus", region: "Region") -> dict[str, Any]:
    states = (
        (not region.present, "unplugged"),
        (region.burned, "burned"),
        (region.enabled, "active"),
    )
    names = [one for one in region.namespaces if region.enabled and one.span.size]
    return {
        "name": region.name,
        "range": str(region.span),
        "state": next((word for hit, word in states if hit), "idle"),
        "namespaces": [_namespace_json(one) for one in names],
        "waiting": [_pin_json(pin) for pin in bus.pins.on(region.span)],
    }


def _namespace_json(one: "Namespace") -> dict[str, Any]:
    return {
        "name": one.name,
        "mode": one.mode,
        "range": str(one.span),
        "block": one.block if one.life else None,
        "dax": one.dax.name if one.dax else None,
        "files": len(one.files) if one.mode == "fsdax" else 0,
    }


def _pin_json(pin: "Pin") -> dict[str, Any]:
    return {"pin": pin.number, "range": str(pin.span), "longterm": pin.longterm}
