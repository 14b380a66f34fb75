"""The log of refused accesses: who was refused what, and by which rule."""

from fakedev.fuse.mappers import comm_of
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.model.verdict import Verdict
from fakedev.views.node import Refused

# Between two of them a refusal may be repeated without news.
REPEATED = ("denied", "exact", "lost")
REVOKED = "the page was revoked from this mapping, which stays dead"


class Denials:
    """Records refusals that have a verdict as `denied` events of `machine`."""

    __slots__ = ("_last", "_machine")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._last: tuple[int, str, Range] | None = None

    def __call__(self, pid: int, what: str, span: Range, error: Refused) -> None:
        """Log once that `pid` may not `what` (read or write) `span`: the kernel asks again and again.

        A fault that cannot be served is asked for several times before the toucher gets its SIGBUS.
        """
        if error.verdict is None:
            return
        refusal = (pid, what, span)
        if refusal == self._last and self._machine.events[-1].kind in REPEATED:
            return
        self._last = refusal
        where = f"{what} of {span.size} bytes at {span.start:#x}"
        message = f"{comm_of(pid)}[{pid}]: {where} refused: {_rule(error.verdict)}"
        self._machine.record("denied", message, span)


def _rule(verdict: Verdict) -> str:
    """Why an access was refused; one that is allowed by now met a page that had died before."""
    return REVOKED if verdict.allowed else verdict.rule
