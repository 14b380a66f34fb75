"""The threads that receive calls, one at a time: where one is kept waiting, the next takes over.

Theory of operation
-------------------
Who has the `turn` receives. It is let go of while a call is answered, and taken back after it; nobody else
wants it, as a rule. But an answer may need the memory of a tool, or the lock of its mappings, and a page of
it may come from another process of the sandbox (a FUSE server, userfaultfd), which waits for the answer to
a call of its own. So a watchdog looks, every TICK, whether it is still the same call; if so, it takes the turn
and gives it to a new thread. The slow one ends its call when it can, finds the turn taken, and ends.

There are never more than MOST threads; when all of them are kept waiting, calls wait too. The watchdog
sleeps while no calls come.

A thread shares with others only what stands in `shared`; who is kept waiting holds no lock.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

# Seconds; a call is taken for slow when it has lasted between one of them and two.
TICK = 0.1
MOST = 64
_QUIET = 10  # ticks without a call, after which the watchdog sleeps


class Hand(Protocol):
    """What a thread works with; nobody else uses it."""

    def receive(self) -> Any:
        """The next call; None when it is over."""

    def handle(self, waiting: Any) -> None:
        """Answer a call."""

    def close(self) -> None:
        """Nothing is received any more."""


class Crew:
    """Threads that answer until `receive` says that it is over.

    `hand` is called on each of them; `failed` when one cannot go on; `ended` once, when `stop` was called
    and the last one has ended: nobody uses anything any more.
    """

    def __init__(
        self,
        hand: Callable[[], Hand],
        failed: Callable[[BaseException], None],
        ended: Callable[[], None],
    ) -> None:
        self.calls = 0  # that were begun; whoever has the turn counts
        self._hand = hand
        self._failed = failed
        self._ended = ended
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._threads: set[threading.Thread] = set()  # also some that have ended
        self._count = 0
        self._stopped = False
        self._bell = threading.Event()
        self._asleep = False
        self._watchdog = threading.Thread(target=self._watch, name="fakedev-watch", daemon=True)

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Those that receive or answer."""
        return tuple(one for one in self._threads if one.is_alive())

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be started."""
        self._relieve()
        self._watchdog.start()

    def stop(self) -> None:
        """No further thread takes over; to be called when `receive` says that it is over."""
        with self._state:
            first, self._stopped = not self._stopped, True
            nobody = not self._count
        self._bell.set()
        if self._watchdog.is_alive():
            self._watchdog.join()
        if first and nobody:
            self._ended()

    def wait(self, timeout: float | None) -> bool:
        """Until the last thread has ended; False where that takes longer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not self.threads

    # -- who answers

    def _relieve(self) -> None:
        """A new thread takes over, if nobody has the turn."""
        with self._state:
            if self._stopped or self._count >= MOST or not self._turn.acquire(blocking=False):
                return
            thread = threading.Thread(target=self._run, name="fakedev-exact", daemon=True)
            self._threads = {*self.threads, thread}
            self._count += 1
        try:
            thread.start()
        except BaseException:
            self._turn.release()
            self._leave()
            raise

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the tools must not wait for ever
            self._failed(error)
        finally:
            self._leave()

    def _work(self) -> None:
        """With the turn."""
        hand = self._hand()
        receive, handle = hand.receive, hand.handle
        release, acquire = self._turn.release, self._turn.acquire
        try:
            while (waiting := receive()) is not None:
                self.calls += 1
                if self._asleep:
                    self._bell.set()
                release()
                handle(waiting)
                if not acquire(False):
                    return
            release()
        finally:
            hand.close()

    def _leave(self) -> None:
        with self._state:
            self._count -= 1
            last = self._stopped and not self._count
        if last:
            self._ended()

    # -- the watchdog

    def _watch(self) -> None:
        seen, quiet = -1, 0
        while not self._stopped:
            quiet = quiet + 1 if seen == self.calls else 0
            if quiet and not self._turn.locked():
                self._help()
            seen = self.calls
            self._pause(seen, long=quiet > _QUIET and self._turn.locked())

    def _help(self) -> None:
        try:
            self._relieve()
        except (RuntimeError, MemoryError):
            return  # no more threads; perhaps at the next tick

    def _pause(self, seen: int, *, long: bool) -> None:
        """A tick; a `long` one lasts until a call comes."""
        self._asleep = long
        if not long:
            self._bell.wait(TICK)
        elif (
            self.calls == seen and not self._stopped
        ):  # whoever counts one now, sees that this sleeps
            self._bell.wait()
        self._asleep = False
        self._bell.clear()
