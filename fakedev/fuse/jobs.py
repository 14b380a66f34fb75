"""Threads that exist while there is something to do."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from fakedev.fuse.deferred import Deferred

# Seconds without a job after which the thread ends; the next job starts another one.
IDLE = 5.0
Job = Callable[[], None]


class Jobs:
    """One thread that does jobs in order. `failed` is told of errors that a job did not handle."""

    def __init__(self, name: str, failed: Callable[[Exception], object]) -> None:
        self._name = name
        self._failed = failed
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Queue a job that handles its own errors."""
        with self._starting:
            self._jobs.put(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def defer(self, job: Callable[[], Any]) -> Deferred:
        """Queue a job whose outcome somebody waits for."""
        deferred = Deferred(job)
        self.submit(deferred.run)
        return deferred

    def wait(self, job: Callable[[], Any]) -> Any:
        """Do a job on the thread and return what it returns; at once when this is the thread."""
        if self.current:
            return job()
        return self.defer(job).wait()

    @property
    def current(self) -> bool:
        """True on the thread itself."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Stop after the jobs that are queued."""
        with self._starting:
            thread = self._thread
            if thread is not None:
                self._jobs.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 - without this thread every mount would hang
                self._failed(error)

    def _next(self) -> Job | None:
        """The next job, or None when this thread is to end: idle for a while, or closed."""
        while True:
            try:
                return self._jobs.get(timeout=IDLE)
            except Empty:
                with self._starting:
                    if self._jobs.empty():
                        self._thread = None
                        return None
