"""Private copies of device memory, which a claim discards.

`revoke_iomem` unmaps with `even_cows`: a page that a MAP_PRIVATE mapping has copied is gone as well. What
a FUSE server can invalidate spares such pages, and nobody but a process itself can discard them
(`fakedev.sandbox.exact.inject`).

It comes last: pages are refused by now, and unmapped where they are shared, so that no new copy can come
to be, but by fork(2) of who has one. So it is looked for copies until none is left.
"""

import os
import threading
import time
from functools import partial

from fakedev.model.ranges import PAGE_SHIFT, PAGE_SIZE, Range, page_round
from fakedev.sandbox.exact import ptrace
from fakedev.sandbox.exact.areas import Area, parse
from fakedev.sandbox.exact.inject import borrow
from fakedev.sandbox.exact.seizing import Piece, Spared
from fakedev.sandbox.protocols import ExactFiles
from fakedev.views.physical import PhysicalFile

# Seconds that a claim waits: for all, and for a process that cannot run anyway before it is done.
PATIENCE = 5.0
ASLEEP = 0.02
_PASSES = 20
_PRESENT, _SWAPPED, _FILE = 0x80, 0x40, 0x20  # in the last byte of an entry of pagemap


class _Order:
    """What one process has been asked to discard; `failed`: it will not."""

    __slots__ = ("failed", "spans", "thread")
    thread: threading.Thread

    def __init__(self, spans: tuple[Range, ...]) -> None:
        self.spans = spans
        self.failed = False


class Copies:
    """Looks for the copies in one sandbox. `any`: a private mapping of device memory has been made."""

    def __init__(self, device: int, files: ExactFiles) -> None:
        self.any = False
        self._device = device
        self._text = b" %02x:%02x " % (os.major(device), os.minor(device))
        self._files = files
        self._orders: dict[int, _Order] = {}
        self._lock = threading.Lock()

    def discard(self, span: Range) -> None:
        """Discard the copies of a physical range; on the thread of the verb.

        A process that is waiting for this verb itself loses its copies when it returns from that.
        """
        if not self.any:
            return
        work = threading.Thread(
            target=self._work, args=(page_round(span),), name="fakedev-copies", daemon=True
        )
        try:
            work.start()
        except RuntimeError as error:  # no more threads; the claim has been made
            self._files.failed(error)
        else:
            work.join(PATIENCE)

    def _work(self, span: Range) -> None:
        try:
            self._all(span)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._files.failed(error)

    def _all(self, span: Range) -> None:
        done: set[int] = set()  # those that are not to be asked, or not again
        for _ in range(_PASSES):
            found = [pid for pid in self._processes(done) if self._held(pid, span)]
            if not found:
                return
            # The parent of a vfork(2) sleeps while its child can do it for both.
            for pid in sorted(found, key=lambda pid: ptrace.state(pid) == "D"):
                if self._held(pid, span) and not self._end(pid, span):
                    done.add(pid)

    def _processes(self, done: set[int]) -> list[int]:
        """Processes of the sandbox that are not `done`; adds those that are not of it."""
        every = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - fast
        inside = [pid for pid in every - done if self._is_inside(pid)]
        done |= every.difference(inside)
        return inside

    def _is_inside(self, pid: int) -> bool:
        try:
            return self._files.callers.is_initial(pid)
        except OSError:
            return False

    def _end(self, pid: int, span: Range) -> bool:
        """Let a process discard its copies; False when it is not to be asked again."""
        with self._lock:
            order = self._orders.get(pid)
            if order is None:
                order = _Order((span,))
                run = partial(self._carry_out, pid, order)
                order.thread = threading.Thread(target=run, name="fakedev-inject", daemon=True)
                order.thread.start()
                self._orders[pid] = order
            else:
                order.spans = (*order.spans, span)  # if that is too late, it is asked again
        began = time.monotonic()
        while order.thread.is_alive():
            order.thread.join(ASLEEP)
            late = time.monotonic() - began > PATIENCE
            if order.thread.is_alive() and (late or _sleeps(pid)):
                return False
        return not order.failed

    def _carry_out(self, pid: int, order: "_Order") -> None:
        """On a thread of its own, which traces the process until it ends."""
        try:
            borrow(pid, lambda: [piece for span in order.spans for piece in self._held(pid, span)])
        except ProcessLookupError:
            return  # it has ended
        except Exception as error:  # noqa: BLE001 - the others are asked too
            order.failed = True
            if isinstance(error, Spared):
                self._files.spared(pid, order.spans[-1], str(error))
            else:
                self._files.failed(error)
        finally:
            with self._lock:
                del self._orders[pid]

    # -- what a process has

    def _held(self, pid: int, span: Range) -> list[Piece]:
        """Where a process has copies of the range."""
        for tid in _tasks(pid):
            text = _read(b"/proc/%d/maps" % tid)
            if text:  # else it has ended, and others of its process live on
                lines = text.split(b"\n") if self._text in text else ()
                areas = (parse(line) for line in lines if self._text in line)
                pieces = (piece for area in areas if (piece := self._part(area, span)))
                return [piece for piece in pieces if _copied(tid, piece)]
        return []

    def _part(self, area: Area, span: Range) -> Piece | None:
        """The part of an area that shows the range privately."""
        if area.shared or area.device != self._device:
            return None
        file = self._files.file(area.ino)
        node = file.node if file else None
        if not isinstance(node, PhysicalFile) or not node.pfnmap or not node.revocable():
            return None
        physical = node.base + area.offset
        first = max(span.start - physical, 0)
        last = min(span.end - physical, area.end - area.start)
        return (area.start + first, last - first) if first < last else None


def _copied(tid: int, piece: Piece) -> bool:
    """Whether there is a page that is not one of the file."""
    start, size = piece
    try:
        fd = os.open(b"/proc/%d/pagemap" % tid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        entries = os.pread(fd, size // PAGE_SIZE * 8, (start >> PAGE_SHIFT) * 8)
    except OSError:
        return False
    finally:
        os.close(fd)
    kinds = {kind & (_PRESENT | _SWAPPED | _FILE) for kind in set(entries[7::8])}
    return bool(kinds & {_PRESENT, _SWAPPED})


def _sleeps(pid: int) -> bool:
    """Whether no thread of a process can run before what it waits for has happened."""
    return all(ptrace.state(tid) in "DZX" for tid in _tasks(pid))


def _tasks(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - fast
    except OSError:
        return []


def _read(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""
