"""One memory through many files, and functions that come and go: the short form of `python -m tests.soak`."""

from pathlib import Path

import pytest
from soak import churn, coherence
from support import SOAK, Host, need, need_sandbox

soaking = pytest.mark.timeout(120 * SOAK)


@soaking
def test_two_processes_pass_a_word(host: Host, folder: Path) -> None:
    need_sandbox()
    coherence.ping_pong(host, folder, 2000 * SOAK, seconds=60 * SOAK)


@soaking
@pytest.mark.parametrize("seed", [1, 2])
def test_eight_processes_and_a_sequential_model(host: Host, folder: Path, seed: int) -> None:
    need_sandbox()
    tally = coherence.at_random(host, folder, 6.0 * SOAK, seed=seed)
    assert (tally.said, tally.wrong, tally.failures) == ("", 0, 0)
    assert tally.operations > 5000 * SOAK


@soaking
def test_functions_come_and_go(host: Host, folder: Path) -> None:
    need_sandbox()
    need("lspci", "pciutils")
    report = churn.churn(host, folder, 10.0 * SOAK)
    assert report.bad == []
    assert report.rounds >= 2
    assert all(report.looks.values())
    assert all(report.visits)
    assert report.descriptors[1] <= report.descriptors[0] + 8
    assert report.memory[1] <= report.memory[0] + 16 * 1024
