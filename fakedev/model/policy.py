"""What `/dev/mem` answers: read, write, mmap and claims, judged as `drivers/char/mem.c` does.

A Policy is compiled from a tree and rules once and never changes; after a change of the tree,
`updated` makes the next one. An access costs one bisect, whatever the number of resources.

Order of the checks. read, write: the whole request against `high_memory` (EFAULT), then page by
page whether it is allowed (EPERM) and can be translated (EFAULT). mmap: alignment and length, wrap
and width of the address (EOVERFLOW, EINVAL), then every page (EPERM; EINVAL from the x86 PAT hook).
"""

import errno
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Self

from fakedev.model.flags import IORESOURCE_SYSTEM_RAM
from fakedev.model.intervals import Cell, Compiler, IntervalMap
from fakedev.model.kernel import KernelRules
from fakedev.model.ranges import ADDRESS_LIMIT, PAGE_MASK, Range, page_round
from fakedev.model.resource import Resource, conflict_text
from fakedev.model.resources import ResourceTree
from fakedev.model.verdict import Access, Verdict, exclusive_rule, ram_rule

__all__ = ["Access", "Policy", "Verdict", "memory_blocks"]


def memory_blocks(tree: ResourceTree) -> tuple[Range, ...]:
    """List the top-level System RAM of a tree: what memblock knows when nobody says otherwise."""
    return tuple(top.span for top in tree.root.children if top.matches(IORESOURCE_SYSTEM_RAM))


class Policy:
    """The compiled rules of one machine at one moment.

    `high_memory` is the physical address behind the direct map (x86, riscv64). `memblocks` are the
    memory regions of arm64 and riscv64, sorted; by default the System RAM of the tree at this time.
    `claim_verdict` alone looks at the tree itself, so it speaks of the tree as it is now.
    """

    __slots__ = (
        "_blocks",
        "_compiler",
        "_limit",
        "_map",
        "_tree",
        "_width",
        "high_memory",
        "rules",
    )

    def __init__(
        self,
        tree: ResourceTree,
        rules: KernelRules,
        *,
        high_memory: int,
        memblocks: Sequence[Range] | None = None,
        compiled: IntervalMap | None = None,
    ) -> None:
        self.rules = rules
        self.high_memory = high_memory
        self._tree = tree
        self._blocks = memory_blocks(tree) if memblocks is None else memblocks
        self._compiler = Compiler(rules, self._blocks)
        self._map = compiled or IntervalMap(self._compiler.cells(tree))
        # What the CPU can address: 1 behind the last byte.
        self._width = ADDRESS_LIMIT if rules.arch == "riscv64" else 1 << rules.physical_address_bits
        # Requests that end here at most need no further look at the range (arm64 always does).
        self._limit = 0 if rules.arch == "aarch64" else high_memory

    def updated(
        self,
        tree: ResourceTree,
        start: int,
        end: int,
        *,
        high_memory: int | None = None,
        memblocks: Sequence[Range] | None = None,
    ) -> Self:
        """Make the policy after a change of the tree within `start` to `end` (exclusive).

        Costs the resources on those pages and one copy of the map. Pass `high_memory` (and
        `memblocks`, where the architecture has them) when memory was added or removed there.
        """
        blocks = self._blocks if memblocks is None else memblocks
        low, high = start & ~PAGE_MASK, min((end + PAGE_MASK) & ~PAGE_MASK, ADDRESS_LIMIT)
        compiled = self._map
        if low < high:
            compiled = compiled.replaced(Compiler(self.rules, blocks).cells(tree, low, high))
        return type(self)(
            tree,
            self.rules,
            high_memory=self.high_memory if high_memory is None else high_memory,
            memblocks=blocks,
            compiled=compiled,
        )

    def under(self, rules: KernelRules) -> Self:
        """Make the policy of rules that differ in their lockdown, which no page depends on."""
        return type(self)(
            self._tree,
            rules,
            high_memory=self.high_memory,
            memblocks=self._blocks,
            compiled=self._map,
        )

    # -- single questions, by their kernel names ------------------------------------------------

    def devmem_is_allowed(self, address: int) -> Access:
        """Answer for the page of an address: DENY, ALLOW or ZEROS (0, 1, 2)."""
        return self._map.find(address).facts.allowed

    def iomem_is_exclusive(self, address: int) -> Resource | None:
        """Return the resource that makes the page of an address exclusive, or None."""
        return self._map.find(address).facts.exclusive

    def valid_phys_addr_range(self, address: int, size: int) -> bool:
        """Tell if read and write may look at a request at all; else it is EFAULT as a whole."""
        if self.rules.arch == "aarch64":
            return any(b.start <= address < b.end and address + size <= b.end for b in self._blocks)
        if self.rules.arch == "x86_64":
            # Unsigned, from the last byte: nothing at address 0 wraps to the top and fails.
            return (address + size - 1) % ADDRESS_LIMIT < self.high_memory
        return address + size <= self.high_memory

    def valid_mmap_phys_addr_range(self, address: int, size: int) -> bool:
        """Tell if the CPU can address the range (riscv64 does not test)."""
        if self.rules.arch == "riscv64":
            return True
        return (address + size - 1) >> self.rules.physical_address_bits == 0

    # -- read and write -------------------------------------------------------------------------

    def read(self, address: int, size: int) -> Verdict:
        """Judge a read of `size` bytes: EFAULT for the range, then EPERM or EFAULT by page."""
        end = address + size
        if size > 0 and end <= self._limit:
            cells = self._map
            cell = cells.cells[bisect_right(cells.starts, address) - 1]
            if end <= cell.end and cell.read is not None:
                return cell.read
        return self._judge_data(address, size)

    write = read
    """Judge a write: the tests are those of read. A refused write has stored the pages before."""

    def spans(self, address: int, size: int) -> list[tuple[int, int, Access]]:
        """Cut a request into runs of what read and write meet: (start, end exclusive, access)."""
        runs: list[tuple[int, int, Access]] = []
        end = min(address + size, ADDRESS_LIMIT)
        for cell in self._map.over(address, end):
            start, access = max(cell.start, address), cell.facts.data
            if runs and runs[-1][2] is access:
                start = runs.pop()[0]
            runs.append((start, min(cell.end, end), access))
        return runs

    def _judge_data(self, address: int, size: int) -> Verdict:
        end = address + size
        if not self.valid_phys_addr_range(address, size):
            return _refused(errno.EFAULT, self._range_rule(address, size), address, end)
        if size == 0:
            rule = "read_mem, write_mem: a request of 0 bytes tests no page"
            return _allowed(rule, address, end)
        cells = list(self._map.over(address, end))
        for cell in cells:
            if cell.facts.data in (Access.DENY, Access.FAULT):
                return self._data_refusal(cell, max(address, cell.start) & ~PAGE_MASK)
        access = _worst(cell.facts.data for cell in cells)
        verdict = self._granted(cells, access, "read gives zeros, write is counted and dropped")
        if len(cells) == 1:
            cells[0].read = verdict
        return verdict

    def _data_refusal(self, cell: Cell, page: int) -> Verdict:
        facts = cell.facts
        if facts.data is Access.DENY:
            return self._page_refusal(cell, page, errno.EPERM)
        rule = f"copy_from_kernel_nofault: page {page:#x} is not in the direct map"
        if facts.ram is not None and self.rules.arch == "x86_64":
            rule = (
                f"xlate_dev_mem_ptr: memremap refuses page {page:#x}: a part of it is {facts.ram}, "
                "another part is not (REGION_MIXED)"
            )
        return _refused(errno.EFAULT, rule, cell.start, cell.end, facts.ram, Access.FAULT)

    def _range_rule(self, address: int, size: int) -> str:
        where = f"valid_phys_addr_range: {size:#x} bytes at {address:#x}"
        if self.rules.arch == "aarch64":
            return f"{where} do not lie inside one memory block"
        if not size and not address:
            return f"{where}: the address of the last byte wraps"
        return f"{where} do not end below high_memory ({self.high_memory:#x})"

    # -- mmap -----------------------------------------------------------------------------------

    def mmap(self, address: int, size: int) -> Verdict:
        """Judge a mapping at offset `address`; `size` is rounded up to pages as the kernel does."""
        cells = self._map
        cell = cells.cells[bisect_right(cells.starts, address) - 1]
        if (
            cell.mapped is not None
            and size > 0
            and not address & PAGE_MASK
            and address + size <= cell.end
            and address + size <= self._width
        ):
            return cell.mapped
        if address & PAGE_MASK or size <= 0:
            rule = f"mmap: offset {address:#x} is not a multiple of the page size"
            rule = "mmap: the length is 0" if size <= 0 else rule
            return _refused(errno.EINVAL, rule, address, address + size)
        end = address + ((size + PAGE_MASK) & ~PAGE_MASK)
        if end > ADDRESS_LIMIT:
            rule = f"file_mmap_ok: {size:#x} bytes at {address:#x} end beyond 64 bits"
            return _refused(errno.EOVERFLOW, rule, address, end)
        if not self.valid_mmap_phys_addr_range(address, end - address):
            return _refused(errno.EINVAL, self._width_rule(end), address, end)
        return self._judge_map(address, end)

    def _width_rule(self, end: int) -> str:
        bits = self.rules.physical_address_bits
        return f"valid_mmap_phys_addr_range: {end - 1:#x} is wider than the {bits} bits of this CPU"

    def _judge_map(self, address: int, end: int) -> Verdict:
        cell = self._map.find(address)
        if end <= cell.end and cell.mapped is not None:
            return cell.mapped
        cells = list(self._map.over(address, end))
        if self.rules.strict_devmem or self.rules.mmap_ram_einval:
            code = errno.EPERM if self.rules.strict_devmem else errno.EINVAL
            for cell in cells:
                if cell.facts.allowed is Access.DENY:
                    return self._page_refusal(cell, max(address, cell.start), code)
        access = _worst(cell.facts.allowed for cell in cells)
        verdict = self._granted(cells, access, "mmap maps the real RAM")
        if len(cells) == 1:
            cells[0].mapped = verdict
        return verdict

    def mmap_bar(self, bar: Range, *, older: bool = False) -> Verdict:
        """Judge a mapping through `resourceN` (`pci_mmap_resource`): the BAR's first page decides.

        `older`: it may have been made before the kernel was locked down.
        """
        page = page_round(bar)
        if not older and self.rules.locked_down("integrity"):
            level = self.rules.lockdown_level
            rule = f"pci_mmap_resource: security_locked_down(LOCKDOWN_PCI_ACCESS), level {level}"
            return _refused(errno.EPERM, rule, page.start, page.end)
        exclusive = self.iomem_is_exclusive(bar.start)
        if exclusive is None:
            rule = "pci_mmap_resource: the first page of the BAR is not exclusive"
            return _allowed(rule, page.start, page.end)
        rule = f"pci_mmap_resource: {exclusive_rule(page.start, exclusive, self.rules)}"
        return _refused(errno.EINVAL, rule, page.start, page.end, exclusive)

    # -- verdicts -------------------------------------------------------------------------------

    def _granted(self, cells: Sequence[Cell], access: Access, low_ram: str) -> Verdict:
        start, end = cells[0].start, cells[-1].end
        if not self.rules.strict_devmem:
            rule = "page_is_allowed: without CONFIG_STRICT_DEVMEM every page is allowed"
            return _allowed(rule, start, end)
        rule = "devmem_is_allowed: no page is System RAM or exclusive"
        if access is Access.ZEROS:
            rule = f"devmem_is_allowed: System RAM below 1 MiB: {low_ram}"
        elif any(cell.facts.exclusive for cell in cells):
            rule = "devmem_is_allowed: below 1 MiB a BUSY page that is not System RAM is allowed"
        return _allowed(rule, start, end, access)

    def _page_refusal(self, cell: Cell, page: int, code: int) -> Verdict:
        """Refuse because of one page; the generic version asks for exclusive first, x86 for RAM."""
        ram, exclusive = cell.facts.ram, cell.facts.exclusive
        resource, rule = ram, "" if ram is None else ram_rule(page, ram)
        if exclusive is not None and (ram is None or self.rules.arch != "x86_64"):
            resource, rule = exclusive, exclusive_rule(page, exclusive, self.rules)
        if code == errno.EINVAL:
            rule = f"phys_mem_access_prot_allowed, with PAT: {rule}"
        return _refused(code, rule, cell.start, cell.end, resource)

    # -- claims ---------------------------------------------------------------------------------

    def claim_verdict(self, start: int, size: int) -> Verdict:
        """Judge a driver's `request_mem_region`: EBUSY names the resource in the way."""
        last = start + size - 1
        place, conflict = self._tree.placement(start, last)
        if conflict is None:
            rule = f"__request_region: the range is free below {place}"
            return _allowed(rule, start, last + 1)
        rule = f"__request_region: {conflict_text(conflict, start, last)}"
        return _refused(errno.EBUSY, rule, start, last + 1, conflict)

    def should_revoke(self, resource: Resource) -> Range | None:
        """Return the pages whose mappings `revoke_iomem` drops after `resource` was claimed.

        None when nothing is revoked: the kernel does not, or both the first and the last page are
        still allowed (`iomem=relaxed`, first MiB of x86). This policy must know the claim already.
        The count of pages comes from the size alone: the last page of a claim that is not aligned
        can be missed, as in the kernel.
        """
        if not self.rules.revokes:
            return None
        ends = (resource.start, resource.end)
        if all(self.devmem_is_allowed(address) is not Access.DENY for address in ends):
            return None
        size = resource.end + 1 - resource.start
        return Range(resource.start & ~PAGE_MASK, (size + PAGE_MASK) & ~PAGE_MASK)


def _worst(accesses: Iterable[Access]) -> Access:
    return Access.ZEROS if Access.ZEROS in accesses else Access.ALLOW


def _allowed(rule: str, start: int, end: int, access: Access = Access.ALLOW) -> Verdict:
    return Verdict(
        allowed=True, errno=0, rule=rule, resource=None, access=access, start=start, end=end
    )


def _refused(
    code: int,
    rule: str,
    start: int,
    end: int,
    resource: Resource | None = None,
    access: Access = Access.DENY,
) -> Verdict:
    return Verdict(
        allowed=False, errno=code, rule=rule, resource=resource, access=access, start=start, end=end
    )
