"""A run as a page of the documentation."""

from collections import Counter
from collections.abc import Iterator, Sequence

from fakedev.conformance.compare import Judgement, Kind, fields_of
from fakedev.conformance.reasons import REASONS
from fakedev.conformance.score import UNKNOWN, Score, percent

_ROW = "| {} | {} | {} | {} | {} |"


def markdown(scores: Sequence[Score]) -> Iterator[str]:
    """The lines of the page."""
    yield "# Conformance: the last run"
    yield ""
    yield "Made by `fakedev conformance --markdown`; what it all means is in [conformance.md](conformance.md)."
    yield ""
    yield _ROW.format("configuration", "equal", "different", "not comparable", "score")
    yield "|---|---|---|---|---|"
    for score in scores:
        yield _row(f"`{score.configuration.name}`", score)
    for score in scores:
        yield from _configuration(score)


def _row(name: str, score: Score) -> str:
    row = score.total()
    numbers = (row[Kind.EQUAL], row[Kind.DIFFERENT], row[Kind.NOT_COMPARABLE])
    return _ROW.format(name, *numbers, f"{percent(row):.1f} %")


def _configuration(score: Score) -> Iterator[str]:
    made = score.configuration
    yield from ("", f"## {made.name}", "")
    yield f"Kernel arguments `{made.cmdline.strip()}`, {made.memory >> 20} MiB of RAM."
    yield from ("", _ROW.format("phase", "equal", "different", "not comparable", "score"))
    yield "|---|---|---|---|---|"
    for phase, row in score.by_phase().items():
        numbers = (row[Kind.EQUAL], row[Kind.DIFFERENT], row[Kind.NOT_COMPARABLE])
        yield _ROW.format(phase, *numbers, f"{percent(row):.1f} %")
    for kind in (Kind.DIFFERENT, Kind.NOT_COMPARABLE):
        yield from _reasons(score, kind)
    yield from _left_out(score)


def _left_out(score: Score) -> Iterator[str]:
    """Fields of records that are compared otherwise."""
    count: dict[str, Counter[str]] = {}
    for one in score.judgements:
        fields = [name for name, _ in fields_of(one.record)]
        for reason in REASONS:
            if reason.is_about(one.record):
                found = {name for name in fields if reason.covers(name)}
                count.setdefault(reason.text, Counter()).update(found)
    yield from (
        "",
        "### Left out of records",
        "",
        "| why | fields, and of how many records |",
        "|---|---|",
    )
    for text, fields_left in count.items():
        if fields_left:
            yield f"| {text} | {', '.join(f'`{n}` {c}' for n, c in fields_left.most_common())} |"


def _reasons(score: Score, kind: Kind) -> Iterator[str]:
    found = score.by_reason(kind)
    if not found:
        return
    title = str(kind).capitalize()
    yield from ("", f"### {title}, and why", "", "| records | why | where |", "|---|---|---|")
    for reason, count in found.most_common():
        places = [one for one in score.judgements if one.kind is kind]
        yield f"| {count} | {reason} | {_places(places, reason)} |"


def _places(judgements: Sequence[Judgement], reason: str) -> str:
    """Phases and cases, each once."""
    cases: dict[str, dict[str, None]] = {}
    for one in judgements:
        if (one.reason or UNKNOWN) == reason:
            cases.setdefault(one.record["phase"], {})[one.record["case"]] = None
    return "; ".join(
        f"{phase}: {', '.join(f'`{c}`' for c in found)}" for phase, found in cases.items()
    )
