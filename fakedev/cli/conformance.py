"""`fakedev conformance`: how many answers of a real kernel a machine gives too."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from fakedev.cli import options


def conformance(  # noqa: PLR0913 - one parameter an option
    *,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="CONFIG|FILE",
            help="default, lockdown-integrity, or a recording of the probe; repeatable (both).",
        ),
    ] = None,
    cmdline: Annotated[
        str | None,
        typer.Option(
            "--kernel-cmdline",
            metavar="ARGS",
            help="Kernel arguments of the machine (those of the recording).",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="RAM of the machine, such as 5G (as recorded)."),
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="Compare this phase only (`revoke`: all of them); repeatable."),
    ] = None,
    exact: options.Exact = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every difference, not the first of each phase.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to put the files that the probe makes."),
    ] = None,
    json: options.Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page for the documentation.")
    ] = False,
) -> None:
    """Run the probe of a recording in a machine, and compare record by record.

    A score is no failure: the status is 0 when everything was compared.
    """
    from fakedev.conformance import page, score  # noqa: PLC0415 - start-up time
    from fakedev.conformance.build import build  # noqa: PLC0415
    from fakedev.conformance.configuration import configuration  # noqa: PLC0415
    from fakedev.conformance.places import RECORDED  # noqa: PLC0415
    from fakedev.conformance.run import run, with_phases  # noqa: PLC0415
    from fakedev.model.ranges import parse_number  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was begun is cleaned up
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    size = None if memory is None else parse_number(memory)
    chosen = [configuration(one, cmdline=cmdline, memory=size) for one in config or RECORDED]
    chosen = with_phases(chosen, phase or ())
    programs = build()
    scores = []
    for one in chosen:
        scores.append(run(one, programs, phases=phase or (), exact=exact, keep=keep))
        for problem in scores[-1].problems:
            options.note(problem)
    if json:
        options.print_json(score.as_json(scores))
        return
    lines = list(page.markdown(scores)) if markdown else []
    for done in () if markdown else scores:
        lines += [*score.differences(done, everything=everything), *score.table(done)]
    typer.echo("\n".join(lines))
