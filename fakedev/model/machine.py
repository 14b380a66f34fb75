"""The world: verbs in, answers and effects out.

Theory of operation
-------------------
Everything that decides what a load, store, read, write, mmap, claim or release does lives in this
package; nothing in it knows FUSE, a descriptor, a thread or a clock.

* `tree` says who owns what, `rules` say what the kernel makes of it, and `policy` is both compiled
  into a sorted interval map. A policy never changes: a verb that changes the tree makes the next
  one and swaps it in, so that an access is judged by one consistent state.
* Verbs change state under `lock`, and hand their effects to the subscribers after the lock is
  dropped. A subscriber (the file system server) turns them into notifications and returns when
  they are done; the verb returns after that.
* Reads take no lock: policy and memory layout are each replaced as a whole.
* Copies are made outside the lock: as on a real bus, two agents that touch the same bytes at the
  same time get some order.
"""

import errno
from typing import Any

from fakedev.model.effects import Reopened
from fakedev.model.errors import ControlError
from fakedev.model.flags import IORESOURCE_SYSTEM_RAM
from fakedev.model.hotmemory import HotMemory
from fakedev.model.lockdown import unlock
from fakedev.model.poisoned import first_in, verdict_at
from fakedev.model.policy import Policy
from fakedev.model.ranges import PAGE_SIZE, Range, page_round
from fakedev.model.verdict import Access, Verdict
from fakedev.model.world import as_range

ALLOW = Access.ALLOW  # looked up at every access


class Machine(HotMemory):
    """A simulated machine. Ranges are `Range` or text as `parse_range` reads it; errors are FakedevError."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._boot = self.memory.snapshot()

    # -- accesses ---------------------------------------------------------------------------

    def read(self, address: int, size: int) -> tuple[Verdict, list[memoryview]]:
        """read(2) of /dev/mem (`read_mem`): the verdict, and the bytes where it allows."""
        policy = self.policy
        verdict = policy.read(address, size)
        if self.poisoned and verdict.allowed:
            bad = self._failing(address, size)
            if bad is not None:
                return verdict_at(self.poisoned, bad), []
        if verdict.allowed and verdict.access is ALLOW and address + size <= verdict.end:
            return verdict, self.memory.buffers(address, size)
        return verdict, self._mixed(policy, address, size) if verdict.allowed and size else []

    def _mixed(self, policy: Policy, address: int, size: int) -> list[memoryview]:
        pieces: list[memoryview] = []
        for start, end, access in policy.spans(address, size):
            if access is Access.ZEROS:
                pieces.append(memoryview(bytes(end - start)))
            else:
                pieces.extend(self.memory.buffers(start, end - start))
        return pieces

    def write(self, address: int, data: memoryview) -> tuple[Verdict, int]:
        """write(2) to /dev/mem (`write_mem`): the verdict and the number of bytes taken.

        Pages before a refused one are written. EPERM hides that; EFAULT and EIO give a short count.
        """
        size = len(data)
        with self.lock:
            bad = self._failing(address, size) if self.poisoned else None
            if bad is not None and self._first_refused(address, size) > bad:
                taken = self._write_until_refused(address, data[: bad - address])
                return verdict_at(self.poisoned, bad), taken
            verdict = self.policy.write(address, size)
            if verdict.access is Access.ALLOW and verdict.allowed and address + size <= verdict.end:
                self.memory.write(address, data)
                return verdict, size
            if verdict.allowed or self.policy.valid_phys_addr_range(address, size):
                taken = self._write_until_refused(address, data)
                return verdict, taken if verdict.allowed or verdict.errno == errno.EFAULT else 0
            return verdict, 0

    def _failing(self, address: int, size: int) -> int | None:
        """The first byte of a request that a read or write would find poisoned."""
        end = address + size
        while (bad := first_in(self.poisoned, address, end - address)) is not None:
            if self.policy.devmem_is_allowed(bad) is not Access.ZEROS:
                return bad
            address = (bad & -PAGE_SIZE) + PAGE_SIZE  # the kernel does not look at it
        return None

    def _first_refused(self, address: int, size: int) -> int:
        """Where the policy stops a write; behind its end if it does not."""
        if not self.policy.valid_phys_addr_range(address, size):
            return address
        refused = (Access.DENY, Access.FAULT)
        stops = (start for start, _, a in self.policy.spans(address, size) if a in refused)
        return next(stops, address + size)

    def moved(self, address: int, size: int) -> int:
        """How many bytes `read_mem` and `write_mem` move before they refuse a request."""
        stop = self._first_refused(address, size)
        bad = self._failing(address, stop - address)
        return (stop if bad is None else bad) - address

    def touch(self, address: int, size: int) -> Verdict:
        """The verdict on a page fault of a mapping: that on the mapping, and poison."""
        if self.poisoned and (bad := first_in(self.poisoned, address, size)) is not None:
            return verdict_at(self.poisoned, bad)
        return self.policy.mmap(address, size)

    def _write_until_refused(self, address: int, data: memoryview) -> int:
        for start, end, access in self.policy.spans(address, len(data)):
            if access in {Access.DENY, Access.FAULT}:
                return start - address
            if access is Access.ALLOW:
                self.memory.write(start, data[start - address : end - address])
        return len(data)

    def fault(self, address: int, size: int, *, opened: int) -> tuple[Verdict, list[memoryview]]:
        """A page fault of a mapping whose file was opened at event `opened`."""
        verdict = self.policy.mmap(address, size)
        if self.poisoned and (bad := first_in(self.poisoned, address, size)) is not None:
            return verdict_at(self.poisoned, bad), []
        if verdict.allowed or self._survives(address, opened):
            return verdict, self.memory.buffers(address, size)
        return verdict, []

    def fault_bar(
        self, bar: Range, address: int, size: int, *, opened: int
    ) -> tuple[Verdict, list[memoryview]]:
        """A page fault of a mapping of a PCI BAR through `resourceN`."""
        verdict = self.mapped_bar(bar, opened=opened)
        if self.poisoned and (bad := first_in(self.poisoned, address, size)) is not None:
            return verdict_at(self.poisoned, bad), []
        if verdict.allowed or self._survives(address, opened, pci=True):
            return verdict, self.memory.buffers(address, size)
        return verdict, []

    def mapped_bar(self, bar: Range, *, opened: int) -> Verdict:
        """The verdict on a mapping of a BAR, which lives on under lockdown if its file was open before."""
        return self.policy.mmap_bar(bar, older=opened < self.locked_since)

    def _survives(self, address: int, opened: int, *, pci: bool = False) -> bool:
        """Kernels that do not revoke leave mappings alive that are older than the claim."""
        spared = pci and not self.rules.revokes_pci
        return any(
            since > opened
            and (spared or not revoked)
            and page_round(span).start <= address < page_round(span).end
            for span, since, revoked in self._survivors
        )

    def stored(self, address: int, data: memoryview) -> None:
        """Stores through a mapping that were made while it was alive: they always land."""
        with self.lock:
            self.memory.write(address, data)

    # -- verbs ------------------------------------------------------------------------------

    def peek(self, span: Range | str) -> bytes:
        """The bytes that are there, whoever owns them; stores through live mappings are seen."""
        span = as_range(span)
        data: bytes = self.settle(span, self.locked(lambda: self.memory.read(*span)))
        return data

    def poke(self, address: int, data: bytes) -> None:
        """Put bytes into memory behind the kernel's back. MemoryLayoutError where there is none."""
        span = Range(address, len(data))
        self.settle(span, self.locked(lambda: self.memory.place(address, data)))
        self.record("poke", f"{len(data)} bytes at {address:#x}", span)

    def reset(self) -> None:
        """Memory and claims as they were at boot. Mappings of claimed ranges stay dead."""
        with self._verbs, self.unasked():
            self._reset()

    def _reset(self) -> None:
        if self.nd is not None:
            self.nd.reset()
        for claim in [c for c in self._claims if c.matches(IORESOURCE_SYSTEM_RAM)]:
            self.release(claim.span)  # it would pass for RAM of the boot
        if self.blocks is not None:
            self.blocks.reset()  # first: drivers find no memory of theirs left
        if self.pci is not None:
            self.pci.reset()
        if self.poison is not None:
            self.poison.reset()
        unlock(self)
        with self.lock:
            spans = [resource.span for resource in self._claims]
            for span in spans:
                self.tree.release_region(span.start, span.size)
            self._forget_claims(spans)
            self._recompile(spans)
        self.settle(Range(0, self.top), self.locked(lambda: self.memory.restore(self._boot)))
        if self.virtio_mem is not None:
            self.virtio_mem.reset()
        if self.nd is not None:
            self.nd.reboot()
        self.record("reset", "memory and claims are as they were at boot")
        self.publish(*(Reopened(page_round(span)) for span in spans))

    def iomem(self, *, privileged: bool = True) -> str:
        """`/proc/iomem` for an opener with or without CAP_SYS_ADMIN."""
        with self.lock:
            return self.tree.iomem_text(privileged=privileged, depth_cap=self.rules.iomem_depth_cap)

    def explain(self, op: str, span: Range | str) -> Verdict:
        """The verdict on `read`, `write` or `mmap` of a range."""
        span = as_range(span)
        judge = {"read": self.policy.read, "write": self.policy.write, "mmap": self.policy.mmap}
        if op not in judge:
            raise ControlError(f"unknown operation {op!r}: read, write or mmap")
        with self.lock:
            verdict = judge[op](span.start, span.size)
            looked_at = self.poisoned and op != "mmap" and verdict.allowed
            bad = self._failing(*span) if looked_at else None
            return verdict if bad is None else verdict_at(self.poisoned, bad)

    @property
    def top(self) -> int:
        """The first page address behind everything that the machine knows of."""
        ends = [self.memory.top, self.high_memory, self.blocks.dimms.top if self.blocks else 0]
        ends += [child.end + 1 for child in self.tree.root.children[-1:]]
        limit = 1 << self.rules.physical_address_bits
        return min(max(ends) + PAGE_SIZE - 1 & -PAGE_SIZE, limit)
