"""`python -m benchmarks [--quick] [--json FILE] [--only NAME]`."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import accesses, exact, hotplug, pci, revoke, scale, start
from benchmarks.arena import HERE, enter
from benchmarks.report import Report
from benchmarks.servers import load_average
from fakedev.model.errors import HostError

# These are measured first, because the others move this process into a namespace for good.
OUTSIDE = {"start": start.run, "exact": exact.run}
INSIDE = {
    "accesses": accesses.run,
    "revoke": revoke.run,
    "resources": scale.resources,
    "memory": scale.memory,
    "pci": pci.run,
    "hotplug": hotplug.run,
}
NAMES = (*OUTSIDE, *INSIDE)


def main() -> int:
    """Measure, print, write. Exit status 1 when this host does not allow it."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    report = Report(quick=options.quick, pinned=not options.spread)
    names = options.only or NAMES
    try:
        _measure(report, names)
    except HostError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report.loads.append(load_average())
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    report.show(console)
    path = options.json or HERE / "results" / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    report.write(path)
    print(f"written to {path}; targets missed: {len(report.missed)}")
    return 0


def _measure(report: Report, names: Sequence[str]) -> None:
    for name, measure in OUTSIDE.items():
        if name in names:
            _say(report, name)
            measure(report)
    inside = [name for name in INSIDE if name in names]
    if inside:
        with enter() as arena:
            for name in inside:
                _say(report, name)
                INSIDE[name](arena, report)


def _say(report: Report, name: str) -> None:
    report.loads.append(load_average())
    print(f"benchmarks: {name} (load average {report.loads[-1]:.2f})", file=sys.stderr)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: a minute less, more noise"
    )
    parser.add_argument(
        "--spread", action="store_true", help="client and server on any CPU, not one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the JSON goes")
    parser.add_argument(
        "--only", action="append", choices=NAMES, metavar="NAME",
        help=f"one part ({', '.join(NAMES)}); repeatable",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
