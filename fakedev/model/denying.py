"""`claim_policy: deny-claim`: a claim fails while somebody maps what it would protect.

The alternative that was argued for when revocation came to the kernel: a driver's request fails with
EBUSY, as if another driver had the region, and no process loses a mapping. What counts are mappings
(not pages of them, nor descriptors) of every file that shares the mapping of `/dev/mem`. A claim
that protects nothing (`iomem=relaxed`, the first MiB of x86, no IO_STRICT_DEVMEM) is let through.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from fakedev.model.effects import Mapper
from fakedev.model.errors import ClaimDeniedError
from fakedev.model.ranges import Range, page_round
from fakedev.model.resource import Resource

if TYPE_CHECKING:
    from fakedev.model.world import World

POLICY = "deny-claim"
_OPEN: AbstractContextManager[None] = nullcontext()


def unmapped(
    world: "World", span: Range, name: str, flags: int = 0, parent: Resource | None = None
) -> AbstractContextManager[None]:
    """Place a claim inside: nobody maps its pages, nor begins to. For a verb, before it takes `lock`.

    `flags`, `parent`: those of the claim. Raises ResourceConflictError (EBUSY) that names who maps
    them, or who is in the way; nothing has changed then. Other policies let everything through.
    """
    if world.rules.claim_policy != POLICY or not world.asks:
        return _OPEN
    return _unmapped(world, span, name, flags, parent)


@contextmanager
def _unmapped(
    world: "World", span: Range, name: str, flags: int, parent: Resource | None
) -> Iterator[None]:
    pages = page_round(span)
    with world.gate(pages):
        if protects(world, span, name, flags, parent) and (held := world.holders(pages)):
            world.record("denied", _text(span, name, held), span, mappers=tuple(held))
            raise ClaimDeniedError(f"{_text(span, name, held)} (EBUSY, claim_policy {POLICY})")
        yield


def protects(
    world: "World", span: Range, name: str, flags: int = 0, parent: Resource | None = None
) -> bool:
    """Whether the kernel would revoke mappings for this claim. Raises ResourceConflictError."""
    with world.lock:
        tree = world.tree
        trial = tree.request_region(span.start, span.size, name, flags, parent=parent)
        try:
            after = world.policy.updated(tree, span.start, span.end)
            return after.should_revoke(trial) is not None
        finally:
            tree.release_resource(trial)


def _text(span: Range, name: str, held: list[Mapper]) -> str:
    shown = [f"{who.comm}[{who.pid}] maps {who.span}" for who in held[:4]]
    more = [f"and {len(held) - 4} more"] if len(held) > 4 else []
    return f"cannot claim {span} for {name}: {', '.join([*shown, *more])}"
