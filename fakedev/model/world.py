"""What a machine is made of, and how its state changes: under a lock, logged, with effects at the end.

* `lock` is held for a decision or a change of state, never while effects are carried out.
* A verb holds `verb()` from its first change until its effects are done, so verbs and their effects
  have one order. Verbs may call each other.
* Effects go to the subscribers without `lock`. A subscriber returns when the effect is done.
"""

import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from fakedev.model.denying import POLICY as DENY
from fakedev.model.denying import unmapped
from fakedev.model.effects import Changed, Effect, Event, Mapper, Reopened, Revoke
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.files import StaticFile
from fakedev.model.flags import IORESOURCE_EXCLUSIVE
from fakedev.model.kernel import KernelRules
from fakedev.model.memory import PhysicalMemory
from fakedev.model.policy import Policy
from fakedev.model.ranges import Range, page_round, parse_range
from fakedev.model.resource import Resource, conflict_text
from fakedev.model.resources import ResourceTree

T = TypeVar("T")
Settle = Callable[[Range | Sequence[Range], Callable[[], Any]], Any]
"""Do an action, which does not settle itself, while no file caches a page of the range or ranges."""
LOG_LENGTH = 10_000


def as_range(span: Range | str) -> Range:
    """A range from text as `parse_range` reads it."""
    return parse_range(span) if isinstance(span, str) else span


def settled(_: Range | Sequence[Range], action: Callable[[], Any]) -> Any:
    """Nobody serves the machine, so nothing is cached."""
    return action()


class World:
    """State of a machine, its log, and the changes of its resource trees."""

    def __init__(
        self,
        rules: KernelRules,
        memory: PhysicalMemory,
        tree: ResourceTree,
        *,
        name: str = "machine",
        files: Mapping[str, StaticFile] | None = None,
        high_memory: int = 0,
        ports: ResourceTree | None = None,
    ) -> None:
        self.rules = rules
        self.memory = memory
        self.tree = tree
        self.name = name
        self.files = dict(files or {})
        self.high_memory = high_memory
        self.ports = ports or ResourceTree.ioports()
        self.port_space = PhysicalMemory(undecoded=memory.undecoded)
        self.pci: Any = None  # a PciBus of devices.pci
        self.blocks: Any = None  # a MemoryBlocks of devices.memory
        self.poison: Any = None  # a Poison of devices.memory
        self.poisoned: tuple[Range, ...] = ()  # pages that failed: looked at by every access
        self.nd: Any = None  # an NdBus of devices.nd
        self.virtio_mem: Any = None  # a VirtioMem of devices.memory
        self.lock = threading.RLock()
        self._verbs = threading.RLock()
        self.policy = Policy(tree, rules, high_memory=high_memory)
        self.events: deque[Event] = deque(maxlen=LOG_LENGTH)
        self.subscribers: list[Callable[[Effect], None]] = []
        self.watchers: list[Callable[[Event], None]] = []
        self.service: Any = None  # what serves the machine, if anything does
        self.settle: Settle = settled
        self.posted: Callable[[Effect], None] = self._carry_out
        self.witness: Callable[[Range], Callable[[str], None] | None] = lambda _: None
        # Who maps pages of a range; and, while it is held, nobody begins to.
        self.holders: Callable[[Range], list[Mapper]] = lambda _: []
        self.gate: Callable[[Range], AbstractContextManager[Any]] = lambda _: nullcontext()
        self.comm_of: Callable[[int], str] = lambda _: "?"  # the name of a process
        self.boot_lockdown = rules.lockdown
        self.locked_since = 0  # the event that raised lockdown from none
        self.asks = True  # with `deny-claim`: who makes a claim asks who maps it
        self._count = 0
        self._claims: list[Resource] = []
        # Sorted: claim, event, were mappings revoked.
        self._survivors: list[tuple[Range, int, bool]] = []

    # -- claims -----------------------------------------------------------------------------

    def claim(self, span: Range | str, name: str, *, exclusive: bool = False) -> Resource:
        """A driver's `request_mem_region`: raises ResourceConflictError (EBUSY) with who is in the way."""
        span = as_range(span)
        with self._verbs:
            return self._claim(span, name, IORESOURCE_EXCLUSIVE if exclusive else 0)

    def _claim(self, span: Range, name: str, flags: int) -> Resource:
        with unmapped(self, span, name, flags), self.lock:
            resource = self.tree.request_region(span.start, span.size, name, flags)
            resource.since = self._count + 1
            self._claims.append(resource)
            self._recompile([span])
            revoked = self.policy.should_revoke(resource)
            verb = "exclusively claimed" if flags & IORESOURCE_EXCLUSIVE else "claimed"
            self.record("claim", f"{span} {verb} by {name}", span)
            insort(self._survivors, (span, self._count, revoked is not None))
        if revoked is not None:
            self.end_mappings(revoked, f"claimed by {name}")
        return resource

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """Claims made inside put back what was there before: `deny-claim` does not look. For a verb."""
        before, self.asks = self.asks, False
        try:
            yield
        finally:
            self.asks = before

    def end_mappings(self, span: Range, cause: str) -> None:
        """What a claim does to mappings, by `claim_policy`. Where it was denied them, nobody has one."""
        if self.rules.claim_policy == DENY:
            self.publish(Changed(page_round(span)))  # pages that an idle file is cached of
        else:
            self.revoke(span, cause)

    def revoke(self, span: Range, cause: str, *, even_cows: bool = True) -> None:
        """Let every mapping of a range die; who had one is logged soon after, as `lost`.

        `even_cows`: with its private copies.
        """
        with self._verbs:
            tell = self.witness(span)
            self.publish(Revoke(span, cause, even_cows))
            self.record("revoke", f"mappings of {span} revoked: {cause}", span)
            if tell is not None:
                tell(cause)

    def file_removed(self, span: Range) -> None:
        """The files that showed a range are gone: until 5.11 their mappings die with them."""
        if self.rules.zaps_removed_files:
            self.publish(Changed(page_round(span)))

    def release(self, span: Range | str) -> None:
        """A driver's `release_mem_region`: needs the exact range of a claim, else ControlError."""
        span = as_range(span)
        with self._verbs:
            with self.lock:
                if not self.tree.release_region(span.start, span.size):
                    raise ControlError(
                        f"Trying to free nonexistent resource <{span}>: {self._claims_text()}"
                    )
                self._forget_claims([span])
                self._recompile([span])
                self.record("release", f"{span} released", span)
            self.publish(Reopened(page_round(span)))

    def claim_port(self, span: Range, name: str) -> Resource:
        """A driver's `request_region` of I/O ports: raises ResourceConflictError (EBUSY)."""
        with self._verbs, self.lock:
            return self.ports.request_region(span.start, span.size, name, since=self._count + 1)

    def release_port(self, span: Range) -> None:
        """A driver's `release_region` of I/O ports: ControlError when nobody has claimed them."""
        with self._verbs, self.lock:
            if not self.ports.release_region(span.start, span.size):
                raise ControlError(f"Trying to free nonexistent I/O ports <{span}>")

    @property
    def claims(self) -> tuple[Resource, ...]:
        """Claims made by `claim`, oldest first."""
        return tuple(self._claims)

    def _forget_claims(self, spans: list[Range]) -> None:
        gone = set(spans)
        self._claims = [r for r in self._claims if r.span not in gone]
        self._survivors = [entry for entry in self._survivors if entry[0] not in gone]

    def _claims_text(self) -> str:
        held = ", ".join(f"{r.start:08x}-{r.end:08x} ({r.name})" for r in self._claims)
        return f"claimed are {held}" if held else "nothing is claimed"

    # -- the trees --------------------------------------------------------------------------

    def insert_resource(self, parent: Resource, new: Resource) -> None:
        """Place an idle node below `parent` (`request_resource`). Raises ResourceConflictError."""
        with self._verbs, self.lock:
            tree = self._tree_of(parent)
            conflict = tree.request_resource(parent, new)
            if conflict is not None:
                why = conflict_text(conflict, new.start, new.end)
                raise ResourceConflictError(f"cannot place {new}: {why}", conflict=conflict)
            self._recompile([new.span] if tree is self.tree else [])

    def drop_resource(self, node: Resource) -> None:
        """Take a node out with everything below it (`release_resource`)."""
        with self._verbs, self.lock:
            tree = self._tree_of(node)
            tree.release_resource(node)
            if tree is self.tree:
                self._forget_claims([r.span for r in self._claims if node in _above(r)])
                self._recompile([node.span])

    def _tree_of(self, node: Resource) -> ResourceTree:
        while node.parent is not None:
            node = node.parent
        return self.ports if node is self.ports.root else self.tree

    def _recompile(self, spans: Iterable[Range]) -> None:
        for span in spans:
            self.policy = self.policy.updated(self.tree, span.start, span.end)

    # -- bookkeeping ------------------------------------------------------------------------

    def verb(self) -> AbstractContextManager[Any]:
        """Hold while a verb runs: verbs and their effects come one after the other."""
        return self._verbs

    def record(
        self,
        kind: str,
        message: str,
        span: Range | None = None,
        *,
        mappers: tuple[Mapper, ...] = (),
    ) -> Event:
        """Append to the log and tell who waits."""
        with self.lock:
            self._count += 1
            event = Event(self._count, kind, message, span, mappers)
            self.events.append(event)
        for watcher in tuple(self.watchers):
            watcher(event)
        return event

    @property
    def now(self) -> int:
        """The number of the last event."""
        return self._count

    def publish(self, *effects: Effect) -> None:
        """Carry out effects, in order; returns when they are done. The caller does not hold `lock`."""
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        for subscriber in tuple(self.subscribers):
            subscriber(effect)

    def locked(self, action: Callable[[], T]) -> Callable[[], T]:
        """`action` under the machine's lock: memory is changed by one at a time."""

        def act() -> T:
            with self.lock:
                return action()

        return act


def _above(resource: Resource) -> list[Resource]:
    """A node and what it lies in."""
    chain = [resource]
    while chain[-1].parent is not None:
        chain.append(chain[-1].parent)
    return chain
