"""A running machine: its service and its control socket, from start to clean end."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from fakedev.control.client import SUFFIX, new_name
from fakedev.control.server import ControlServer
from fakedev.control.verbs import Verbs
from fakedev.fuse.service import service_of
from fakedev.model.errors import HostError
from fakedev.model.machine import Machine
from fakedev.sandbox.runtime import runtime_directory


class Control:
    """Listens for control verbs of `machine` while the `with` block runs, whoever serves its files.

    `mounts` counts the mounts that are there. `name` is what `fakedev ctl --machine` calls the
    machine (default: the profile's name, made unique).
    """

    def __init__(
        self,
        machine: Machine,
        mounts: Callable[[], int],
        *,
        name: str | None = None,
        command: list[str] | None = None,
        directory: Path | None = None,
    ) -> None:
        directory = directory or runtime_directory()
        if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            raise HostError(f"not a name for a machine: {name!r}; letters, digits and . _ - only")
        self.name = name or new_name(directory, machine.name)
        self.socket = directory / (self.name + SUFFIX)
        about: dict[str, Any] = {"pid": os.getpid(), "command": command or []}
        self.control = ControlServer(self.socket, Verbs(machine, about, mounts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self.control.close()


class Host(Control):
    """Serves `machine` as well, through the wire server."""

    def __init__(
        self,
        machine: Machine,
        *,
        name: str | None = None,
        command: list[str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.service = service_of(machine)
        try:
            super().__init__(
                machine,
                lambda: len(self.service.connections),
                name=name,
                command=command,
                directory=directory,
            )
        except BaseException:
            self.service.close()
            raise

    def close(self) -> None:
        """Stop listening and serving; the caller has ended the mounts."""
        super().close()
        self.service.close()
