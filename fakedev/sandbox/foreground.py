"""Stand for a tool in the eyes of a shell: signals, job control and the way it ends."""

import contextlib
import errno
import os
import resource
import signal
import sys
from types import FrameType
from typing import Any, NoReturn, Self

from fakedev.sandbox.process import SandboxProcess

#: The terminal sends these to the whole process group, so the tool has them already.
_IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


class Foreground:
    """Signal dispositions for the time a tool runs in the foreground.

    `overridden` are signals that are ignored now only because of this: the tool gets its defaults.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._process: SandboxProcess | None = None
        self._early: list[int] = []

    @property
    def overridden(self) -> tuple[signal.Signals, ...]:
        """Signals whose default the tool has to get back; what the caller ignored stays ignored."""
        return tuple(
            number for number, before in self._before.items() if before is not signal.SIG_IGN
        )

    def __enter__(self) -> Self:
        for number in _IGNORED:
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                self._before[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def follow(self, process: SandboxProcess) -> int:
        """Stop when the tool stops, and return its status when it ends."""
        self._process = process
        for number in self._early:
            process.send_signal(number)
        while process.next_stop():
            if process.is_stopped():  # else it was continued before we heard of it
                # Never by the signal that stopped the tool: for a moment it would need its default action,
                # and the terminal's next one would stop us without a report.
                signal.raise_signal(signal.SIGSTOP)  # here: no line runs on while the others stop
            process.resume()
        return process.wait()

    @staticmethod
    def not_started(error: OSError) -> int:
        """Say why a program could not be run and return the status that a shell gives."""
        name = error.filename if error.filename is not None else "the program"
        sys.stderr.write(f"fakedev: {os.fspath(name)}: {error.strerror}\n")
        return 127 if error.errno == errno.ENOENT else 126


def exit_like(status: int) -> NoReturn:
    """End this process as the tool ended; a death by signal is repeated, so that a shell sees it.

    `status` is what `run_foreground` returned. The caller has cleaned up: nothing runs after this.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [-status])
        os.kill(os.getpid(), -status)
        os._exit(128 - status)
    os._exit(status)
