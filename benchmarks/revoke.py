"""How long a driver's claim takes while processes have the page mapped."""

import time
from pathlib import Path

from benchmarks import servers
from benchmarks.arena import Arena, Child
from benchmarks.report import Report, Target, row
from benchmarks.serve import BASE
from fakedev.control.client import Client

SECTION = "Claim of one page that is mapped"
PAGE = 4096
MAPPINGS = (1, 10, 100)
FAST = Target(200)


def run(arena: Arena, report: Report) -> None:
    """Measure with each number of mappings, one process each."""
    count = 50 if report.quick else 200
    with servers.wire(arena) as served:
        for mappings in MAPPINGS:
            _one(arena, report, served, mappings, count)


def _one(arena: Arena, report: Report, served: servers.Served, mappings: int, count: int) -> None:
    """A page loses its mappings once, so each claim takes the next one of the window."""
    child, ready = served.child, served.ready
    assert child is not None
    assert ready is not None
    who = f"{mappings} mapping{'s' if mappings > 1 else ''}"
    for how in ("Machine.claim", "control socket"):
        holder = _hold(arena, served, mappings, 2 * count)
        try:
            if how == "Machine.claim":
                times = child.ask(do="claims", start=BASE, step=2 * PAGE, count=count)
            else:
                times = _by_socket(Path(ready["socket"]), count)
        finally:
            holder.stop()
        target = FAST if mappings == 1 and how == "Machine.claim" else None
        samples = [spent / 1000 for spent in times]
        place = (SECTION, how, who)
        report.rows.append(row(place, "us", samples, target=target, tail=True))


def _hold(arena: Arena, served: servers.Served, mappings: int, pages: int) -> Child:
    words = [arena.client, "hold", served.file, served.offset, pages * PAGE, mappings]
    holder = Child([str(word) for word in words], name="client hold")
    holder.line()
    return holder


def _by_socket(path: Path, count: int) -> list[int]:
    times = []
    with Client(path, timeout=30) as client:
        for number in range(count):
            span = f"{BASE + 2 * number * PAGE:#x}+4K"
            before = time.perf_counter_ns()
            client.call("claim", range=span, name="bench")
            times.append(time.perf_counter_ns() - before)
            client.call("release", range=span)
    return times
