"""How long `fakedev run fd-9000 -- true` takes, and where the time goes."""

import os
import re
import subprocess
import sys
import time
from collections import Counter

from benchmarks.arena import HERE, TIMEOUT, python
from benchmarks.report import Report, Target, row

SECTION = "Start"
TIME = "time"
FAKEDEV = [sys.executable, "-m", "fakedev"]
COMMAND = [*FAKEDEV, "run", "fd-9000", "--", "true"]
SHOWN = 10
_IMPORT = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)")


def run(report: Report) -> None:
    """Measure whole commands, then the sandbox alone."""
    count = 5 if report.quick else 15
    _run(COMMAND)  # compiles modules, and the profile into the user's cache
    warm = [_run(COMMAND) for _ in range(count)]
    target = Target(300)
    report.rows.append(
        row((SECTION, "fakedev run fd-9000 -- true", TIME), "ms", warm, target=target)
    )
    bare = {**os.environ, "FAKEDEV_NO_CACHE": "1"}
    cold = [_run(COMMAND, bare) for _ in range(max(count // 3, 2))]
    report.rows.append(row((SECTION, "the same, its profile not cached", TIME), "ms", cold))
    empty = [_run([sys.executable, "-c", ""]) for _ in range(count)]
    report.rows.append(row((SECTION, "python -c '' beside it", TIME), "ms", empty))
    _sandbox(report, count)
    report.imports = imports()


def _run(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Milliseconds of a command. RuntimeError with its words when it fails."""
    before = time.perf_counter()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        cwd=HERE.parent,
    )  # fmt: skip
    spent = time.perf_counter() - before
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return spent * 1000


def _sandbox(report: Report, count: int) -> None:
    """In a process of its own: Sandbox.run(["true"]) less `true` without a sandbox."""
    done = subprocess.run(
        python("sandbox", str(count)), capture_output=True, text=True, timeout=TIMEOUT, check=True,
        cwd=HERE.parent,
    )  # fmt: skip
    lines = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    outside = lines.pop()
    for name, inside in zip(("fd-9000", "a machine without files"), lines, strict=True):
        extra = [a - b for a, b in zip(inside, outside, strict=True)]
        place = (SECTION, f"the sandbox of {name} alone", TIME)
        target = Target(15) if name == "fd-9000" else None
        report.rows.append(row(place, "ms", extra, target=target))


def imports() -> list[tuple[str, float]]:
    """The packages that cost most to import, in milliseconds of their own."""
    command = [FAKEDEV[0], "-X", "importtime", *COMMAND[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=True, cwd=HERE.parent
    )
    spent: Counter[str] = Counter()
    for microseconds, name in _IMPORT.findall(done.stderr):
        depth = 2 if name.startswith("fakedev") else 1
        spent[".".join(name.split(".")[:depth])] += int(microseconds)
    return [(name, total / 1000) for name, total in spent.most_common(SHOWN)]
