"""`fakedev profiles`, `fakedev check`, `fakedev schema`."""

from typing import Annotated

import typer

from fakedev.cli import options


def profiles(*, json: options.Json = False) -> None:
    """List the bundled machines."""
    from fakedev.profiles.bundled import bundled_profiles  # noqa: PLC0415 - start-up time

    found = bundled_profiles()
    if json:
        options.print_json(
            [{"name": n, "path": str(p), "description": " ".join(d.split())} for n, p, d in found]
        )
        return
    for name, _, description in found:
        typer.echo(f"{name:12} {' '.join(description.split())}")


def check(
    files: Annotated[list[str], typer.Argument(help="Profiles, by path or bundled name.")],
    *,
    json: options.Json = False,
) -> None:
    """Report every error of a profile at once, as FILE:LINE:COL: what is wrong and what would be right."""
    from fakedev.profiles.loader import check_file  # noqa: PLC0415 - start-up time

    found = {name: check_file(name) for name in files}
    if json:
        options.print_json(found)
    else:
        for name, problems in found.items():
            typer.echo("\n".join(problems) if problems else f"{name}: good")
    if any(found.values()):
        raise typer.Exit(2)


def schema() -> None:
    """Print the JSON schema of profiles; editors complete and check from it."""
    from fakedev.profiles.schema import json_schema  # noqa: PLC0415 - start-up time

    options.print_json(json_schema())
