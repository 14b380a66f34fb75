"""Pages that nobody is given while somebody decides. No thread, no lock: `coherence` guards it."""

from collections.abc import Callable
from typing import Any

from fakedev.fuse.deferred import Deferred
from fakedev.model.ranges import Range


class Gate:
    """Requests for pages of one range wait behind it while it is shut."""

    __slots__ = ("_kept", "shut")

    def __init__(self) -> None:
        self.shut: Range | None = None
        self._kept: list[Deferred] = []

    def holds(self, span: Range) -> bool:
        """Whether a request for pages of `span` has to wait."""
        return self.shut is not None and self.shut.overlaps(span)

    def keep(self, job: Callable[[], Any]) -> Deferred:
        """A request that waits; `job` answers it."""
        self._kept.append(Deferred(job))
        return self._kept[-1]

    def open(self) -> list[Deferred]:
        """Open it; returns who waited, to be run."""
        self.shut, kept = None, self._kept
        self._kept = []
        return kept
