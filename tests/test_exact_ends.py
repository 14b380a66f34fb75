"""When who watches over a sandbox is killed: tools end with a message, and no call of theirs fails for it."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from support import compiled, wait_for
from test_exact_supervisor import exact, faults

from fakedev import build_machine, load_profile
from fakedev.sandbox.exact.supervisor import Supervisor

E2E = Path(__file__).parent / "e2e"
MESSAGE = "fakedev: the process that watches over the sandbox died; the tool was ended\n"


@needs_sandbox
def test_when_the_reaper_is_killed_no_call_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The listener is open until nobody is left: the storm checks each call, and says what failed."""
    machine = build_machine(load_profile("pc-q35"))
    storm = compiled(E2E / "exact_storm.c", tmp_path)
    script = f"echo ready; while :; do {storm} threads 16; done"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with exact(machine).popen(["sh", "-c", script], **pipes) as tool:
        try:
            assert tool.stdout is not None
            assert tool.stdout.readline() == "ready\n"
            crew = tool._supervisor.crew
            wait_for(lambda: crew.calls > 500, "calls are made")
            os.kill(tool.pid, signal.SIGKILL)
            assert tool.wait(20) == -signal.SIGKILL
            text = tool.communicate(timeout=20)[1]
        finally:
            tool.kill()
    assert (text, capfd.readouterr().err) == ("", MESSAGE)
    assert faults(machine) == []
    assert crew.threads == ()


class Ends:
    """The ends of a supervisor, without one."""

    def __init__(self) -> None:
        self.fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]

    def open(self) -> list[bool]:
        """Whether the pipe, the root and the listener are open."""
        return [Path(f"/proc/self/fd/{fd}").exists() for fd in self.fds]


@pytest.mark.parametrize("stuck", [False, True])
def test_descriptors_live_as_long_as_somebody_uses_them(stuck: bool) -> None:
    one = Supervisor.__new__(Supervisor)
    ends = Ends()
    one._stop, one._wake, root, listener = ends.fds
    one._lock = threading.Lock()
    one._used, one._released = True, False
    one.shared = type("Shared", (), {"root": root, "listener": listener})()
    if stuck:
        one.release()
        assert ends.open() == [True] * 4
        one._let_go()
    else:
        one._let_go()
        assert ends.open() == [False, False, False, True]
        one.release()
    assert ends.open() == [False] * 4


@needs_sandbox
@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
def test_a_process_that_nobody_keeps_leaves_nothing() -> None:
    sandbox = exact(build_machine(load_profile("pc-q35")))
    assert sandbox.run(["true"]).returncode == 0

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(
            list(Path("/proc/self/task").iterdir())
        )

    before = held()
    for _ in range(5):
        sandbox.popen(["sleep", "1000"])
    wait_for(
        lambda: max(a - b for a, b in zip(held(), before, strict=True)) <= 0, "nothing is left"
    )
