"""`fakedev explain --kernel all`: the verdicts of every preset, side by side."""

from collections.abc import Sequence
from typing import Any

import typer

from fakedev.control import explaining
from fakedev.model.errors import ProfileError
from fakedev.model.kernel import PRESETS
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

ALL = "all"
_IMPOSSIBLE = "-"


def explain_kernels(
    profile: str, address: str, operations: Sequence[str], overrides: Sequence[str]
) -> dict[str, Any]:
    """For each preset the verdicts, and what a claim does to mappings; `error` where it cannot be.

    Raises as `explain` when the profile fits no preset at all.
    """
    kernels: dict[str, Any] = {}
    spans: dict[str, str] = {}
    problem: ProfileError | None = None
    for version in PRESETS:
        try:
            loaded = load_profile(profile, overrides=[*overrides, f"kernel.version='{version}'"])
        except ProfileError as error:
            problem = error
            kernels[version] = {"error": str(error)}
            continue
        machine = build_machine(loaded)
        span = explaining.where(machine, address)
        spans[version] = str(span)
        kernels[version] = {
            "verdicts": {
                name: explaining.verdict_json(explaining.explain(machine, name, address))
                for name in operations
            },
            "claim": explaining.explain_claim(machine, span),
        }
    if not spans and problem is not None:
        raise problem
    return {"profile": profile, "range": next(iter(spans.values())), "kernels": kernels}


def show(found: dict[str, Any], operations: Sequence[str]) -> None:
    """Print a table with a column for each preset, and below it each rule with its kernels."""
    rows = {name: _row(found, name) for name in (*operations, "claim")}
    widths = [
        max(len(version), *(len(cells[column][0]) for cells in rows.values()))
        for column, version in enumerate(PRESETS)
    ]
    typer.echo(f"{found['range']} on {found['profile']}:")
    _line("", list(PRESETS), widths)
    for name, cells in rows.items():
        _line(name, [outcome for outcome, _ in cells], widths)
    for name, cells in rows.items():
        for rule, versions in _by_rule(cells).items():
            which = "all" if len(versions) == len(PRESETS) else ", ".join(versions)
            typer.echo(f"  {name:6} {which}: {rule}")


def _line(name: str, cells: list[str], widths: list[int]) -> None:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    typer.echo(f"  {name:6} {'  '.join(padded)}".rstrip())


def _row(found: dict[str, Any], name: str) -> list[tuple[str, str]]:
    """What each preset says, and by which rule."""
    return [_cell(kernel, name) for kernel in found["kernels"].values()]


def _cell(kernel: dict[str, Any], name: str) -> tuple[str, str]:
    if "error" in kernel:
        return _IMPOSSIBLE, kernel["error"]
    if name == "claim":
        return kernel["claim"]["outcome"], kernel["claim"]["rule"]
    verdict = kernel["verdicts"][name]
    outcome = "allowed" if verdict["allowed"] else verdict["errno"]
    if verdict["allowed"] and verdict["access"] == "zeros" and name != "mmap":
        outcome = "zeros" if name == "read" else "dropped"
    return outcome, verdict["rule"]


def _by_rule(cells: list[tuple[str, str]]) -> dict[str, list[str]]:
    rules: dict[str, list[str]] = {}
    for version, (_, rule) in zip(PRESETS, cells, strict=True):
        rules.setdefault(rule, []).append(version)
    return rules
