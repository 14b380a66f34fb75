"""`fakedev ctl`: the commands about PCI."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from fakedev.cli import options
from fakedev.cli.calls import call

Function = Annotated[
    str, typer.Argument(metavar="BDF", help="A function: 01:00.0, or 0000:01:00.0 as sysfs has it.")
]
Port = Annotated[
    str, typer.Argument(metavar="BDF", help="A root port or a bridge, such as 00:01.0.")
]
Driver = Annotated[
    str, typer.Argument(metavar="NAME", help="A driver that the profile names; virtio_mem, nfit.")
]


class Power(StrEnum):
    """What a slot's power is set to."""

    ON = "on"
    OFF = "off"


def pci(*, json: options.Json = False) -> None:
    """List the PCI functions: ids, class, driver, BARs, and those that were removed or unplugged."""
    functions = call("pci")["functions"]
    if json:
        options.print_json(functions)
        return
    lines = [("FUNCTION", "ID", "CLASS", "DRIVER", "STATE", "BARS"), *map(_columns, functions)]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for *cells, last in lines:
        left = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        rows = last.split("\n")
        typer.echo(f"{left}  {rows[0]}".rstrip())
        for row in rows[1:]:
            typer.echo(f"{'':{len(left)}}  {row}")


def bind(
    driver: Annotated[str, typer.Argument(metavar="DRIVER", help="A driver that is loaded.")],
    function: Function,
    *,
    json: options.Json = False,
) -> None:
    """Bind a driver to a function: it claims its BARs, and mappings of them die."""
    found = call("bind", driver=driver, device=function)
    _report(found, f"{found['device']} bound to {found['driver']}", json=json)


def unbind(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[DRIVER] BDF", help="A function; and its driver, if that shall be checked."
        ),
    ],
    *,
    json: options.Json = False,
) -> None:
    """Take a function away from its driver: claims are released, new mappings work again."""
    if len(words) > 2:
        raise typer.BadParameter(f"one driver and one function, not {len(words)} words")
    found = call("unbind", driver=words[0] if len(words) == 2 else None, device=words[-1])
    _report(found, f"{found['device']} unbound from {found['driver']}", json=json)


def modprobe(driver: Driver, *, json: options.Json = False) -> None:
    """Load a driver: it takes the devices that it knows and nobody has (also `virtio_mem`, `nfit`)."""
    _report(call("modprobe", name=driver), f"{driver} loaded", json=json)


def rmmod(driver: Driver, *, json: options.Json = False) -> None:
    """Unload a driver: its devices are unbound (also `virtio_mem`)."""
    _report(call("rmmod", name=driver), f"{driver} unloaded", json=json)


def remove(function: Function, *, json: options.Json = False) -> None:
    """Let the kernel forget a function and what is behind it (`echo 1 > remove`); it still decodes."""
    found = call("remove", device=function)
    _report(found, f"{found['device']} removed", json=json)


def rescan(
    function: Annotated[
        str | None,
        typer.Argument(metavar="[BDF]", help="Only the bus of this function, and behind it."),
    ] = None,
    *,
    json: options.Json = False,
) -> None:
    """Let the kernel look for functions (`echo 1 > rescan`); new ones may get other addresses."""
    _report(call("rescan", device=function), "", json=json)


def unplug(function: Function, *, json: options.Json = False) -> None:
    """Pull a PCI function out of the machine, without a word, with everything behind it."""
    found = call("unplug", device=function)
    _report(found, f"{found['device']} unplugged", json=json)


def plug(function: Function, *, json: options.Json = False) -> None:
    """Put a PCI function back that was unplugged."""
    found = call("plug", device=function)
    _report(found, f"{found['device']} plugged", json=json)


def slot_power(
    slot: Annotated[str, typer.Argument(help="A slot of /sys/bus/pci/slots.")],
    power: Annotated[Power, typer.Argument()],
    *,
    json: options.Json = False,
) -> None:
    """Switch a hot-plug slot on or off (`echo 0 > /sys/bus/pci/slots/SLOT/power`)."""
    found = call("slot-power", slot=slot, power=str(power))
    _report(found, f"slot {slot} is {power}", json=json)


def link_down(port: Port, *, json: options.Json = False) -> None:
    """Take the link below a port down: what is behind it reads all-ones; the kernel is not told."""
    found = call("link-down", device=port)
    _report(found, f"link below {found['device']} is down", json=json)


def link_up(port: Port, *, json: options.Json = False) -> None:
    """Bring the link below a port back up."""
    found = call("link-up", device=port)
    _report(found, f"link below {found['device']} is up", json=json)


def reset_function(function: Function, *, json: options.Json = False) -> None:
    """Reset one function by the first of its reset methods (`echo 1 > reset`)."""
    found = call("reset-function", device=function)
    _report(found, f"{found['device']} reset", json=json)


COMMANDS = (
    pci, bind, unbind, modprobe, rmmod, remove, rescan, unplug, plug,
    slot_power, link_down, link_up, reset_function,
)  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Add the commands; help shows them as a group of their own."""
    for command in COMMANDS:
        name = command.__name__.replace("_", "-")
        app.command(name, rich_help_panel="PCI")(command)


def _columns(function: dict[str, Any]) -> tuple[str, ...]:
    bars = "\n".join(
        f"{'rom' if bar['kind'] == 'rom' else bar['index']}: {bar['range']}"
        + ("" if bar["kind"] == "rom" else f" {bar['kind']}")
        + (" prefetch" if bar["prefetch"] else "")
        for bar in function["bars"]
    )
    driver = function["driver"] or "-"
    return (function["bdf"], function["id"], function["class"], driver, function["state"], bars)


def _report(found: dict[str, Any], done: str, *, json: bool) -> None:
    """Print what was done, and what changed by it; what went wrong by the way goes to stderr."""
    if json:
        options.print_json(found)
        return
    said = {done, f"{found.get('device')} removed"}
    changes = [change for change in _changes(found) if change not in said]
    for line in [done] * bool(done) + changes or ["nothing changed"]:
        typer.echo(line)
    for message in found["failed"]:
        options.note(message)


def _changes(found: dict[str, Any]) -> Iterator[str]:
    for name, driver in found["unbound"].items():
        if name not in found["removed"]:
            yield f"{name} unbound from {driver}"
    yield from (f"{name} removed" for name in found["removed"])
    yield from (f"{name} found" for name in found["added"])
    yield from (f"{name} bound to {driver}" for name, driver in found["bound"].items())
