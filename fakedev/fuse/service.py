"""A machine being served: one notifier, any number of mounts, and a log of who was refused what."""

import os
import stat
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from fakedev.fuse.coherence import Coherence
from fakedev.fuse.connection import Connection
from fakedev.fuse.credentials import Callers
from fakedev.fuse.denials import Denials
from fakedev.fuse.jobs import Jobs
from fakedev.fuse.mappers import comm_of
from fakedev.fuse.session import Options
from fakedev.fuse.witness import Witness
from fakedev.model.effects import Effect, NodesChanged, Revoke
from fakedev.model.machine import Machine
from fakedev.views.tree import HostEntry, Tree, listing, live_directories

# For tests, and for hosts whose kernel misbehaves: serve as to a kernel before 6.6.
FORCE_CACHED = "FAKEDEV_CACHED"


class Listed(NamedTuple):
    """One path of the tree: its kind is `file`, `dir` or `symlink`.

    `opaque`: a directory whose content is not listed, and replaces the host's; `merge`: the host's
    own entries stay visible in it, below it as well.
    """

    kind: str
    opaque: bool = False
    merge: bool = False


def service_of(machine: Machine) -> "Service":
    """The one service of a machine: all mounts of a memory have to know of each other."""
    if machine.service is None:
        machine.service = Service(machine)
    service: Service = machine.service
    return service


class Service:
    """Serves `machine` to mounts until `close`. Implements what the sandbox asks of a service."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.coherence = Coherence(machine)
        self._shadows: dict[str, tuple[tuple[HostEntry, ...], int]] = {}
        self._connections: list[Connection] = []
        self._prepared: Tree | None = None
        self._lock = threading.Lock()
        self._verbs = Jobs(
            "fakedev-verbs", lambda error: machine.record("error", f"verb: {error!r}")
        )
        machine.subscribers.append(self._on_effect)
        machine.comm_of = comm_of
        self._witness = Witness(machine, self.coherence.caching, self.coherence.open_files)

    def _failed(self, error: Exception) -> None:
        self.machine.record("error", f"verb: {error!r}")

    def _on_effect(self, effect: Effect) -> None:
        if isinstance(effect, NodesChanged):
            for connection in self.connections:
                connection.names_changed(effect.directory, effect.names)
        elif isinstance(effect, Revoke) and effect.even_cows:  # `coherence` has unmapped the pages
            for connection in self.connections:
                connection.files.discard(effect.span)

    def tree_listing(self) -> dict[str, Listed]:
        """Return every path of the machine's tree; what comes and goes is covered by its directory."""
        listed = {path: Listed(_kind(mode)) for path, mode in listing(self.machine).items()}
        return listed | {
            path: Listed("dir", opaque=not merge, merge=merge)
            for path, merge in live_directories(self.machine).items()
        }

    def shadow(self, path: str, entries: Iterable[HostEntry], *, mode: int) -> None:
        """Serve `path` to sandboxes from now on merged with the host's entries."""
        self._shadows[path] = (tuple(entries), mode)

    def prepare(self) -> None:
        """Make the tree of the next sandbox."""
        tree = self._merged()
        with self._lock:
            self._prepared = tree

    def _merged(self) -> Tree:
        tree = Tree(self.machine)
        for path, (entries, mode) in self._shadows.items():
            tree.shadow(path, entries, mode=mode)
        return tree

    def attach(
        self,
        fuse_fd: int,
        *,
        as_root: bool,
        uid: int,
        gid: int,
        namespace: str = "",
        exact: bool = False,
    ) -> Connection:
        """Serve a sandbox's mount. `uid`, `gid` are the only ids that exist in its user `namespace`."""
        with self._lock:
            tree, self._prepared = self._prepared or self._merged(), None
        callers = Callers(namespace) if namespace else None
        options = Options(uid, gid, 0 if as_root else None, exact=exact, callers=callers)
        return self._serve(fuse_fd, tree, options)

    def attach_plain(self, fuse_fd: int, *, as_root: bool = True) -> Connection:
        """Serve a plain mount, whose files belong to us; we count as root with `as_root`."""
        uid, gid = os.geteuid(), os.getegid()
        return self._serve(fuse_fd, Tree(self.machine), Options(uid, gid, uid if as_root else None))

    def _serve(self, fuse_fd: int, tree: Tree, options: Options) -> Connection:
        if os.environ.get(FORCE_CACHED) == "1":
            options = replace(options, cached=True)
        connection = Connection(
            fuse_fd,
            tree,
            self.coherence,
            options,
            refused=Denials(self.machine),
            verbs=self._verbs,
        )
        with self._lock:
            self._connections = [*self.connections, connection]
        return connection

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Mounts that are still there."""
        return tuple(c for c in self._connections if not c.wait_closed(0))

    def close(self, timeout: float = 5.0) -> None:
        """Wait for the mounts, which the caller has ended, then stop the notifier."""
        for connection in self.connections:
            connection.wait_closed(timeout)
        self._verbs.close()
        self.machine.subscribers.remove(self._on_effect)
        self._witness.close()
        self.coherence.close()
        if self.machine.service is self:
            self.machine.service = None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(mode) else "file"
