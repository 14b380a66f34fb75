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
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fakedev.model.effects import Changed, Effect, Event, Reopened, Revoke
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.files import StaticFile
from fakedev.model.flags import IORESOURCE_EXCLUSIVE
from fakedev.model.kernel import KernelRules
from fakedev.model.memory import PhysicalMemory
from fakedev.model.policy import Policy
from fakedev.model.ranges import PAGE_SIZE, Range, page_round, parse_range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree
from fakedev.model.verdict import Access, Verdict

T = TypeVar("T")
LOG_LENGTH = 10_000
ALLOW = Access.ALLOW  # looked up at every access


def _span(span: Range | str) -> Range:
    return parse_range(span) if isinstance(span, str) else span


class Machine:
    """A simulated machine. Ranges are `Range` or text as `parse_range` reads it; errors are FakedevError."""

    def __init__(
        self,
        rules: KernelRules,
        memory: PhysicalMemory,
        tree: ResourceTree,
        *,
        name: str = "machine",
        files: Mapping[str, StaticFile] | None = None,
        high_memory: int = 0,
    ) -> None:
        self.rules = rules
        self.memory = memory
        self.tree = tree
        self.name = name
        self.files = dict(files or {})
        self.high_memory = high_memory
        self.lock = threading.RLock()
        self._verbs = (
            threading.RLock()
        )  # held until the effects of a verb are done: they keep its order
        self.policy = Policy(tree, rules, high_memory=high_memory)
        self.events: deque[Event] = deque(maxlen=LOG_LENGTH)
        self.subscribers: list[Callable[[Effect], None]] = []
        self.service: Any = None  # what serves the machine, if anything does
        self.watchers: list[Callable[[Event], None]] = []
        self.settle: Callable[[Range, Callable[[], Any]], Any] = lambda _, action: action()
        self._count = 0
        self._claims: list[Resource] = []
        self._survivors: list[tuple[Range, int]] = []
        self._boot = memory.snapshot()

    # -- accesses ---------------------------------------------------------------------------

    def read(self, address: int, size: int) -> tuple[Verdict, list[memoryview]]:
        """read(2) of /dev/mem (`read_mem`): the verdict, and the bytes where it allows."""
        policy = self.policy
        verdict = policy.read(address, size)
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

        Pages before a refused one are written. EPERM hides that; EFAULT gives a short count.
        """
        size = len(data)
        with self.lock:
            verdict = self.policy.write(address, size)
            if verdict.access is Access.ALLOW and verdict.allowed and address + size <= verdict.end:
                self.memory.write(address, data)
                return verdict, size
            if verdict.allowed or self.policy.valid_phys_addr_range(address, size):
                taken = self._write_until_refused(address, data)
                return verdict, taken if verdict.allowed or verdict.errno == errno.EFAULT else 0
            return verdict, 0

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
        if verdict.allowed or self._survives(address, size, opened):
            return verdict, self.memory.buffers(address, size)
        return verdict, []

    def _survives(self, address: int, size: int, opened: int) -> bool:
        """Kernels that do not revoke leave mappings alive that are older than the claim."""
        return any(
            since > opened and page_round(span).start <= address < page_round(span).end
            for span, since in self._survivors
        )

    def stored(self, address: int, data: memoryview) -> None:
        """Stores through a mapping that were made while it was alive: they always land."""
        with self.lock:
            self.memory.write(address, data)

    @property
    def now(self) -> int:
        """The number of the last event."""
        return self._count

    # -- verbs ------------------------------------------------------------------------------

    def claim(self, span: Range | str, name: str, *, exclusive: bool = False) -> Resource:
        """A driver's `request_mem_region`: raises ResourceConflictError (EBUSY) with who is in the way."""
        span = _span(span)
        with self._verbs:
            return self._claim(span, name, IORESOURCE_EXCLUSIVE if exclusive else 0)

    def _claim(self, span: Range, name: str, flags: int) -> Resource:
        with self.lock:
            resource = self.tree.request_region(span.start, span.size, name, flags)
            resource.since = self._count + 1
            self._claims.append(resource)
            self._recompile([span])
            revoked = self.policy.should_revoke(resource)
            verb = "exclusively claimed" if flags else "claimed"
            self.record("claim", f"{span} {verb} by {name}", span)
            if revoked is None:
                self._survivors.append((span, self._count))
        if revoked is not None:
            self._publish([Revoke(revoked, name)])
            self.record("revoke", f"mappings of {revoked} revoked: claimed by {name}", revoked)
        return resource

    def release(self, span: Range | str) -> None:
        """A driver's `release_mem_region`: needs the exact range of a claim, else ControlError."""
        span = _span(span)
        with self._verbs:
            self._release(span)

    def _release(self, span: Range) -> None:
        with self.lock:
            if not self.tree.release_region(span.start, span.size):
                raise ControlError(
                    f"Trying to free nonexistent resource <{span}>: {self._claims_text()}"
                )
            self._forget_claims([span])
            self._recompile([span])
            self.record("release", f"{span} released", span)
        self._publish([Reopened(page_round(span))])

    def peek(self, span: Range | str) -> bytes:
        """The bytes that are there, whoever owns them; stores through live mappings are seen."""
        span = _span(span)
        data: bytes = self.settle(span, self._locked(lambda: self.memory.read(*span)))
        return data

    def poke(self, address: int, data: bytes) -> None:
        """Put bytes into memory behind the kernel's back. MemoryLayoutError where there is none."""
        span = Range(address, len(data))
        self.settle(span, self._locked(lambda: self.memory.place(address, data)))
        self.record("poke", f"{len(data)} bytes at {address:#x}", span)

    def reset(self) -> None:
        """Memory and claims as they were at boot. Mappings of claimed ranges stay dead."""
        with self._verbs:
            self._reset()

    def _reset(self) -> None:
        with self.lock:
            spans = [Range(r.start, r.end - r.start + 1) for r in self._claims]
            for span in spans:
                self.tree.release_region(span.start, span.size)
            self._forget_claims(spans)
            self._recompile(spans)
        self.settle(Range(0, self.top), self._locked(lambda: self.memory.restore(self._boot)))
        self.record("reset", "memory and claims are as they were at boot")
        self._publish([Reopened(page_round(span)) for span in spans])

    def iomem(self, *, privileged: bool = True) -> str:
        """`/proc/iomem` for an opener with or without CAP_SYS_ADMIN."""
        with self.lock:
            return self.tree.iomem_text(privileged=privileged, depth_cap=self.rules.iomem_depth_cap)

    def explain(self, op: str, span: Range | str) -> Verdict:
        """The verdict on `read`, `write` or `mmap` of a range."""
        span = _span(span)
        judge = {"read": self.policy.read, "write": self.policy.write, "mmap": self.policy.mmap}
        if op not in judge:
            raise ControlError(f"unknown operation {op!r}: read, write or mmap")
        with self.lock:
            return judge[op](span.start, span.size)

    @property
    def claims(self) -> tuple[Resource, ...]:
        """Claims made by `claim`, oldest first."""
        return tuple(self._claims)

    @property
    def top(self) -> int:
        """The first page address behind everything that the machine knows of."""
        ends = [self.memory.top, self.high_memory]
        ends += [child.end + 1 for child in self.tree.root.children[-1:]]
        limit = 1 << self.rules.physical_address_bits
        return min(max(ends) + PAGE_SIZE - 1 & -PAGE_SIZE, limit)

    # -- bookkeeping ------------------------------------------------------------------------

    def record(self, kind: str, message: str, span: Range | None = None) -> Event:
        """Append to the log and tell who waits."""
        with self.lock:
            self._count += 1
            event = Event(self._count, kind, message, span)
            self.events.append(event)
        for watcher in tuple(self.watchers):
            watcher(event)
        return event

    def _locked(self, action: Callable[[], T]) -> Callable[[], T]:
        """`action` under the machine's lock: memory is changed by one at a time."""

        def act() -> T:
            with self.lock:
                return action()

        return act

    def _publish(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            for subscriber in tuple(self.subscribers):
                subscriber(effect)

    def _recompile(self, spans: Iterable[Range]) -> None:
        for span in spans:
            self.policy = self.policy.updated(self.tree, span.start, span.end)

    def _forget_claims(self, spans: list[Range]) -> None:
        gone = set(spans)
        self._claims = [r for r in self._claims if Range(r.start, r.end - r.start + 1) not in gone]
        self._survivors = [(span, since) for span, since in self._survivors if span not in gone]

    def _claims_text(self) -> str:
        held = ", ".join(f"{r.start:08x}-{r.end:08x} ({r.name})" for r in self._claims)
        return f"claimed are {held}" if held else "nothing is claimed"


__all__ = ["Changed", "Machine", "ResourceConflictError"]
