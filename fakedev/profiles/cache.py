# This is on the way of every start, so it does without pathlib.
# ruff: noqa: PTH100, PTH103, PTH105, PTH108, PTH117, PTH118, PTH120
"""Compiled profiles in the user's cache folder.

pydantic and YAML cost more to import than everything else that loading does. An entry holds plain
values as JSON together with the SHA-256 of every file that went into it, and it counts only while
all of them, and the code that compiled it, are the same. Whatever goes wrong here is a miss.
`FAKEDEV_NO_CACHE=1` turns it off.
"""

import binascii
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fakedev.model.files import StaticFile
from fakedev.profiles.blobs import BLOB_LIMIT, BlobError, open_regular, read_regular
from fakedev.profiles.plan import Fill, Placement, Profile, ResourcePlan, SegmentPlan

if TYPE_CHECKING:
    from fakedev.devices.memory.plan import BlocksPlan
    from fakedev.devices.memory.virtio_mem_plan import VirtioMemPlan
    from fakedev.devices.nd.plan import NdPlan
    from fakedev.devices.pci.plan import PciPlan

SIZE_LIMIT = 8 << 20
ENTRY_LIMIT = 64
_CODE = ("profiles", "firmware", "devices/pci", "devices/memory", "devices/nd", "model")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def lookup(path: str, overrides: Sequence[str]) -> Profile | None:
    """The compiled profile of the file `path` with these overrides, if it is still valid."""
    entry = _entry(path, overrides)
    if entry is None:
        return None
    try:
        descriptor, _ = open_regular(entry)
        with os.fdopen(descriptor, "rb") as stream:
            if not _mine(os.fstat(stream.fileno())):
                return None
            digest, _, data = stream.read(SIZE_LIMIT).partition(b"\n")
        if digest.decode("latin-1") != hashlib.sha256(data).hexdigest():
            return None
        stored = json.loads(data)
        if stored["code"] != _fingerprint() or not _unchanged(stored["profile"]["inputs"]):
            return None
        return _thaw(stored["profile"])
    except (OSError, BlobError, ValueError, KeyError, TypeError):
        return None


def store(profile: Profile, path: str, overrides: Sequence[str]) -> None:
    """Keep a compiled profile. Never fails: without a cache the next load just takes longer."""
    entry = _entry(path, overrides) if profile.cacheable else None
    if entry is None:
        return
    folder = os.path.dirname(entry)
    with contextlib.suppress(OSError, ValueError):
        data = json.dumps({"code": _fingerprint(), "profile": _freeze(profile)}).encode()
        digest = hashlib.sha256(data).hexdigest().encode()
        if len(data) + len(digest) >= SIZE_LIMIT:
            return
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _prune(folder)
        _write(folder, entry, digest + b"\n" + data)


def _write(folder: str, entry: str, data: bytes) -> None:
    temporary = os.path.join(folder, f".new-{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
            stream.write(data)
        os.replace(temporary, entry)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _prune(folder: str) -> None:
    entries = [item for item in os.scandir(folder) if item.is_file(follow_symlinks=False)]
    for item in sorted(entries, key=lambda one: one.stat().st_mtime)[: -ENTRY_LIMIT or None]:
        os.unlink(item.path)


def cache_folder() -> str | None:
    """Where entries lie; None where the user has no home or wants no cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = os.environ.get("HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(home, ".cache") if os.path.isabs(home) else ""
    if not base or os.environ.get("FAKEDEV_NO_CACHE"):
        return None
    return os.path.join(base, "fakedev", "profiles")


def _entry(path: str, overrides: Sequence[str]) -> str | None:
    folder = cache_folder()
    if folder is None:
        return None
    # Messages and relative names in overrides depend on the folder that they were given in.
    parts = [path, os.path.abspath(path), *overrides]
    key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return os.path.join(folder, f"{key}.json")


def _mine(status: os.stat_result) -> bool:
    owned = status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode)
    return owned and not status.st_mode & 0o022


def _unchanged(inputs: dict[str, str]) -> bool:
    for path, digest in inputs.items():
        data = read_regular(path, limit=BLOB_LIMIT)
        if hashlib.sha256(data).hexdigest() != digest:
            return False
    return True


def _fingerprint() -> str:
    """Changes whenever the code that compiles profiles does."""
    seen = [_PACKAGE]
    for folder in _CODE:
        with os.scandir(os.path.join(_PACKAGE, folder)) as items:
            for item in items:
                if item.name.endswith(".py"):
                    status = item.stat()
                    seen.append(f"{folder}/{item.name} {status.st_mtime_ns} {status.st_size}")
    return hashlib.sha256("\n".join(sorted(seen)).encode()).hexdigest()


def _freeze(profile: Profile) -> dict[str, Any]:
    files = {path: [file.mode, _pack(file.data), file.size] for path, file in profile.files.items()}
    return {
        "name": profile.name,
        "description": profile.description,
        "path": profile.path,
        "rules": dict(profile.rules),
        "undecoded": profile.undecoded,
        "segments": [
            [*segment[:3], _fill(segment.fill), *segment[4:]] for segment in profile.segments
        ],
        "placements": [_placement(item) for item in profile.placements],
        "resources": profile.resources,
        "files": files,
        "high_memory": profile.high_memory,
        "inputs": dict(profile.inputs),
        "pci": _freeze_pci(profile.pci),
        "blocks": profile.blocks and list(profile.blocks),
        "nd": profile.nd,
        "virtio_mem": profile.virtio_mem,
    }


def _pack(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _unpack(text: str) -> bytes:
    return binascii.a2b_base64(text)


def _fill(fill: Fill) -> list[Any]:
    return [fill.kind, _pack(fill.pattern), fill.seed]


def _thaw(stored: dict[str, Any]) -> Profile:
    return Profile(
        **{
            **stored,
            "segments": tuple(
                SegmentPlan(start, size, name, _thaw_fill(fill), *rest)
                for start, size, name, fill, *rest in stored["segments"]
            ),
            "placements": tuple(map(_thaw_placement, stored["placements"])),
            "resources": tuple(ResourcePlan(*node) for node in stored["resources"]),
            "files": {
                path: StaticFile(mode, _unpack(data), size)
                for path, (mode, data, size) in stored["files"].items()
            },
            "pci": _thaw_pci(stored["pci"]),
            "blocks": _thaw_blocks(stored["blocks"]),
            "nd": _thaw_nd(stored["nd"]),
            "virtio_mem": _thaw_virtio_mem(stored["virtio_mem"]),
        }
    )


def _placement(item: Placement) -> list[Any]:
    return [item.start, item.size, _pack(item.data), item.path, item.offset, _fill(item.fill)]


def _thaw_placement(stored: list[Any]) -> Placement:
    start, size, data, path, offset, fill = stored
    return Placement(start, size, _unpack(data), path, offset, _thaw_fill(fill))


def _freeze_pci(plan: "PciPlan | None") -> list[Any] | None:
    if plan is None:
        return None
    from fakedev.profiles.cache_pci import freeze_pci  # noqa: PLC0415 - for machines that have it

    return freeze_pci(plan, fill=_fill, placement=_placement, pack=_pack)


def _thaw_pci(stored: list[Any] | None) -> "PciPlan | None":
    if stored is None:
        return None
    from fakedev.profiles.cache_pci import thaw_pci  # noqa: PLC0415 - for machines that have it

    return thaw_pci(stored, fill=_thaw_fill, placement=_thaw_placement, unpack=_unpack)


def _thaw_blocks(stored: list[Any] | None) -> "BlocksPlan | None":
    if stored is None:
        return None
    from fakedev.devices.memory.plan import thaw  # noqa: PLC0415 - for profiles that say something

    return thaw(stored)


def _thaw_virtio_mem(stored: list[Any]) -> "tuple[VirtioMemPlan, ...]":
    if not stored:
        return ()
    from fakedev.devices.memory.virtio_mem_plan import VirtioMemPlan  # noqa: PLC0415 - as above

    return tuple(VirtioMemPlan(*one) for one in stored)


def _thaw_nd(stored: list[Any] | None) -> "NdPlan | None":
    if stored is None:
        return None
    from fakedev.profiles.cache_nd import thaw_nd  # noqa: PLC0415 - for machines that have it

    return thaw_nd(stored)


def _thaw_fill(stored: list[Any]) -> Fill:
    kind, pattern, seed = stored
    return Fill(kind, _unpack(pattern), seed)
