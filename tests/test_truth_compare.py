"""How recorded and replayed answers are compared: every way to be equal, and every way not to be."""

from typing import Any

import pytest
from truth.compare import Judgement, Kind, Known, Record, judge, score

BUS_ERROR = {"signo": "SIGBUS", "si_code": "BUS_ADRERR", "si_addr_minus_base": 8}


def record(op: str = "pread", **fields: Any) -> Record:
    plain = {"phase": "p", "seq": 1, "case": "c", "op": op, "args": {}, "result": 0}
    return {**plain, "errno": None, "signal": None, "data": None, "extra": {}, **fields}


@pytest.mark.parametrize(
    ("recorded", "here", "kind"),
    [
        (record(), record(), Kind.EQUAL),
        (record(), None, Kind.DIFFERENT),
        (record(), record(result=-1, errno="EIO"), Kind.DIFFERENT),
        (record(errno="EIO"), record(errno="EINVAL"), Kind.DIFFERENT),
        (record(data="00"), record(data="01"), Kind.CONTENTS),
        (record(), record(data="01"), Kind.EQUAL),
        (record(signal=BUS_ERROR), record(signal=BUS_ERROR), Kind.EQUAL),
        (record(signal=BUS_ERROR), record(), Kind.DIFFERENT),
        (
            record(signal=BUS_ERROR),
            record(signal={**BUS_ERROR, "si_addr_minus_base": 0}),
            Kind.DIFFERENT,
        ),
        (
            record(signal={"signo": "SIGBUS", "si_code": "BUS_ADRERR"}),
            record(signal=BUS_ERROR),
            Kind.EQUAL,
        ),
        (record(extra={"size": 1}), record(extra={"size": 2}), Kind.DIFFERENT),
        (
            record(extra={"st": {"size": 1, "ino": 5}}),
            record(extra={"st": {"size": 1, "ino": 6}}),
            Kind.EQUAL,
        ),
        (
            record(extra={"readback": "0x1"}),
            record(extra={"readback": "0x2"}),
            Kind.CONTENTS,
        ),
        (
            record("mmap", result=-1, errno="EPERM"),
            record("mmap", extra={"faults": ["SIGBUS"]}),
            Kind.SIGBUS,
        ),
        (
            record("mmap", result=-1, errno="EPERM"),
            record("mmap", extra={"faults": []}),
            Kind.DIFFERENT,
        ),
        (
            record("mmap", result=-1, errno="EPERM"),
            record("mmap", result=-1, errno="EPERM"),
            Kind.EQUAL,
        ),
        (record("mmap"), record("mmap", extra={"faults": ["SIGBUS"]}), Kind.DIFFERENT),
    ],
)
def test_one_record(recorded: Record, here: Record | None, kind: Kind) -> None:
    assert judge(recorded, here).kind is kind


def kinds(judgements: list[Judgement]) -> list[Kind]:
    return [one.kind for one in judgements]


def test_records_of_one_name_are_counted() -> None:
    result = score([record(result=1), record(result=2)], [record(result=1)], {})
    assert kinds(result.judgements) == [Kind.EQUAL, Kind.DIFFERENT]


def test_functions_belong_together_by_address() -> None:
    two = [record("enumerate", args={"bdf": bdf}, result=bdf) for bdf in ("a", "b")]
    assert kinds(score(two, two[::-1], {}).judgements) == [Kind.EQUAL, Kind.EQUAL]


def test_a_known_difference_takes_its_kind() -> None:
    known = Known("p: c: pread", 1, "because")
    tables = {Kind.DEVIATION: (known,)}
    result = score([record(result=1)], [record(result=2)], tables)
    assert kinds(result.judgements) == [Kind.DEVIATION]
    assert "because" in result.judgements[0].text
    assert (result.wrong, result.of(Kind.DIFFERENT)) == ([], [])


def test_a_known_difference_that_is_gone_is_wrong() -> None:
    tables = {Kind.DEVIATION: (Known("p: *", 1, "because"),)}
    assert score([record()], [record()], tables).wrong == ["p: *: 1 expected, 0 found"]


def test_contents_are_excused_by_their_own_table_only() -> None:
    pair = [record(data="00")], [record(data="01")]
    known = Known("p: c: pread", 1, "because")
    strange = score(*pair, {Kind.DEVIATION: (known,)})
    assert kinds(strange.judgements) == [Kind.CONTENTS]
    assert strange.wrong == [
        "p: c: pread: 1 expected, 0 found",
        "unexplained: 1 p: c: pread: data: recorded '00', here '01'",
    ]
    excused = score(*pair, {Kind.CONTENTS: (known,)})
    assert (kinds(excused.judgements), excused.wrong) == ([Kind.CONTENTS], [])


def test_the_table_has_a_line_a_phase() -> None:
    lines = score([record(), record(phase="q")], [record()], {}).table().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["phase", "records"],
        ["p", "1"],
        ["q", "1"],
        ["all", "2"],
    ]
