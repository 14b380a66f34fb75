"""An answer that comes later."""

import threading
from collections.abc import Callable
from typing import Any


class Deferred(Exception):  # noqa: N818 - not an error: the answer comes later
    """A request whose `job` is queued on the notifier thread; raised to whoever has to answer it.

    The job may end before anyone asks for its outcome, or after: `then` is called once, by
    whichever comes second.
    """

    def __init__(self, job: Callable[[], Any]) -> None:
        super().__init__()
        self._job = job
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._outcome: Any = None
        self._error: Exception | None = None
        self._then: Callable[[], None] | None = None

    def run(self) -> None:
        """Do the job; called by the notifier thread."""
        try:
            self._outcome = self._job()
        except Exception as error:  # noqa: BLE001 - handed to who waits
            self._error = error
        with self._lock:
            self._done.set()
            then = self._then
        if then is not None:
            then()

    def outcome(self) -> Any:
        """What the job returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._outcome

    def wait(self) -> Any:
        """Block until the job is done, then as `outcome`."""
        self._done.wait()
        return self.outcome()

    def wait_until(self, seconds: float) -> bool:
        """Block until the job is done, or a time has passed; whether it is done."""
        return self._done.wait(seconds)

    def when_done(self, then: Callable[[], None]) -> None:
        """Call `then` when the job is done: now, or later on the notifier thread."""
        with self._lock:
            if not self._done.is_set():
                self._then = then
                return
        then()

    def mapped(self, change: Callable[[Any], Any]) -> "Deferred":
        """The same answer in another form."""
        other = Deferred(lambda: change(self.outcome()))
        self.when_done(other.run)
        return other
