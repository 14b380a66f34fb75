"""What runs between fork and exec: build the sandbox, then split into the reaper and the tool."""

import os
import signal
import socket
from collections.abc import Callable, Collection
from typing import NamedTuple

from fakedev.sandbox import namespace, reaper, syscalls
from fakedev.sandbox.exact import listener
from fakedev.sandbox.namespace import Ids
from fakedev.sandbox.plan import Plan

# Packets to the launcher before the reaper takes over; fields are separated by NUL.
MOUNTED = b"F"  # carries the descriptor of /dev/fuse; name of the user namespace
ROOT = b"O"  # carries an O_PATH descriptor of the root of the tree, for the exact layer
LISTENER = b"L"  # carries the listener of the tool's filter; sent by the tool
READY = b"R"  # pid of the tool, name of the namespace, host entries that could not be shown
FAILED = b"E"  # step, errno, message
#: The packet that the launcher sends when it serves the mount.
GO = b"g"

_MOST_SKIPPED = 20


class Order(NamedTuple):
    """Everything the child needs, made before the fork.

    `launcher` is the pid of the process that forks, `launchers_end` its end of the socket,
    `default_signals` are those that the launcher ignores for its own reasons, `before_exec` is the
    caller's own `preexec_fn`, `filter` the seccomp program of the exact layer.
    """

    plan: Plan
    stage: str
    ids: Ids
    socket: socket.socket
    launcher: int
    launchers_end: int
    unlink: str | None = None
    foreground: bool = False
    default_signals: Collection[int] = ()
    before_exec: Callable[[], object] | None = None
    filter: bytes | None = None


class _Step:
    """Remembers what is being done, for the report of a failure."""

    __slots__ = ("name",)

    def __init__(self) -> None:
        self.name = "namespace"


def become_tool(order: Order) -> None:
    """Build the sandbox around this process; returns in the process that is to exec the tool.

    A failure is told to the launcher with its step, errno and message, and raised again.
    """
    step = _Step()
    try:
        # As long as we hold the launcher's end ourselves, its death would leave us waiting for ever.
        os.close(order.launchers_end)
        skipped = _build(order, step)
        step.name = "fork"
        _split(order, skipped)
        step.name = "preexec_fn"
        if order.before_exec is not None:
            order.before_exec()
        step.name = "exact"
        if order.filter is not None:
            _install(order.filter, order.socket)
    except BaseException as error:
        _report_failure(order.socket, step.name, error)
        raise


def _build(order: Order, step: _Step) -> list[str]:
    namespace.enter(order.ids)
    step.name = "fuse-open"
    descriptor = namespace.open_fuse()
    step.name = "fuse-mount"
    namespace.mount_fuse(descriptor, order.stage, order.ids)
    # Were it open in any process but the server, the mount would hang when the server dies.
    name = os.readlink("/proc/self/ns/user")  # noqa: PTH115 - plain os calls after a fork
    _send(order.socket, MOUNTED + name.encode(), descriptor)
    step.name = "server"
    if order.socket.recv(8) != GO:
        raise ConnectionResetError("the server did not start")
    if order.filter is not None:
        _send(order.socket, ROOT, namespace.open_root(order.stage))
    step.name = "plan"
    return namespace.apply(order.plan, order.stage)


def _install(program: bytes, channel: socket.socket) -> None:
    """Filter this process. Nothing of ours comes after it but exec."""
    _send(channel, LISTENER, listener.install(program))


def _send(channel: socket.socket, kind: bytes, descriptor: int) -> None:
    socket.send_fds(channel, [kind], [descriptor])
    os.close(descriptor)


def _split(order: Order, skipped: list[str]) -> None:
    """Fork: the parent becomes the reaper and never returns, the child is the tool."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    reaper.prepare()
    parent = os.getpid()
    tool = os.fork()
    if tool:
        name = os.readlink("/proc/self/ns/mnt")  # noqa: PTH115 - plain os calls after a fork
        fields = [str(tool), name, *skipped[:_MOST_SKIPPED]]
        order.socket.send(READY + "\0".join(fields).encode())
        orders = reaper.Orders(
            order.launcher, order.socket, order.unlink, order.foreground, order.plan.a_mount()
        )
        reaper.reap(tool, orders)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    for number in order.default_signals:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _report_failure(channel: socket.socket, step: str, error: BaseException) -> None:
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and isinstance(error.filename, str):
        text = f"{error.filename}: {text}"
    try:
        channel.send(FAILED + "\0".join([step, str(number), text]).encode())
    except OSError:
        return  # the launcher is gone, and nobody wants to know
