"""Machines with persistent memory for tests, and ways to look at them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakedev.model.errors import FakedevError
from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

PROFILE = str(Path(__file__).parent / "pmem.yaml")
FS, DEV = 0x100000000, 0x140000000
M = 1 << 20


def pmem_machine(*settings: str) -> Machine:
    """`tests/pmem.yaml`: an fsdax region with 1,000 files, and one with devdax and raw."""
    return build_machine(load_profile(PROFILE, overrides=list(settings)))


def tree(machine: Machine, name: str = "Persistent Memory") -> list[str]:
    """The lines of /proc/iomem from the first of a name on, shortened to start, end and name."""
    lines = machine.iomem().splitlines()
    first = next((n for n, line in enumerate(lines) if line.endswith(name)), len(lines))
    return lines[first:]


def listing(text: str) -> list[str]:
    """/proc/iomem without the kernel, whose place is random."""
    return [line for line in text.splitlines() if "Kernel" not in line]


def refused(number: int) -> "pytest.RaisesExc[FakedevError]":
    """Expect a refusal with an errno."""
    return pytest.raises(FakedevError, check=lambda error: getattr(error, "errno", 0) == number)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def text_at(machine: Machine, path: str) -> str:
    """What a file of the catalogue says."""
    entry: Any = machine.nd.catalog.entries[path]
    said: str = entry.show()
    return said.removesuffix("\n")


def blocks_of(machine: Machine, start: int, size: int) -> range:
    """The numbers of the memory blocks of a range."""
    found: range = range(
        start // machine.blocks.block_size, (start + size) // machine.blocks.block_size
    )
    return found
