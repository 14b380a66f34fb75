"""What a verb does to files that are open or mapped, as data. Someone outside the model acts on it."""

from dataclasses import dataclass
from typing import NamedTuple

from fakedev.model.ranges import Range


@dataclass(frozen=True, slots=True)
class Revoke:
    """Every mapping of these pages dies for good (`revoke_iomem`). Stores made before must land first.

    `even_cows`: also what private mappings have copied, as in `unmap_mapping_range`.
    """

    span: Range
    cause: str
    even_cows: bool = True


@dataclass(frozen=True, slots=True)
class Reopened:
    """Accesses to these pages are allowed again; mappings that died stay dead."""

    span: Range


@dataclass(frozen=True, slots=True)
class Changed:
    """The bytes of these pages changed underneath: cached copies are stale."""

    span: Range


@dataclass(frozen=True, slots=True)
class Mapper:
    """A process that had a physical range mapped."""

    pid: int
    comm: str
    span: Range


class NodesChanged(NamedTuple):
    """Entries of a directory of the tree came, went, or are other nodes now."""

    directory: str
    names: tuple[str, ...]


Effect = Revoke | Reopened | Changed | NodesChanged


EVENT_KINDS = (
    "claim", "revoke", "lost", "release", "denied", "poke", "reset", "error",
    "module", "probe", "bind", "unbind", "remove", "rescan", "unplug", "plug", "power", "link",
    "reset-function", "config", "hotplug", "virtio-mem", "online", "offline", "poison",
    "mode", "pin", "unpin", "wait", "lockdown", "exact",
)  # fmt: skip


class Event(NamedTuple):
    """One line of the machine's log. `number` counts from 1; `kind` is a word to wait for.

    `mappers` are the processes that lost a mapping by it.
    """

    number: int
    kind: str
    message: str
    span: Range | None = None
    mappers: tuple[Mapper, ...] = ()
