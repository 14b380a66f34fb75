"""`fakedev ctl`: the commands about memory that fails."""

from typing import Annotated

import typer

from fakedev.cli import options
from fakedev.cli.calls import call

Span = Annotated[
    str, typer.Argument(metavar="RANGE", help="ADDR, ADDR+LEN or START-END; whole pages fail.")
]


def poison(span: Span, *, json: options.Json = False) -> None:
    """Let memory fail: touches of mappings are SIGBUS, reads and writes EIO."""
    found = call("poison", range=span)
    if json:
        options.print_json(found)
        return
    typer.echo(f"{_pages(found['pages'])} of {found['range']} poisoned")
    typer.echo(f"HardwareCorrupted: {found['hardware_corrupted_kb']} kB")


def unpoison(span: Span, *, json: options.Json = False) -> None:
    """Let memory be good again; mappings that died stay dead."""
    found = call("unpoison", range=span)
    options.print_json(found) if json else typer.echo(
        f"{_pages(found['pages'])} of {found['range']} good again"
    )


def _pages(count: int) -> str:
    return "1 page" if count == 1 else f"{count} pages"


def add_to(app: typer.Typer) -> None:
    """Add the commands; help shows them with the other ones about memory."""
    for command in (poison, unpoison):
        app.command(command.__name__, rich_help_panel="Memory")(command)
