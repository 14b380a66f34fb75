"""What the exact layer costs: calls that it looks at and those that it does not, and whole programs."""

import json
import subprocess
from typing import Any

from benchmarks.arena import HERE, TIMEOUT, python
from benchmarks.report import Report, Target, ratio, row

CALLS = "System calls and the exact layer"
PROGRAMS = "Programs and the exact layer"
WITHOUT, WITH = "without", "with"
UNFILTERED, INTERCEPTED, START = Target(1.3), Target(20), Target(5)
#: The calls of exact.c in words, and what they must keep to: a ratio, or microseconds with the layer.
SHOWN: dict[str, tuple[str, Target | None]] = {
    "getppid": ("getppid", UNFILTERED),
    "read": ("read of /dev/zero", UNFILTERED),
    "clock_gettime": ("clock_gettime", UNFILTERED),
    "lseek-set": ("lseek, SEEK_SET (filtered by its arguments)", None),
    "fstat-other": ("fstat of another file", INTERCEPTED),
    "mmap-other": ("mmap and munmap of another file", INTERCEPTED),
    "fstat-mem": ("fstat of /dev/mem", INTERCEPTED),
    "mmap-refused": ("mmap of System RAM: EPERM", INTERCEPTED),
    "mmap-anew": ("mmap of System RAM, another page each time: EPERM", INTERCEPTED),
    "lseek-end": ("lseek of /dev/mem, SEEK_END: EINVAL", INTERCEPTED),
    "ioctl": ("ioctl of /dev/mem, FIONREAD: ENOTTY", INTERCEPTED),
    "stat-mem": ("stat of /dev/mem (a look-up)", None),
    "open-mem": ("open and close of /dev/mem (a look-up)", None),
    "open-other": ("open and close of another file", None),
}
BOUNDS = {"gcc of a small file": Target(1.35), 'python -c "import numpy"': Target(1.1)}


def run(report: Report) -> None:
    """Measure in a process of its own: servers have threads, and this one enters namespaces later."""
    cpus = "one" if report.pinned else "all"
    done = subprocess.run(
        python("exact_turns", "3" if report.quick else "12", cpus),
        stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=True, cwd=HERE.parent,
    )  # fmt: skip
    turns = json.loads(done.stdout)
    for name, samples in turns["calls"].items():
        _call(report, name, samples)
    for name, samples in turns["programs"].items():
        _program(report, name, samples)


def _call(report: Report, name: str, samples: dict[str, list[float]]) -> None:
    what, target = SHOWN[name]
    report.rows.append(row((CALLS, what, WITHOUT), "us", samples["without"]))
    limit = target if target is INTERCEPTED else None
    report.rows.append(row((CALLS, what, WITH), "us", samples["with"], target=limit))
    if target is not INTERCEPTED:
        place = (CALLS, what, "ratio")
        report.rows.append(ratio(place, samples["with"], samples["without"], target))


def _program(report: Report, name: str, samples: dict[str, Any]) -> None:
    for who in (WITHOUT, WITH):
        report.rows.append(row((PROGRAMS, name, who), "ms", samples[who]))
    place = (PROGRAMS, name, "ratio")
    report.rows.append(ratio(place, samples[WITH], samples[WITHOUT], BOUNDS.get(name)))
    if name == "true":
        more = [a - b for a, b in zip(samples[WITH], samples[WITHOUT], strict=True)]
        report.rows.append(row((PROGRAMS, name, "more"), "ms", more, target=START))
    report.rows.append(row((PROGRAMS, name, "calls that wait"), "", [samples["calls"]]))
