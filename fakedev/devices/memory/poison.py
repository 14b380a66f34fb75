"""Memory that fails: poison from the outside, and the pages that the kernel takes out (`mm/memory-failure.c`).

`add` is the hardware: whatever lies there gives an error from now on, RAM or not. Mappings of the
pages die and later touches are SIGBUS (BUS_ADRERR: BUS_MCEERR_AR needs the exact layer), reads and
writes that the policy allows fail with EIO. `hard_offline` and `soft_offline` are the kernel's two
files below `/sys/devices/system/memory`, with its rules on which pages it can take.

A page that went offline softly was moved away in time: it counts as corrupted, and no access fails.
"""

import errno
from typing import TYPE_CHECKING, Any

from fakedev.model.effects import Reopened
from fakedev.model.errors import ControlError
from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM
from fakedev.model.poisoned import Table, first_in, united, within, without
from fakedev.model.ranges import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Range, page_round
from fakedev.model.resource import Resource
from fakedev.model.world import as_range

if TYPE_CHECKING:
    from fakedev.model.machine import Machine

EHWPOISON = getattr(errno, "EHWPOISON", 133)
KPF_HWPOISON = 1 << 19
_RAM_BUSY = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
_KERNEL = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")
_ZONE_DEVICE = ("namespace", "dax")


class Poison:
    """The failed pages of a machine; `machine.poison`. Spans are rounded to whole pages."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self.soft: Table = ()

    @property
    def hard(self) -> Table:
        """Pages that give errors: sorted, page-aligned ranges."""
        return self._machine.poisoned

    def covers(self, span: Range | str) -> bool:
        """True where a page of `span` has failed, or was taken offline softly."""
        start, size = as_range(span)
        return any(first_in(table, start, size) is not None for table in (self.hard, self.soft))

    # -- the hardware -----------------------------------------------------------------------

    def add(self, span: Range | str) -> int:
        """Poison the pages that `span` touches; returns how many are new.

        ControlError: EINVAL beyond the address width of the CPU, EHWPOISON when all of them are
        poisoned already.
        """
        machine, span = self._machine, self._checked(span)
        with machine.verb():
            before = _pages(within(self.hard, span))
            if before << PAGE_SHIFT == span.size:
                raise ControlError(f"{span} is poisoned already", errno=EHWPOISON)
            machine.settle(span, machine.locked(lambda: self._set(united(self.hard, span))))
            self.soft = without(self.soft, span)
            self._mark_blocks(span)
            fresh = (span.size >> PAGE_SHIFT) - before
            machine.record("poison", f"{_count(fresh)} of {span} poisoned", span)
            machine.revoke(span, "memory_failure", even_cows=False)
        return fresh

    def remove(self, span: Range | str) -> int:
        """Make the pages good again; returns how many. What they held is still there.

        Mappings that died stay dead. ControlError (ENOENT) where nothing is poisoned.
        """
        machine, span = self._machine, self._checked(span)
        with machine.verb():
            good = _pages(within(self.hard, span)) + _pages(within(self.soft, span))
            if not good:
                raise ControlError(f"no page of {span} is poisoned", errno=errno.ENOENT)
            with machine.lock:
                self._set(without(self.hard, span))
                self.soft = without(self.soft, span)
            self._mark_blocks(span)
            machine.record("poison", f"{_count(good)} of {span} good again", span)
            machine.publish(Reopened(span))
        return good

    def replaced(self, span: Range) -> None:
        """The hardware of a range is gone, and its failed pages with it; called inside a verb."""
        if self.covers(span):
            self.remove(span)

    def reset(self) -> None:
        """No page has failed; called inside a verb."""
        machine, table, soft = self._machine, self.hard, self.soft
        with machine.lock:
            self._set(())
            self.soft = ()
        for span in (*table, *soft):
            self._mark_blocks(span)
        machine.publish(*(Reopened(span) for span in table))

    def _set(self, table: Table) -> None:
        self._machine.poisoned = table

    def _mark_blocks(self, span: Range) -> None:
        """Tell the memory blocks of a range: one with failed pages does not go online."""
        for block in self._machine.blocks.within(span) if self._machine.blocks else ():
            block.poisoned = self.covers(block.span)

    def _checked(self, span: Range | str) -> Range:
        span = page_round(as_range(span))
        bits = self._machine.rules.physical_address_bits
        if span.end > 1 << bits:
            raise ControlError(
                f"{span} is wider than the {bits} bits of this CPU", errno=errno.EINVAL
            )
        return span

    # -- the kernel -------------------------------------------------------------------------

    def hard_offline(self, address: int) -> None:
        """`hard_offline_page` with a byte address (`memory_failure`). Raises ControlError.

        EHWPOISON: poisoned, or offline, already. No struct page, or its block is offline: ENXIO, EBUSY from 7.2
        on. EBUSY: a page of the kernel itself, which it cannot do without.
        """
        page = Range(address & ~PAGE_MASK, PAGE_SIZE)
        with self._machine.verb():
            if self.covers(page):
                raise ControlError(f"page {page.start:#x} is poisoned already", errno=EHWPOISON)
            owners = self._owners(page)
            device = any(node.busy and node.name.startswith(_ZONE_DEVICE) for node in owners)
            if not device and not (_is_ram(owners) and self._online(page)):
                late = self._machine.rules.release >= (7, 2)
                code = errno.EBUSY if late else errno.ENXIO
                raise ControlError(f"page {page.start:#x} has no struct page", errno=code)
            if any(node.name in _KERNEL for node in owners):
                message = f"page {page.start:#x} belongs to the kernel: not handled"
                raise ControlError(message, errno=errno.EBUSY)
            self.add(page)

    def soft_offline(self, address: int) -> None:
        """`soft_offline_page`: the page is moved and not used again. Poisoned ones are done already.

        ControlError: ENXIO without a struct page, EIO while its block is not online, EBUSY for a
        page of the kernel itself.
        """
        page = Range(address & ~PAGE_MASK, PAGE_SIZE)
        with self._machine.verb():
            owners = self._owners(page)
            if not _is_ram(owners):
                raise ControlError(f"page {page.start:#x} has no struct page", errno=errno.ENXIO)
            if not self._online(page):
                raise ControlError(f"page {page.start:#x} is not online", errno=errno.EIO)
            if self.covers(page):
                return
            if any(node.name in _KERNEL for node in owners):
                message = f"page {page.start:#x} belongs to the kernel: it cannot be moved"
                raise ControlError(message, errno=errno.EBUSY)
            with self._machine.lock:
                self.soft = united(self.soft, page)
            self._mark_blocks(page)
            self._machine.record("poison", f"page {page.start:#x} offlined softly", page)

    def _owners(self, page: Range) -> list[Resource]:
        """Resources that hold the whole page, outermost first."""
        last = page.end - 1
        with self._machine.lock:
            found = self._machine.tree.root.descend(page.start, last)
            return [node for node in found if node.contains(page.start, last)]

    def _online(self, page: Range) -> bool:
        blocks = self._machine.blocks
        if blocks is None:
            return True
        block = blocks.blocks.get(page.start // blocks.block_size)
        return block is not None and block.state == "online"

    # -- what is told of it -----------------------------------------------------------------

    @property
    def corrupted(self) -> int:
        """`HardwareCorrupted` in bytes: failed pages of System RAM (others have no struct page)."""
        total = 0
        with self._machine.lock:
            for span in (*self.hard, *self.soft):
                ram: Table = ()
                for node in self._machine.tree.root.descend(span.start, span.end - 1):
                    if node.matches(_RAM_BUSY):
                        ram = united(ram, node.span)
                total += sum(part.size for part in within(ram, span))
        return total

    def state(self) -> dict[str, Any]:
        """The pages as `ctl state` shows them, with the bits of `/proc/kpageflags`."""
        pages = [{"range": str(s), "kind": "hard"} for s in self.hard]
        pages += [{"range": str(s), "kind": "soft"} for s in self.soft]
        return {
            "pages": [page | {"kpageflags": f"{KPF_HWPOISON:#x}"} for page in pages],
            "hardware_corrupted_kb": self.corrupted >> 10,
        }


def poison_of(machine: "Machine") -> Poison:
    """The poison of a machine, made when it is first asked for."""
    if machine.poison is None:
        machine.poison = Poison(machine)
    poison: Poison = machine.poison
    return poison


def _is_ram(owners: list[Resource]) -> bool:
    return any(node.matches(_RAM_BUSY) for node in owners)


def _pages(table: Table) -> int:
    return sum(span.size for span in table) >> PAGE_SHIFT


def _count(pages: int) -> str:
    return "1 page" if pages == 1 else f"{pages} pages"
