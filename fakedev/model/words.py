"""Words that people mistype."""

from collections.abc import Iterable


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word nearest to `word`, None when none is near (0 to 1: `cutoff`)."""
    import difflib  # noqa: PLC0415 - slow to import, and only mistakes need it

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None
