"""chown(2) of a path that leads through a file system of the tool's own."""

import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from hostneeds import needs_sandbox

from fakedev import Sandbox, build_machine, load_profile
from fakedev.sandbox.exact import owners

OWN_FUSE = Path(__file__).parent / "e2e" / "exact_own_fuse.py"
CHANGE = owners._Change(-100, 0, 5, 5)


@needs_sandbox
def test_who_serves_the_path_is_answered_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor waits for its look-up, which waits for an answer of the supervisor."""
    monkeypatch.setattr(owners, "PATIENCE", 0.5)
    machine = build_machine(load_profile("pc-q35"))
    sandbox = Sandbox(machine)
    if sandbox.filter is None:
        pytest.skip(sandbox.without_exact)
    command = [sys.executable, OWN_FUSE, tmp_path, "chown"]
    done = sandbox.run(command, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("EINVAL\n", "")  # of the kernel: there is no such id
    assert [event for event in machine.events if event.kind == "error"] == []


def test_what_is_found_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = os.pipe()
    let_it = threading.Event()

    def slow(*_: object) -> int:
        let_it.wait(10)
        return ends[1]

    monkeypatch.setattr(owners, "PATIENCE", 0.05)
    monkeypatch.setattr(owners, "_look_up", slow)
    with pytest.raises(TimeoutError):
        owners._found_soon(1, CHANGE, b"path")
    let_it.set()
    assert os.read(ends[0], 1) == b""
    os.close(ends[0])


def test_a_look_up_that_fails_too_late_is_forgotten() -> None:
    found: Future[int] = Future()
    found.set_exception(FileNotFoundError())
    owners._forget(found)
