"""A shell whose prompt says which machine it is in."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def shell_command(machine: str, *, root: bool) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The user's shell as a command and the variables that give it a prompt."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    mark = "#" if root else "$"
    variables = {"FAKEDEV_MACHINE": machine}
    if Path(shell).name != "bash":
        yield [shell, "-i"], {**variables, "PS1": f"[{machine}] {mark} "}
        return
    with tempfile.NamedTemporaryFile("w", prefix="fakedev-", suffix=".bashrc") as script:
        script.write(f'[ -r ~/.bashrc ] && . ~/.bashrc\nPS1="[{machine}] \\w {mark} "\n')
        script.flush()
        yield [shell, "--rcfile", script.name, "-i"], variables
