"""`fakedev conformance` with its own recordings: nothing differs that did not, and no reason outlives its records.

The probe is a C program, and runs in a machine: skips without a compiler or a sandbox.
"""

import json
import lzma
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import DATA, Host, need_sandbox

from fakedev.conformance import places
from fakedev.conformance.compare import deviation_of
from fakedev.conformance.deviations import DEVIATIONS
from fakedev.conformance.reasons import Reason
from fakedev.sandbox.exact.support import exact_refusal

Found = dict[str, Any]
Fields = dict[str, tuple[Any, Any]]
RECORDS = {"default": 4399, "lockdown-integrity": 950}
#: Percent of the comparable records that have to be equal, by the beginning of the phase's name.
GOALS = {
    "env": 100, "open": 98, "fd": 80, "matrix-": 98, "lowram": 98, "mmap-args": 98, "sysfs": 98,
    "bind-errors": 98, "nvdimm": 98, "vmem": 98, "revoke-": 97, "cross-write": 98, "remove-": 98,
    "dimm": 98, "lockdown-runtime": 97, "vm-ops": 90, "tools": 98,
}  # fmt: skip
ND_STAGES = ("nd-0", "nd-1-pmem", "nd-2-devdax", "nd-3-kmem")
#: What is left out of a score, at most, in records.
NOT_COMPARABLE = 10
#: Errno of mmap(2), recorded and without the exact layer: the mapping is made.
MADE = {("EPERM", None), ("EINVAL", None)}


def need_probe() -> None:
    need_sandbox()
    if not (shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler (package gcc)")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the probe made."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def scores(host: Host, kept: Path) -> dict[str, Found]:
    """What both recordings came to."""
    need_probe()
    if reason := exact_refusal():
        pytest.skip(f"exact layer: {reason}")
    said = host.check("conformance", "--exact", "--json", "--keep", kept, timeout=150)
    return {score["config"]: score for score in json.loads(said)}


@pytest.fixture(params=places.RECORDED)
def found(request: pytest.FixtureRequest, scores: dict[str, Found]) -> Found:
    return scores[request.param]


def explained(one: Found) -> Reason | None:
    """The entry of the table that is about a difference."""
    return deviation_of(one, {field["field"] for field in one["fields"]}, DEVIATIONS)


@pytest.mark.timeout(180)
def test_every_phase_reaches_its_goal(found: Found) -> None:
    for phase, row in found["phases"].items():
        goals = [goal for name, goal in GOALS.items() if phase.startswith(name)]
        assert row["percent"] >= max(goals, default=0), (phase, row)


@pytest.mark.timeout(180)
def test_all_records_were_compared(found: Found) -> None:
    rows = found["phases"].values()
    names = ("equal", "different", "not comparable")
    assert sum(row[name] for row in rows for name in names) == RECORDS[found["config"]]
    assert sum(row["not comparable"] for row in rows) <= NOT_COMPARABLE
    assert found["problems"] == []


@pytest.mark.timeout(180)
def test_every_difference_is_explained(found: Found) -> None:
    new = [one for one in found["differences"] if one["reason"] is None]
    assert new == []


@pytest.mark.timeout(180)
def test_every_deviation_is_about_its_number_of_records(scores: dict[str, Found]) -> None:
    """More are a new difference of a known kind; none, and the entry has to go."""
    count = Counter(explained(one) for score in scores.values() for one in score["differences"])
    wrong = [
        f"{entry}: {count[entry]} found"
        for entry in DEVIATIONS
        if not 0 < count[entry] <= entry.records
    ]
    assert wrong == []


def stages() -> dict[str, str]:
    """/proc/iomem as it was recorded, by stage."""
    found = {"root-boot": "iomem-root-boot.txt", "user-boot": "iomem-user-boot.txt",
             "matrix-all-drivers": "iomem-all-drivers.txt",
             **{name: f"truth-nd/iomem-{name}.txt" for name in ND_STAGES}}  # fmt: skip
    texts = {name: (DATA / file).read_text() for name, file in found.items()}
    for file in ("pc-q35-vmem-stages.json.xz", "pc-q35-dimm-stages.json.xz"):
        recorded = json.loads(lzma.decompress((DATA / file).read_bytes()))
        texts.update({name: one["iomem"] for name, one in recorded.items()})
    return texts


@pytest.mark.timeout(180)
def test_iomem_at_every_stage(scores: dict[str, Found], kept: Path) -> None:
    recorded = stages()
    here = {name: (kept / "default" / f"iomem-{name}.txt").read_text() for name in recorded}
    assert [name for name in recorded if here[name] != recorded[name]] == []
    assert len(recorded) == 26


# -- without the exact layer --------------------------------------------------------------------


@pytest.fixture(scope="module")
def accesses(host: Host) -> list[tuple[Found, Fields]]:
    """Differences of the accesses at every address, by field, without the exact layer."""
    need_probe()
    said = host.check("conformance", "-c", "default", "--no-exact", "--json", timeout=100)
    (score,) = json.loads(said)
    return [
        (one, {field["field"]: (field["recorded"], field["here"]) for field in one["fields"]})
        for one in score["differences"]
        if one["phase"].startswith("matrix-")
    ]


@pytest.mark.timeout(120)
def test_a_refused_mapping_is_met_at_its_touch(accesses: list[tuple[Found, Fields]]) -> None:
    refused = [fields for _, fields in accesses if fields.get("errno") in MADE]
    assert len(refused) > 400
    assert {fields["signal.signo"][1] for fields in refused} == {"SIGBUS"}
    assert {fields["signal.si_code"][1] for fields in refused} == {"BUS_ADRERR"}


@pytest.mark.timeout(120)
def test_reads_and_writes_are_answered_as_with_it(accesses: list[tuple[Found, Fields]]) -> None:
    """But those of no bytes, which a file system is not asked about."""
    others = [one for one, fields in accesses if fields.get("errno") not in MADE]
    new = [one for one in others if explained(one) is None and int(one["args"]["len"], 16)]
    # The host ends a regular file at offset 2^63.
    assert {one["case"] for one in new} <= {"2^63", "2^63-4096"}
    assert {one["op"] for one in new} <= {"mmap+touch"}


@pytest.mark.timeout(120)
def test_a_recording_with_a_broken_line(host: Host, tmp_path: Path) -> None:
    need_probe()
    path = tmp_path / "mine.jsonl"
    line = {
        "config": "strict",
        "phase": "fd",
        "case": "fsync",
        "op": "fsync",
        "result": -1,
        "errno": "EINVAL",
    }
    path.write_text(f'{{"phase":\n{json.dumps(line)}\n')
    done = host("conformance", "-c", path, "--no-exact", "--json", timeout=100)
    assert done.returncode == 0, done.stderr
    assert f"{path}:1: not a record" in done.stderr
    assert "without the exact layer" in done.stderr
    (score,) = json.loads(done.stdout)
    assert score["phases"]["fd"]["equal"] + score["phases"]["fd"]["different"] == 1
    assert score["cmdline"] == "iomem=strict"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-c", "nowhere"), "nowhere: no such recording"),
        (("--memory", "3M"), "--memory is a multiple of 128M"),
        (("--memory", "much"), "not a number"),
        (("--phase", "sleep"), "no phase 'sleep'"),
    ],
)
def test_what_cannot_be_done_is_one_line(host: Host, words: tuple[str, ...], said: str) -> None:
    if not (shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler (package gcc)")
    done = host("conformance", *words)
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
