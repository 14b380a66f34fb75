"""Who lost a mapping: told in the log soon after a revoke, without keeping the revoke waiting.

And who holds one: asked before a claim that has to fail then (`claim_policy: deny-claim`).

Looking at every process takes milliseconds, a claim a tenth of one. So the claim goes ahead, and the
look follows. A process that touched its page meanwhile is dead by then: of those, who had the file
open is known from before.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fakedev.fuse.jobs import Jobs
from fakedev.fuse.mappers import Seen, look, mappers
from fakedev.fuse.owners import Alias
from fakedev.model.effects import Mapper
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range, page_round

# Seconds that a look waits for more revokes.
MOMENT = 0.02
Look = Callable[[Seen], None]


class Witness:
    """Records a `lost` event for each revoke that took somebody's mapping."""

    def __init__(
        self,
        machine: Machine,
        aliases: Callable[[], Iterable[Alias]],
        opened: Callable[[], Iterable[Alias]] = tuple,
    ) -> None:
        self._machine = machine
        self._aliases = aliases
        self._opened = opened
        self._jobs = Jobs("fakedev-witness", self._failed)
        self._lock = threading.Lock()
        self._looks: list[Look] = []
        machine.witness = self.before
        machine.holders = self.holders

    def _failed(self, error: Exception) -> None:
        self._machine.record("error", f"witness: {error!r}")

    def close(self) -> None:
        """Finish what is being looked at."""
        self._machine.witness = lambda _: None
        self._machine.holders = lambda _: []
        self._jobs.close()

    def holders(self, span: Range) -> list[Mapper]:
        """Who maps pages of `span` through a file that shares the mapping of `/dev/mem`.

        A process that cannot be looked at counts when it has the file open and pages of the file
        were handed out.
        """
        shown = [(a, part) for a in self._opened() if a.shared and (part := _shown(a, span))]
        if not shown:
            return []
        found, unseen = look([alias.file for alias, _ in shown if alias.file is not None], span)
        for alias, part in shown:
            hidden = {who for who in alias.who() if who[0] in unseen and alias.filled}
            found += [
                Mapper(pid, comm, part)
                for pid, comm in sorted(hidden)
                if Path(f"/proc/{pid}").exists()
            ]
        return found

    def before(self, span: Range) -> Callable[[str], None] | None:
        """Who may have pages of `span` now; call the result with the cause when they are revoked."""
        hit = [a for a in self._aliases() if a.file is not None and _shown(a, span)]
        if not hit:
            return None
        openers = [(opener, _shown(alias, span)) for alias in hit for opener in alias.who()]
        files = [alias.file for alias in hit if alias.file is not None]

        def look(cause: str, seen: Seen) -> None:
            names = dict(opener for opener, _ in openers)
            found = [
                replace(mapper, comm=names.get(mapper.pid, "?")) if mapper.comm == "?" else mapper
                for mapper in mappers(files, span, seen=seen)
            ]
            alive = {mapper.pid for mapper in found}
            found += [
                Mapper(pid, comm, part)
                for (pid, comm), part in dict.fromkeys(openers)
                if pid not in alive and not Path(f"/proc/{pid}").exists() and part is not None
            ]
            if found:
                text = f"processes lost mappings of {span}: {cause}"
                self._machine.record("lost", text, span, mappers=tuple(found))

        return lambda cause: self._queue(partial(look, cause))

    def _queue(self, look: Look) -> None:
        with self._lock:
            self._looks.append(look)
            first = len(self._looks) == 1
        if first:
            self._jobs.submit(self._look)

    def _look(self) -> None:
        """Look for all revokes of a moment together: whoever makes many must not wait for each look."""
        time.sleep(MOMENT)
        with self._lock:
            looks, self._looks = self._looks, []
        seen: Seen = {}
        for act in looks:
            try:
                act(seen)
            except Exception as error:  # noqa: BLE001 - the others are looked for too
                self._failed(error)


def _shown(alias: Alias, span: Range) -> Range | None:
    """The part of `span` that the file of an alias shows."""
    if alias.file is None:
        return None
    whole = page_round(Range(alias.file.base, alias.file.size))
    start, end = max(whole.start, span.start), min(whole.end, span.end)
    return Range(start, end - start) if start < end else None
