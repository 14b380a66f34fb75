"""What the kernel finds before it asks a file: no answer of ours comes before it."""

import sys
from pathlib import Path

import pytest
from hostneeds import needs_sandbox

from fakedev import Sandbox, build_machine, load_profile
from fakedev.views.kinds import REGULAR_COMMANDS

ORDER = Path(__file__).parent / "e2e" / "exact_order.py"


@needs_sandbox
def test_dev_mem_is_as_dev_zero_where_no_file_is_asked() -> None:
    machine = build_machine(load_profile("pc-q35"))
    sandbox = Sandbox(machine)
    if sandbox.filter is None:
        pytest.skip(sandbox.without_exact)
    command = [sys.executable, ORDER, *map(hex, REGULAR_COMMANDS)]
    done = sandbox.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert [event for event in machine.events if event.kind == "error"] == []
