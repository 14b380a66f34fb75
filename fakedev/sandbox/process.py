"""A process in a sandbox: `subprocess.Popen` whose child builds the sandbox first."""

import _thread
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fakedev.model.errors import HostError
from fakedev.sandbox import child, reaper, refusals
from fakedev.sandbox.exact.supervisor import Supervisor
from fakedev.sandbox.protocols import Connection, Service

_HANDSHAKE_TIMEOUT = 30.0
_REAPED_TIMEOUT = 0.5
_UNMOUNT_TIMEOUT = 5.0
_PACKET = 1 << 16
_NO_REAPER = "fakedev: the process that watches over the sandbox died; the tool was ended"


class Handshake:
    """The launcher's side of the start, in a thread: Popen blocks until the child has exec'ed.

    Takes the descriptor of /dev/fuse, has it served, lets the child go on, learns the tool's pid.
    """

    def __init__(self, channel: socket.socket, service: Service, order: child.Order) -> None:
        self._channel = channel
        self._service = service
        self._order = order
        self._thread = threading.Thread(target=self._run, name="fakedev-handshake", daemon=True)
        self.connection: Connection | None = None
        self.supervisor: Supervisor | None = None
        self._root = -1
        self.tool_pid = 0
        self.namespace = ""
        self.skipped: tuple[str, ...] = ()
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin to listen to the child."""
        self._thread.start()

    def finish(self) -> None:
        """Wait for the end; raises what went wrong, as HostError where the host refused."""
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        if not self.tool_pid:
            raise HostError("the sandbox was killed before the program started")

    def abandon(self) -> None:
        """Wait for the end, which is near because the child is gone, and stop serving."""
        self._thread.join()
        if self._root >= 0:  # it holds the mount
            os.close(self._root)
        if self.supervisor is not None:
            self.supervisor.close(_UNMOUNT_TIMEOUT)
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.supervisor is not None:
            self.supervisor.release()
            self.supervisor = None

    def _run(self) -> None:
        self._channel.settimeout(_HANDSHAKE_TIMEOUT)
        try:
            while self._step():
                pass
            self._channel.settimeout(None)
        except TimeoutError:
            self.failure = HostError("the sandbox did not start in 30 s; is the host overloaded?")
        except BaseException as error:  # noqa: BLE001 - raised again by finish()
            self.failure = error
        if self.failure is not None:
            # The child may still wait for its permission to go on; a reaper would wait for our death.
            with contextlib.suppress(OSError):
                self._channel.send(reaper.DESTROY)
            self._channel.shutdown(socket.SHUT_RDWR)

    def _step(self) -> bool:
        """Handle one packet; True if more are to come."""
        data, descriptors, _flags, _address = socket.recv_fds(
            self._channel, _PACKET, 1, socket.MSG_CMSG_CLOEXEC
        )
        kind, body = data[:1], data[1:]
        if kind == child.MOUNTED:
            self._serve(descriptors[0], body.decode())
        elif kind == child.ROOT:
            self._root = descriptors[0]
        elif kind == child.LISTENER:
            self._supervise(descriptors[0])
        elif kind == child.READY:
            pid, self.namespace, *skipped = body.decode().split("\0")
            self.tool_pid, self.skipped = int(pid), tuple(skipped)
        elif kind == child.FAILED:
            self._fail(*body.decode().split("\0", 2))
            return False
        else:
            return False
        waits_for_listener = self._order.filter is not None and self.supervisor is None
        return not self.tool_pid or waits_for_listener

    def _fail(self, step: str, number: str, text: str) -> None:
        if step != "preexec_fn":  # the caller's own: Popen raises what it always raises
            self.failure = refusals.explain(step, int(number), text)
            self.failure.__cause__ = OSError(int(number), text)

    def _serve(self, descriptor: int, namespace: str) -> None:
        ids = self._order.ids
        self.connection = self._service.attach(
            descriptor,
            as_root=ids.uid == 0,
            uid=ids.uid,
            gid=ids.gid,
            namespace=namespace,
            exact=self._order.filter is not None,
        )
        self._channel.send(child.GO)

    def _lost(self) -> None:
        print("fakedev: the exact layer failed; the tool was ended", file=sys.stderr)  # noqa: T201
        with contextlib.suppress(OSError):
            self._channel.send(reaper.DESTROY)

    def _supervise(self, listener: int) -> None:
        """Start to answer; the reaper holds the listener too, in case that we are killed."""
        if self.connection is None:
            os.close(listener)
            raise HostError("the sandbox filtered its calls before it was served")
        try:
            socket.send_fds(self._channel, [reaper.LISTENER], [listener])
            self.supervisor = Supervisor(listener, self._root, self.connection.files, self._lost)
        except BaseException:
            os.close(listener)
            raise
        self._root = -1
        self.supervisor.start()


class Launch(NamedTuple):
    """What `SandboxProcess` needs beside the arguments of Popen."""

    service: Service
    order: child.Order
    channel: socket.socket


class SandboxProcess(subprocess.Popen[Any]):
    """Like Popen. `pid` is the reaper's, `tool_pid` the tool's; signals go to the tool.

    `skipped` lists host entries that could not be shown inside. When the object goes away while
    the tool runs, or the launching process ends, the sandbox is killed as a whole.
    """

    def __init__(self, args: Any, launch: Launch, **options: Any) -> None:
        self._channel = launch.channel
        self._connection: Connection | None = None
        self._supervisor: Supervisor | None = None
        self._send_lock = threading.Lock()
        self._reaped = False
        handshake = Handshake(launch.channel, launch.service, launch.order)
        handshake.start()
        try:
            self._start(args, launch, options)
            launch.order.socket.close()
            handshake.finish()
        except BaseException:
            launch.order.socket.close()
            self._abandon(handshake)
            raise
        self._connection = handshake.connection
        self._supervisor = handshake.supervisor
        self.tool_pid = handshake.tool_pid
        self.skipped = handshake.skipped
        self._namespace = handshake.namespace

    def _start(self, args: Any, launch: Launch, options: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            # Python 3.12+ warns of fork with threads; the child keeps to what is safe there.
            warnings.simplefilter("ignore", DeprecationWarning)
            super().__init__(
                args,
                preexec_fn=lambda: child.become_tool(launch.order),
                **options,
            )

    def _abandon(self, handshake: Handshake) -> None:
        """Clean up after a failed start; a refusal by the host is the error to show."""
        if getattr(self, "_child_created", False) and self.returncode is None:
            super().kill()
            super().wait()
        handshake.abandon()
        self._channel.close()
        if handshake.failure is not None and not isinstance(handshake.failure, OSError):
            raise handshake.failure from handshake.failure.__cause__

    # -- signals

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the tool; SIGKILL ends the whole sandbox."""
        if self.poll() is not None:
            return
        if sig == signal.SIGKILL:
            self._send(reaper.DESTROY)
        else:
            self._send(reaper.NUMBER.pack(reaper.SIGNAL, sig))

    def terminate(self) -> None:
        """Send SIGTERM to the tool."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the tool and everything that it started, at once."""
        self.send_signal(signal.SIGKILL)

    def resume(self) -> None:
        """Continue the tool if it is stopped."""
        self._send(reaper.CONTINUE)

    def _send(self, message: bytes) -> None:
        with self._send_lock, contextlib.suppress(OSError):
            self._channel.send(message)

    # -- the end

    def poll(self) -> int | None:
        """Like Popen.poll(); when the sandbox has ended, its mount is gone as well."""
        code = super().poll()
        if code is not None:
            self._release()
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Like Popen.wait(); when the sandbox has ended, its mount is gone as well."""
        code = super().wait(timeout)
        self._release()
        return code

    def is_stopped(self) -> bool:
        """Whether the tool is stopped at this moment."""
        try:
            status = Path(f"/proc/{self.tool_pid}/stat").read_bytes()
        except OSError:
            return False
        return status.rpartition(b")")[2].split()[0] == b"T"

    def next_stop(self) -> bool:
        """Block until the tool is stopped; False when it has ended.

        For the one thread that mirrors job control (`run_foreground`).
        """
        while True:
            try:
                message = self._channel.recv(64)
            except OSError:
                return False
            if not message or message[:1] == reaper.ENDED:
                self._reaped = bool(message)
                return False
            if message[:1] == reaper.STOPPED:
                return True

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        supervisor, self._supervisor = self._supervisor, None
        if connection is not None and not self._was_reaped():
            print(_NO_REAPER, file=sys.stderr)  # noqa: T201
        self._channel.close()
        if supervisor is not None and not supervisor.close(_REAPED_TIMEOUT):  # it holds the mount
            kill_namespace(self._namespace)  # it waits for somebody who is left
            supervisor.close(_UNMOUNT_TIMEOUT)
        if connection is not None:
            # The kernel ends the connection when the last process of the namespace is gone; that
            # takes long only if the reaper was killed and could not end the tool's children.
            if not connection.wait_closed(_REAPED_TIMEOUT):
                kill_namespace(self._namespace)
                connection.wait_closed(_UNMOUNT_TIMEOUT)
            connection.close()
        if supervisor is not None:  # not before: without a listener calls fail with ENOSYS
            supervisor.release()

    def _was_reaped(self) -> bool:
        """Whether the reaper said that it ends; else it was killed."""
        with contextlib.suppress(OSError):
            while message := self._channel.recv(64, socket.MSG_DONTWAIT):
                self._reaped |= message[:1] == reaper.ENDED
        return self._reaped

    def _abandoned(self) -> None:
        """On a thread of its own: let go of what belongs to the sandbox when the reaper has ended."""
        while self.next_stop():
            pass
        self._release()

    def __del__(self) -> None:
        """Let the reaper know that nobody waits for it any more."""
        channel = getattr(self, "_channel", None)
        if channel is not None and getattr(self, "returncode", None) is None:
            self._send(reaper.DESTROY)
            try:
                # No threading.Thread: who is interrupted by this may hold the lock that it takes.
                _thread.start_new_thread(self._abandoned, ())
            except RuntimeError:  # the interpreter ends
                channel.close()
        super().__del__()


def kill_namespace(name: str) -> None:
    """Kill every process whose mount namespace is `name`, as /proc/PID/ns/mnt shows it."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            watched = os.pidfd_open(int(entry.name))  # holds the number while we look
            try:
                if str((entry / "ns/mnt").readlink()) == name:
                    signal.pidfd_send_signal(watched, signal.SIGKILL)
            finally:
                os.close(watched)


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a packet socket: the launcher's and the child's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def communicate(
    process: SandboxProcess, *, data: Any, timeout: float | None, check: bool
) -> subprocess.CompletedProcess[Any]:
    """Do what `subprocess.run` does with a started process; a timeout kills the whole sandbox."""
    with process:
        try:
            stdout, stderr = process.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            process.kill()
            # What was written before; the pipes are closed now that nobody is left in the sandbox.
            expired.stdout, expired.stderr = process.communicate()
            raise
        except BaseException:
            process.kill()
            process.wait()  # Popen.__exit__ does not, after KeyboardInterrupt
            raise
        code = process.wait()
    if check and code:
        raise subprocess.CalledProcessError(code, process.args, output=stdout, stderr=stderr)
    return subprocess.CompletedProcess(process.args, code, stdout, stderr)


Arguments = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
