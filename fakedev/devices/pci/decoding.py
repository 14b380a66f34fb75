"""The maps of memory and ports: which windows of BARs are in them, and what a change moves."""

from collections.abc import Iterable, Mapping

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.function import DecodedWindow
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.window import Ones, Target

Windows = tuple[DecodedWindow, ...]


class Decoder:
    """Keeps the windows of all functions mapped; two windows at one address share it.

    The one that was there first answers; the other appears when it goes. Memory that the machine
    has at an address always stays in front.
    """

    def __init__(self, memory: PhysicalMemory, port_space: PhysicalMemory) -> None:
        self.memory = memory
        self.port_space = port_space
        self._mapped: dict[Bdf, Windows] = {}
        self._hidden: dict[
            Bdf, Windows
        ] = {}  # those of them that others, or memory, are in front of
        self._ghosts: dict[Bdf, tuple[Ones, Windows]] = {}

    def mapped(self, bdf: Bdf) -> Windows:
        """Return the windows of a function that are in the maps."""
        return self._mapped.get(bdf, ())

    def remap(self, wanted: Mapping[Bdf, Windows]) -> list[Range]:
        """Give functions these windows instead of theirs; return the memory that changed."""
        changed = {b: new for b, new in wanted.items() if self._mapped.get(b, ()) != new}
        ghosts = self.lay_ghosts(list(self._ghosts)) if changed else {}
        moved: list[Range] = []
        freed: list[DecodedWindow] = []
        for bdf, new in changed.items():
            old = self._mapped.pop(bdf, ())
            self._hidden.pop(bdf, None)
            moved += difference(old, new)
            self._unmap(old)
            freed += old
        for bdf, new in changed.items():
            if new:
                self._mapped[bdf] = new
                self._show(bdf, new)
        self._uncover(freed)
        for bdf, windows in ghosts.items():
            self.haunt(bdf, windows)
        return moved

    def _uncover(self, freed: list[DecodedWindow]) -> None:
        """Show the windows that lay behind others."""
        for bdf in list(self._hidden):
            windows = self._mapped[bdf]
            if any(_overlap(w, gone) for w in self._hidden[bdf] for gone in freed):
                self._show(bdf, windows)

    def _show(self, bdf: Bdf, windows: Windows) -> None:
        """Map all windows of a function, and remember those that something is in front of."""
        hidden = self._map(bdf, windows)
        if hidden:
            self._hidden[bdf] = hidden
        else:
            self._hidden.pop(bdf, None)

    def _map(self, bdf: Bdf, windows: Windows, target: Target | None = None) -> Windows:
        """Return those of the windows that are not shown as a whole."""
        hidden: list[DecodedWindow] = []
        for window in windows:
            space = self.port_space if window.kind == "io" else self.memory
            answers = window.bar.target if target is None else target
            name = f"{bdf} {window.bar.name}"
            if not space.map_window(window.start, window.size, answers, name=name):
                hidden.append(window)
        return tuple(hidden)

    def _unmap(self, windows: Windows) -> None:
        for window in windows:
            space = self.port_space if window.kind == "io" else self.memory
            space.unmap_window(window.bar.target, Range(window.start, window.size))

    # Ghosts: places of functions that were pulled out, where reads give ones

    def haunt(self, bdf: Bdf, windows: Windows) -> None:
        """Let the windows of a function that is gone read all-ones where nothing else decodes."""
        ghost = Ones()
        self._ghosts[bdf] = (ghost, windows)
        self._map(bdf, windows, ghost)

    def lay_ghosts(self, bdfs: Iterable[Bdf]) -> dict[Bdf, Windows]:
        """Forget the places of these functions; return those that were there."""
        found: dict[Bdf, Windows] = {}
        for bdf in bdfs:
            if bdf in self._ghosts:
                ghost, found[bdf] = self._ghosts.pop(bdf)
                self.memory.unmap_window(ghost)
                self.port_space.unmap_window(ghost)
        return found


def difference(old: Windows, new: Windows) -> list[Range]:
    """Return the memory that only one of the two decodes."""
    changed = [w for w in (*old, *new) if (w in old) != (w in new)]
    return [Range(w.start, w.size) for w in changed if w.kind == "mem"]


def _overlap(one: DecodedWindow, other: DecodedWindow) -> bool:
    if one.kind != other.kind:
        return False
    return one.start < other.start + other.size and other.start < one.start + one.size
