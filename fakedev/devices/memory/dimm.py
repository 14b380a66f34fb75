"""DIMMs in slots: ACPI memory devices that are plugged and ejected (`drivers/acpi/acpi_memhotplug.c`)."""

import errno
from typing import TYPE_CHECKING

from fakedev.devices.memory.block import BlockError, MemoryBlock
from fakedev.model.errors import ControlError, MemoryLayoutError, ResourceConflictError
from fakedev.model.flags import IORESOURCE_SYSTEM_RAM
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.resources import ResourceTree

if TYPE_CHECKING:
    from fakedev.devices.memory.blocks import MemoryBlocks
    from fakedev.devices.memory.plan import DimmPlan

_NAME = "System RAM"


class Dimms:
    """The slots of a machine, by name. `present` are those that have their module."""

    def __init__(self, blocks: "MemoryBlocks", plans: "tuple[DimmPlan, ...]") -> None:
        self._blocks = blocks
        self.plans = {plan.slot: plan for plan in plans}
        self.present = {plan.slot for plan in plans if plan.plugged}

    @property
    def top(self) -> int:
        """The end of the highest slot, 0 without any."""
        return max((plan.at + plan.size for plan in self.plans.values()), default=0)

    def boot(self, memory: PhysicalMemory, tree: ResourceTree) -> int:
        """Modules that are there at boot; returns the end of the highest. Before `MemoryBlocks.boot`.

        Raises MemoryLayoutError or ResourceConflictError where something else is there.
        """
        ends = [0]
        for slot in self.present:
            plan = self.plans[slot]
            memory.add(plan.at, plan.size, name=slot)
            tree.request_region(plan.at, plan.size, _NAME, IORESOURCE_SYSTEM_RAM)
            ends.append(plan.at + plan.size)
        return max(ends)

    def boot_states(self) -> None:
        """Blocks of modules are added at boot as later: online only if `auto_online` says so."""
        if self._blocks.auto_online != "offline":
            return
        for slot in self.present:
            for block in self._blocks.within(_span(self.plans[slot])):
                self._blocks.leave(block)

    def plug(self, slot: str) -> list[MemoryBlock]:
        """Put the module into its slot; the kernel adds its memory, all of it zeros.

        ENODEV: no such slot. EEXIST: it is there already, or other memory is in its place. Errors
        of `add_memory`; then it is not plugged.
        """
        machine, plan = self._blocks.machine, self._plan(slot)
        span = _span(plan)
        with machine.verb():
            if slot in self.present:
                raise BlockError(f"{slot} is plugged already", errno=errno.EEXIST)
            try:
                machine.settle(span, machine.locked(lambda: machine.memory.add(*span, name=slot)))
            except MemoryLayoutError as error:
                raise BlockError(str(error), errno=errno.EEXIST) from None
            machine.record("plug", f"{slot} plugged: {span}", span)
            try:
                added = self._blocks.add_memory(span, nid=plan.nid)
            except (ControlError, ResourceConflictError):
                machine.settle(span, machine.locked(lambda: machine.memory.remove(*span)))
                machine.record("unplug", f"{slot} unplugged again", span)
                raise
            self.present.add(slot)
            return added

    def unplug(self, slot: str) -> None:
        """Eject the module: its blocks go offline, its memory is removed, and then its bytes.

        ENODEV: no such slot, or it is empty. Errors of `offline`: then all is as it was.
        """
        machine, plan = self._blocks.machine, self._plan(slot)
        span = _span(plan)
        with machine.verb():
            if slot not in self.present:
                raise BlockError(f"{slot} is not plugged", errno=errno.ENODEV)
            online = [b.number for b in self._blocks.within(span) if b.online]
            self._blocks.offline_all(online)  # acpi_scan_try_to_offline: all or none
            self._blocks.remove_memory(span)
            machine.settle(span, machine.locked(lambda: machine.memory.remove(*span)))
            self.present.discard(slot)
            machine.record("unplug", f"{slot} unplugged: {span}", span)
            if machine.poison is not None:
                machine.poison.replaced(span)

    def _plan(self, slot: str) -> "DimmPlan":
        plan = self.plans.get(slot)
        if plan is None:
            known = ", ".join(self.plans) or "none"
            raise BlockError(f"there is no DIMM slot {slot!r}; slots: {known}", errno=errno.ENODEV)
        return plan

    def reset_before(self) -> None:
        """Slots hold what they held at boot. Called by a reset, before blocks are made anew."""
        machine = self._blocks.machine
        for slot, plan in self.plans.items():
            span = _span(plan)
            boot = slot in self.present and all(b.boot for b in self._blocks.within(span))
            if plan.plugged and not boot:  # the reset has released the RAM of others already
                for claim in [c for c in machine.claims if c.span.overlaps(span)]:
                    machine.release(claim.span)  # somebody took the empty place
                machine.add_ram(span, _NAME)
        self.present = {plan.slot for plan in self.plans.values() if plan.plugged}


def _span(plan: "DimmPlan") -> Range:
    return Range(plan.at, plan.size)
