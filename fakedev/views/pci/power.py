"""The directory `power/` of a device (`drivers/base/power/sysfs.c`). Nothing suspends here; no time passes."""

import errno
from collections.abc import Callable

from fakedev.views.live import Alive, Attribute, LiveDirectory, always
from fakedev.views.node import Opener, Refused
from fakedev.views.pci.site import Site

_CONTROL = ("auto", "on")
_WAKEUP = ("enabled", "disabled")
_COUNTERS = (
    "wakeup_abort_count", "wakeup_active", "wakeup_active_count", "wakeup_count",
    "wakeup_expire_count", "wakeup_last_time_ms", "wakeup_max_time_ms", "wakeup_total_time_ms",
)  # fmt: skip


class _Choice:
    """A setting that is one of two words; EINVAL for any other."""

    __slots__ = ("_words", "value")

    def __init__(self, words: tuple[str, str], value: str) -> None:
        self._words = words
        self.value = value

    def show(self) -> str:
        return f"{self.value}\n"

    def store(self, text: str, _: Opener) -> None:
        word = text.removesuffix("\n")
        if word not in self._words:
            raise Refused(errno.EINVAL)
        self.value = word


def power_directory(
    site: Site, path: str, *, runtime: bool, wakeup: bool = False, alive: Alive = always
) -> LiveDirectory:
    """`power/` at a path. `runtime`: the device takes part in runtime power management.

    `wakeup`: it can wake the system. What is written is kept as long as the directory lives.
    """
    control = _Choice(_CONTROL, "on" if runtime else "auto")
    armed = _Choice(_WAKEUP, "disabled")
    status = "active\n" if runtime else "unsupported\n"
    nodes = {
        "control": Attribute(control.show, control.store, mode=0o644, alive=alive),
        "runtime_status": Attribute(lambda: status, alive=alive),
        "runtime_active_time": Attribute(_zero, alive=alive),
        "runtime_suspended_time": Attribute(_zero, alive=alive),
        "autosuspend_delay_ms": Attribute(_eio, _store_eio, mode=0o644, alive=alive),
    }
    if wakeup:
        nodes["wakeup"] = Attribute(armed.show, armed.store, mode=0o644, alive=alive)
        count = _counter(armed)
        nodes.update((name, Attribute(count, alive=alive)) for name in _COUNTERS)
    return site.directory(path, lambda: nodes, nodes.get, alive=alive)


def _counter(armed: _Choice) -> Callable[[], str]:
    """A counter of the wakeup source, which only exists while it is enabled."""
    return lambda: "0\n" if armed.value == "enabled" else "\n"


def _zero() -> str:
    return "0\n"


def _eio() -> str:
    raise Refused(errno.EIO)


def _store_eio(_text: str, _opener: Opener) -> None:
    raise Refused(errno.EIO)
