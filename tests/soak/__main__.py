"""`python -m tests.soak [--minutes 10] [--seed N]`: two thirds of the time coherence, one third churn."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import Host

from soak import churn, coherence

TURNS = 100_000
SLICE = 60.0


def _coherence(host: Host, folder: Path, seconds: float, seed: int) -> int:
    start = time.monotonic()
    coherence.ping_pong(host, folder, TURNS, seconds=600)
    print(f"ping-pong: {TURNS} turns in {time.monotonic() - start:.1f} s", flush=True)
    wrong = 0
    while (left := seconds - (time.monotonic() - start)) > 1:
        tally = coherence.at_random(host, folder, min(left, SLICE), seed=seed)
        print(
            f"random, seed {seed}: {tally.operations} operations, {tally.wrong} wrong values, "
            f"{tally.failures} failures\n{tally.said}",
            end="",
            flush=True,
        )
        wrong += tally.wrong + tally.failures
        seed += 1
    return wrong


def main() -> int:
    """Status 1 where anything was wrong; an exception tells of a hang or a stale entry."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    runtime = Path(tempfile.mkdtemp(prefix="fdsk-"))
    try:
        host = Host(runtime)
        wrong = _coherence(host, runtime, given.minutes * 40, given.seed)
        report = churn.churn(
            host, runtime, given.minutes * 20, lambda line: print(line, flush=True)
        )
        print(report)
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    return int(bool(wrong or report.bad))


sys.exit(main())
