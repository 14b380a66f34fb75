"""chown(2) of a path that leads through a file system of the tool's own."""

import sys
from pathlib import Path

import pytest
from hostneeds import needs_sandbox

from fakedev import Sandbox, build_machine, load_profile

OWN_FUSE = Path(__file__).parent / "e2e" / "exact_own_fuse.py"


@needs_sandbox
def test_who_serves_the_path_is_answered_meanwhile(tmp_path: Path) -> None:
    """A thread of the supervisor waits for its look-up, which waits for the answer of another."""
    machine = build_machine(load_profile("pc-q35"))
    sandbox = Sandbox(machine)
    if sandbox.filter is None:
        pytest.skip(sandbox.without_exact)
    command = [sys.executable, OWN_FUSE, tmp_path, "chown"]
    done = sandbox.run(command, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("EINVAL\n", "")  # of the kernel: there is no such id
    assert [event for event in machine.events if event.kind == "error"] == []
