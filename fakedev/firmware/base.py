"""What every firmware builder returns, and how it reports what is wrong with its description."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fakedev.model.errors import FakedevError, RangeError
from fakedev.model.files import StaticFile
from fakedev.model.ranges import parse_number
from fakedev.model.words import closest

Path = tuple[str | int, ...]
Blob = Callable[[str], bytes]


class Problem(NamedTuple):
    """One thing that is wrong: `path` leads to it (`("tables", 2, "flag")`), `text` says what."""

    path: Path
    text: str

    def __str__(self) -> str:
        """The path as a person writes it, then the text."""
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"{place.lstrip('.')}: {self.text}" if place else self.text


class FirmwareError(FakedevError):
    """A description that no firmware can be made of; `problems` has every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Placed(NamedTuple):
    """Bytes at a physical address; `name` is for messages."""

    address: int
    data: bytes
    name: str

    @property
    def end(self) -> int:
        """The first address behind the bytes."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class Firmware:
    """What a builder made: bytes for the physical memory, and files by absolute path."""

    placed: tuple[Placed, ...] = ()
    files: Mapping[str, StaticFile] = field(default_factory=dict)


def nearest(name: str, known: Collection[str]) -> str:
    """A question that proposes the known name nearest to `name`; "" when none is near."""
    near = closest(name, known, cutoff=0.5)
    return f"did you mean {near!r}?" if near else ""


class Problems:
    """Collects problems, so that one run reports all of them."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: Path, text: str) -> None:
        """Notes one problem, once."""
        if Problem(path, text) not in self.found:
            self.found.append(Problem(path, text))

    def unknown_keys(self, given: Collection[Any], known: Collection[str], path: Path) -> None:
        """Notes every key that is not known, with the nearest one that is."""
        for key in given:
            if key not in known:
                hint = nearest(str(key), known) or f"known: {', '.join(known)}"
                self.add((*path, str(key)), f"there is no {str(key)!r} here; {hint}")

    def mappings(self, given: object, path: Path) -> list[Mapping[str, Any]]:
        """`given` as a list of mappings; anything else is noted and left out."""
        if not isinstance(given, list | tuple):
            self.add(path, f"a list is needed here, not {given!r}")
            return []
        for index, one in enumerate(given):
            if not isinstance(one, Mapping):
                self.add((*path, index), f"a mapping (`key: value` lines) is needed, not {one!r}")
        return [one if isinstance(one, Mapping) else {} for one in given]

    def stop(self) -> None:
        """Raises FirmwareError when anything was found."""
        if self.found:
            raise FirmwareError(self.found)


def number(value: object, *, bits: int = 64) -> int:
    """A whole number of at most `bits` bits, from an int or a text. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = parse_number(value)
        except RangeError as error:
            raise ValueError(str(error)) from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"a number is needed, not {value!r}")  # noqa: TRY004 - one error for callers
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{value} ({value:#x}) does not fit in {bits} bits")
    return value


def hex_bytes(value: object) -> bytes:
    """Bytes from bytes or from hexadecimal text. Raises ValueError."""
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return bytes.fromhex(value)
        if isinstance(value, list):
            return bytes(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f'hexadecimal bytes are needed, not {value!r}; write "00 11 ff"')


def read_blob(blob: Blob | None, name: object, path: Path, problems: Problems) -> bytes:
    """The bytes of a named file; `b""` after a problem."""
    if isinstance(name, bytes):
        return name
    if blob is None:
        problems.add(path, f"the file {name!r} cannot be read here")
        return b""
    try:
        return blob(str(name))
    except OSError as error:
        problems.add(path, str(error))
        return b""


def checksum(data: bytes) -> int:
    """The byte that makes the sum of all bytes 0, where its own place holds 0."""
    return -sum(data) & 0xFF


def patched(data: bytes, at: int, patch: bytes) -> bytes:
    """`data` with `patch` over the bytes from `at`."""
    return data[:at] + patch + data[at + len(patch) :]


def summed(data: bytes, at: int) -> bytes:
    """`data` with its checksum at index `at`."""
    clear = patched(data, at, b"\0")
    return patched(clear, at, bytes([checksum(clear)]))


def overlaps(placed: Iterable[Placed]) -> list[tuple[Placed, Placed]]:
    """Pairs of neighbours that share a byte."""
    ordered = sorted(placed)
    return [(a, b) for a, b in itertools.pairwise(ordered) if a.end > b.address]
