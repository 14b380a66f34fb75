"""Machines with many resources, and with much memory."""

import contextlib
import os
import random
from pathlib import Path

from benchmarks import servers
from benchmarks.arena import Arena, one_cpu
from benchmarks.report import Report, Target, ratio, row
from benchmarks.serve import BASE

RESOURCES = "Many resources"
MEMORY = "Much memory"
COUNTS = (10, 1_000, 100_000)
PAGES = 200_000
PAGE = 4096
READ = "4 KiB pread"
SMALL, LARGE = "1G", "1T"
TOUCHED = 1_000

PROFILE = """\
fakedev: 1
name: bench-{size}
description: A machine with {size} of RAM in one piece.
kernel: {{version: "6.12", strict_devmem: false, cmdline: nopat}}
firmware:
  e820:
    - {{range: 0x100000000+{size}, type: System RAM}}
"""


def resources(arena: Arena, report: Report) -> None:
    """4 KiB preads, and claims of free pages, against the number of resources."""
    with one_cpu(wanted=report.pinned), contextlib.ExitStack() as stack:
        served = {
            count: stack.enter_context(
                servers.wire(arena, {"kind": "resources", "count": count, "pages": PAGES})
            )
            for count in COUNTS
        }
        _reads(arena, report, served, 3 if report.quick else 9)
        _claims(report, served, 100 if report.quick else 500)


def _reads(arena: Arena, report: Report, served: dict[int, servers.Served], rounds: int) -> None:
    """All free pages of a window in random order: the first time, and then again and again."""
    pages = servers.WINDOW // (2 * PAGE)
    times: dict[int, list[float]] = {count: [] for count in served}
    for seed in range(rounds + 1):
        for count, server in served.items():
            spent = arena.measure(
                "pread", server.file, server.offset + PAGE, servers.WINDOW, PAGE, 2 * PAGE, pages, seed
            )  # fmt: skip
            times[count].append(spent / pages / 1000)
    few = times[COUNTS[0]][1:]
    for count, (first, *again) in times.items():
        who = f"{count:,}"
        report.rows.append(row((RESOURCES, "4 KiB pread, the first of a page", who), "us", [first]))
        report.rows.append(row((RESOURCES, READ, who), "us", again))
        if count != COUNTS[0]:
            target = Target(1.3) if count == COUNTS[-1] else None
            report.rows.append(ratio((RESOURCES, f"{READ}, to 10", who), again, few, target))


def _claims(report: Report, served: dict[int, servers.Served], count: int) -> None:
    for held, server in served.items():
        assert server.child is not None
        times = server.child.ask(do="claims", start=BASE + PAGE, step=2 * PAGE, count=count)
        place = (RESOURCES, "Machine.claim of a free page", f"{held:,}")
        report.rows.append(row(place, "us", [spent / 1000 for spent in times], tail=True))


def memory(arena: Arena, report: Report) -> None:
    """A machine of 1 TiB: how long it loads, and what it holds after stores to 1,000 random pages."""
    for size in (SMALL, LARGE):
        path = arena.directory("profile") / f"bench-{size}.yaml"
        path.write_text(PROFILE.format(size=size), encoding="utf-8")
        spec = {"kind": "profile", "path": str(path)}
        loads = []
        for _ in range(2 if report.quick else 5):
            with servers.wire(arena, spec) as served:
                assert served.child is not None
                assert served.ready is not None
                loads.append(served.ready["built"] * 1000)
                _touch(served.file, {"1G": 1 << 30, "1T": 1 << 40}[size])
                use = served.child.ask(do="memory")
        _show_memory(report, size, loads, use)


def _touch(file: Path, size: int) -> None:
    """Store to TOUCHED random pages, and read as many others."""
    choice = random.Random(7)
    places = [BASE + choice.randrange(size >> 12) * PAGE for _ in range(2 * TOUCHED)]
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        for place in places[:TOUCHED]:
            os.pwrite(descriptor, place.to_bytes(8, "little"), place)
        for place in places:
            os.pread(descriptor, 8, place)
    finally:
        os.close(descriptor)


def _show_memory(report: Report, size: str, loads: list[float], use: dict[str, int]) -> None:
    machine = f"{size[0]} {size[1]}iB"
    target = Target(80) if size == LARGE else None
    stores = f"resident after {TOUCHED:,} stores to random pages"
    report.rows += [
        row((MEMORY, "load the profile, not cached", machine), "ms", loads),
        row((MEMORY, stores, machine), "MB", [use["VmRSS"] / 1e6], target=target),
        row((MEMORY, "most that was ever resident", machine), "MB", [use["VmHWM"] / 1e6]),
    ]
