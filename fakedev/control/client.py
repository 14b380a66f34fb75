"""Finding running machines and talking to them."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from fakedev.control import protocol
from fakedev.control.peers import peer_of
from fakedev.model.errors import ControlError, HostError
from fakedev.sandbox.processes import state_of

VARIABLE = "FAKEDEV_CONTROL"
SUFFIX = ".sock"


class StoppedError(HostError):
    """A machine whose process is stopped (Ctrl-Z): it answers when it is continued."""


class Client:
    """A connection to one machine's control socket."""

    def __init__(self, path: Path, *, timeout: float | None = None) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise HostError(f"no machine answers at {path}: {error.strerror}") from None
        pid = peer_of(self._socket).pid
        if state_of(pid) == "T":
            self._socket.close()
            name = path.name.removesuffix(SUFFIX)
            raise StoppedError(
                f"{name} is stopped (pid {pid}): continue it with fg, or kill -CONT {pid}"
            )
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def call(self, verb: str, **args: Any) -> Any:
        """The result of a verb. Raises ControlError with the machine's own words."""
        given = {name: value for name, value in args.items() if value is not None}
        try:
            self._socket.sendall(protocol.encode({"verb": verb, "args": given}))
            line = self._stream.readline()
        except OSError as error:
            raise HostError(f"the machine at {self.path} hung up: {error}") from None
        if not line:
            raise HostError(f"the machine at {self.path} is gone")
        answer = json.loads(line)
        if answer["ok"]:
            return answer["result"]
        raise ControlError(answer["error"]["message"])


def sockets(directory: Path) -> list[Path]:
    """Control sockets of machines that answer; those of machines that died are removed."""
    alive = []
    for path in sorted(directory.glob("*" + SUFFIX)):
        try:
            Client(path, timeout=2).close()
        except StoppedError:
            alive.append(path)
        except HostError:
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            alive.append(path)
    return alive


def states(directory: Path) -> Iterator[dict[str, Any]]:
    """What each running machine says of itself."""
    for path in sockets(directory):
        name = path.name.removesuffix(SUFFIX)
        try:
            with Client(path, timeout=5) as client:
                yield {"name": name, **client.call("state")}
        except StoppedError:
            yield {"name": name, "stopped": True}
        except (HostError, ControlError):
            continue


def find(directory: Path, name: str | None) -> Path:
    """The socket of machine `name`; without a name, of the machine we run in or the only one."""
    if name is not None:
        path = directory / (name + SUFFIX)
        if path.exists():
            return path
        raise HostError(f"no machine is called {name!r}; {_running(directory)}")
    inside = os.environ.get(VARIABLE)
    if inside:
        return Path(inside)
    found = sockets(directory)
    if len(found) != 1:
        raise HostError(f"which machine? give --machine NAME; {_running(directory)}")
    return found[0]


def _running(directory: Path) -> str:
    names = [path.name.removesuffix(SUFFIX) for path in sockets(directory)]
    return "running: " + ", ".join(names) if names else "none is running"


def new_name(directory: Path, wanted: str) -> str:
    """`wanted`, or with a number behind it where a machine of that name is running."""
    taken = {path.name.removesuffix(SUFFIX) for path in sockets(directory)}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name
