"""`fakedev explain`: the verdict on an access, and why, without running anything."""

import errno
import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from fakedev.cli import options
from fakedev.cli.text import under_lockdown


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
        str | None,
        typer.Option(help="As if the kernel were this version, e.g. 5.10; `all` compares presets."),
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
    overrides += [f"kernel.cmdline='{cmdline}'"] if cmdline else []
    if kernel == "all":
        _explain_all(profile, address, op, overrides, json=json)
        return
    overrides += [f"kernel.version='{kernel}'"] if kernel else []
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
                "lockdown": machine.rules.lockdown_level,
                "verdicts": verdicts,
            }
        )
        return
    what = f"{address} ({span})" if address.startswith("/") else str(span)
    typer.echo(f"{what} on {machine.name}, kernel {machine.rules.version}:")
    for name, verdict in verdicts.items():
        _show(name, verdict)
    if not address.startswith("/") and machine.rules.locked_down("integrity"):
        typer.echo(f"  {under_lockdown(machine.rules.lockdown_level)}")


def _explain_all(
    profile: str,
    address: str,
    op: list[Operation] | None,
    overrides: list[str],
    *,
    json: bool,
) -> None:
    from fakedev.cli import explain_kernels  # noqa: PLC0415 - start-up time

    operations = [str(o) for o in op or list(Operation)]
    found = explain_kernels.explain_kernels(profile, address, operations, overrides)
    options.print_json(found) if json else explain_kernels.show(found, operations)


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
