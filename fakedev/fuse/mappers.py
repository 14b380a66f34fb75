"""Who has physical memory mapped: what /proc/PID/maps tells of our files.

Theory of operation
-------------------
A line of /proc/PID/maps names the inode and the path of the mapped file; files that are ours are
known by both. The path alone would match files of the host, the inode number alone those of other
file systems. A file that was unlinked, or whose name leads to another inode by now, has
` (deleted)` behind its path.

Only `maps` and `comm` are read, never `cmdline` or `mem`: those touch the memory of the process, and
a touch of a page that we serve would wait for us. `maps` itself may wait for the process's mmap lock,
and its holder for an answer of ours (a mapping that is populated, a store to a page that is being
written back). So processes are looked at by a thread of their own; while one keeps it waiting, the
next thread goes on behind it, and after a while the answer is what was found until then.
"""

import os
from collections import deque
from collections.abc import Collection, Iterable
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from fakedev.model.effects import Mapper
from fakedev.model.ranges import Range, page_round

# Seconds that one thread looks around before another one helps, and how many there may be.
PATIENCE = 0.2
THREADS = 5
_DELETED = b" (deleted)"


# What a process is called, and the lines of its maps that hold one of these endings.
Seen = dict[tuple[int, frozenset[bytes]], tuple[str, list[bytes]]]


class Mapped(NamedTuple):
    """A file of ours: `st_ino`, how its path ends, and the physical range that it shows."""

    ino: int
    name: str
    base: int
    size: int


def mappers(
    files: Iterable[Mapped],
    span: Range,
    *,
    devices: Collection[str] = (),
    seen: Seen | None = None,
) -> list[Mapper]:
    """Processes that map pages of `span` through `files` now, in order of pid and address.

    With `devices` (as /proc/PID/maps shows them, `00:3f`) only on these file systems. Processes
    that may not be looked at, or that end meanwhile, are left out. Takes a second at most. `seen`
    keeps what was read, for questions that are asked together.
    """
    return look(files, span, devices=devices, seen=seen)[0]


def look(
    files: Iterable[Mapped],
    span: Range,
    *,
    devices: Collection[str] = (),
    seen: Seen | None = None,
) -> tuple[list[Mapper], frozenset[int]]:
    """As `mappers`, and the pids of processes that could not be looked at in time, or at all."""
    search = _Search(files, page_round(span), devices, {} if seen is None else seen)
    for _ in range(THREADS if search.files else 0):
        thread = Thread(target=search.run, name="fakedev-mappers", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads: the answer is what was found
            break
        thread.join(PATIENCE)
        if not thread.is_alive():
            break
    found = sorted(search.found, key=lambda found: (found.pid, found.span))
    return found, frozenset(search.unseen)


def comm_of(pid: int) -> str:
    """The name of a process as `ps` shows it, on one line; `?` when it is gone."""
    try:
        file = os.open(b"/proc/%d/comm" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "?"
    try:
        return comm_text(os.read(file, 256))
    except OSError:
        return "?"
    finally:
        os.close(file)


def comm_text(data: bytes) -> str:
    """What /proc/PID/comm holds, on one line."""
    text = data.decode(errors="replace").removesuffix("\n")
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class _Search:
    """One look at every process. `run` may be called by several threads, which share the work."""

    __slots__ = ("_devices", "_endings", "_pids", "_seen", "_span", "files", "found", "unseen")

    def __init__(
        self, files: Iterable[Mapped], span: Range, devices: Collection[str], seen: Seen
    ) -> None:
        shown = [f for f in files if page_round(Range(f.base, f.size)).overlaps(span)]
        self.files: dict[int, list[Mapped]] = {}
        for file in shown:
            self.files.setdefault(file.ino, []).append(file)
        self.found: list[Mapper] = []
        self.unseen: set[int] = set()
        self._endings = frozenset(file.name.rpartition("/")[2].encode() for file in shown)
        self._devices = {device.encode() for device in devices}
        self._span = span
        self._seen = seen
        self._pids = deque(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))  # noqa: PTH208 - fast

    def run(self) -> None:
        """Look at one process after the other until none is left."""
        while True:
            try:
                pid = self._pids.popleft()
            except IndexError:
                return
            self.unseen.add(pid)
            looked = self._look(pid)
            if looked is None:
                continue
            self.unseen.discard(pid)
            comm, lines = looked
            spans = [span for line in lines for span in self._overlaps(line)]
            self.found += [Mapper(pid, comm, span) for span in _joined(spans)]

    def _look(self, pid: int) -> tuple[str, list[bytes]] | None:
        """The name of a process, and the lines of its maps that may be about our files.

        None when it may not be looked at.
        """
        key = pid, self._endings
        if key not in self._seen:
            data, lines = _maps(pid), list[bytes]()
            if data is None:
                return None
            if any(ending in data for ending in self._endings):
                lines = [one for one in data.split(b"\n") if any(e in one for e in self._endings)]
            self._seen[key] = comm_of(pid) if lines else "", lines
        return self._seen[key]

    def _overlaps(self, line: bytes) -> list[Range]:
        """What a line of maps (`start-end perms offset device inode path`) shows of the range."""
        fields = line.split(None, 5)
        if len(fields) < 6 or (self._devices and fields[3] not in self._devices):
            return []
        path = fields[5].removesuffix(_DELETED)
        first, _, last = fields[0].partition(b"-")
        area = Range(int(fields[2], 16), int(last, 16) - int(first, 16))
        files = self.files.get(int(fields[4]), ())
        parts = [_part(f, area, self._span) for f in files if path.endswith(f.name.encode())]
        return [part for part in parts if part.size > 0]


def _part(file: Mapped, area: Range, span: Range) -> Range:
    """The physical pages of `span` that an area of the file shows; of no size where there are none."""
    shown = page_round(Range(file.base, file.size))
    start = max(shown.start + area.start, span.start)
    return Range(start, min(shown.start + area.end, shown.end, span.end) - start)


def _joined(spans: list[Range]) -> list[Range]:
    """Sorted, with what touches or overlaps made one."""
    joined: list[Range] = []
    for span in sorted(spans):
        if joined and span.start <= joined[-1].end:
            start, end = joined[-1].start, max(joined[-1].end, span.end)
            joined[-1] = Range(start, end - start)
        else:
            joined.append(span)
    return joined


def _maps(pid: int) -> bytes | None:
    """/proc/PID/maps; of a live thread where the first one of the process has ended.

    None where it may not be read, or the process is gone.
    """
    data = _read(f"/proc/{pid}/maps")
    if data == b"":
        others = (_read(f"/proc/{pid}/task/{task}/maps") for task in _tasks(pid))
        data = next((found for found in others if found), b"")
    return data


def _tasks(pid: int) -> list[str]:
    try:
        tasks = [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [task for task in tasks if task != str(pid)]


def _read(path: str) -> bytes | None:
    """The bytes of a file, None where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
