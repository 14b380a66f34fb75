"""What the threads that answer for one sandbox share; all of it may be used by several at once."""

import threading
from dataclasses import dataclass, field

from fakedev.sandbox.exact.copies import Copies
from fakedev.sandbox.exact.marks import Marks
from fakedev.sandbox.exact.states import States
from fakedev.sandbox.protocols import ExactFiles

_MOST_BEYOND = 1024
_UPPER_HALF = 1 << 63


class Positions:
    """Positions that no file of the host can have, and those that the host's kernel keeps in their place."""

    def __init__(self) -> None:
        self._beyond: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._beyond)

    def kept(self, position: int) -> int:
        """Where the host's file is to stand."""
        if position < _UPPER_HALF:
            return position
        kept = position % (1 << 62) | 1 << 62
        with self._lock:
            self._beyond[kept] = position
            if len(self._beyond) > _MOST_BEYOND:
                del self._beyond[next(iter(self._beyond))]
        return kept

    def meant(self, kept: int) -> int:
        """The position that the host's one stands for."""
        return self._beyond.get(kept, kept)


@dataclass(slots=True)
class Shared:
    """`listener`, `root`: descriptors, that of the filter, and an O_PATH one of the root of the tree.

    `mapped`: a mapping of a file of ours may have been made.
    """

    listener: int
    root: int
    files: ExactFiles
    copies: Copies
    states: States = field(default_factory=States)
    positions: Positions = field(default_factory=Positions)
    marks: Marks = field(default_factory=Marks)
    mapped: bool = False
