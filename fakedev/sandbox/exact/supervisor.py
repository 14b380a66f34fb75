"""The supervisor of one sandbox: threads that receive calls of its tools, ask the nodes, and reply.

Theory of operation
-------------------
Most calls are about descriptors that are not ours. They cost a statx(2) of /proc/TID/fd/N that does not ask
the file system behind it (AT_STATX_DONT_SYNC), and continue. For ours the node decides
(`fakedev.views.calls`); where it has nothing to say, the call continues too.

While a call waits its thread number belongs to its caller. Before memory is written that is asked again
(`Listener.waits`): the caller may have been killed meanwhile.

One thread receives (`crew`); the others, if any, are kept waiting by a tool. None of them takes a lock that a
worker of the FUSE server holds while it waits for anybody. They may wait for a worker themselves (memory of
a tool can be a page that we serve); workers never wait for them.

Descriptors live as long as a thread may use them: the mount is let go of when the last thread has ended,
the listener when also nobody of the sandbox is left, for without one every call fails with ENOSYS.
"""

import os
import threading
from collections.abc import Callable

from fakedev.sandbox.exact import tracee
from fakedev.sandbox.exact.copies import Copies
from fakedev.sandbox.exact.crew import Crew
from fakedev.sandbox.exact.dispatch import Dispatch
from fakedev.sandbox.exact.shared import Shared
from fakedev.sandbox.protocols import ExactFiles


class Supervisor:
    """Answers the calls of one sandbox until its last tool has ended, or `close`.

    `root` is an O_PATH descriptor of the root of the tree; both descriptors belong to the supervisor.
    `lost` is called when it cannot go on: nobody would answer the tools any more.
    """

    def __init__(
        self, listener: int, root: int, files: ExactFiles, lost: Callable[[], None]
    ) -> None:
        self._lost = lost
        self._files = files
        copies = Copies(tracee.device(root), files)
        files.discard = copies.discard
        self.shared = Shared(listener, root, files, copies)
        files.callers.known = self.shared.marks.at_files
        self._stop, self._wake = os.pipe2(os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._used, self._released = True, False
        self.crew = Crew(self._hand, self._failed, self._let_go)

    def start(self) -> None:
        """Begin to answer."""
        self.crew.start()

    def close(self, timeout: float | None = None) -> bool:
        """Stop answering, and let go of the mount when the last thread has ended: whether it has.

        One may wait for memory of a tool, which a process of the sandbox fills, or nobody.
        """
        with self._lock:
            if self._used:
                os.write(self._wake, b"x")
        self.crew.stop()
        return self.crew.wait(timeout)

    def release(self) -> None:
        """After `close`, when nobody of the sandbox is left: calls fail with ENOSYS from now on.

        That is if nobody else holds the listener, and no thread of ours uses it any more.
        """
        with self._lock:
            self._released = True
            if not self._used:
                os.close(self.shared.listener)

    def _hand(self) -> Dispatch:
        return Dispatch(self.shared, self._stop)

    def _let_go(self) -> None:
        """The last thread has ended."""
        with self._lock:
            self._used = False
            for fd in (self._stop, self._wake, self.shared.root):
                os.close(fd)
            if self._released:
                os.close(self.shared.listener)

    def _failed(self, error: BaseException) -> None:
        try:
            self._files.failed(error)
        finally:
            self._lost()
