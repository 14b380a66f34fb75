"""Sets the machine's records beside the recorded ones.

Two records belong together by phase, case, op and their number among those; of `enumerate`, by the function.
They are equal if all their fields are, but for those that a rule of `reasons` takes out.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from fakedev.conformance.reasons import Reason
from fakedev.conformance.records import Record

_MISSING = "(none)"
_UNCOMPARED = ("config", "note", "phase", "case", "op", "kmsg")


class Kind(StrEnum):
    """How two records compare."""

    EQUAL = "equal"
    DIFFERENT = "different"
    NOT_COMPARABLE = "not comparable"


class Difference(NamedTuple):
    """One field: what the real kernel answered, and what the machine did."""

    field: str
    recorded: Any
    here: Any


class Judgement(NamedTuple):
    """One recorded answer and what became of it. `reason` is why it is not compared, or differs."""

    record: Record
    kind: Kind
    differences: tuple[Difference, ...] = ()
    reason: str = ""

    @property
    def name(self) -> str:
        """`phase: case: op`."""
        return f"{self.record['phase']}: {self.record['case']}: {self.record['op']}"


def compare(
    recorded: Sequence[Record],
    here: Sequence[Record],
    reasons: Sequence[Reason],
    deviations: Sequence[Reason] = (),
) -> list[Judgement]:
    """A judgement for each recorded answer, in their order. `deviations` explain what differs."""
    answers = dict(_keyed(here))
    judged = (_judge(record, answers.get(key), reasons) for key, record in _keyed(recorded))
    return [_explained(one, deviations) for one in judged]


def _explained(one: Judgement, deviations: Sequence[Reason]) -> Judgement:
    if one.kind is not Kind.DIFFERENT:
        return one
    fields = {difference.field for difference in one.differences}
    deviation = deviation_of(one.record, fields, deviations)
    return one if deviation is None else one._replace(reason=deviation.text)


def deviation_of(
    record: Record, fields: Collection[str], deviations: Iterable[Reason]
) -> Reason | None:
    """The first that explains why a record differs in these fields."""
    for deviation in deviations:
        if deviation.is_about(record) and (deviation.field in fields or deviation.field == "*"):
            return deviation
    return None


def _keyed(records: Iterable[Record]) -> Iterator[tuple[tuple[str, ...], Record]]:
    """Records with what tells which belong together."""
    count = Counter[tuple[str, ...]]()
    for record in records:
        key = (record["phase"], record["case"], record["op"], str(record["args"].get("bdf", "")))
        yield (*key, str(count[key])), record
        count[key] += 1


def _judge(recorded: Record, here: Record | None, reasons: Sequence[Reason]) -> Judgement:
    known = [reason for reason in reasons if reason.is_about(recorded)]
    for reason in known:
        if reason.whole(missing=here is None):
            return Judgement(recorded, Kind.NOT_COMPARABLE, reason=reason.text)
    if here is None:
        lost = Difference("record", "made", "not made")
        return Judgement(recorded, Kind.DIFFERENT, (lost,))
    found = tuple(_differences(recorded, here, known))
    return Judgement(recorded, Kind.DIFFERENT if found else Kind.EQUAL, found)


def _differences(recorded: Record, here: Record, known: Sequence[Reason]) -> Iterator[Difference]:
    one, two = dict(fields_of(recorded)), dict(fields_of(here))
    for field in {**one, **two}:
        masks = [reason.mask for reason in known if reason.covers(field)]
        if "" in masks:
            continue
        before, after = one.get(field, _MISSING), two.get(field, _MISSING)
        for mask in masks:
            before, after = _masked(before, mask), _masked(after, mask)
        if before != after:
            yield Difference(field, one.get(field, _MISSING), two.get(field, _MISSING))


def _masked(value: Any, mask: str) -> Any:
    return re.sub(mask, "~", value, flags=re.MULTILINE) if isinstance(value, str) else value


def fields_of(record: Record) -> Iterator[tuple[str, Any]]:
    """Every field that is compared, nested ones with dots."""
    for name, value in {**record, **record["extra"]}.items():
        if name in _UNCOMPARED or name == "extra":
            continue
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value
