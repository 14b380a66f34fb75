"""The tool's parent inside the sandbox: it mirrors the tool's end, and leaves nothing behind.

It talks to the launcher over a SEQPACKET socket, one message per packet, first byte the kind. It
never touches a file of the FUSE tree, so that it works on when the server has died.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

from fakedev.sandbox import syscalls
from fakedev.sandbox.processes import state_of

# Messages to the launcher.
STOPPED = b"S"  # + int: the tool was stopped by this signal
ENDED = b"X"  # + int: raw wait status of the tool; the reaper ends now
# Messages from the launcher.
SIGNAL = b"s"  # + int: send this to the tool
CONTINUE = b"c"  # continue the tool if it is stopped
DESTROY = b"k"  # kill everything at once
LISTENER = b"l"  # carries the listener of the tool's filter: hold it as long as the tool lives

NUMBER = struct.Struct("=ci")

#: How long descendants that outlive the tool get between SIGTERM and SIGKILL, in seconds.
GRACE = 0.25
_GIVE_UP = 5.0
_SOON = 0.5
#: Sent by the kernel when the launcher dies; a signal that nobody else uses.
_PARENT_DIED = signal.SIGPWR
#: Sent on to the tool whoever sent them; INT and QUIT only from the launcher, because the terminal
#: gives them to the tool as well.
_FORWARDED = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
_FROM_LAUNCHER = frozenset({signal.SIGINT, signal.SIGQUIT})
_WATCHED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Orders(NamedTuple):
    """What a reaper needs to know: its launcher, its end of the socket, and a file to unlink.

    With `foreground` the launcher stops together with the tool; it is continued with it too.
    `mount` is a path at which the FUSE tree is mounted.
    """

    launcher: int
    socket: socket.socket
    unlink: str | None = None
    foreground: bool = False
    mount: str | None = None


def prepare() -> None:
    """Become a process that adopts orphans and notices the launcher's death; blocks all signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    # Ignored in the launcher, perhaps; then there would be nothing to wait for. Set before there is a
    # child, because setting it forgets one that is pending.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    # After unshare(): a change of credentials clears it.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _PARENT_DIED)


def reap(tool: int, orders: Orders) -> NoReturn:
    """Watch over `tool` until it ends, or the launcher does; never returns."""
    status = int(signal.SIGKILL)
    try:
        _detach(orders.socket.fileno())
        status = _Reaper(tool, orders).run()
    finally:
        _end_like(status)


def _detach(keep: int) -> None:
    """Hold nothing that somebody waits to see closed: pipes, terminals, /dev/fuse."""
    syscalls.close_all_except([keep])
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        if descriptor not in (null, keep):
            os.dup2(null, descriptor)
    with contextlib.suppress(OSError):
        syscalls.set_name("fakedev-reaper")
        os.chdir("/")


class _Reaper:
    """The event loop: signals by signalfd, orders by socket."""

    def __init__(self, tool: int, orders: Orders) -> None:
        self._tool = tool
        self._orders = orders
        self._signals = syscalls.signalfd(_WATCHED)
        self._status: int | None = None
        self._stopped = False
        self._ordered = False
        self._held: list[int] = []
        self._launcher_stops = 0  # reported, and not yet over
        self._group = os.getpgrp()
        # Out of the tool's group: a `kill -9` of the whole group leaves somebody to clean up.
        os.setpgid(0, 0)

    def run(self) -> int:
        """Return the raw wait status of the tool when nothing of the sandbox is left."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        poll.register(self._orders.socket, select.POLLIN)
        self._wait()
        while self._status is None:
            self._check_launcher()
            for descriptor, _events in poll.poll(self._wake_launcher()):
                if descriptor == self._signals:
                    self._on_signals()
                else:
                    self._on_order()
        terminate_descendants(grace=GRACE)
        if self._orders.foreground:
            self._unlink()  # the launcher ends with the tool, and may be killed on the way
        self._check_launcher()
        self._report(ENDED, self._status)
        return self._status

    def _wake_launcher(self) -> float | None:
        """Continue a launcher that stopped with the tool when the tool runs on.

        It may be about to stop just now: repeat it until it answers. Returns the time to wait in ms.
        """
        if self._stopped or not self._launcher_stops:
            return None
        with contextlib.suppress(OSError):
            os.kill(self._orders.launcher, signal.SIGCONT)
        return 20.0

    def _check_launcher(self) -> None:
        # The signal alone proves nothing: the kernel sends it when the thread that forked us ends.
        if self._launcher_died():
            self._destroy()

    def _launcher_died(self) -> bool:
        """Whether nobody serves any more.

        A killed launcher can stay as a zombie: a thread of it may wait in the kernel for a page that
        is locked until somebody answers. Only the end of the connection frees such a thread, and
        whoever waits for the same page.
        """
        launcher = self._orders.launcher
        died = os.getppid() != launcher or state_of(launcher) in "ZX"
        if died and self._orders.mount is not None:
            syscalls.abort(self._orders.mount)
        return died

    def _destroy(self) -> NoReturn:
        """End everything at once, because nobody is left to serve it or it was asked for."""
        if not self._ordered and self._orphaned(_SOON):
            _tell(
                self._tool,
                b"fakedev: the process that serves the machine died; the tool was ended\n",
            )
        kill_descendants()
        if self._orphaned(_GIVE_UP):
            self._unlink()
        self._report(ENDED, signal.SIGKILL)
        _end_like(signal.SIGKILL)

    def _unlink(self) -> None:
        if self._orders.unlink is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._orders.unlink)  # noqa: PTH108 - plain os calls after a fork

    def _orphaned(self, patience: float) -> bool:
        """Whether the launcher is dead; its socket closes a moment before it counts as dead."""
        deadline = time.monotonic() + patience
        while not (died := self._launcher_died()) and not self._ordered:
            if time.monotonic() > deadline:
                return False
            signal.sigtimedwait([_PARENT_DIED], 0.05)
        return died

    def _on_order(self) -> None:
        try:
            # Nobody else answers when the launcher is killed: while a listener is open somewhere, calls
            # wait until their caller is killed too. Without one every call would fail with ENOSYS.
            message, held, _, _ = socket.recv_fds(self._orders.socket, 64, 1)
            self._held += held
        except OSError:
            message = b""
        if not message or message[:1] == DESTROY:
            self._ordered = bool(message)
            self._destroy()
        elif message[:1] == SIGNAL:
            self._send(NUMBER.unpack(message)[1])
        elif message[:1] == CONTINUE:
            self._launcher_stops = max(0, self._launcher_stops - 1)
            self._wait()
            # A stop that was reported after the one this answers is not over.
            if self._stopped and not self._launcher_stops:
                self._send(signal.SIGCONT, group=True)

    def _on_signals(self) -> None:
        for info in syscalls.read_signals(self._signals):
            if info.signal == signal.SIGCHLD:
                self._wait()
            elif info.code <= 0 and (
                info.signal in _FORWARDED
                or (info.signal in _FROM_LAUNCHER and info.pid == self._orders.launcher)
            ):
                self._send(info.signal)

    def _send(self, number: int, *, group: bool = False) -> None:
        """Signal the tool; it has not been waited for yet, so its number is still its own."""
        if self._status is not None:
            return
        with contextlib.suppress(OSError):
            leads = os.getpgid(self._tool) != self._group
            if group and leads:
                os.killpg(os.getpgid(self._tool), number)
            else:
                os.kill(self._tool, number)

    def _wait(self) -> None:
        """Take what the tool and adopted orphans have become."""
        flags = os.WNOHANG | os.WUNTRACED | os.WCONTINUED
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, flags)
                if pid == 0:
                    return
                if pid == self._tool:
                    self._on_tool(status)

    def _on_tool(self, status: int) -> None:
        if os.WIFSTOPPED(status):
            self._stopped = True
            self._launcher_stops += self._orders.foreground
            self._report(STOPPED, os.WSTOPSIG(status))
        elif os.WIFCONTINUED(status):
            self._stopped = False
        else:
            self._status = status

    def _report(self, kind: bytes, value: int) -> None:
        with contextlib.suppress(OSError):
            self._orders.socket.send(NUMBER.pack(kind, value), socket.MSG_DONTWAIT)


def _tell(pid: int, text: bytes) -> None:
    """Write to the standard error of a process, if that can be done at once."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        descriptor = os.open(f"/proc/{pid}/fd/2", flags)
        os.write(descriptor, text)
        os.close(descriptor)


def descendants(pid: int) -> list[int]:
    """Return all living descendants of process `pid`, parents before children."""
    found: list[int] = []
    queue = [pid]
    while queue:
        children = _children(queue.pop())
        found += children
        queue += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            text = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
            found += [int(word) for word in text.split()]
    except OSError:  # ended meanwhile, or a kernel without CONFIG_PROC_CHILDREN
        found += _children_by_stat(pid)
    return found


def _children_by_stat(pid: int) -> list[int]:
    """Find children by asking every process for its parent."""
    found: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            with contextlib.suppress(OSError):
                after_name = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2]
                if int(after_name.split()[1]) == pid:
                    found.append(int(name))
    return found


def terminate_descendants(*, grace: float) -> None:
    """Ask every descendant to end, wait `grace` seconds at most, then kill what is left."""
    _signal_all(descendants(os.getpid()), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while _reap_all() and time.monotonic() < deadline:
        _await_child(deadline)
    kill_descendants()


def kill_descendants() -> None:
    """Kill every descendant; orphans come to us, so that repeating it reaches all of them."""
    deadline = time.monotonic() + _GIVE_UP
    while _reap_all() and time.monotonic() < deadline:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        _await_child(min(deadline, time.monotonic() + 0.05))


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a stopped process cannot act on it


def _reap_all() -> bool:
    """Collect ended children; True while others live."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _await_child(deadline: float) -> None:
    signal.sigtimedwait([signal.SIGCHLD], max(0.0, deadline - time.monotonic()))


def _end_like(status: int) -> NoReturn:
    """End this process with the raw wait status `status`, without a core file of its own."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
            os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.WEXITSTATUS(status))
