# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH100
"""Reading the files that a profile names, with limits and messages for people."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import BinaryIO, NamedTuple

PROFILE_LIMIT = 16 << 20
BLOB_LIMIT = 1 << 30
# Files up to this size become part of the compiled profile; larger ones are mapped when it is built.
INLINE_LIMIT = 1 << 20
_PIECE = 1 << 20

_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.EACCES: "it may not be read (permissions)",
    errno.ENOTDIR: "a part of its path is not a folder",
    errno.ELOOP: "its symbolic links go in a circle",
    errno.ENAMETOOLONG: "its name is too long",
}


class BlobError(Exception):
    """A file that cannot be used; `str()` says why."""


class Blob(NamedTuple):
    """A part of a file: `data`, or (large files) `path`, `offset` and `size` with no data."""

    size: int
    data: bytes
    path: str
    offset: int


class Inputs:
    """The files that were read, by absolute path, with their SHA-256: the key of the cache.

    `cacheable` is false once something was used whose content the hashes do not cover.
    """

    __slots__ = ("cacheable", "hashes")

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        self.cacheable = True

    def record(self, path: str, data: bytes) -> None:
        """Note that `data` is what `path` held."""
        self.hashes[os.path.abspath(path)] = hashlib.sha256(data).hexdigest()


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be read."""
    if isinstance(error, OSError) and error.errno in _REASONS:
        return _REASONS[error.errno]
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def read_regular(path: str, *, limit: int) -> bytes:
    """A whole regular file. Raises BlobError for anything else and for files beyond `limit` bytes."""
    descriptor, size = open_regular(path)
    with os.fdopen(descriptor, "rb") as stream:
        if size > limit:
            raise BlobError(f"the file has {size:,} bytes; at most {limit:,} are read")
        try:
            data = _read(stream, size, limit + 1)
        except OSError as error:
            raise BlobError(reason(error)) from None
    if len(data) > limit:
        raise BlobError(f"the file has more than {limit:,} bytes")
    return data


def _read(stream: BinaryIO, expected: int, most: int) -> bytes:
    """At most `most` bytes; room is made for what is there, or for what comes (in /proc, sizes are 0)."""
    data = stream.read(min(expected + 1, most))
    if len(data) <= expected:
        return data
    pieces, left = [data], most - len(data)
    while left and (piece := stream.read(min(_PIECE, left))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def open_regular(path: str) -> tuple[int, int]:
    """A descriptor of a regular file and its size; a pipe or device is refused without waiting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise BlobError(reason(error)) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
    raise BlobError(f"it is {what}; a file is needed")


def read_blob(
    path: str, inputs: Inputs, *, offset: int = 0, size: int | None = None, room: int = BLOB_LIMIT
) -> Blob:
    """Bytes `offset`..`offset + size` of a file. Raises BlobError.

    `.xz` is unpacked, up to `room` bytes behind `offset`.
    """
    if path.endswith(".xz"):
        packed = read_regular(path, limit=BLOB_LIMIT)
        inputs.record(path, packed)
        limit = min(offset + (room if size is None else size), BLOB_LIMIT)
        return _part(unpack(packed, limit=limit, whole=size is None), path, offset, size)
    descriptor, length = open_regular(path)
    os.close(descriptor)
    wanted = _wanted(length, offset, size)
    if length > INLINE_LIMIT:
        inputs.cacheable = False
        return Blob(wanted, b"", os.path.abspath(path), offset)
    data = read_regular(path, limit=INLINE_LIMIT)
    inputs.record(path, data)
    return _part(data, path, offset, size)


def _part(data: bytes, path: str, offset: int, size: int | None) -> Blob:
    wanted = _wanted(len(data), offset, size)
    return Blob(wanted, data[offset : offset + wanted], os.path.abspath(path), offset)


def _wanted(length: int, offset: int, size: int | None) -> int:
    wanted = max(length - offset, 0) if size is None else size
    if offset + wanted > length:
        raise BlobError(
            f"it holds {length:,} bytes, and {wanted:,} from offset {offset:,} are wanted"
        )
    return wanted


def unpack(packed: bytes, *, limit: int, whole: bool = True) -> bytes:
    """The content of an .xz file, of at most `limit` bytes; if not `whole`, the first `limit`.

    Raises BlobError.
    """
    import lzma  # noqa: PLC0415 - most profiles have no packed file

    # The decoder's own memory is bounded too; 128 MiB is enough for `xz -9`.
    reader = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=128 << 20)
    try:
        data = reader.decompress(packed, max_length=limit + 1)
    except lzma.LZMAError as error:
        raise BlobError(f"it is not a good .xz file: {error}") from None
    if not whole:
        return data[:limit]
    if len(data) > limit:
        raise BlobError(
            f"unpacked it has more than {limit:,} bytes, and there is room for {limit:,}"
        )
    if not reader.eof or reader.unused_data.strip(b"\0"):
        raise BlobError("it is not a good .xz file: it must be one complete stream")
    return data
