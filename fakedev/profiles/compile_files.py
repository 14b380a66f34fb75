# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH115, PTH120
"""`files:` to the extra entries of /proc, /sys and /dev."""

from __future__ import annotations

import os
import posixpath
import stat

from fakedev.model.files import StaticFile
from fakedev.profiles.blobs import BlobError, read_regular, reason
from fakedev.profiles.context import Context
from fakedev.profiles.schema_files import FileEntry

ROOTS = ("/proc", "/sys", "/dev")
OVERLAY_LIMIT = 20_000
OVERLAY_BYTES = 256 << 20
# Served from the machine itself.
_LIVE = {
    "/dev/mem": "describe what it holds under memory:",
    "/proc/iomem": "describe its lines under iomem:",
}


def static_files(entries: dict[str, FileEntry], context: Context) -> dict[str, StaticFile]:
    """All entries by absolute path; what cannot be served is reported."""
    found: dict[str, StaticFile] = {}
    overlay = entries.get("overlay")
    if overlay is not None:
        _overlay(overlay, found, context)
    for path, entry in entries.items():
        if path == "overlay" or not _check_path(path, context):
            continue
        made = _entry(path, entry, context)
        if made is not None:
            found[path] = made
    _check_parents(found, entries, context)
    return found


def _check_path(path: str, context: Context) -> bool:
    where = ("files", path)
    if path in _LIVE:
        context.report(f"{path} is served from the machine itself; {_LIVE[path]}", *where)
    elif not path.startswith(tuple(root + "/" for root in ROOTS)):
        context.report(
            f"{path!r} does not lie below {', '.join(ROOTS)}; only those are served", *where
        )
    elif posixpath.normpath(path) != path or "\0" in path:
        better = posixpath.normpath(path.replace("\0", ""))
        context.report(f"{path!r} is not a plain path; write {better}", *where)
    else:
        return True
    return False


def _entry(path: str, entry: FileEntry, context: Context) -> StaticFile | None:
    if entry.symlink is not None:
        return StaticFile.symlink(entry.symlink)
    if entry.directory:
        return StaticFile.directory(0o755 if entry.mode is None else entry.mode)
    data = _data(path, entry, context)
    if data is None:
        return None
    mode = 0o444 if entry.mode is None else entry.mode
    return StaticFile.regular(data, mode, size=entry.size)


def _data(path: str, entry: FileEntry, context: Context) -> bytes | None:
    if entry.file is not None:
        blob = context.blob(entry.file, "files", path, "file")
        if blob is not None and blob.size and not blob.data:
            context.report(f"file {entry.file!r} has {blob.size:,} bytes; at most 1 MiB is served "
                           "from a plain file (or pack it with xz)", "files", path, "file")  # fmt: skip
            return None
        return blob.data if blob is not None else None
    if entry.text is not None:
        return entry.text.encode()
    return entry.hex if entry.hex is not None else entry.base64


def _check_parents(
    found: dict[str, StaticFile], entries: dict[str, FileEntry], context: Context
) -> None:
    """A path below something that is not a directory cannot exist."""
    for path in found:
        parent = posixpath.dirname(path)
        while len(parent) > 1:
            above = found.get(parent)
            if above is not None and not stat.S_ISDIR(above.mode):
                where = ("files", path) if path in entries else ("files", "overlay")
                context.report(f"{path} lies below {parent}, which is not a directory", *where)
                break
            parent = posixpath.dirname(parent)


def _overlay(entry: FileEntry, found: dict[str, StaticFile], context: Context) -> None:
    """The tree of a directory: its `proc/`, `sys/` and `dev/` become the machine's."""
    where = ("files", "overlay", "file")
    if entry.file is None:
        context.report("overlay is the path of a directory", "files", "overlay")
        return
    context.inputs.cacheable = False
    top = context.resolve(entry.file, *where)
    try:
        _walk(top, found)
    except (OSError, ValueError) as error:
        context.report(f"overlay {entry.file!r} (looked for in {os.path.dirname(top) or os.curdir}): "
                       f"{reason(error)}", *where)  # fmt: skip
    except BlobError as error:
        context.report(f"overlay {entry.file!r}: {error}", *where)


def _walk(top: str, found: dict[str, StaticFile]) -> None:
    total = 0
    pending = [""]
    while pending:
        below = pending.pop()
        for item in sorted(os.scandir(top + below), key=lambda one: one.name):
            path = f"{below}/{item.name}"
            if not below and path not in ROOTS:
                raise BlobError(f"it holds {item.name!r}; only proc, sys and dev are served")
            if item.is_dir(follow_symlinks=False):
                pending.append(path)
            found[path] = made = _static(item, path)
            total += len(made.data)
            if len(found) > OVERLAY_LIMIT or total > OVERLAY_BYTES:
                raise BlobError(f"it is too large: at most {OVERLAY_LIMIT:,} files and "
                                f"{OVERLAY_BYTES >> 20} MiB")  # fmt: skip
    for root in ROOTS:
        found.pop(root, None)


def _static(item: os.DirEntry[str], path: str) -> StaticFile:
    if path in _LIVE:
        raise BlobError(f"it holds {path}, which is served from the machine itself; {_LIVE[path]}")
    status = item.stat(follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if item.is_symlink():
        return StaticFile.symlink(os.readlink(item.path))
    if item.is_dir(follow_symlinks=False):
        return StaticFile.directory(mode)
    if not stat.S_ISREG(status.st_mode):
        raise BlobError(f"{path} is not a file, directory or symbolic link")
    return StaticFile.regular(read_regular(item.path, limit=OVERLAY_BYTES), mode)
