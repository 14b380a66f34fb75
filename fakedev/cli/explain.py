"""`fakedev explain`: the verdict on an access, and why, without running anything."""

import errno
import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from fakedev.cli import options


class Operation(StrEnum):
    """What is tried."""

    READ = "read"
    WRITE = "write"
    MMAP = "mmap"


def explain(
    profile: options.Profile,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDR[+LEN]",
            help="An address, ADDR+LEN or START-END; or the path of a resourceN of a PCI function.",
        ),
    ],
    *,
    op: Annotated[
        list[Operation] | None, typer.Option("--op", help="Only this operation; repeatable.")
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(help="As if the kernel were this version, e.g. 5.10.")
    ] = None,
    cmdline: Annotated[
        str | None, typer.Option(help="As if booted with this, e.g. iomem=relaxed.")
    ] = None,
    settings: options.Set = None,
    json: options.Json = False,
) -> None:
    """Tell what read, write and mmap of an address give, by which rule, and who is in the way."""
    from fakedev.control import explaining  # noqa: PLC0415 - start-up time
    from fakedev.profiles.build import build_machine  # noqa: PLC0415
    from fakedev.profiles.loader import load_profile  # noqa: PLC0415

    overrides = list(settings or [])
    overrides += [f"kernel.version='{kernel}'"] if kernel else []
    overrides += [f"kernel.cmdline='{cmdline}'"] if cmdline else []
    machine = build_machine(load_profile(profile, overrides=overrides))
    span = explaining.where(machine, address)
    verdicts = {
        str(o): explaining.verdict_json(explaining.explain(machine, str(o), address))
        for o in (op or list(Operation))
    }
    if json:
        options.print_json(
            {
                "profile": profile,
                "range": str(span),
                "kernel": machine.rules.version,
                "verdicts": verdicts,
            }
        )
        return
    what = f"{address} ({span})" if address.startswith("/") else str(span)
    typer.echo(f"{what} on {machine.name}, kernel {machine.rules.version}:")
    for name, verdict in verdicts.items():
        _show(name, verdict)


def _show(name: str, verdict: dict[str, Any]) -> None:
    outcome = "allowed"
    if not verdict["allowed"]:
        number = getattr(errno, verdict["errno"])
        outcome = f"refused, {verdict['errno']} ({os.strerror(number)})"
    elif verdict["access"] == "zeros":
        outcome = {"read": "gives zeros", "write": "swallowed"}.get(name, "allowed")
    typer.echo(f"  {name:6} {outcome}")
    typer.echo(f"         {verdict['rule']}")
    if verdict["resource"]:
        typer.echo(f"         in the way: {verdict['resource']}")
