"""`fakedev mount` and `fakedev umount`: the machine's files below a directory."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fakedev.cli import options
from fakedev.model.errors import HostError

if TYPE_CHECKING:
    from fakedev.model.machine import Machine

Directory = Annotated[str, typer.Argument(metavar="DIR", help="An empty directory of yours.")]


def mount(
    profile: options.Profile,
    directory: Directory,
    *,
    role: options.As = options.Role.ROOT,
    settings: options.Set = None,
    name: options.Name = None,
    backend: Annotated[
        options.Backend,
        typer.Option(help="wire speaks to /dev/fuse itself; fusepy goes through libfuse."),
    ] = options.Backend.WIRE,
    quiet: options.Quiet = False,
) -> None:
    """Serve a machine's files as plain files: DIR/dev/mem, DIR/proc/iomem, ... Ends at Ctrl-C or umount."""
    from fakedev.profiles.build import build_machine  # noqa: PLC0415 - start-up time
    from fakedev.profiles.garbage import collect_from_now_on  # noqa: PLC0415
    from fakedev.profiles.loader import load_profile  # noqa: PLC0415

    machine = build_machine(load_profile(profile, overrides=settings or ()))
    collect_from_now_on()
    path = str(Path(directory).absolute())
    stop = _stop_by_signal()
    if backend is options.Backend.FUSEPY:
        _mount_fusepy(
            machine, path, stop, as_root=role is options.Role.ROOT, name=name, quiet=quiet
        )
        return
    from fakedev.control.host import Host  # noqa: PLC0415
    from fakedev.fuse import mount as plain  # noqa: PLC0415

    descriptor = plain.mount(path)
    try:
        with Host(machine, name=name, command=["mount", path]) as host:
            connection = host.service.attach_plain(descriptor, as_root=role is options.Role.ROOT)
            connection.session.ready.wait(10)
            options.note(_note(machine, path), quiet=quiet)
            _wait(stop, connection.wait_closed)
            _clean_up(path)
    except BaseException:
        _clean_up(path)
        raise


def _mount_fusepy(
    machine: "Machine",
    path: str,
    stop: threading.Event,
    *,
    as_root: bool,
    name: str | None,
    quiet: bool,
) -> None:
    from fakedev.control.host import Control  # noqa: PLC0415 - start-up time
    from fakedev.fuse.fusepy_adapter import Mount  # noqa: PLC0415 - optional extra

    with (
        Mount(machine, path, as_root=as_root) as mounted,
        Control(
            machine, lambda: int(not mounted.wait_closed(0)), name=name, command=["mount", path]
        ),
    ):
        options.note(_note(machine, path), quiet=quiet)
        _wait(stop, mounted.wait_closed)


def _note(machine: "Machine", path: str) -> str:
    return f"{machine.name} is at {path}; end with Ctrl-C or: fakedev umount {path}"


def _stop_by_signal() -> threading.Event:
    """From now on Ctrl-C and its kin set the event, so that none of them leaves a mount behind."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _wait(stop: threading.Event, closed: Callable[[float], bool]) -> None:
    while not stop.is_set() and not closed(0.2):
        pass


def _clean_up(path: str) -> None:
    from fakedev.fuse import mount as plain  # noqa: PLC0415 - start-up time

    if Path(path).is_mount():
        plain.unmount(path, lazy=True)


def umount(
    directory: Directory,
    *,
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Even when something still uses it.")
    ] = False,
) -> None:
    """End a plain mount."""
    from fakedev.fuse import mount as plain  # noqa: PLC0415 - start-up time

    path = Path(directory).absolute()
    try:
        mounted = path.is_mount()
    except OSError:
        mounted = True  # ENOTCONN: a mount whose server died
    if not mounted:
        raise HostError(f"{directory} is not a mount point")
    plain.unmount(str(path), lazy=lazy)
