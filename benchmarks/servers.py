"""The servers that are compared. Each gives a file with the same bytes and the offset of the first."""

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arena import Arena, Child, python
from benchmarks.serve import BASE
from fakedev.fuse import session

PAGE = 4096
WINDOW = 64 << 20
MOUNT_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """`file` holds WINDOW bytes from `offset` on. `child` answers questions, where there is one."""

    file: Path
    offset: int
    child: Child | None = None
    ready: dict[str, Any] | None = None


@contextlib.contextmanager
def wire(arena: Arena, spec: dict[str, Any] | None = None) -> Iterator[Served]:
    """Serve a machine by fakedev's own server."""
    spec = {"kind": "window", "length": WINDOW} | (spec or {})
    with arena.fuse("wire") as (path, descriptor):
        spec["directory"] = str(arena.directory("control"))
        child = Child(
            python("serve", str(descriptor), json.dumps(spec)), keep=[descriptor], name="serve"
        )
        try:
            ready = json.loads(child.line())
            yield Served(path / "dev/mem", BASE, child, ready)
        finally:
            child.stop()


@contextlib.contextmanager
def floor(arena: Arena) -> Iterator[Served]:
    """Serve the same bytes by the same loop in C."""
    options = session.Options()
    with arena.fuse("floor") as (path, descriptor):
        numbers = (
            descriptor, BASE, WINDOW, session.WANTED, options.readahead, session.MAX_TRANSFER,
        )  # fmt: skip
        child = Child([str(arena.floor), *map(str, numbers)], keep=[descriptor], name="floor")
        try:
            yield Served(path / "mem", BASE)
        finally:
            child.stop()


@contextlib.contextmanager
def fusepy(arena: Arena) -> Iterator[Served]:
    """Serve the machine through libfuse, by the mfusepy adapter."""
    path = arena.directory("fusepy")
    spec = json.dumps({"kind": "window", "length": WINDOW})
    child = Child(python("serve_fusepy", str(path), spec), name="mfusepy adapter")
    try:
        _await_mount(path, child)
        yield Served(path / "dev/mem", BASE)
    finally:
        child.stop()


def _await_mount(path: Path, child: Child) -> None:
    deadline = time.monotonic() + MOUNT_TIMEOUT
    while not path.is_mount():
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{child.name} did not mount on {path}")
        time.sleep(0.05)


@contextlib.contextmanager
def tmpfs(arena: Arena) -> Iterator[Served]:
    """No server at all."""
    file = arena.directory("tmpfs") / "mem"
    with file.open("wb") as stream:
        for address in range(0, WINDOW, PAGE):
            stream.write(address.to_bytes(8, "little").ljust(PAGE, b"\0"))
    yield Served(file, 0)
    file.unlink()


def _peer_is_missing() -> str | None:
    """Why the mfusepy adapter cannot be measured, if it cannot."""
    try:
        importlib.import_module("fakedev.fuse.fusepy_adapter")
        importlib.import_module("mfusepy")
    except (ImportError, OSError) as error:
        return str(error)
    return None


@contextlib.contextmanager
def all_of(arena: Arena) -> Iterator[dict[str, Served]]:
    """Every server at once, so that measurements can be interleaved; mfusepy only where it works."""
    known = {"fakedev": wire, "C loop": floor, "mfusepy": fusepy, "tmpfs": tmpfs}
    why = _peer_is_missing()
    with contextlib.ExitStack() as stack:
        served = {}
        for name, serve in known.items():
            try:
                if name != "mfusepy" or why is None:
                    served[name] = stack.enter_context(serve(arena))
            except RuntimeError as error:
                if name != "mfusepy":
                    raise
                why = str(error)
        if why is not None:
            print(f"benchmarks: without mfusepy: {why}", file=sys.stderr)
        yield served


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]
