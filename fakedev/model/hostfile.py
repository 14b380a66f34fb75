"""A file of the host as a source of memory: checked, mapped, its holes known.

Every error of the host becomes a MemoryLayoutError with the path and the reason.
"""

import errno
import fcntl
import gc
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from fakedev.model.backing import FileBacking
from fakedev.model.errors import MemoryLayoutError

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000) if hasattr(mmap, "MADV_NOHUGEPAGE") else 0
_BLOCK = 1 << 20
# A hole shorter than this is mapped like data: it is cheaper than two more segments.
_SMALL_HOLE = 1 << 20


class HostFile:
    """A regular file, open as long as the `with` block lasts; `size` is its length in bytes."""

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = False) -> None:
        self.path = Path(path)
        mode = os.O_RDWR if writable else os.O_RDONLY
        try:  # NONBLOCK: a FIFO must give an error, not wait for its writer
            self._fd = os.open(self.path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise self._error(error) from None
        try:
            status = os.fstat(self._fd)
        except OSError as error:
            os.close(self._fd)
            raise self._error(error) from None
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise MemoryLayoutError(f"{self.path}: not a regular file")
        self.size: int = status.st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def _error(self, error: Exception) -> MemoryLayoutError:
        reason = getattr(error, "strerror", None) or str(error)
        return MemoryLayoutError(f"{self.path}: {reason}")

    def lock(self) -> None:
        """Nobody else locks the file until it is closed and its last mapping is gone (flock).

        MemoryLayoutError where another machine has it. A file system without such locks has none.
        """
        for last in (False, True):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if last:
                    raise MemoryLayoutError(
                        f"{self.path}: another machine uses it (fakedev ps); stores of both would mix"
                    ) from None
                gc.collect()  # it may be a machine of this process that nobody needs any more
            except OSError:
                return
            else:
                return

    def part(self, offset: int, size: int | None) -> int:
        """Return the number of bytes meant; an error if the file has not as many."""
        if offset < 0 or (size is not None and size <= 0):
            raise MemoryLayoutError(f"{self.path}: no bytes at offset {offset}, size {size}")
        if self.size == 0:
            raise MemoryLayoutError(f"{self.path}: the file is empty")
        rest = self.size - offset
        wanted = rest if size is None else size
        if rest <= 0 or wanted > rest:
            asked = "any byte" if size is None else f"{wanted} bytes"
            raise MemoryLayoutError(
                f"{self.path}: {asked} at offset {offset} wanted, but it has {self.size} bytes"
            )
        return wanted

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; an error if the file shrinks meanwhile."""
        parts: list[bytes] = []
        while size > 0:
            try:
                data = os.pread(self._fd, min(size, _BLOCK), offset)
            except OSError as error:
                raise self._error(error) from None
            if not data:
                raise MemoryLayoutError(f"{self.path}: the file became shorter while it was read")
            parts.append(data)
            offset, size = offset + len(data), size - len(data)
        return b"".join(parts)

    def backing(self, start: int, *, offset: int, size: int, shared: bool) -> FileBacking:
        """Map the bytes from `offset` on: private (copy-on-write), or shared with the file."""
        skip = offset % mmap.ALLOCATIONGRANULARITY
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE | _NORESERVE
        try:
            mapping = mmap.mmap(self._fd, size + skip, flags=flags, offset=offset - skip)
        except (OSError, ValueError, OverflowError) as error:
            raise self._error(error) from None
        label = f"file {self.path}" + (f" offset {offset:#x}" if offset else "")
        return FileBacking(start, size, mapping, skip=skip, shared=shared, label=label)

    def extents(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Where the file holds data, as (low, high) offsets; short holes count as data."""
        found: list[tuple[int, int]] = []
        for low, high in self._data(offset, offset + size):
            if found and low - found[-1][1] < _SMALL_HOLE:
                found[-1] = (found[-1][0], high)
            else:
                found.append((low, high))
        return found

    def _data(self, low: int, end: int) -> Iterator[tuple[int, int]]:
        while low < end:
            try:
                first = os.lseek(self._fd, low, os.SEEK_DATA)
                high = min(os.lseek(self._fd, first, os.SEEK_HOLE), end)
            except OSError as error:
                if (
                    error.errno != errno.ENXIO
                ):  # ENXIO: a hole up to the end; else: no such call here
                    yield low, end
                return
            if first < end:
                yield first, high
            low = high if first < end else end
