"""The control socket of a running machine."""

import contextlib
import errno
import os
import secrets
import socket
import threading
from pathlib import Path

from fakedev.control import protocol
from fakedev.control.peers import peer_of
from fakedev.control.verbs import Verbs
from fakedev.model.errors import ControlError, FakedevError, HostError

CONNECTION_LIMIT = 64
# Reasons why accept fails for a while.
SCARCE = frozenset(
    {errno.ECONNABORTED, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
)


class ControlServer:
    """Listens on `path` (mode 0600) until `close`. Peers of other users are turned away."""

    def __init__(self, path: Path, verbs: Verbs) -> None:
        self.path = path
        self._verbs = verbs
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._slots = threading.BoundedSemaphore(CONNECTION_LIMIT)
        self._peers: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._bind()
        self._thread = threading.Thread(target=self._accept, name="fakedev-control", daemon=True)
        self._thread.start()

    def _bind(self) -> None:
        """Listen, and only then appear: whoever finds a socket that refuses takes it for a dead machine's."""
        self._remove_stale()
        hidden = self.path.with_name(f".{secrets.token_hex(4)}")
        old = os.umask(0o177)
        try:
            self._socket.bind(str(hidden))
            self._socket.listen(16)
            self.path.hardlink_to(hidden)
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"cannot listen on {self.path}: {error.strerror or error}; choose another --name"
            ) from None
        finally:
            os.umask(old)
            hidden.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        """Remove the socket of a machine that died without cleaning up."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop listening, hang up on everybody, and remove the socket."""
        self._closing.set()
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError as error:
                if error.errno not in SCARCE:
                    return
                self._closing.wait(0.05)  # until somebody gives a descriptor back
                continue
            if peer_of(peer).uid not in {os.geteuid(), 0} or not self._slots.acquire(
                blocking=False
            ):
                peer.close()
                continue
            with self._lock:
                self._peers.add(peer)
            try:
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()
            except RuntimeError:  # no more threads: this peer has to come again
                self._drop(peer)

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            stream = peer.makefile("rb")
            while line := stream.readline(protocol.LINE_LIMIT):
                if not line.endswith(b"\n") and len(line) >= protocol.LINE_LIMIT:
                    error = ControlError("a request is longer than the limit")
                    peer.sendall(protocol.encode(protocol.failure(None, error)))
                    break
                peer.sendall(protocol.encode(self._answer(line, peer)))
        self._drop(peer)

    def _drop(self, peer: socket.socket) -> None:
        peer.close()
        with self._lock:
            self._peers.discard(peer)
        self._slots.release()

    def _answer(self, line: bytes, peer: socket.socket) -> dict[str, object]:
        number = None
        try:
            number, verb, args = protocol.decode(line)
            return protocol.success(number, self._verbs(verb, args, lambda: _left(peer)))
        except FakedevError as error:
            return protocol.failure(number or protocol.request_id(line), error)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the machine
            return protocol.failure(number, ControlError(f"internal error: {error!r}"))


def _left(peer: socket.socket) -> bool:
    try:
        return peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
