"""`fakedev doctor`."""

import typer

from fakedev.cli import options


def doctor(*, json: options.Json = False) -> None:
    """Say which layers this host allows, why not, and which command would enable the rest."""
    from fakedev.sandbox.doctor import examine, to_json  # noqa: PLC0415 - start-up time

    layers = examine()
    if json:
        typer.echo(to_json(layers))
    else:
        for layer in layers:
            typer.echo(f"{'yes' if layer.ok else 'NO ':4}{layer.name:14} {layer.reason}")
            if not layer.ok and layer.remedy:
                typer.echo(f"{'':18} to enable: {layer.remedy}")
    if not any(layer.ok for layer in layers if layer.name == "run"):
        raise typer.Exit(1)
