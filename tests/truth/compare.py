"""Sets what the machine answered beside what was recorded.

Two records belong together by phase, case, op and their number among those; of `enumerate`, by the function.
"""

import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from truth.probe import Record


class Kind(StrEnum):
    """How a recorded answer and the machine's compare."""

    EQUAL = "equal"
    SIGBUS = "SIGBUS for an errno of mmap"
    CONTENTS = "other contents"
    DEVIATION = "deviation"
    NOT_APPLICABLE = "not applicable"
    DIFFERENT = "different"


class Known(NamedTuple):
    """So many records whose `phase: case: op` matches the pattern are another way, for a reason."""

    pattern: str
    records: int
    reason: str


class Judgement(NamedTuple):
    """One recorded answer, what became of it, and what differs."""

    record: Record
    kind: Kind
    text: str = ""

    @property
    def name(self) -> str:
        return name_of(self.record)


_ANSWER = (
    *("iomem", "enable", "pci_command", "resources", "pos_after", "old", "new", "size", "mode"),
    *("termsig", "buf_modified_bytes"),
)
_CONTENTS = ("readback", "last_u32")


def name_of(record: Record) -> str:
    return f"{record['phase']}: {record['case']}: {record['op']}"


def keyed(records: Iterable[Record]) -> dict[tuple[str, ...], Record]:
    """Records by what makes them the same in both lists."""
    found: dict[tuple[str, ...], Record] = {}
    count: Counter[str] = Counter()
    for record in records:
        name = name_of(record)
        if record["op"] == "enumerate":
            found[name, record["args"]["bdf"]] = record
        else:
            found[name, str(count[name])] = record
        count[name] += 1
    return found


def judge(recorded: Record, here: Record | None) -> Judgement:
    """Compare two answers to one question."""
    if here is None:
        return Judgement(recorded, Kind.DIFFERENT, "not asked")
    if recorded["op"] in {"mmap", "mmap+touch"} and here["errno"] is None:
        faults = set(here["extra"].get("faults", ()))
        if recorded["errno"] and faults == {"SIGBUS"}:
            return Judgement(recorded, Kind.SIGBUS)
        if recorded["errno"] is None and faults:
            return Judgement(recorded, Kind.DIFFERENT, f"recorded no fault, here {sorted(faults)}")
    if answer := _differences(recorded, here):
        return Judgement(recorded, Kind.DIFFERENT, "; ".join(answer))
    if contents := _contents(recorded, here):
        return Judgement(recorded, Kind.CONTENTS, "; ".join(contents))
    return Judgement(recorded, Kind.EQUAL)


def _differences(recorded: Record, here: Record) -> list[str]:
    """What the calls answered otherwise."""
    found = [
        f"{field}: recorded {recorded[field]}, here {here[field]}"
        for field in ("result", "errno")
        if recorded[field] != here[field]
    ]
    one, two = recorded.get("signal"), here["signal"]
    if one is not None and two is not None and "si_addr_minus_base" not in one:
        two = {name: two[name] for name in one}
    if one != two:
        found.append(f"signal: recorded {one}, here {two}")
    mine = _flat(here["extra"])
    for field, value in _flat(recorded["extra"]).items():
        if field in _ANSWER and value != mine.get(field):
            found.append(f"{field}: recorded {value!r}, here {mine.get(field)!r}")
    return found


def _flat(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Extra fields with those of `st`, of which inode numbers are nobody's business."""
    stat = extra.get("st", {})
    return {**extra, **{name: stat[name] for name in ("mode", "size") if name in stat}}


def _contents(recorded: Record, here: Record) -> list[str]:
    """Bytes that were read otherwise."""
    pairs = [("data", recorded.get("data"), here["data"])]
    pairs += [
        (field, recorded["extra"].get(field), here["extra"].get(field)) for field in _CONTENTS
    ]
    return [
        f"{field}: recorded {one!r}, here {two!r}"
        for field, one, two in pairs
        if one is not None and one != two
    ]


class Score(NamedTuple):
    """All judgements, and what is wrong with the tables."""

    judgements: list[Judgement]
    wrong: list[str]

    def table(self) -> str:
        """One line a phase: its records, and how many compare in which way."""
        rows: dict[str, Counter[Kind]] = defaultdict(Counter)
        for one in self.judgements:
            rows[one.record["phase"]][one.kind] += 1
            rows["all"][one.kind] += 1
        rows["all"] = rows.pop("all")
        lines = [f"{'phase':24}{'records':>9}" + "".join(f"{kind.split()[0]:>13}" for kind in Kind)]
        lines += [
            f"{phase:24}{row.total():9}" + "".join(f"{row[kind]:13}" for kind in Kind)
            for phase, row in rows.items()
        ]
        return "\n".join(lines)

    def of(self, *kinds: Kind) -> list[str]:
        """Every judgement of these kinds, one line each."""
        return [
            f"{one.record['seq']} {one.name}: {one.text}"
            for one in self.judgements
            if one.kind in kinds
        ]


def score(
    recorded: Iterable[Record],
    here: Iterable[Record],
    tables: Mapping[Kind, tuple[Known, ...]],
) -> Score:
    """Compare two lists; a difference that a table knows takes the kind of the table."""
    answers = keyed(here)
    judgements: list[Judgement] = []
    explained: list[Judgement] = []
    seen = Counter[Known]()
    for key, record in keyed(recorded).items():
        one = judge(record, answers.get(key))
        known = _known(one, tables)
        if known is not None:
            kind, entry = known
            one = one._replace(kind=kind, text=f"{entry.reason} ({one.text})")
            seen[entry] += 1
            explained.append(one)
        judgements.append(one)
    wrong = [
        f"{entry.pattern}: {entry.records} expected, {seen[entry]} found"
        for table in tables.values()
        for entry in table
        if seen[entry] != entry.records
    ]
    wrong += [
        f"unexplained: {one.record['seq']} {one.name}: {one.text}"
        for one in judgements
        if one.kind is Kind.CONTENTS and one not in explained
    ]
    return Score(judgements, wrong)


def _known(one: Judgement, tables: Mapping[Kind, tuple[Known, ...]]) -> tuple[Kind, Known] | None:
    if one.kind not in {Kind.DIFFERENT, Kind.CONTENTS}:
        return None
    for kind, table in tables.items():
        if (kind is Kind.CONTENTS) != (one.kind is Kind.CONTENTS):
            continue
        for entry in table:
            if fnmatch.fnmatchcase(one.name, entry.pattern):
                return kind, entry
    return None
