"""A machine's files through mfusepy and libfuse, for hosts where only libfuse is at hand.

A plain mount of the same tree, policy and revocation as the wire server's; no sandbox. Notifications
are libfuse's own (`fuse_lowlevel_notify_inval_inode`), sent by the notifier thread of `Coherence`.
The nodeid that they need is what stat shows: libfuse's high-level interface puts it into `st_ino`,
and with the option `remember=-1` a path keeps it for as long as the mount lives.

What it cannot do, beside the wire server:

* **`/dev/mem` goes through the page cache.** A file with direct I/O can be mapped only where the
  server asks for it when the mount begins; libfuse 3.14 and mfusepy 3.1 have no name for that. So it
  is as with the wire server on kernels before 6.6:

  - The kernel asks for pages, and does not say for what: read(2) follows the rules of mmap(2). Under
    STRICT_DEVMEM the RAM of the first MiB reads as what it holds, not as zeros, and a refusal has
    the errno of mmap. Linux 6.18 hands it to the tool; another kernel may make EIO of it.
  - A read that runs into a refused page returns the bytes before it instead of failing as a whole,
    and the end of memory is an end of file, not EFAULT.
  - Where the simulated kernel does not revoke (before 5.8, `iomem=relaxed`), pages that were cached
    before a claim stay readable.
  - A write(2) is judged in pieces, down to single pages: what lies before a refused piece is
    written. One that the kernel swallows can be read back until its page is dropped, a moment later.

* **A revoked mapping heals.** libfuse has one inode per path. While the claim stands, every touch is
  SIGBUS and no store gets through; after `release` or `reset` the old mapping works again.
* With several files of the same memory in one mount, a write(2) to one is not seen through a mapping
  of another. (Mappings see each other's stores; today there is one such file.)
* A request that waits cannot be interrupted; a tool is killed only when its answer has come.
* The process that serves must not map its own files: a page fault holds the GIL that the answer needs.
* It is run and tested on Linux with libfuse 3.14 and 2.9. With libfuse 2, as on macOS and the BSDs,
  it uses the same calls; nobody has run it there.
"""

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Self

from fakedev.fuse import fusepy_library, mount
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.denials import Denials
from fakedev.fuse.fusepy_operations import Operations
from fakedev.fuse.names import LIFETIME
from fakedev.model.effects import Effect, NodesChanged
from fakedev.model.errors import HostError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.views.devmem import DevMem
from fakedev.views.tree import Tree

PATIENCE = 5.0
# Nothing has this name: looking it up wakes a thread of libfuse, which sees that it shall leave.
NUDGE = ".fakedev-leave"


class Mount:
    """Serves `machine` below `directory` from a thread of its own until `close`, or until unmounted.

    We count as root in the machine with `as_root`. Raises HostError, with the way out, when mfusepy
    or libfuse is missing or the mount is refused.
    """

    def __init__(self, machine: Machine, directory: str, *, as_root: bool = True) -> None:
        self.directory = str(Path(directory).absolute())
        mount.check_mountpoint(self.directory)
        self._mfusepy = fusepy_library.load()
        self._native = fusepy_library.Native(self._mfusepy)
        self._fuse: int | None = None
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._nodeids: dict[str, int] = {}
        self._machine = machine
        self._tree = tree = Tree(machine)
        self._coherence: Coherence | None = Coherence(machine)
        operations = Operations(
            tree,
            self._coherence,
            root_uid=os.geteuid() if as_root else None,
            caller=self._mfusepy.fuse_get_context,
            drop=self._drop,
            refused=Denials(machine),
            started=self._on_started,
            ended=self._on_ended,
        )
        machine.subscribers.append(self._on_effect)
        self._thread = threading.Thread(
            target=self._run, args=(operations,), name="fakedev-fusepy", daemon=True
        )
        try:
            self._start(tree)
        except BaseException:
            self.close()
            raise

    def _start(self, tree: Tree) -> None:
        here = Path.cwd()
        self._thread.start()
        self._ready.wait()
        os.chdir(here)  # libfuse 3 goes to / even in the foreground
        _take_signals_back()
        if self._fuse is None:
            raise HostError(
                f"libfuse cannot mount on {self.directory} (status {self._failure}; its own words"
                " are on stderr); `fakedev doctor` shows what this host allows"
            )
        memory = [path for path, node in tree.walk(live=False) if isinstance(node, DevMem)]
        self._nodeids = {path: Path(self.directory + path).stat().st_ino for path in memory}

    def _run(self, operations: Operations) -> None:
        # Nodes of PCI come and go, and libfuse cannot be told by name: then nothing is trusted long.
        lifetime = LIFETIME if self._machine.pci is None else 0
        timeouts = dict.fromkeys(("attr_timeout", "entry_timeout"), lifetime)
        try:
            self._mfusepy.FUSE(
                operations, self.directory, raw_fi=True, foreground=True, fsname="fakedev",
                subtype="fakedev", remember=-1, **timeouts,
                **fusepy_library.options(self._mfusepy),
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - libfuse's status, or what a callback died of
            self._failure = error
        self._ended.set()
        self._ready.set()

    def _on_started(self) -> None:
        self._fuse = self._mfusepy._libfuse.fuse_get_context().contents.fuse  # noqa: SLF001
        self._ready.set()

    def _on_ended(self) -> None:
        with self._lock:  # not while a notification is under way: it uses the session
            self._fuse = None

    def _on_effect(self, effect: Effect) -> None:
        if isinstance(effect, NodesChanged):
            self._tree.forget(effect.directory, effect.names)

    def _drop(self, path: str, span: Range) -> None:
        with self._lock:
            if self._fuse is not None:
                self._native.invalidate(self._fuse, self._nodeids[path], span.start, span.size)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """True when the mount is gone."""
        return self._ended.wait(timeout)

    def close(self) -> None:
        """Stop the notifier, then the loop; libfuse unmounts. Tools that have files open get ENOTCONN."""
        coherence, self._coherence = self._coherence, None
        if coherence is not None:
            self._machine.subscribers.remove(self._on_effect)
            coherence.close()
        with self._lock:
            if self._fuse is not None:
                self._native.leave(self._fuse)
        if not self._ended.is_set():
            with contextlib.suppress(OSError):
                Path(self.directory, NUDGE).stat()
            self._thread.join(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take_signals_back() -> None:
    """Undo what libfuse did: it put handlers where there were none, which end the mount only."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None:
            with contextlib.suppress(ValueError):  # not the main thread, which alone may do this
                signal.signal(number, handler)
