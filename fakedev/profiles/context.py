# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH118, PTH120
"""What the compile steps share: the node tree for places, the problems found, the files read."""

from __future__ import annotations

import os

from fakedev.profiles.blobs import BLOB_LIMIT, Blob, BlobError, Inputs, read_blob
from fakedev.profiles.nodes import Node, Place

# Parts of a profile whose mistakes make others look wrong: contents and tables lie in memory,
# memory and resources start from the e820 map.
_MEMORY = frozenset({"memory", "memory.segments", "firmware", "firmware.e820", "pci"})
_DEPENDS = {
    "memory": _MEMORY,
    "firmware": _MEMORY,
    "pci": _MEMORY | {"iomem"},
    "memory_blocks": _MEMORY | {"iomem"},
    "virtio_mem": _MEMORY | {"kernel"},
    **dict.fromkeys(("nvdimm", "dax", "cxl"), _MEMORY | {"iomem", "kernel", "memory_blocks"}),
    "iomem": frozenset({"firmware", "firmware.e820", "iomem"}),
}
Path = tuple[int | str, ...]


class Context:
    """Places and problems of one profile. `path` below is the way to a value: ("iomem", 0, "name")."""

    __slots__ = ("inputs", "problems", "root", "spoilt")

    def __init__(self, root: Node, inputs: Inputs) -> None:
        self.root = root
        self.inputs = inputs
        self.problems: list[tuple[Place, str]] = []
        # Sections that are left out: what only follows from that is not worth a line.
        self.spoilt: frozenset[str] = frozenset()

    def place(self, *path: int | str) -> Place:
        """Where the value at `path` is written (or the nearest thing around it)."""
        return self.root.find(path).place

    def report(self, text: str, *path: int | str, key: bool = False) -> None:
        """Note a problem of the value at `path` (or of its key), unless it may only follow from another."""
        depends = _DEPENDS.get(str(path[0]), frozenset()) if path else frozenset()
        if self.spoilt & depends and path[:2] != ("firmware", "e820"):
            return
        node = self.root.find(path)
        self.problems.append((node.key_place if key else node.place, text))

    def lines(self) -> list[str]:
        """The problems, in the order of the file, each once."""
        return [f"{place}: {text}" for place, text in sorted(set(self.problems))]

    def resolve(self, name: str, *path: int | str) -> str:
        """A file name, relative to the YAML file that writes it (to here, for a command line)."""
        place = self.place(*path)
        folder = os.path.dirname(place.file) if place.line else ""
        return os.path.join(folder, name)

    def blob(
        self, name: str, *path: int | str, offset: int = 0, size: int | None = None,
        room: int = BLOB_LIMIT,
    ) -> Blob | None:  # fmt: skip
        """The file `name`, which the value at `path` asks for; None (and a problem) if unusable."""
        full = self.resolve(name, *path)
        try:
            return read_blob(full, self.inputs, offset=offset, size=size, room=room)
        except BlobError as error:
            folder = os.path.dirname(full) or os.curdir
            self.report(f"file {name!r} (looked for in {folder}): {error}", *path)
            return None
