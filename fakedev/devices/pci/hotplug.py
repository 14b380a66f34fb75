"""What happens to the hardware: cards are pulled and put in, slots switched, links go down."""

import errno
from collections.abc import Callable, Iterable
from typing import Any

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.removal import Removal
from fakedev.devices.pci.slots import Slot
from fakedev.model.effects import Reopened
from fakedev.model.ranges import PAGE_MASK, Range, page_round

_DIGITS = "0123456789"


class Hotplug(Removal):
    """Physical events; the kernel notices each at once, as pciehp does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._all_slots: dict[str, Slot] = {}
        self._failed: dict[Bdf, list[Range]] = {}  # what on_unplug: poison has poisoned

    def find_slots(self) -> None:
        """One slot for each function that names one; the first of two of the same name counts."""
        for function in self.fabric.functions.values():
            if function.slot and function.slot not in self._all_slots:
                self._all_slots[function.slot] = Slot(self.fabric, function)

    @property
    def slots(self) -> dict[str, Slot]:
        """Slots whose function the kernel knows; the slot of a removed port is gone as well."""
        devices = self.devices
        return {n: s for n, s in self._all_slots.items() if str(s.port) in devices}

    # -- verbs ------------------------------------------------------------------------------

    def unplug(self, text: str) -> None:
        """Pull a function out, with everything behind it, without a word before.

        Raises PciError: ENODEV when it is not there.
        """
        with self.verb():
            function = self.known_function(text)
            slot = self._slot_holding(function)
            if slot is not None:
                slot.held = tuple(bdf for bdf in slot.held if bdf != function.bdf)
                if not slot.held:
                    slot.function.set_presence(present=False)
                self.log("unplug", f"{function.bdf} unplugged; slot {slot.name} had no power")
                return
            if not function.present:
                raise PciError(f"{function.bdf} is unplugged already", errno=errno.ENODEV)
            self._pull(function)

    def plug(self, text: str) -> None:
        """Put back what was unplugged, with everything behind it; its bus is scanned.

        Raises PciError: EEXIST when it is there, ENODEV when the bridge above is not.
        """
        with self.verb():
            function = self.known_function(text)
            slot = self._slot_holding(function)
            if function.present or slot is not None:
                state = f"in slot {slot.name}, which has no power" if slot else "plugged in"
                raise PciError(
                    f"{function.bdf} is {state} already; unplug comes first", errno=errno.EEXIST
                )
            port = self.fabric.upstream(function.bdf)
            if port is not None and not port.present:
                raise PciError(
                    f"{function.bdf}: the bridge above it, {port.bdf}, is unplugged",
                    errno=errno.ENODEV,
                )
            self._put_in([function])
            self.log("plug", f"{function.bdf} plugged in")
            self._notice(function)

    def slot_power(self, name: str, text: str) -> None:
        """Write to `/sys/bus/pci/slots/NAME/power` (`power_write_file`): 0 or 1, else EINVAL.

        ENODEV when it is in that state already, or nothing is in the slot (pciehp).
        """
        with self.verb():
            slot = self.slots.get(name)
            if slot is None:
                raise PciError(f"there is no slot {name!r}", errno=errno.ENODEV)
            wanted = _leading_number(text) & 0xFF
            if wanted > 1:
                raise PciError(f"slot {name}: power is 0 or 1, not {wanted}")
            if not slot.hotplug:
                raise PciError(f"slot {name} cannot be switched", errno=errno.ENOTTY)
            if bool(wanted) == slot.powered:
                state = "on" if wanted else "off"
                raise PciError(f"slot {name}: already {state}", errno=errno.ENODEV)
            if wanted:
                self._power_on(slot)
            else:
                self._power_off(slot)

    def link_down(self, text: str) -> None:
        """The link below a port goes down: what is behind it reads all-ones, its files stay."""
        self._set_link(text, up=False)

    def link_up(self, text: str) -> None:
        """The link comes back."""
        self._set_link(text, up=True)

    # -- how --------------------------------------------------------------------------------

    def _slot_holding(self, function: Function) -> Slot | None:
        return next((s for s in self._all_slots.values() if function.bdf in s.held), None)

    def _pull(self, function: Function) -> None:
        """Surprise: mappings die as the functions say, nothing answers, then the kernel notices."""
        family = [f for f in [function, *self.fabric.below(function.bdf)] if f.present]
        known = [d for f in family if (d := self.device_of(f)) is not None]
        dying = [f for f in family if f.on_unplug != "all-ones"]
        spans = [span for f in dying for span in self._memory_of(f)]
        failing = [(f, self._memory_of(f)) for f in dying if f.on_unplug == "poison"]
        for device in known:
            device.unplugged = True
        self.log("unplug", f"{function.bdf} unplugged" + _behind(family))
        for span in spans:
            self.host.revoke(span, f"{function.bdf} was unplugged", even_cows=False)
        self._changing(family, lambda: self.fabric.unplug(function))
        top = self.device_of(function)
        if top is not None:
            self.forget([top], "unplug", ": it was unplugged")
        self.host.publish(*(Reopened(page_round(span)) for span in spans))
        for member, places in failing:
            self._fail(member, places)

    def _fail(self, function: Function, spans: Iterable[Range]) -> None:
        """`on_unplug: poison`: the whole pages that a function had give errors until it is back."""
        poison = self.host.poison
        pages = [Range(s.start + PAGE_MASK & ~PAGE_MASK, s.end & ~PAGE_MASK) for s in spans]
        pages = [Range(start, end - start) for start, end in pages if start < end]
        if poison is not None:
            self._failed[function.bdf] = [span for span in pages if not poison.covers(span)]
            for span in self._failed[function.bdf]:
                poison.add(span)

    def _mend(self, function: Function) -> None:
        """The function is back, and its memory is good."""
        for span in self._failed.pop(function.bdf, ()):
            if self.host.poison.covers(span):
                self.host.poison.remove(span)

    def _memory_of(self, function: Function) -> list[Range]:
        """The memory that a function decodes, and that of its BARs as the kernel knows them."""
        spans = {
            Range(w.start, w.size) for w in self.fabric.decoded(function.bdf) if w.kind == "mem"
        }
        device = self.device_of(function)
        for resource in device.bars if device else ():
            if resource.is_memory and resource.assigned and resource.bar and resource.start:
                spans.add(resource.span)
        return sorted(spans)

    def _put_in(self, functions: Iterable[Function]) -> None:
        for function in functions:
            family = [function, *self.fabric.below(function.bdf)]
            ports = {member.bdf for member in family}
            for member in family:
                self._mend(member)
            for slot in self._all_slots.values():
                if slot.port in ports:
                    slot.held = ()  # a port that powers up gives power to its slot

            def act(function: Function = function) -> None:
                self.fabric.plug(function)

            self._changing(family, act)

    def _notice(self, function: Function) -> None:
        """Scan the bus of a function, if the kernel knows the bridge that leads there."""
        port = self.fabric.upstream(function.bdf)
        if port is None:
            for root in self.roots:
                if (root.domain, root.bus) == (function.bdf.domain, function.bdf.bus):
                    self.discover(root)
            return
        bridge = self.device_of(port)
        if bridge is not None:
            self.discover(bridge)

    def _power_off(self, slot: Slot) -> None:
        inside = [function for function in slot.inside if function.present]
        known = [d for f in inside if (d := self.device_of(f)) is not None]
        self.forget(known, "remove", f": slot {slot.name} is switched off")
        for function in inside:
            family = [function, *self.fabric.below(function.bdf)]

            def act(function: Function = function) -> None:
                self.fabric.unplug(function)

            self._changing(family, act)
        slot.hold(inside)
        slot.function.set_presence(present=True)
        self.log("power", f"slot {slot.name} ({slot.address}) is off")

    def _power_on(self, slot: Slot) -> None:
        if not slot.held:
            raise PciError(f"slot {slot.name}: no adapter", errno=errno.ENODEV)
        inside = [self.fabric.functions[bdf] for bdf in slot.held]
        slot.held = ()
        self._put_in(inside)
        self.log("power", f"slot {slot.name} ({slot.address}) is on")
        self._notice(inside[0])

    def _set_link(self, text: str, *, up: bool) -> None:
        with self.verb():
            port = self.known_function(text)
            word = "up" if up else "down"
            if not port.is_bridge:
                raise PciError(f"{port.bdf} is no bridge: it has no link below it")
            if port.link_trained == up:
                raise PciError(f"{port.bdf}: its link is {word} already")
            family = self.fabric.below(port.bdf)
            self._changing([port, *family], lambda: self.fabric.set_link(port, up=up))
            self.log("link", f"{port.bdf}: link is {word}" + _behind([port, *family]))

    def _changing(self, family: Iterable[Function], action: Callable[[], Any]) -> None:
        """Change what functions decode while no file caches their memory or configuration."""
        spans: list[Range] = []
        for function in family:
            spans += self._memory_of(function) + self.ecam_pages(function.bdf)
        self.quietly(spans, action)


def _behind(family: list[Function]) -> str:
    return f", with {len(family) - 1} behind it" if len(family) > 1 else ""


def _leading_number(text: str) -> int:
    """`simple_strtoul` with base 10: the digits in front, 0 without any."""
    digits = text[: len(text) - len(text.lstrip(_DIGITS))]
    return int(digits[:32] or "0")
