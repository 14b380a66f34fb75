"""The recorded truth about PCI, replayed call by call: `python -m tests.truth` prints the score.

What differs is in `tests/truth/tables.py`, each entry with its reason and how many records it covers: a
difference that appears or disappears fails here.
"""

from pathlib import Path

import pytest
from support import Host, need_sandbox
from truth.compare import Kind, Score
from truth.replay import recorded, replay

#: Operations whose every record is equal, but for what the tables say.
PHASES = {
    "sysfs",
    "sysfs-ops",
    "bind-errors",
    "cross-write",
    "sysfs-bound",
    "dimm",
    *(f"revoke-{name}" for name in ("e1000", "nvme", "ahci-bar5", "xhci", "hda", "vga")),
    *(f"remove-{name}" for name in ("ivshmem", "edu", "e1000e-hotplug", "e1000-bound")),
}


@pytest.fixture(scope="module")
def score(host: Host, folder: Path) -> Score:
    need_sandbox()
    return replay(host, folder)


@pytest.mark.timeout(180)
def test_nothing_differs_but_what_is_known(score: Score) -> None:
    assert score.of(Kind.DIFFERENT) == []


def test_what_is_known_is_still_so(score: Score) -> None:
    assert score.wrong == []


def test_every_record_was_judged(score: Score) -> None:
    assert {one.record["phase"] for one in score.judgements} == PHASES
    assert len(score.judgements) == len(recorded()) == 1593
