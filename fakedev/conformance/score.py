"""What is told about a run: a table by phase, why records are not comparable, and what differs."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from fakedev.conformance.compare import Difference, Judgement, Kind
from fakedev.conformance.configuration import Configuration

UNKNOWN = "not known yet"
_SHOWN = 240
_BEFORE = 80
_FIRST = 3


class Score(NamedTuple):
    """One configuration that was run. `seconds` is how long the probe took."""

    configuration: Configuration
    judgements: list[Judgement]
    problems: list[str]
    seconds: float

    def by_phase(self) -> dict[str, Counter[Kind]]:
        """How many records of each phase compare in which way."""
        rows: dict[str, Counter[Kind]] = defaultdict(Counter)
        for one in self.judgements:
            rows[one.record["phase"]][one.kind] += 1
        return dict(rows)

    def total(self) -> Counter[Kind]:
        """How many records compare in which way."""
        return Counter(one.kind for one in self.judgements)

    def by_reason(self, kind: Kind) -> Counter[str]:
        """Why records are not comparable, or different, and how many."""
        return Counter(one.reason or UNKNOWN for one in self.judgements if one.kind is kind)

    def different(self) -> dict[str, list[Judgement]]:
        """What differs, by phase."""
        found: dict[str, list[Judgement]] = defaultdict(list)
        for one in self.judgements:
            if one.kind is Kind.DIFFERENT:
                found[one.record["phase"]].append(one)
        return dict(found)


def percent(row: Counter[Kind]) -> float:
    """Equal records among those that are comparable."""
    compared = row[Kind.EQUAL] + row[Kind.DIFFERENT]
    return 100 * row[Kind.EQUAL] / compared if compared else 100.0


def table(score: Score) -> Iterator[str]:
    """One line a phase, and one for all."""
    rows = score.by_phase()
    total = score.total()
    made = score.configuration
    yield f"{made.name}: {total.total()} records, {score.seconds:.0f} s"
    yield f"  kernel arguments: {made.cmdline.strip() or '(none)'}"
    yield f"  {'phase':24}{'equal':>8}{'different':>11}{'not comparable':>16}{'score':>9}"
    for phase, row in [*rows.items(), ("all", total)]:
        counts = f"{row[Kind.EQUAL]:8}{row[Kind.DIFFERENT]:11}{row[Kind.NOT_COMPARABLE]:16}"
        yield f"  {phase:24}{counts}{percent(row):8.1f}%"
    for kind in (Kind.NOT_COMPARABLE, Kind.DIFFERENT):
        reasons = score.by_reason(kind)
        if reasons:
            yield f"  {kind}:"
        yield from (f"  {count:6}  {reason}" for reason, count in reasons.most_common())


def differences(score: Score, *, everything: bool) -> Iterator[str]:
    """The first differences of each phase in full, or all."""
    for phase, found in score.different().items():
        yield f"{score.configuration.name}: {phase}: {len(found)} different"
        shown = found if everything else found[:_FIRST]
        for one in shown:
            yield from _judgement(one)
        if len(shown) < len(found):
            yield f"  ... and {len(found) - len(shown)} more (--all)"


def _judgement(one: Judgement) -> Iterator[str]:
    arguments = " ".join(f"{name}={_short(value)}" for name, value in one.record["args"].items())
    yield f"  {one.record['case']}: {one.record['op']} {arguments}".rstrip()
    yield f"      because: {one.reason or UNKNOWN}"
    for difference in one.differences:
        recorded, here = _from_the_difference(difference.recorded, difference.here)
        yield f"      {difference.field}: {_short(recorded)} -> {_short(here)}"


def _from_the_difference(one: Any, two: Any) -> tuple[Any, Any]:
    """Long texts from shortly before the place where they begin to differ."""
    if not (isinstance(one, str) and isinstance(two, str)) or max(len(one), len(two)) <= _SHOWN:
        return one, two
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
    start = max(common - _BEFORE, 0)
    return ("..." + one[start:], "..." + two[start:]) if start else (one, two)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def as_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Everything, for scripts."""
    return [
        {
            "config": one.configuration.name,
            "cmdline": one.configuration.cmdline,
            "memory": one.configuration.memory,
            "seconds": round(one.seconds, 1),
            "problems": one.problems,
            "phases": {phase: _counts(row) for phase, row in one.by_phase().items()},
            "not_comparable": dict(one.by_reason(Kind.NOT_COMPARABLE)),
            "deviations": dict(one.by_reason(Kind.DIFFERENT)),
            "differences": [
                _judgement_json(judgement)
                for found in one.different().values()
                for judgement in found
            ],
        }
        for one in scores
    ]


def _counts(row: Counter[Kind]) -> dict[str, float]:
    counts: dict[str, float] = {str(kind): row[kind] for kind in Kind}
    return {**counts, "percent": round(percent(row), 2)}


def _judgement_json(one: Judgement) -> dict[str, Any]:
    record = one.record
    about = {name: record[name] for name in ("phase", "case", "op", "args")}
    fields = [_difference_json(each) for each in one.differences]
    return {**about, "reason": one.reason or None, "fields": fields}


def _difference_json(one: Difference) -> dict[str, Any]:
    return {"field": one.field, "recorded": one.recorded, "here": one.here}
