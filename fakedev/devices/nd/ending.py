"""How a use of memory ends, in two halves.

Everything dies at once under `machine.verb()`; then, without it, the verb waits for the last pin; and
then claims end, under `machine.verb()` again.
"""

import errno
from collections.abc import Callable
from typing import Any

from fakedev.devices.nd.dax import DaxDevice
from fakedev.devices.nd.pins import TRANSIENT, Pin
from fakedev.devices.nd.region import Namespace
from fakedev.devices.nd.stacking import Stacking
from fakedev.model.errors import ControlError
from fakedev.model.ranges import Range


class Ending(Stacking):
    """Ends, and the pins that they wait for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ending: list[Range] = []
        self._era = 0
        self._touched: set[str] = set()

    def _touch(self, dax: DaxDevice) -> None:
        """It is not as it was at boot."""
        self._touched.add(dax.name)
        self._touched |= {n.region.name for n in self.namespaces() if n.dax is dax}

    # -- pins ---------------------------------------------------------------------------------

    def pin(self, span: Range, *, longterm: bool, seconds: float | None = None) -> Pin:
        """Hold pages as a transfer does. EOPNOTSUPP: fsdax allows no long-term pin.

        EFAULT: nothing is there, or it is going: no page of it can be touched any more.
        """
        with self.verb():
            homes = [n for n in self.namespaces() if n.span.overlaps(span)]
            if longterm and any(n.mode == "fsdax" for n in homes):
                raise ControlError("fsdax allows no long-term pins (EOPNOTSUPP)",
                                   errno=errno.EOPNOTSUPP)  # fmt: skip
            if not homes and not any(d.span.overlaps(span) for d in self.dax_devices()):
                raise ControlError(f"{span}: no persistent memory or dax device is there",
                                   errno=errno.EFAULT)  # fmt: skip
            gone = next((r for r in self.regions if not r.present and r.span.overlaps(span)), None)
            if gone is not None or self.ending(span):
                why = f"{gone.name} was pulled out" if gone else "what is there is ending"
                raise ControlError(f"{span}: {why} (EFAULT)", errno=errno.EFAULT)
            pin = self.pins.add(span, seconds=None if longterm else seconds or TRANSIENT)
            kind = "long-term" if longterm else "transient"
            self.host.record("pin", f"{span} pinned ({kind}, pin {pin.number})", span)
        return pin

    def unpin(self, number: int) -> Pin:
        """Let a pin go. ENOENT when there is none; never waits for a verb."""
        pin = self.pins.drop(number)
        if pin is None:
            raise ControlError(f"there is no pin {number}", errno=errno.ENOENT)
        self.host.record("unpin", f"pin {number} of {pin.span} dropped", pin.span)
        return pin

    # -- what they share ----------------------------------------------------------------------

    def _ended(self, which: Namespace, check: Callable[[], None], then: Callable[[], None]) -> None:
        """End the use of a namespace, if `check` raises nothing; then do `then` in the same verb."""

        def die() -> None:
            if which not in self.namespaces():
                raise ControlError(f"{which.name} is gone (ENODEV)", errno=errno.ENODEV)
            check()
            self._touched.add(which.region.name)
            self.kill_namespace(which)

        def end() -> None:
            self.stop(which)
            then()

        self._end(which.name, which.span, die, end)

    def ending(self, span: Range) -> bool:
        """Whether a verb that takes a part of a range away waits for pins."""
        return any(other.overlaps(span) for other in self._ending)

    def _end(
        self, name: str, span: Range, die: Callable[[], None], end: Callable[[], None]
    ) -> None:
        """Let `die` happen now (it may refuse), and `end` when no page of the range is held.

        EBUSY: a part of it is ending already. EINTR: the machine was reset meanwhile.
        """
        with self.change():
            if self.ending(span):
                raise ControlError(f"{name} is ending already (EBUSY)", errno=errno.EBUSY)
            die()
            if not self.pins.on(span):
                end()
                return
            era = self._era
            self._ending.append(span)
        try:
            self._wait(name, span)
        finally:
            with self.change():
                if era == self._era:
                    self._ending.remove(span)
                    end()
        if era != self._era:
            raise ControlError(f"{name}: the machine was reset", errno=errno.EINTR)

    def _wait(self, name: str, span: Range) -> None:
        """Until nobody holds a page; the log says who is waited for."""
        pins = ", ".join(f"pin {pin.number} of {pin.span}" for pin in self.pins.on(span))
        if pins:
            self.host.record("wait", f"{name} waits for {pins}", span)
        self.pins.wait(span)
        self.host.record("wait", f"{name}: nobody holds a page of it any more", span)
