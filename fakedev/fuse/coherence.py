"""One memory behind every file that the kernel caches pages of.

Theory of operation
-------------------
An *alias* is one kernel inode through which pages of physical memory are mapped. The rules:

* **A page is cached by at most one alias at a time**: `owners` knows by which.
* **Only the notifier thread invalidates pages, and it never holds the lock while it does.** A
  request that needs a page recalled becomes a job of that thread, which answers it when done. The
  worker that took it goes on serving: an invalidation waits for reads of the same page that are in
  flight, and for the write-back of dirty pages.
* **The owner of a page is always served at once**, even while its page is being recalled: the
  recall may be waiting for exactly that read. Such a read is noted and the recall is repeated.
* **A page that is locked by a queued request is never invalidated**: the invalidation would wait for
  the queue. `_waiting` knows these pages; there is nothing in them to recall, and the request is
  judged again when its turn comes. For the same reason read-ahead over several pages that would
  need a recall is refused with EIO: the kernel then reads page by page.
* **Owners change only on the notifier thread**, but for pages that nobody owned: what was found to
  be an owner still is one when its page is recalled.
* **A revoked page never heals.** After a revoke, or a fault that the policy refused, the inode that
  had it keeps it lost until its last descriptor and mapping are gone. Later opens get a new inode.
* **The notifier never drops a name**: that waits for whoever lists the directory, and the page that
  the listing is put into may wait for the notifier. Who publishes the effect does it.
"""

import errno
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from fakedev.fuse.deferred import Deferred
from fakedev.fuse.gate import Gate
from fakedev.fuse.jobs import Jobs
from fakedev.fuse.owners import Alias, Owners
from fakedev.model.effects import Changed, Effect, Reopened, Revoke
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_SHIFT, PAGE_SIZE, Range, page_round
from fakedev.model.world import settled
from fakedev.views.node import Buffers, Refused
from fakedev.views.physical import PhysicalHandle

T = TypeVar("T")
# Who needs pages only for a moment, and keeps losing the race for them, goes ahead after so many tries.
PATIENCE = 100
# How often a gate is tried to be shut while nobody has a page behind it.
TRIES = 20


@dataclass(slots=True)
class _Recall:
    """Pages that are being recalled from everyone but one; `again` when one was served meanwhile."""

    spans: tuple[Range, ...]
    but: Alias | None
    again: bool = False

    def hits(self, span: Range) -> bool:
        """Whether a page of `span` is among them."""
        return any(mine.overlaps(span) for mine in self.spans)


class Coherence:
    """Owners of cached pages, and the thread that recalls and revokes them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.RLock()
        self._owners = Owners()
        self._aliases = self._owners.aliases
        self._recall: _Recall | None = None
        self._waiting: Counter[tuple[Alias, int]] = Counter()
        self._open: set[Alias] = set()
        self._gate = Gate()
        self._notifier = Jobs("fakedev-notifier", self._failed)
        self.submit = self._notifier.submit
        machine.subscribers.append(self._on_effect)
        machine.settle = self.settle
        machine.posted = self._post
        machine.gate = self.gate

    def _failed(self, error: Exception) -> None:
        self._machine.record("error", f"notifier: {error!r}")

    def close(self) -> None:
        """Stop the notifier thread after the jobs that are queued."""
        self._machine.subscribers.remove(self._on_effect)
        self._machine.settle = settled
        self._machine.posted = self._machine.publish
        self._machine.gate = lambda _: nullcontext()
        self._notifier.close()

    # -- accesses, called by workers ----------------------------------------------------------

    def opened(self, alias: Alias) -> bool:
        """A descriptor was opened: whether we know of the pages that the kernel may have of the file.

        Else they are from before its last close, and a mapping would find them without asking us.
        """
        with self._lock:
            alias.opens += 1
            self._open.add(alias)
            return alias.filled

    def released(self, alias: Alias) -> None:
        """A descriptor and all its mappings are gone."""
        with self._lock:
            alias.opens -= 1
            if alias.opens == 0:
                self._open.discard(alias)
                if alias.filled:
                    self._defer(lambda: self._forget(alias))

    def _forget(self, alias: Alias) -> None:
        with self._lock:
            if alias.opens == 0:
                self._owners.drop(alias)

    def fault(self, alias: Alias, handle: PhysicalHandle, offset: int, size: int) -> Buffers:
        """Pages for the page cache of `alias`. Raises Refused, or Deferred if another alias has them."""
        with self._lock:
            alone = alias.filled and len(self._aliases) == 1 and self._recall is None
            if alone and alias.lost.empty and self._gate.shut is None:
                return self._pages(alias, handle, offset, size)
            data = self._judge(alias, handle, offset, size)
            span = handle.span(offset, size)
            if self._must_wait(span, alias):
                if size > PAGE_SIZE:
                    raise Refused(errno.EIO)
                raise self._defer_locked(
                    alias, span, lambda: self._grant(alias, handle, offset, size)
                )
            return data

    def _must_wait(self, span: Range, alias: Alias) -> bool:
        """True when others may cache pages of `span`; else they are now the alias's own."""
        if self._gate.shut is not None and self._gate.holds(span):
            return True
        if len(self._aliases) > 1:
            if self._held(span, alias):
                return True
            self._owners.own(span, alias)
        recall = self._recall
        if recall is not None and recall.but is not alias and recall.hits(span):
            recall.again = True
        return False

    def _judge(self, alias: Alias, handle: PhysicalHandle, offset: int, size: int) -> Buffers:
        """The pages, if this inode may have them."""
        if not alias.filled:
            self._owners.register(alias)
        if not alias.lost.empty and alias.lost.overlaps(handle.span(offset, size)):
            verdict = handle.explain(offset, size)
            raise Refused(verdict.errno or errno.EIO, verdict)
        return self._pages(alias, handle, offset, size)

    @staticmethod
    def _pages(alias: Alias, handle: PhysicalHandle, offset: int, size: int) -> Buffers:
        try:
            return handle.fault(offset, size)
        except Refused:
            if size <= PAGE_SIZE:
                alias.lost.add(page_round(handle.span(offset, size)))
            raise

    def read(self, alias: Alias, handle: PhysicalHandle, offset: int, size: int) -> Buffers:
        """read(2). The kernel has written back what `alias` itself caches; others are asked to."""
        aliases = self._aliases
        if aliases and (len(aliases) > 1 or aliases[0] is not alias):
            span = handle.span(offset, size)
            with self._lock:
                if self._held(span, alias):
                    raise self._defer(
                        lambda: self._without(span, alias, lambda: handle.read(offset, size))
                    )
        return handle.read(offset, size)

    def write(self, alias: Alias, handle: PhysicalHandle, offset: int, data: memoryview) -> int:
        """write(2). Where pages may be mapped, it lands while nobody caches them."""
        with self._lock:
            if not self._aliases:
                return handle.write(offset, data)
            span, kept = handle.span(offset, len(data)), memoryview(bytes(data))
            raise self._defer(lambda: self._without(span, None, lambda: handle.write(offset, kept)))

    def write_through(
        self, alias: Alias, handle: PhysicalHandle, offset: int, data: memoryview
    ) -> int:
        """write(2) of a kernel without mappable direct I/O: the page is in its cache, and locked.

        Such a write takes the page like a fault, so it must not be longer than one.
        """
        span = handle.span(offset, len(data))
        with self._lock:
            if alias.lost.overlaps(span):
                raise Refused(errno.EIO)  # a written page would heal the mapping
            if not alias.filled:
                self._owners.register(alias)
            if not self._must_wait(span, alias):
                return handle.write(offset, data)
            kept = memoryview(bytes(data))

            def take() -> int:
                self._owners.own(span, alias)
                return handle.write(offset, kept)

            raise self._defer_locked(
                alias, span, lambda: self._without(span, alias, take, patience=None)
            )

    # -- the machine's side -------------------------------------------------------------------

    def settle(self, span: Range | Sequence[Range], action: Callable[[], Any]) -> Any:
        """Do `action` while no file caches a page of the range or ranges; dirty ones are written back before.

        `action` must not settle again: it runs under the lock.
        """
        with self._lock:
            if not self._aliases:
                return action()
        return self._await(lambda: self._without(_spans(span), None, action))

    @contextmanager
    def gate(self, span: Range) -> Iterator[None]:
        """While it is held, no page of the range is handed out; who asks for one waits.

        One at a time: the verbs come one after the other. Pages that the kernel still has, perhaps of a
        mapping that is gone, are recalled before: a new mapping would find them without asking. Who
        keeps touching them meanwhile has them mapped, which is what the holder of the gate looks for.
        """
        for _ in range(TRIES):
            if self._await(lambda: self._shut(span)):
                break
        with self._lock:
            self._gate.shut = span
        try:
            yield
        finally:
            with self._lock:
                kept = self._gate.open()
            for deferred in kept:
                self.submit(deferred.run)

    def _shut(self, span: Range) -> bool:
        """Recall a range and shut the gate, unless a page of it was served meanwhile."""
        with self._lock:
            held = self._held(span, None)
            recall = self._recall = _Recall((span,), None)
        for alias, run in held:
            alias.invalidate(run)
        with self._lock:
            self._recall = None
            if not recall.again:
                self._gate.shut = span
            return not recall.again

    def open_files(self) -> tuple[Alias, ...]:
        """Files with a descriptor or a mapping."""
        with self._lock:
            return tuple(self._open)

    def caching(self) -> tuple[Alias, ...]:
        """Files that pages are cached of."""
        return tuple(self._aliases)

    def quietly(self, action: Callable[[], T]) -> T | None:
        """Do `action`, which may settle, if no file caches anything; else None, and it is not done."""
        with self._lock:
            return None if self._aliases else action()

    def _on_effect(self, effect: Effect) -> None:
        if isinstance(effect, Revoke):
            self._expire(self._await(lambda: self._revoke(effect.span)))
        elif isinstance(effect, Reopened):
            self._expire(self._await(lambda: self._worn(effect.span)))
        elif isinstance(effect, Changed):
            self.settle(effect.span, lambda: None)

    def _post(self, effect: Effect) -> None:
        """Carry out an effect soon: for who must not wait, because the notifier may wait for it."""
        self.submit(lambda: self._machine.publish(effect))

    # -- jobs of the notifier thread ----------------------------------------------------------

    def _defer(self, job: Callable[[], Any]) -> Deferred:
        """Queue a job whose outcome answers a request; the lock is held."""
        return self._notifier.defer(job)

    def _defer_locked(self, alias: Alias, span: Range, job: Callable[[], Any]) -> Deferred:
        """Queue a job whose request holds the lock of a page of `alias` until it is answered."""
        mark = alias, span.start >> PAGE_SHIFT
        self._waiting[mark] += 1  # a READ and a WRITE of one page may both wait

        def run() -> Any:
            with self._lock:
                self._waiting[mark] -= 1
                self._waiting += Counter()  # without those that nobody waits for
            return job()

        return self._gate.keep(run) if self._gate.holds(span) else self._defer(run)

    def _held(self, span: Range, but: Alias | None) -> list[tuple[Alias, Range]]:
        """Who but `but` may cache pages of `span`, and which."""
        held = self._owners.held(span, but)
        if not self._waiting:
            return held
        return [(alias, part) for alias, run in held for part in self._unlocked(alias, run)]

    def _unlocked(self, alias: Alias, span: Range) -> list[Range]:
        """`span` without the pages that a queued request of `alias` has locked."""
        pages = range(span.start >> PAGE_SHIFT, (span.end - 1 >> PAGE_SHIFT) + 1)
        parts, at = [], pages.start
        for page in sorted(p for a, p in self._waiting if a is alias and p in pages):
            parts += [(at, page)] if at < page else []
            at = page + 1
        parts += [(at, pages.stop)] if at < pages.stop else []
        return [Range(a << PAGE_SHIFT, b - a << PAGE_SHIFT) for a, b in parts]

    def _await(self, job: Callable[[], Any]) -> Any:
        return self._notifier.wait(job)

    def _grant(self, alias: Alias, handle: PhysicalHandle, offset: int, size: int) -> Buffers:
        """Make `alias` the owner of a page and return its bytes."""
        span = handle.span(offset, size)

        def take() -> Buffers:
            data = self._judge(alias, handle, offset, size)
            self._owners.own(span, alias)
            return data

        return self._without(span, alias, take, patience=None)

    def _without(
        self,
        span: Range | Sequence[Range],
        but: Alias | None,
        action: Callable[[], T],
        *,
        patience: int | None = PATIENCE,
    ) -> T:
        """Do `action` under the lock when nobody but `but` caches a page of `span`."""
        spans = _spans(span)
        while True:
            with self._lock:
                held = [piece for one in spans for piece in self._held(one, but)]
                if not held:
                    return action()
                recall = self._recall = _Recall(spans, but)
            for alias, run in held:
                alias.invalidate(run)
            with self._lock:
                self._recall = None
                if not recall.again:
                    return action()
            if patience is not None:
                patience -= 1
                if patience == 0:
                    return self._go_ahead(held, action)

    def _go_ahead(self, held: list[tuple[Alias, Range]], action: Callable[[], T]) -> T:
        with self._lock:
            outcome = action()
        for alias, run in held:
            alias.invalidate(run)
        return outcome

    def _revoke(self, span: Range) -> list[Alias]:
        with self._lock:
            hit = [alias for alias in self._aliases if alias.revocable()]
            for alias in hit:
                alias.lost.add(span)
            held = [(a, part) for a in hit for part in self._unlocked(a, span)]
        for alias, part in held:
            alias.invalidate(part)
        # A resourceN may be mapped anew although pages of it were claimed.
        return self._worn(span, lambda alias: alias.mappable(span))

    def _worn(self, span: Range, which: Callable[[Alias], bool] = lambda _: True) -> list[Alias]:
        """Pages can be mapped again, by inodes that never lost them: those whose names are to go."""
        with self._lock:
            worn = [a for a in self._aliases if not a.expired and a.lost.overlaps(span)]
        worn = [alias for alias in worn if which(alias)]
        for alias in worn:
            alias.expired = True
        return worn

    @staticmethod
    def _expire(worn: Iterable[Alias]) -> None:
        for alias in worn:
            alias.expire()


def _spans(span: Range | Sequence[Range]) -> tuple[Range, ...]:
    return (span,) if isinstance(span, Range) else tuple(span)
