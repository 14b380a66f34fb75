"""Writes that wait for somebody else: each on a thread of its own, so that other verbs go on.

The kernel does not let go of a process whose request was read by us before it is answered. So one
that was killed is answered with EINTR; what its write has begun is still done.
"""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakedev.fuse.deferred import Deferred
from fakedev.views.node import Refused

PAUSE = 0.2
_SIGKILL = 1 << 8


def apart(job: Callable[[], Any], pid: int) -> Deferred:
    """Begin `job` for a process; the outcome is the job's, or EINTR once the process was killed."""
    work = Deferred(job)

    def outcome() -> Any:
        while not work.wait_until(PAUSE):
            if killed(pid):
                raise Refused(errno.EINTR)
        return work.outcome()

    answer = Deferred(outcome)
    for run in (work.run, answer.run):
        threading.Thread(target=run, name="fakedev-waiting", daemon=True).start()
    return answer


def killed(pid: int) -> bool:
    """Whether a process is gone, or cannot go before its request is answered."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return True
    pending = [
        line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))
    ]
    return any(int(bits, 16) & _SIGKILL for bits in pending)
