"""Who is at the other end of a UNIX socket."""

import socket
import struct
from typing import NamedTuple

_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """SO_PEERCRED: the process and the user that connected, or that listens."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """The credentials of the other end, as this process's namespaces number them."""
    size = _CREDENTIALS.size
    return Peer(
        *_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    )
