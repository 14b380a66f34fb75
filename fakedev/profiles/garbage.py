"""When the garbage collector runs, and what it looks at."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Make large trees without cycles: looking for some takes half of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def collect_from_now_on() -> None:
    """Let collections look only at what is made later: a machine lives as long as its server."""
    gc.freeze()
    gc.enable()
