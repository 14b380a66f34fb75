"""`fakedev ctl`: the commands about persistent memory, device-dax and pins."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from fakedev.cli import options
from fakedev.cli.calls import call

Region = Annotated[str, typer.Argument(metavar="REGION", help="A region, such as region0.")]
RangeArgument = Annotated[str, typer.Argument(metavar="RANGE", help="ADDR+LEN or START-END.")]


class Mode(StrEnum):
    """What a namespace is used as."""

    RAW = "raw"
    FSDAX = "fsdax"
    DEVDAX = "devdax"
    KMEM = "kmem"
    SYSTEM_RAM = "system-ram"


class OnUnplug(StrEnum):
    """What a surprise removal leaves of mappings."""

    SIGBUS = "sigbus"
    ALL_ONES = "all-ones"
    POISON = "poison"


def pmem(*, json: options.Json = False) -> None:
    """List regions, namespaces and dax devices, and who holds pages of them."""
    found = call("pmem")
    if json:
        options.print_json(found)
        return
    for region in found["regions"]:
        typer.echo(f"{region['name']:16} {region['range']:27} {region['state']}")
        for one in region["namespaces"]:
            where = one["dax"] or one["block"] or ""
            typer.echo(f"  {one['name']:14} {one['range']:27} {one['mode']:7} {where}".rstrip())
    for dax in found["dax"]:
        ram = f" {dax['ram']}" if dax["ram"] else ""
        typer.echo(f"{dax['name']:16} {dax['range']:27} {dax['driver'] or 'idle'}{ram}")
    for pin in found["pins"]:
        kind = "long-term" if pin["longterm"] else "transient"
        typer.echo(f"{'pin ' + str(pin['pin']):16} {pin['range']:27} {kind}")


def dax_mode(
    name: Annotated[str, typer.Argument(metavar="NAMESPACE", help="namespaceR.I, pmemR, daxR.I.")],
    mode: Annotated[Mode, typer.Argument()],
    *,
    json: options.Json = False,
) -> None:
    """Use a namespace in another mode, as `ndctl create-namespace -f` and `daxctl reconfigure-device` do."""
    found = call("dax-mode", name=name, mode=str(mode))
    _say(found, f"{found['name']} is {found['mode']}", json=json)


def unplug_pmem(
    region: Region,
    *,
    on_unplug: Annotated[
        OnUnplug | None, typer.Option(help="What mappings see then; default: as the profile says.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Pull the modules of a region out: mappings of it die or read ones, also of files that live on it."""
    found = call("unplug-pmem", region=region, on_unplug=on_unplug and str(on_unplug))
    _say(found, f"{found['name']} is unplugged ({found['range']})", json=json)


def plug_pmem(
    region: Region,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Other modules, all zeros.")] = False,
    json: options.Json = False,
) -> None:
    """Put the modules of a region back, or (`--replace`) others that are empty."""
    found = call("plug-pmem", region=region, replace=replace)
    _say(found, f"{found['name']} is {found['state']} ({found['range']})", json=json)


def pin(
    span: RangeArgument,
    *,
    longterm: Annotated[
        bool, typer.Option("--longterm", help="Until `unpin`, as RDMA holds pages.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="How long a transfer takes (default: 1).")
    ] = None,
    json: options.Json = False,
) -> None:
    """Hold pages of persistent memory: who takes the device away has to wait."""
    found = call("pin", range=span, longterm=longterm, seconds=seconds)
    _say(found, f"pin {found['pin']}: {found['range']}", json=json)


def unpin(
    number: Annotated[int, typer.Argument(metavar="PIN")], *, json: options.Json = False
) -> None:
    """Let go of pages that `pin` holds; who waits for them goes on."""
    found = call("unpin", pin=number)
    _say(found, f"pin {found['pin']} dropped", json=json)


COMMANDS = (pmem, dax_mode, unplug_pmem, plug_pmem, pin, unpin)


def add_to(app: typer.Typer) -> None:
    """Add the commands; help shows them as a group of their own."""
    for command in COMMANDS:
        name = command.__name__.replace("_", "-")
        app.command(name, rich_help_panel="Persistent memory")(command)


def _say(found: dict[str, Any], text: str, *, json: bool) -> None:
    options.print_json(found) if json else typer.echo(text)
