"""The I/O of one mount: worker threads that read requests from /dev/fuse and write replies."""

import errno
import io
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.exact import ExactFiles
from fakedev.fuse.jobs import Jobs
from fakedev.fuse.session import MAX_TRANSFER, Body, Options, Session
from fakedev.fuse.waiting import Waiting
from fakedev.model.ranges import Range
from fakedev.views.node import Refused, Waits
from fakedev.views.tree import Tree

WORKERS = 2
BUFFER_SIZE = MAX_TRANSFER + 8192
IOV_LIMIT = 1000
LONG_READ = 128 << 10
WRITEV = os.writev
HEADER_SIZE, PACK_HEADER = wire.OUT_HEADER.size, wire.OUT_HEADER.pack
AGAIN = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})


class Connection:
    """Serves one descriptor of /dev/fuse, which it owns, until the mount is gone."""

    def __init__(
        self,
        fd: int,
        tree: Tree,
        coherence: Coherence,
        options: Options | None = None,
        *,
        refused: Callable[[int, str, Range, Refused], None] = lambda *_: None,
        verbs: Jobs | None = None,
    ) -> None:
        self._fd = fd
        self._file = io.FileIO(fd, "rb", closefd=False)  # its readinto costs half an os.readv
        self._coherence = coherence
        options = options or Options()
        self.session = Session(tree, coherence, options, self._notify, refused, verbs)
        self.files = ExactFiles(self.session, tree.machine)  # what the exact layer asks
        self._left = WORKERS
        self._holds = 0  # writes of threads that are no workers of this mount
        self._gone = False
        self._waiting: dict[int, Waiting] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"fakedev-worker-{n}", daemon=True)
            for n in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """True when the mount is gone and the workers have ended."""
        return self._closed.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Wait for the workers: the caller has unmounted, or ended the mount's namespace."""
        self._closed.wait(timeout)

    def _work(self) -> None:
        """Take turns: one worker reads requests until a long answer makes it let another one lead."""
        buffer = memoryview(mmap.mmap(-1, BUFFER_SIZE))  # zeroed when it is used, not now
        try:
            while (long := self._lead(buffer)) is not None:
                self._read(*long)
        finally:
            self._leave()

    def _lead(self, buffer: memoryview) -> tuple[int, int, int, int, int, int] | None:
        """Serve until a long READ comes, and return that; None when the mount is gone.

        A second thread that waits for requests too would get every other one, and each would pay
        for waking it and for the interpreter's lock.
        """
        receive, read = self._file.readinto, self._read
        unpack, read_size = wire.READ_MESSAGE.unpack_from, wire.READ_MESSAGE.size
        with self._turn:
            while True:
                try:
                    length = receive(buffer)
                except OSError as error:
                    if error.errno in AGAIN:
                        continue
                    return None
                if length == read_size:
                    code, unique, pid, more, fh, offset, count, flags, status = unpack(buffer)
                    if code == wire.READ and not more:
                        if count >= LONG_READ:
                            return unique, pid, fh, offset, count, flags
                        read(unique, pid, fh, offset, count, flags, status)
                        continue
                if not length:
                    return None
                self._serve(buffer[:length])

    def _read(
        self, unique: int, pid: int, fh: int, offset: int, count: int, flags: int, status: int = 0
    ) -> None:
        """`flags` are those of the request, `status` those of open(2) and fcntl(2)."""
        try:
            body = self.session.read(pid, fh, offset, count, flags)
        except Waits as waits:
            if status & os.O_NONBLOCK:
                self._excuse(unique, waits)
                return
            again = partial(self.session.read, pid, fh, offset, count, flags)
            waiting = self._waiting[unique] = Waiting(waits.until, again)
            waiting.when_done(partial(self._answer_late, unique, waiting))
            waiting.begin()
        except Exception as error:  # noqa: BLE001 - told apart there
            self._excuse(unique, error)
        else:
            self._reply(unique, body)

    def _leave(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._coherence.submit(self._finish)

    def _finish(self) -> None:
        """On the notifier thread, which may still have had something to say to this mount."""
        for waiting in list(self._waiting.values()):
            waiting.interrupt()
        with self._lock:
            self._gone = True
            if not self._holds:
                os.close(self._fd)
        self.session.close()
        self._closed.set()

    def _hold(self) -> bool:
        """Before a thread that is no worker writes: the descriptor stays open until `_let_go`, if it is."""
        with self._lock:
            self._holds += not self._gone
            return not self._gone

    def _let_go(self) -> None:
        with self._lock:
            self._holds -= 1
            if self._gone and not self._holds:
                os.close(self._fd)

    def _serve(self, message: memoryview) -> None:
        try:
            request = wire.parse(message)
        except wire.WireError:
            return  # nobody to answer
        if request.opcode == wire.INTERRUPT:
            self._interrupt(request.body)
            return
        try:
            body = self.session.handle(request)
        except Exception as error:  # noqa: BLE001 - told apart there
            self._excuse(request.unique, error)
        else:
            if request.opcode not in wire.NO_REPLY:
                self._reply(request.unique, body)

    def _interrupt(self, body: memoryview) -> None:
        """The caller of a request got a signal: that matters to those that may wait for ever.

        Whatever else is queued is answered soon, and a page fault that were answered with EINTR would be
        a SIGBUS for its toucher.
        """
        if len(body) >= wire.INTERRUPT_IN.size:
            waiting = self._waiting.get(wire.unpack(wire.INTERRUPT_IN, body)[0])
            if waiting is not None:
                waiting.interrupt()

    def _excuse(self, unique: int, error: Exception) -> None:
        """Reply with an errno, or later with what is not known yet."""
        if isinstance(error, Refused):
            self._reply(unique, [], error.errno)
        elif isinstance(error, Deferred):
            error.when_done(lambda: self._answer_late(unique, error))
        else:  # a bug, or no memory: neither the caller nor this worker may be lost to it
            self._reply(unique, [], errno.EIO)
            self.session.tree.machine.record("error", f"request {unique}: {error!r}")

    def _answer_late(self, unique: int, deferred: Deferred) -> None:
        self._waiting.pop(unique, None)
        if not self._hold():
            return  # the mount is gone
        try:
            body = deferred.outcome()
        except Exception as error:  # noqa: BLE001 - told apart there
            self._excuse(unique, error)
        else:
            self._reply(unique, body)
        finally:
            self._let_go()

    def _reply(self, unique: int, body: Body, error: int = 0) -> None:
        try:
            if len(body) == 1:
                part = body[0]
                WRITEV(self._fd, (PACK_HEADER(HEADER_SIZE + len(part), -error, unique), part))
                return
            if not body:
                os.write(self._fd, PACK_HEADER(HEADER_SIZE, -error, unique))
                return
            if len(body) > IOV_LIMIT:
                body = [b"".join(body)]
            length = HEADER_SIZE + sum(map(len, body))
            WRITEV(self._fd, (PACK_HEADER(length, -error, unique), *body))
        except OSError:
            return  # ENOENT: interrupted; ENODEV: the mount is gone

    def names_changed(self, directory: str, names: Sequence[str]) -> None:
        """Drop what the kernel has cached of these entries, positive or negative, and wait until it did.

        The kernel waits for whoever lists the directory, so neither a worker nor the notifier may.
        """
        for message in self.session.stale(directory, names):
            self._notify(message)

    def _notify(self, message: bytes) -> None:
        if not self._hold():
            return
        try:
            os.write(self._fd, message)
        except OSError:
            return  # ENOENT: the kernel has no such inode any more
        finally:
            self._let_go()
