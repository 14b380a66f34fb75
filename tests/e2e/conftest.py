"""Fixtures of the end-to-end tests."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import support


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled clients lie."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def host() -> Iterator[support.Host]:
    """`fakedev` as an unprivileged command; whatever is left behind at the end is a failure."""
    # A short path: a socket's is limited to 107 bytes.
    runtime = Path(tempfile.mkdtemp(prefix="fdrt-"))
    host = support.Host(runtime)
    yield host
    support.wait_for(lambda: not host.leftovers(), f"nothing is left: {host.leftovers()}")
    shutil.rmtree(runtime)


Start = Callable[..., AbstractContextManager[support.Running]]


@pytest.fixture
def machine(host: support.Host, folder: Path) -> Start:
    """Start a machine with the agent in it: `with machine("pc-q35") as running: ...`."""

    def start(profile: str, **options: Any) -> AbstractContextManager[support.Running]:
        return support.machine_with_agent(host, folder, profile, **options)

    return start
