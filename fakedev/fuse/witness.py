"""Who lost a mapping: told in the log soon after a revoke, without keeping the revoke waiting.

Looking at every process takes milliseconds, a claim a tenth of one. So the claim goes ahead, and the
look follows. A process that touched its page meanwhile is dead by then: of those, who had the file
open is known from before.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from fakedev.fuse.jobs import Jobs
from fakedev.fuse.mappers import mappers
from fakedev.fuse.owners import Alias
from fakedev.model.effects import Mapper
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range, page_round


class Witness:
    """Records a `lost` event for each revoke that took somebody's mapping."""

    def __init__(self, machine: Machine, aliases: Callable[[], Iterable[Alias]]) -> None:
        self._machine = machine
        self._aliases = aliases
        self._jobs = Jobs("fakedev-witness", self._failed)
        machine.witness = self.before

    def _failed(self, error: Exception) -> None:
        self._machine.record("error", f"witness: {error!r}")

    def close(self) -> None:
        """Finish what is being looked at."""
        self._machine.witness = lambda _: None
        self._jobs.close()

    def before(self, span: Range) -> Callable[[str], None] | None:
        """Who may have pages of `span` now; call the result with the cause when they are revoked."""
        hit = [a for a in self._aliases() if a.file is not None and _shown(a, span)]
        if not hit:
            return None
        openers = [(opener, _shown(alias, span)) for alias in hit for opener in alias.who()]
        files = [alias.file for alias in hit if alias.file is not None]

        def look(cause: str) -> None:
            found = mappers(files, span)
            alive = {mapper.pid for mapper in found}
            found += [
                Mapper(pid, comm, part)
                for (pid, comm), part in dict.fromkeys(openers)
                if pid not in alive and not Path(f"/proc/{pid}").exists() and part is not None
            ]
            if found:
                text = f"processes lost mappings of {span}: {cause}"
                self._machine.record("lost", text, span, mappers=tuple(found))

        return lambda cause: self._jobs.submit(lambda: look(cause))


def _shown(alias: Alias, span: Range) -> Range | None:
    """The part of `span` that the file of an alias shows."""
    if alias.file is None:
        return None
    whole = page_round(Range(alias.file.base, alias.file.size))
    start, end = max(whole.start, span.start), min(whole.end, span.end)
    return Range(start, end - start) if start < end else None
