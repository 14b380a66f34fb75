"""A shell whose prompt says which machine it is in."""

import os
import sys
from pathlib import Path


def shell_command(machine: str) -> tuple[list[str], dict[str, str]]:
    """The user's shell as a command, and the variables that give it a prompt."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    mark = f"[{machine}]"
    variables = {"FAKEDEV_MACHINE": machine, "PS1": f"{mark} $ "}
    if Path(shell).name == "bash":
        # Start-up files set PS1 after us; this runs before each prompt and adds the name once.
        variables["PROMPT_COMMAND"] = f'case $PS1 in *"{mark}"*) ;; *) PS1="{mark} $PS1";; esac'
    return [shell, *(["-i"] if sys.stdin.isatty() else [])], variables
