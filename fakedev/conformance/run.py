"""A configuration from its recording to its score."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from fakedev.conformance.build import Programs
from fakedev.conformance.compare import compare
from fakedev.conformance.configuration import Configuration
from fakedev.conformance.deviations import DEVIATIONS
from fakedev.conformance.reasons import REASONS, Reason
from fakedev.conformance.runner import run_probe
from fakedev.conformance.score import Score
from fakedev.model.errors import HostError
from fakedev.sandbox.exact.support import exact_refusal

_WITHOUT = Reason("a file system is not asked (without the exact layer)")


def run(
    configuration: Configuration,
    programs: Programs,
    *,
    phases: Collection[str] = (),
    exact: bool | None = None,
    keep: Path | None = None,
) -> Score:
    """Run the probe and compare; of `phases` only, where there are any: those before them are run too.

    What the probe keeps is put into a folder of `keep`, by name of the configuration.
    """
    recorded = configuration.recording.records
    start = time.monotonic()
    name = configuration.name
    folder = None if keep is None else keep / name
    here = run_probe(configuration.machine(), programs, name, exact=exact, keep=folder)
    seconds = time.monotonic() - start
    without = "it is off" if exact is False else exact_refusal()
    deviations = (*DEVIATIONS, _WITHOUT) if without else DEVIATIONS
    judgements = compare(recorded, here.records, REASONS, deviations)
    if phases:
        judgements = [one for one in judgements if _wanted(one.record["phase"], phases)]
    problems = [*configuration.recording.problems, *here.problems]
    if without:
        problems.append(f"without the exact layer: {without}")
    return Score(configuration, judgements, problems, seconds)


def with_phases(chosen: Sequence[Configuration], phases: Collection[str]) -> list[Configuration]:
    """Those that have one of `phases`; all, without any. HostError for a phase that none has."""
    known = {one.name: _phases(one) for one in chosen}
    every = set().union(*known.values())
    for phase in phases:
        if not any(_wanted(one, [phase]) for one in every):
            raise HostError(f"no phase {phase!r} in the recording: {', '.join(sorted(every))}")
    return [one for one in chosen if not phases or any(_wanted(p, phases) for p in known[one.name])]


def _phases(configuration: Configuration) -> set[str]:
    return {record["phase"] for record in configuration.recording.records}


def _wanted(phase: str, phases: Collection[str]) -> bool:
    """`revoke` stands for all phases whose names begin with it."""
    return any(phase == one or phase.startswith(f"{one}-") for one in phases)
