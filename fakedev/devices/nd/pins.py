"""Pages that somebody holds: a driver that wants its memory back has to wait (`get_user_pages`)."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fakedev.model.ranges import Range

TRANSIENT = 1.0  # seconds that a transfer holds its pages, unless it says else


@dataclass(frozen=True, slots=True)
class Pin:
    """One hold of a range. `until` is a time of the monotonic clock, None: until it is dropped."""

    number: int
    span: Range
    until: float | None

    @property
    def longterm(self) -> bool:
        """Whether only `unpin` ends it."""
        return self.until is None


class Pins:
    """All pins of a machine. Safe to use from any thread; `wait` must not be called with verbs held."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pins: dict[int, Pin] = {}
        self._count = 0

    def add(self, span: Range, *, seconds: float | None) -> Pin:
        """Hold a range for a time, or (None) until `drop`."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            self._count += 1
            pin = self._pins[self._count] = Pin(self._count, span, until)
        return pin

    def drop(self, number: int) -> Pin | None:
        """End a hold; None when there is no such pin (any more)."""
        with self._changed:
            pin = self._pins.pop(number, None)
            self._changed.notify_all()
        return pin

    def drop_all(self) -> None:
        """Nothing is held any more."""
        with self._changed:
            self._pins.clear()
            self._changed.notify_all()

    def all(self) -> list[Pin]:
        """The holds that there are, oldest first."""
        with self._changed:
            self._expire()
            return list(self._pins.values())

    def on(self, span: Range) -> list[Pin]:
        """The holds that touch a range."""
        return [pin for pin in self.all() if pin.span.overlaps(span)]

    def wait(self, span: Range, gone: Callable[[], bool] = lambda: False) -> bool:
        """Block until nobody holds a page of `span`; False if `gone` came true before."""
        with self._changed:
            while True:
                self._expire()
                held = [pin for pin in self._pins.values() if pin.span.overlaps(span)]
                if not held:
                    return True
                if gone():
                    return False
                self._changed.wait(_pause(held))

    def _expire(self) -> None:
        now = time.monotonic()
        for pin in list(self._pins.values()):
            if pin.until is not None and pin.until <= now:
                del self._pins[pin.number]


def _pause(held: list[Pin]) -> float:
    """Until the first of them ends by itself, and never long: who waits may leave."""
    now = time.monotonic()
    ends = [pin.until - now for pin in held if pin.until is not None]
    return min([max(end, 0.001) for end in ends] + [0.5])
