"""The recorded phase `vmem`, replayed call by call; the matrices are in test_virtio_mem."""

from pathlib import Path

import pytest
from support import Host, need_sandbox
from truth.compare import Kind, Score
from truth.phase_vmem import recorded, replay


@pytest.fixture(scope="module")
def score(host: Host, folder: Path) -> Score:
    need_sandbox()
    return replay(host, folder)


def test_nothing_differs_but_what_is_known(score: Score) -> None:
    assert score.of(Kind.DIFFERENT) == []


def test_what_is_known_is_still_so(score: Score) -> None:
    assert score.wrong == []


def test_every_record_was_judged(score: Score) -> None:
    assert len(score.judgements) == len(recorded()) == 88
