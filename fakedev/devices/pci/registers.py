"""A block of registers behind a BAR: bytes whose bits obey rules, and hooks for what they do."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fakedev.devices.pci.errors import PciError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Access = Literal["ro", "rw", "w1c", "wo", "rc"]
ACCESSES: tuple[Access, ...] = ("ro", "rw", "w1c", "wo", "rc")
_WIDTHS = (1, 2, 4, 8)
_BLOCK = 4096

OnRead = Callable[["RegisterBlock", "Register"], int | None]
OnWrite = Callable[["RegisterBlock", "Register", int], int | None]


@dataclass(frozen=True, slots=True)
class Register:
    """One register, little-endian.

    `access`: read-only, read-write, write-1-to-clear, write-only (reads zeros), read-to-clear.
    `on_read(block, register)` may return the value to read. `on_write(block, register, value)` gets
    the whole register as written, with the old bytes where the access left some out, before the
    rules apply; what it returns is stored as it is, None lets the rules decide. PciError for an
    offset, width, access or value that does not fit.
    """

    offset: int
    width: int = 4
    access: Access = "rw"
    reset: int = 0
    name: str = ""
    on_read: OnRead | None = None
    on_write: OnWrite | None = None

    def __post_init__(self) -> None:
        if self.width not in _WIDTHS:
            raise PciError(f"{self}: a register is 1, 2, 4 or 8 bytes wide, not {self.width}")
        if self.access not in ACCESSES:
            raise PciError(f"{self}: access is one of {', '.join(ACCESSES)}, not {self.access!r}")
        if self.offset < 0 or self.offset % self.width:
            raise PciError(f"{self}: {self.width} bytes are not aligned at {self.offset:#x}")
        if not 0 <= self.reset < 1 << 8 * self.width:
            raise PciError(f"{self}: {self.reset:#x} does not fit in {self.width} bytes")

    @property
    def end(self) -> int:
        """The offset behind the register."""
        return self.offset + self.width

    def __str__(self) -> str:
        return f"register {self.name or hex(self.offset)}"


class HookError(Exception):
    """A hook of a register raised: says which."""


class RegisterBlock:
    """Target of `size` bytes. Holes read as `fill`; stores there are lost.

    An access of another width reaches the bytes it covers: a read takes those lanes of each
    register, a write changes them and leaves the others. A read clears a read-to-clear register
    whatever lanes it took. PciError for registers that overlap or lie outside.
    """

    def __init__(self, size: int, registers: Iterable[Register] = (), *, fill: int = 0) -> None:
        self.size = size
        self.registers = tuple(sorted(registers, key=lambda r: r.offset))
        self._fill = bytes([fill]) * min(size, _BLOCK)
        self._starts = [register.offset for register in self.registers]
        self._values: dict[int, int] = {}
        end = 0
        for register in self.registers:
            if register.offset < end:
                raise PciError(f"{register} at {register.offset:#x} overlaps the one before it")
            end = register.end
            if end > size:
                raise PciError(f"{register} at {register.offset:#x} lies outside {size:#x} bytes")
        self._names = {r.name: r for r in self.registers if r.name}
        self.reset()

    def reset(self) -> None:
        """Give every register its reset value; no hook runs."""
        self._values = {register.offset: register.reset for register in self.registers}

    def value(self, which: int | str) -> int:
        """Return a register's value, by offset or name, without any effect. KeyError if none."""
        return self._values[self._names[which].offset if isinstance(which, str) else which]

    def set(self, which: int | str, value: int) -> None:
        """Set a register as the hardware does, by offset or name; the value is cut to its width."""
        register = self._names[which] if isinstance(which, str) else self._at(which)
        self._values[register.offset] = value & ((1 << 8 * register.width) - 1)

    def buffers(self, address: int, size: int) -> list[memoryview]:
        """Read as the bus does: hooks run and read-to-clear registers are cleared."""
        found: list[memoryview] = []
        done = address
        for register in self._inside(address, address + size):
            low, high = max(register.offset, address), min(register.end, address + size)
            found += self._hole(low - done)
            data = self._load(register).to_bytes(register.width, "little")
            found.append(memoryview(data)[low - register.offset : high - register.offset])
            done = high
        return found + self._hole(address + size - done)

    def write(self, address: int, data: "ReadableBuffer") -> None:
        """Write as the bus does."""
        view = memoryview(data).cast("B")
        for register in self._inside(address, address + len(view)):
            low, high = max(register.offset, address), min(register.end, address + len(view))
            shift = 8 * (low - register.offset)
            lanes = ((1 << 8 * (high - low)) - 1) << shift
            given = int.from_bytes(view[low - address : high - address], "little") << shift
            self._store(register, given, lanes)

    def _load(self, register: Register) -> int:
        value = 0 if register.access == "wo" else self._values[register.offset]
        if register.on_read is not None:
            answer = _asked(register, register.on_read, self, register)
            value = value if answer is None else answer & ((1 << 8 * register.width) - 1)
        if register.access == "rc":
            self._values[register.offset] = 0
        return value

    def _store(self, register: Register, given: int, lanes: int) -> None:
        old = self._values[register.offset]
        if register.on_write is not None:
            new = old & ~lanes | given
            answer = _asked(register, register.on_write, self, register, new)
            if answer is not None:
                self.set(register.offset, answer)
                return
        if register.access in ("rw", "wo"):
            self._values[register.offset] = old & ~lanes | given
        elif register.access == "w1c":
            self._values[register.offset] = old & ~given

    def _inside(self, low: int, high: int) -> Iterator[Register]:
        index = max(bisect_right(self._starts, low) - 1, 0)
        while index < len(self.registers) and self.registers[index].offset < high:
            if self.registers[index].end > low:
                yield self.registers[index]
            index += 1

    def _at(self, offset: int) -> Register:
        return self.registers[self._starts.index(offset)]

    def _hole(self, size: int) -> list[memoryview]:
        if size <= 0:
            return []
        whole, rest = divmod(size, len(self._fill))
        block = memoryview(self._fill)
        return [block] * whole + ([block[:rest]] if rest else [])


def _asked(register: Register, hook: Callable[..., int | None], *args: object) -> int | None:
    """What a hook answers. Raises HookError."""
    try:
        return hook(*args)
    except Exception as error:
        name = getattr(hook, "__qualname__", type(hook).__qualname__)
        what = f"{hook.__module__}.{name} raised {type(error).__name__}: {error}"
        raise HookError(f"{register}: {what}") from error
