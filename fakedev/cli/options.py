"""Options that several commands share, and how they print."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fakedev.sandbox.runtime import runtime_directory


class Role(StrEnum):
    """Who the tool is in the machine."""

    ROOT = "root"
    USER = "user"


class Backend(StrEnum):
    """Who speaks to the kernel."""

    WIRE = "wire"
    FUSEPY = "fusepy"


Profile = Annotated[
    str, typer.Argument(help="A bundled profile (`fakedev profiles`) or a YAML file.")
]
As = Annotated[Role, typer.Option("--as", help="Be root in the machine, or an ordinary user.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a profile key for this run, e.g. kernel.strict_devmem=true; repeatable.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="The machine's name for `fakedev ctl`.")]
Exact = Annotated[
    bool | None,
    typer.Option(
        "--exact/--no-exact",
        show_default="where the host can",
        help="Answer what no file system is asked: errnos of mmap, character devices, lseek, ioctl.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No notes on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Machine = Annotated[
    str | None,
    typer.Option(
        "--machine",
        "-m",
        help="Which machine (`fakedev ps`); not needed inside one, or when only one runs.",
    ),
]


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2))


def note(text: str, *, quiet: bool = False) -> None:
    """Print one line on stderr."""
    if not quiet:
        print(f"fakedev: {text}", file=sys.stderr)  # noqa: T201


def directory() -> Path:
    """Where control sockets lie."""
    return runtime_directory()
