"""System RAM that is added and removed while the machine runs: the tree, the policy, mappings."""

from bisect import bisect_left, bisect_right, insort
from typing import Any

from fakedev.model.denying import unmapped
from fakedev.model.effects import Reopened
from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_EXCLUSIVE, IORESOURCE_SYSTEM_RAM
from fakedev.model.policy import memory_blocks
from fakedev.model.ranges import Range, page_round
from fakedev.model.resource import Resource
from fakedev.model.world import World

_BUSY_RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY


class HotMemory(World):
    """The changes of a machine's resource tree and policy that memory hot-plug makes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._memblocks = list(memory_blocks(self.tree))
        self._boot_memory = (self.high_memory, tuple(self._memblocks))

    def add_ram(
        self,
        span: Range,
        name: str,
        *,
        flags: int = 0,
        parent: Resource | None = None,
        mergeable: bool = False,
    ) -> Resource:
        """`register_memory_resource`: BUSY System RAM; returns the node that holds it in the end.

        `high_memory` rises to its end, and mappings made before die where the kernel revokes.
        Raises ResourceConflictError with who is in the way, or who maps it (`deny-claim`).
        """
        with self._verbs:
            kind = IORESOURCE_SYSTEM_RAM | flags
            with unmapped(self, span, name, kind, parent), self.lock:
                resource = self.tree.request_region(
                    span.start, span.size, name, kind, parent=parent
                )
                resource.since = self._count + 1
                self.high_memory = max(self.high_memory, span.end)
                self._add_memblock(span, apart=bool(flags))
                self._refresh(span)
                revoked = self.policy.should_revoke(resource)
                if mergeable:
                    resource = self.tree.merge_system_ram_resource(resource)
                    self._refresh(resource.span)
                self.record("hotplug", f"{span} added: {name}", span)
                insort(self._survivors, (span, self._count, revoked is not None))
            if revoked is not None:
                self.end_mappings(revoked, f"added as {name}")
            return resource

    def claim_container(self, span: Range, name: str, *, exclusive: bool) -> Resource:
        """System RAM that is claimed, and whose BUSY bit is then cleared by hand (`virtio_mem`).

        Mappings die as with every claim. Raises ResourceConflictError (EBUSY).
        """
        flags = IORESOURCE_SYSTEM_RAM | (IORESOURCE_EXCLUSIVE if exclusive else 0)
        with self._verbs:
            resource = self._claim(span, name, flags)
            with self.lock:
                self._claims.remove(resource)
                resource.flags &= ~IORESOURCE_BUSY
                self._refresh(span)
            return resource

    def free_container(self, resource: Resource) -> None:
        """Let a region go that `claim_container` has claimed, with what is left inside."""
        with self._verbs:
            if resource.parent is not None:
                self.drop_resource(resource)
                with self.lock:
                    self._forget_claims([resource.span])
            self.publish(Reopened(page_round(resource.span)))

    def free_ram(self, span: Range) -> None:
        """`release_mem_region_adjustable`: the range is nobody's again. `high_memory` stays."""
        with self._verbs:
            with self.lock:
                self._release(span)
                self._drop_memblock(span)
                self._forget_survivors(span)
                self._refresh(span)
                self.record("hotplug", f"{span} removed", span)
            self.publish(Reopened(page_round(span)))

    def _forget_survivors(self, span: Range) -> None:
        """Forget the claims that lie inside a range. They are sorted: there may be thousands."""
        first = bisect_left(self._survivors, span.start, key=_start)
        last = bisect_left(self._survivors, span.end, first, key=_start)
        found = self._survivors[first:last]
        left = [survivor for survivor in found if survivor[0].end > span.end]
        kept = self._survivors[:]
        kept[first:last] = left
        self._survivors = kept

    def _release(self, span: Range) -> None:
        """Take the range out of every BUSY System RAM node that holds a part of it."""
        nodes = [n for n in self.tree.root.descend(*_ends(span)) if n.matches(_BUSY_RAM)]
        for node in nodes:
            whole = node.span
            low, high = max(whole.start, span.start), min(whole.end, span.end)
            reparent = self.rules.reparents_on_split
            if self.tree.release_mem_region_adjustable(low, high - low, reparent=reparent):
                self._refresh(whole)  # what is left of it has another address, or is another node
            else:
                part = Range(low, high - low)
                self.record("error", f"Unable to release resource <{part}> (-EINVAL)", part)

    def boot_ram(self) -> None:
        """`high_memory` and memblock as they were at boot; called under `lock`, with the tree ready."""
        self.high_memory, blocks = self._boot_memory
        self._memblocks = list(blocks)
        self._refresh(Range(0, 0))

    def _refresh(self, span: Range) -> None:
        """Compile the policy anew for a range."""
        self.policy = self.policy.updated(
            self.tree,
            span.start,
            span.end,
            high_memory=self.high_memory,
            memblocks=tuple(self._memblocks),
        )

    def _add_memblock(self, span: Range, *, apart: bool) -> None:
        """`memblock_add_node`: neighbours become one, but for memory that a driver manages."""
        blocks = self._memblocks
        first = last = bisect_left(blocks, span)
        low, high = span.start, span.end
        if not apart and first and blocks[first - 1].end == low:
            first -= 1
            low = blocks[first].start
        if not apart and last < len(blocks) and blocks[last].start == high:
            high = blocks[last].end
            last += 1
        blocks[first:last] = [Range(low, high - low)]

    def _drop_memblock(self, span: Range) -> None:
        """`memblock_remove`: what is left of the blocks that share bytes with a range."""
        blocks = self._memblocks
        first = bisect_right(blocks, span.start, key=lambda block: block.end)
        last = bisect_left(blocks, span.end, first, key=lambda block: block.start)
        left = [part for block in blocks[first:last] for part in _without(block, span)]
        blocks[first:last] = left


def _ends(span: Range) -> tuple[int, int]:
    return span.start, span.end - 1


def _start(survivor: tuple[Range, int, bool]) -> int:
    return survivor[0].start


def _without(block: Range, hole: Range) -> list[Range]:
    """What is left of a range when another is taken out."""
    parts = ((block.start, min(block.end, hole.start)), (max(block.start, hole.end), block.end))
    return [Range(low, high - low) for low, high in parts if low < high]
