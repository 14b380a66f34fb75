"""`fakedev run` and `fakedev shell`: a tool, or a shell, inside a machine."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fakedev.cli import options

if TYPE_CHECKING:
    from fakedev.model.machine import Machine

WITHOUT_EXACT = "mmap of a refused range succeeds, its first touch is SIGBUS (fakedev doctor)"
ALSO_ELSEWHERE = {
    "/proc/kcore"
}  # what the tree shows below /dev as well: no word if it has no place


def run(
    profile: options.Profile,
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD...", help="The tool and its arguments.")
    ],
    *,
    role: options.As = options.Role.ROOT,
    settings: options.Set = None,
    name: options.Name = None,
    exact: options.Exact = None,
    quiet: options.Quiet = False,
) -> None:
    """Run a tool in a machine: its files stand at their real paths, the rest is the host's."""
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise typer.BadParameter("which command? fakedev run PROFILE -- CMD...")
    from fakedev.sandbox.foreground import exit_like  # noqa: PLC0415 - start-up time

    machine = _machine(profile, settings)
    exit_like(_run(machine, command, role=role, name=name, exact=exact, quiet=quiet))


def shell(
    profile: options.Profile,
    *,
    role: options.As = options.Role.ROOT,
    settings: options.Set = None,
    name: options.Name = None,
    exact: options.Exact = None,
    quiet: options.Quiet = False,
) -> None:
    """Start an interactive shell in a machine; its prompt says which."""
    from fakedev.cli.prompt import shell_command  # noqa: PLC0415 - start-up time
    from fakedev.sandbox.foreground import exit_like  # noqa: PLC0415

    machine = _machine(profile, settings)
    command, variables = shell_command(machine.name)
    exit_like(
        _run(machine, command, role=role, name=name, exact=exact, quiet=quiet, variables=variables)
    )


def _machine(profile: str, settings: list[str] | None) -> "Machine":
    from fakedev.profiles.build import build_machine  # noqa: PLC0415 - start-up time
    from fakedev.profiles.loader import load_profile  # noqa: PLC0415

    return build_machine(load_profile(profile, overrides=settings or ()))


def _run(
    machine: "Machine",
    command: list[str],
    *,
    role: options.Role,
    name: str | None,
    exact: bool | None,
    quiet: bool,
    variables: dict[str, str] | None = None,
) -> int:
    from fakedev.control.host import Host  # noqa: PLC0415 - start-up time
    from fakedev.profiles.garbage import collect_from_now_on  # noqa: PLC0415
    from fakedev.sandbox.launcher import Sandbox  # noqa: PLC0415

    collect_from_now_on()
    with Host(machine, name=name, command=command) as host:
        as_root = role is options.Role.ROOT
        sandbox = Sandbox(host.service, as_root=as_root, control=host.socket, exact=exact)
        if sandbox.without_exact:
            why = "" if exact is False else f" ({sandbox.without_exact})"
            options.note(f"without the exact layer{why}: {WITHOUT_EXACT}", quiet=quiet)
        plan = sandbox.plan()
        for path in plan.unplaced:
            if path in ALSO_ELSEWHERE:
                continue
            options.note(
                f"{path} cannot be shown on this host: nothing can be made there", quiet=quiet
            )
        path = _search_path(as_root=sandbox.as_root)
        environment = {**_given_environment(), "PATH": path, **(variables or {})}
        return sandbox.run_foreground(command, plan=plan, env=environment)


def _given_environment() -> dict[str, str]:
    """What we were started with: in the C locale Python sets an LC_CTYPE of its own (PEP 538)."""
    given = dict(os.environ)
    given.pop("LC_CTYPE", None)
    for entry in Path("/proc/self/environ").read_bytes().split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"LC_CTYPE":
            given["LC_CTYPE"] = os.fsdecode(value)
    return given


def _search_path(*, as_root: bool) -> str:
    """PATH, behind it the directory of `fakedev` itself, and those that root looks for tools in."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    more = [str(Path(sys.argv[0]).absolute().parent)]
    more += ["/usr/local/sbin", "/usr/sbin", "/sbin"] if as_root else []
    return os.pathsep.join([*path, *(place for place in more if place not in path)])
