"""Runs every phase in machines of `pc-q35` and prints the score."""

import argparse
import json
import lzma
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import support

from truth import (
    phase_bind,
    phase_cross,
    phase_dimm,
    phase_ops,
    phase_remove,
    phase_revoke,
    phase_sysfs,
    phase_vmem,
)
from truth.actors import Actors
from truth.compare import Kind, Score, score
from truth.probe import Probe, Record
from truth.session import Session
from truth.tables import TABLES

DATA = support.DATA / "truth-pc-q35-pci.jsonl.xz"
#: The same machine after memory was added: what the phases before these had done to it.
GROWN = str(Path(__file__).parent / "grown.yaml")


def recorded() -> list[Record]:
    """The recorded answers, in order."""
    lines = lzma.decompress(DATA.read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


def at_boot(actors: Actors, records: list[Record]) -> None:
    """Phases before memory was added."""
    phase_sysfs.run(actors, records)
    phase_ops.run(actors, records)
    phase_bind.run(actors, records)
    phase_dimm.run(actors, records)


def grown(actors: Actors, records: list[Record]) -> None:
    """Phases after it. The driver of bind-errors is still loaded, and knows its id."""
    prelude = Probe(actors.root, [], "prelude")
    actors.module("modprobe", "uio_pci_generic")
    prelude.write_file("", f"{phase_bind.UIO}/new_id", phase_bind.IDS)
    edu = prelude.tree.find(*phase_sysfs.EDU)
    prelude.write_file("", f"{phase_bind.UIO}/unbind", edu)
    for one in phase_revoke.CASES:
        phase_revoke.run(actors, records, one)
    phase_cross.run(actors, records)
    for other in phase_remove.CASES:
        phase_remove.run(actors, records, other)
    phase_sysfs.run_bound(actors, records)


def _in(
    host: support.Host,
    folder: Path,
    profile: str,
    phases: Callable[[Actors, list[Record]], None],
    records: list[Record],
) -> None:
    with (
        Session(host, folder, profile) as root,
        Session(host, folder, profile, role="user") as user,
    ):

        def ctl(session: Session, *words: str) -> None:
            done = session.ctl(*words)
            if done.returncode:
                print(f"ctl {' '.join(words)}: {done.stderr.strip()}", file=sys.stderr)

        def module(verb: str, name: str) -> None:
            ctl(root, verb, name)
            ctl(user, verb, name)

        phases(
            Actors(root.caller, user.caller, module, lambda verb, bdf: ctl(root, verb, bdf)),
            records,
        )


def replay(host: support.Host, folder: Path) -> Score:
    """Both halves, and the score."""
    records: list[Record] = []
    _in(host, folder, "pc-q35", at_boot, records)
    _in(host, folder, GROWN, grown, records)
    return score(recorded(), records, TABLES)


def main() -> int:
    """Print the score by phase and the list of differences; the status is 1 where there is a new one."""
    parser = argparse.ArgumentParser(prog="tests.truth", description=__doc__)
    parser.add_argument("--all", action="store_true", help="list known differences too")
    everything = parser.parse_args().all
    runtime = Path(tempfile.mkdtemp(prefix="fdtr-"))
    try:
        host = support.Host(runtime)
        results = [replay(host, runtime), phase_vmem.replay(host, runtime)]
    finally:
        shutil.rmtree(runtime)
    kinds = {Kind.DIFFERENT} if not everything else set(Kind) - {Kind.EQUAL, Kind.SIGBUS}
    for result in results:
        print(result.table())
        print(*result.of(*kinds), *result.wrong, sep="\n")
    return int(any(result.of(Kind.DIFFERENT) or result.wrong for result in results))
