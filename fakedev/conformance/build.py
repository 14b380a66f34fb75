"""Compiles the probe and what it calls, once for each state of their sources."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fakedev.conformance.places import sources
from fakedev.model.errors import HostError
from fakedev.sandbox.runtime import private_directory, runtime_directory

_TIMEOUT = 120.0
_OPTIONS = ("-O0", "-Wall")


class Programs(NamedTuple):
    """What runs in the machine."""

    probe: Path
    guest: Path


def build() -> Programs:
    """The programs, compiled if they are not there yet. Raises HostError where that fails."""
    folder = private_directory(runtime_directory() / "conformance")
    return Programs(_built("probe", folder), _built("guest", folder))


def _built(name: str, folder: Path) -> Path:
    files = sources(name)
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    target = folder / f"{name}-{digest.hexdigest()[:16]}"
    if not target.exists():
        _compile([str(path) for path in files if path.suffix == ".c"], target)
    return target


def _compile(files: Sequence[str], target: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise HostError("the probe is a C program: gcc or cc is needed to build it")
    new = target.with_name(f".{target.name}-{os.getpid()}")
    said = ""
    for static in (["-static"], []):  # the C library may be there as a shared one only
        command = [compiler, *_OPTIONS, *static, "-o", str(new), *files]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
        if done.returncode == 0:
            new.replace(target)
            return
        said = done.stderr
    raise HostError(f"{compiler} cannot build the probe:\n{said.strip()[-2000:]}")
