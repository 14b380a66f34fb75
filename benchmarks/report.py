"""Results: what was measured, the target beside it, as tables and as JSON."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLOURS = {"met": "green", "missed": "red", "": "default"}


@dataclass(frozen=True, slots=True)
class Target:
    """What the issue asks for: at most `bound`, or at least that with `least`."""

    bound: float
    least: bool = False

    def met(self, value: float) -> bool:
        """True when `value` keeps to the bound."""
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        """The bound as people write it."""
        return f"{'>=' if self.least else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One number: `what` was measured of `who`; the median, and the lowest and highest around it."""

    section: str
    what: str
    who: str
    unit: str
    median: float
    low: float
    high: float
    target: Target | None = None
    p99: float | None = None

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing without a target."""
        if self.target is None:
            return ""
        return "met" if self.target.met(self.median) else "missed"

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"verdict": self.verdict or None}

    def cell(self) -> str:
        """The number, below it its spread, below that its target."""
        lines = [f"[{COLOURS[self.verdict]}]{number(self.median)} {self.unit}[/]"]
        spread = f"{number(self.low)}..{number(self.high)}" if self.low != self.high else ""
        if self.p99 is not None:
            spread = f"p99 {number(self.p99)}"
        lines += [f"[dim]{spread}[/]"] if spread else []
        lines += [f"[dim]{self.target}[/] {self.verdict}"] if self.target else []
        return "\n".join(lines)


def row(
    place: tuple[str, str, str],
    unit: str,
    samples: Sequence[float],
    *,
    target: Target | None = None,
    tail: bool = False,
) -> Row:
    """A row from samples; `place` is section, what and who. `tail` adds the 99th percentile."""
    ordered = sorted(samples)
    p99 = ordered[max(math.ceil(len(ordered) * 0.99) - 1, 0)] if tail else None
    return Row(*place, unit, statistics.median(ordered), ordered[0], ordered[-1], target, p99)


def ratio(
    place: tuple[str, str, str],
    above: Sequence[float],
    below: Sequence[float],
    target: Target | None = None,
) -> Row:
    """The ratio of two medians; lowest and highest are ratios within one round."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    median = statistics.median(above) / statistics.median(below)
    return Row(*place, "x", median, min(pairs), max(pairs), target)


@dataclass(slots=True)
class Report:
    """Everything of one run."""

    quick: bool
    pinned: bool = True
    rows: list[Row] = field(default_factory=list)
    imports: list[tuple[str, float]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def host(self) -> dict[str, Any]:
        """What it was measured on. `load_average`: of a minute, before each part and at the end."""
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "quick": self.quick,
            "one_cpu": self.pinned,
            "load_average": [round(load, 2) for load in self.loads],
        }

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        found = {
            "host": self.host(),
            "rows": [one.json() for one in self.rows],
            "imports_ms": dict(self.imports),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    def show(self, console: Console) -> None:
        """Print the tables."""
        for section in dict.fromkeys(one.section for one in self.rows):
            console.print(_table(section, [one for one in self.rows if one.section == section]))
        if self.imports:
            console.print(_imports(self.imports))
        host = self.host()
        loads = ", ".join(str(load) for load in host["load_average"])
        console.print(
            f"Linux {host['kernel']} {host['machine']}, {host['cpus']} CPUs, Python {host['python']}; "
            f"load average {loads}{'; a quick run' if self.quick else ''}",
            highlight=False,
        )

    @property
    def missed(self) -> list[Row]:
        """Rows that do not keep to their target."""
        return [one for one in self.rows if one.verdict == "missed"]


def _table(section: str, rows: list[Row]) -> Table:
    """What was measured goes down, of whom goes across."""
    table = Table(title=section, title_justify="left", title_style="bold", show_lines=True)
    table.add_column()
    across = list(dict.fromkeys(one.who for one in rows))
    for who in across:
        table.add_column(who, justify="right")
    for what in dict.fromkeys(one.what for one in rows):
        cells = {one.who: one.cell() for one in rows if one.what == what}
        table.add_row(what, *(cells.get(who, "") for who in across))
    return table


def _imports(imports: list[tuple[str, float]]) -> Table:
    table = Table(title="Imports of `fakedev run`", title_justify="left", title_style="bold")
    table.add_column("package, without what it imports from others")
    table.add_column("ms", justify="right")
    for name, spent in imports:
        table.add_row(name, number(spent))
    return table


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
