"""`fakedev ctl`: the commands about memory blocks and DIMMs."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from fakedev.cli import options
from fakedev.cli.calls import call

Blocks = Annotated[
    str,
    typer.Argument(
        metavar="N|memoryN-M|RANGE", help="Blocks by number, or a range made of whole ones."
    ),
]
SlotName = Annotated[str, typer.Argument(metavar="SLOT", help="A slot that the profile names.")]


class Kind(StrEnum):
    """What the file `state` takes."""

    ONLINE = "online"
    KERNEL = "online_kernel"
    MOVABLE = "online_movable"


def memory(*, json: options.Json = False) -> None:
    """List the memory blocks (neighbours that are alike in one line), and the DIMM slots."""
    found = call("memory")
    if json:
        options.print_json(found)
        return
    typer.echo(f"{'RANGE':33} {'BLOCKS':>11} {'STATE':13} {'NODE':>4} ZONES")
    for first, last in _runs(found["blocks"]):
        low, high = (block["name"].removeprefix("memory") for block in (first, last))
        span = f"{first['range'].split('-')[0]}-{last['range'].split('-')[1]}"
        numbers = low if low == high else f"{low}-{high}"
        zones = " ".join(first["zones"]) + (" poisoned" if first["poisoned"] else "")
        typer.echo(f"{span:33} {numbers:>11} {first['state']:13} {first['node']:4} {zones}")
    for dimm in found["dimms"]:
        state = "plugged" if dimm["plugged"] else "empty"
        typer.echo(f"{dimm['range']:33} {dimm['slot']:>11} {state:13} {dimm['node']:4}")
    size = found["block_size"] >> 20
    typer.echo(f"blocks of {size} MiB; new memory: {found['auto_online']}")


def online(
    blocks: Blocks,
    *,
    kind: Annotated[Kind, typer.Option("--kind", help="Which zone they go to.")] = Kind.ONLINE,
    json: options.Json = False,
) -> None:
    """Bring memory blocks online, as `chmem -e` does: all of them, or none."""
    _report(call("online", blocks=blocks, kind=str(kind)), json=json)


def offline(blocks: Blocks, *, json: options.Json = False) -> None:
    """Take memory blocks offline, as `chmem -d` does: all of them, or none."""
    _report(call("offline", blocks=blocks), json=json)


def plug_dimm(slot: SlotName, *, json: options.Json = False) -> None:
    """Put a DIMM into its slot: its memory is added, offline unless `auto_online_blocks` says else."""
    _report(call("plug-dimm", slot=slot), json=json)


def unplug_dimm(slot: SlotName, *, json: options.Json = False) -> None:
    """Eject a DIMM: its blocks go offline and all of it is gone; or nothing changes."""
    found = call("unplug-dimm", slot=slot)
    options.print_json(found) if json else typer.echo(f"{found['slot']} unplugged")


COMMANDS = (memory, online, offline, plug_dimm, unplug_dimm)


def add_to(app: typer.Typer) -> None:
    """Add the commands; help shows them as a group of their own."""
    for command in COMMANDS:
        name = command.__name__.replace("_", "-")
        app.command(name, rich_help_panel="Memory")(command)


def _runs(blocks: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """First and last of neighbours that are alike."""
    runs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for block in blocks:
        if runs and _next(runs[-1][1], block):
            runs[-1] = (runs[-1][0], block)
        else:
            runs.append((block, block))
    return runs


def _next(one: dict[str, Any], other: dict[str, Any]) -> bool:
    touching = int(one["range"].split("-")[1], 16) + 1 == int(other["range"].split("-")[0], 16)
    return touching and all(one[k] == other[k] for k in ("state", "zones", "node", "poisoned"))


def _report(found: dict[str, Any], *, json: bool) -> None:
    if json:
        options.print_json(found)
        return
    for block in found["blocks"]:
        zone = f" ({block['zone']})" if block["state"] == "online" else ""
        typer.echo(f"{block['name']} {block['range']} {block['state']}{zone}")
