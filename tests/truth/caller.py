"""A process in a machine that does one system call, load or store at a time (`caller.c`)."""

import errno
from collections.abc import Callable
from typing import NamedTuple

SIGNALS = {7: "SIGBUS", 11: "SIGSEGV"}
CODES = {
    ("SIGBUS", 1): "BUS_ADRALN",
    ("SIGBUS", 2): "BUS_ADRERR",
    ("SIGBUS", 3): "BUS_OBJERR",
    ("SIGBUS", 4): "BUS_MCEERR_AR",
    ("SIGSEGV", 1): "SEGV_MAPERR",
    ("SIGSEGV", 2): "SEGV_ACCERR",
}
#: Where things lie in the room of the process: buffers from 0 on, strings behind them.
NAMES, STRUCTURES = 0x500000, 0x600000


class Outcome(NamedTuple):
    """What a call returned: a number that is -1 with an errno."""

    value: int
    errno: str | None = None


class Fault(NamedTuple):
    """The signal that a load or store met."""

    signo: str
    code: str
    address: int


class Caller:
    """Commands in, answers out; `prefix` leads to a child."""

    def __init__(
        self, send: Callable[[str], None], receive: Callable[[], str], prefix: str = ""
    ) -> None:
        self._send, self._receive, self._prefix = send, receive, prefix

    def tell(self, *words: str | int) -> list[str]:
        """One command; the words of the answer."""
        self._send(f"{self._prefix}{' '.join(str(word) for word in words)}\n")
        answer = self._receive().split()
        assert answer, f"the caller died in {words}"
        return answer

    def number(self, *words: str | int) -> int:
        kind, value = self.tell(*words)
        assert kind == "ok", (words, kind, value)
        return int(value, 0)

    def call(self, name: str, *args: int | str) -> Outcome:
        """A system call; a str is the name of a file, put into the room."""
        words: list[str | int] = []
        for n, arg in enumerate(args):
            words.append(arg if isinstance(arg, int) or arg[:1] == "@" else self._name(arg, n))
        kind, value = self.tell("call", name, *words)
        if kind == "err":
            return Outcome(-1, errno.errorcode.get(int(value), value))
        return Outcome(int(value))

    def _name(self, text: str, place: int) -> str:
        return self.put(NAMES + 0x1000 * place, text.encode() + b"\0")

    def put(self, at: int, data: bytes) -> str:
        """Put bytes into the room; returns the argument that points at them."""
        if data:
            self.tell("put", at, data.hex())
        return f"@{at}"

    def show(self, at: int, length: int) -> bytes:
        """Bytes of the room."""
        words = self.tell("show", at, length)
        return bytes.fromhex(words[1]) if len(words) > 1 else b""

    def load(self, address: int, width: int) -> int | Fault:
        return self._touch("load", address, width)

    def store(self, address: int, width: int, value: int) -> int | Fault:
        return self._touch("store", address, width, value)

    def words(self, address: int, count: int) -> bytes | Fault:
        """`count` loads of 32 bits."""
        kind, *rest = self.tell("words", address, count)
        return bytes.fromhex(rest[0]) if kind == "data" else self.fault(rest)

    def pages(self, address: int, count: int) -> int | Fault:
        """A load from each page of a mapping; from a thousand of them where there are more."""
        return self._touch("pages", address, count, max(1, count // 1024))

    def _touch(self, *words: str | int) -> int | Fault:
        kind, *rest = self.tell(*words)
        return int(rest[0], 0) if kind == "ok" else self.fault(rest)

    @staticmethod
    def fault(words: list[str]) -> Fault:
        """What `fault SIGNO SI_CODE SI_ADDR` says."""
        number, code, address = (int(word, 0) for word in words)
        name = SIGNALS.get(number, str(number))
        return Fault(name, CODES.get((name, code), str(code)), address)

    def fork(self) -> "Caller | Outcome":
        """A child that can be told the same, or why there is none."""
        kind, value = self.tell("fork")
        if kind == "err":
            return Outcome(-1, errno.errorcode[int(value)])
        return Caller(self._send, self._receive, f"{self._prefix}to {value} ")

    def end(self) -> None:
        """Let this child exit."""
        self.tell("end")
