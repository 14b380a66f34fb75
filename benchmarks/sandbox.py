"""`python -m benchmarks.sandbox COUNT`: milliseconds of `true`, in fd-9000, a bare machine, and outside."""

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.serve import window
from fakedev.fuse.service import Service
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_SIZE
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.sandbox.launcher import Sandbox


def _spent(job: Callable[[], object]) -> float:
    before = time.perf_counter()
    job()
    return (time.perf_counter() - before) * 1000


def main() -> None:
    """Measure in turn, after a first one that loads what is loaded late."""
    jobs = [_inside(build_machine(load_profile("fd-9000"))), _inside(window(PAGE_SIZE)), _outside]
    rounds = [[_spent(job) for job in jobs] for _ in range(int(sys.argv[1]) + 1)]
    for times in zip(*rounds[1:], strict=True):
        print(*times)


def _inside(machine: Machine) -> Callable[[], object]:
    sandbox = Sandbox(Service(machine))
    return lambda: sandbox.run(["true"], check=True)


def _outside() -> None:
    subprocess.run(["true"], check=True)


if __name__ == "__main__":
    main()
