"""What an access costs: every server in turn, again and again, so that noise meets all of them."""

from typing import NamedTuple

from benchmarks import servers
from benchmarks.arena import Arena, one_cpu
from benchmarks.report import Report, Target, ratio, row

SECTION = "Accesses"


class Workload(NamedTuple):
    """`times` accesses of `unit` bytes in a mode of the client, and what the ratios should be."""

    name: str
    mode: str
    unit: int
    step: int
    times: int
    target: Target | None
    peer: Target | None = None


AT_MOST = Target(1.5)
TWICE = Target(2, least=True)
WORKLOADS = (
    Workload("4 KiB pread, random", "pread", 4096, 4096, 4000, AT_MOST, TWICE),
    Workload("4-byte pread, random", "pread", 4, 4096, 4000, None),
    Workload("page fault, random", "fault", 1, 65536, 1024, AT_MOST, TWICE),
    Workload(
        "1 MiB preads, sequential (ratio of speeds)",
        "seq",
        1 << 20,
        1 << 20,
        64,
        Target(0.8, least=True),
    ),
)


def run(arena: Arena, report: Report) -> None:
    """Measure all workloads on all servers."""
    rounds = 5 if report.quick else 15
    with one_cpu(wanted=report.pinned), servers.all_of(arena) as served:
        for workload in WORKLOADS:
            _one(arena, report, workload, served, rounds)


def _one(
    arena: Arena,
    report: Report,
    workload: Workload,
    served: dict[str, servers.Served],
    rounds: int,
) -> None:
    times: dict[str, list[float]] = {name: [] for name in served}
    for seed in range(-1, rounds):
        for name, server in served.items():
            spent = _measure(arena, workload, server, seed)
            if seed >= 0:  # the first one warms up
                times[name].append(spent)
    for name, samples in times.items():
        report.rows.append(row((SECTION, workload.name, name), "us", samples))
    _compare(report, workload, times)


def _measure(arena: Arena, workload: Workload, server: servers.Served, seed: int) -> float:
    """Microseconds of one access."""
    spent = arena.measure(
        workload.mode, server.file, server.offset, servers.WINDOW, workload.unit, workload.step,
        workload.times, seed + 1,
    )  # fmt: skip
    return spent / workload.times / 1000


def _compare(report: Report, workload: Workload, times: dict[str, list[float]]) -> None:
    """Time over time; for the sequential reads, speed over speed."""
    ours, floor = times["fakedev"], times["C loop"]
    place = (SECTION, workload.name, "fakedev / C loop")
    pair = (floor, ours) if workload.mode == "seq" else (ours, floor)
    report.rows.append(ratio(place, *pair, workload.target))
    if "mfusepy" in times:
        place = (SECTION, workload.name, "mfusepy / fakedev")
        report.rows.append(ratio(place, times["mfusepy"], ours, workload.peer))
