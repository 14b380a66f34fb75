"""What a verb does to files that are open or mapped, as data. Someone outside the model acts on it."""

from dataclasses import dataclass

from fakedev.model.ranges import Range


@dataclass(frozen=True, slots=True)
class Revoke:
    """Every mapping of these pages dies for good (`revoke_iomem`). Stores made before must land first."""

    span: Range
    cause: str


@dataclass(frozen=True, slots=True)
class Reopened:
    """Accesses to these pages are allowed again; mappings that died stay dead."""

    span: Range


@dataclass(frozen=True, slots=True)
class Changed:
    """The bytes of these pages changed underneath: cached copies are stale."""

    span: Range


Effect = Revoke | Reopened | Changed


EVENT_KINDS = ("claim", "revoke", "release", "denied", "poke", "reset", "error")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the machine's log. `number` counts from 1; `kind` is a word to wait for."""

    number: int
    kind: str
    message: str
    span: Range | None = None
