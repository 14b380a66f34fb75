"""`fakedev ctl virtio-mem`: the hypervisor's side of virtio-mem devices."""

from typing import Annotated, Any

import typer

from fakedev.cli import options
from fakedev.cli.calls import call
from fakedev.model.errors import RangeError
from fakedev.model.ranges import parse_number

_KEY = "requested-size"
_HEAD = ("NAME", "DEVICE", "REGION", "NODE", "REQUESTED", "PLUGGED", "USABLE", "DRIVER")


def virtio_mem(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME requested-size SIZE]",
            help="A device, and how much memory the hypervisor wants the guest to have: 640M.",
        ),
    ] = None,
    *,
    json: options.Json = False,
) -> None:
    """List virtio-mem devices, or ask the guest for more or less memory (`qom-set requested-size`)."""
    if not words:
        _list(call("virtio-mem")["devices"], json=json)
        return
    if len(words) != 3 or words[1] != _KEY:
        raise typer.BadParameter(f"write NAME {_KEY} SIZE, for example: vm0 {_KEY} 640M")
    try:
        size = parse_number(words[2])
    except RangeError as error:
        raise typer.BadParameter(str(error)) from None
    found = call("virtio-mem-request", name=words[0], size=size)
    if json:
        options.print_json(found)
        return
    for step in found["steps"]:
        typer.echo(step)
    typer.echo(
        f"{found['name']}: requested {_size(found['requested_size'])}, "
        f"plugged {_size(found['plugged_size'])}"
    )


def _list(devices: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        options.print_json(devices)
        return
    lines = [_HEAD, *map(_columns, devices)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _columns(device: dict[str, Any]) -> tuple[str, ...]:
    driver = device["driver"] or ("leaked" if device["leaked"] else "-")
    blocks = ", ".join(f"{count} {state}" for state, count in device["blocks"].items())
    shown = f"{driver} ({device['mode']}{': ' if blocks else ''}{blocks})"
    return (
        device["name"],
        device["device"] or "-",
        device["range"],
        str(device["node"]),
        _size(device["requested_size"]),
        _size(device["plugged_size"]),
        _size(device["usable_size"]),
        shown if device["driver"] else driver,
    )


def _size(size: int) -> str:
    return f"{size >> 20}M"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("virtio-mem", rich_help_panel="Memory")(virtio_mem)
