"""Requests that wait for something to end, or for a signal to their caller."""

import errno
import threading
from collections.abc import Callable
from typing import Any

from fakedev.fuse.deferred import Deferred
from fakedev.views.node import Refused, Until


class Waiting(Deferred):
    """A request that is tried again, with `again`, at the end of `until`; EINTR if a signal comes first."""

    def __init__(self, until: Until, again: Callable[[], Any]) -> None:
        super().__init__(again)
        self._until = until
        self._once = threading.Lock()

    def begin(self) -> None:
        """Wait from now on."""
        self._until.call(self, self.run)

    def run(self) -> None:
        """The end has come."""
        if self._once.acquire(blocking=False):
            super().run()

    def interrupt(self) -> None:
        """The caller got a signal (FUSE_INTERRUPT)."""
        self._until.forget(self)
        if self._once.acquire(blocking=False):
            self._job = _interrupted
            super().run()


def _interrupted() -> None:
    raise Refused(errno.EINTR)
