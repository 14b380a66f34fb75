"""What memory holds before anybody stores to it.

A content is a pure function of the address, so each page can be made alone, in any order, at the
moment somebody looks at it. numpy is imported by the first page that needs it: a machine of plain
zeros never pays for the import.
"""

from dataclasses import dataclass
from typing import ClassVar

from fakedev.model.errors import MemoryLayoutError

_WORD = 8
_MASK64 = (1 << 64) - 1
# The constants of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


class Content:
    """Base of all contents. `kind` is the word that profiles and `describe()` use."""

    __slots__ = ()
    kind: ClassVar[str]

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """Make `size` bytes from `address` on; `origin` is where the filled range starts."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True)
class Zero(Content):
    """Zeros: memory as the firmware leaves it."""

    kind: ClassVar[str] = "zero"

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """`size` zeros."""
        return bytes(size)


@dataclass(frozen=True, slots=True)
class BytePattern(Content):
    """`data` over and over, from the first byte of the filled range. MemoryLayoutError if empty."""

    data: bytes
    kind: ClassVar[str] = "pattern"

    def __post_init__(self) -> None:
        if not self.data:
            raise MemoryLayoutError("a byte pattern needs at least one byte")

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """Return the pattern, in the phase it has at `address`."""
        phase = (address - origin) % len(self.data)
        if phase + size <= len(self.data):
            return self.data[phase : phase + size]
        turns = (phase + size) // len(self.data) + 1
        return (self.data * turns)[phase : phase + size]

    def __str__(self) -> str:
        shown = self.data[:8].hex(" ")
        return f"pattern {shown}{' ...' if len(self.data) > 8 else ''}"


@dataclass(frozen=True, slots=True)
class AddressPattern(Content):
    """Each aligned 8-byte little-endian word holds its own physical address."""

    kind: ClassVar[str] = "address"

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """Return the words from `address` on; the first and the last one may be cut."""
        import numpy as np  # noqa: PLC0415  # not before the first page of a pattern

        first, skip, words = _words(address, size)
        values = np.arange(words, dtype="<u8")
        values *= np.uint64(_WORD)
        values += np.uint64(first & _MASK64)  # nothing at all may be asked for at the very end
        return values.tobytes()[skip : skip + size]


@dataclass(frozen=True, slots=True)
class RandomContent(Content):
    """Noise that depends on `seed` (modulo 2^64) and the physical address, and on nothing else.

    The aligned word at address A is `splitmix64(splitmix64(seed) + (A / 8 + 1) * golden gamma)`.
    """

    seed: int = 0
    kind: ClassVar[str] = "random"

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """Return the noise from `address` on, made without the noise before it."""
        import numpy as np  # noqa: PLC0415  # not before the first page of noise

        first, skip, words = _words(address, size)
        counter = (first // _WORD + 1) * _GOLDEN_GAMMA + _mix(self.seed & _MASK64)
        z = np.arange(words, dtype="<u8")
        z *= np.uint64(_GOLDEN_GAMMA)
        z += np.uint64(counter & _MASK64)
        z ^= z >> np.uint64(30)
        z *= np.uint64(_MIX_1)
        z ^= z >> np.uint64(27)
        z *= np.uint64(_MIX_2)
        z ^= z >> np.uint64(31)
        return z.tobytes()[skip : skip + size]

    def __str__(self) -> str:
        return f"random seed {self.seed}"


@dataclass(frozen=True, slots=True)
class RawBytes(Content):
    """`data` at the start of the filled range, zeros behind it. Plain `bytes` mean the same."""

    data: bytes
    kind: ClassVar[str] = "bytes"

    def generate(self, address: int, size: int, *, origin: int) -> bytes:
        """Return the part of the data at `address`, padded with zeros."""
        at = address - origin
        return self.data[at : at + size].ljust(size, b"\0")

    def __str__(self) -> str:
        return f"bytes {len(self.data)}"


ZERO = Zero()


def _words(address: int, size: int) -> tuple[int, int, int]:
    """Address of the first aligned word, bytes to skip in it, and the number of words to make."""
    skip = address % _WORD
    return address - skip, skip, (skip + size + _WORD - 1) // _WORD


def _mix(z: int) -> int:
    """Return the finaliser of splitmix64, on one number."""
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK64
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK64
    return z ^ (z >> 31)
