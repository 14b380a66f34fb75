"""One thread that receives calls: who handles which, and what becomes of calls that nobody handles."""

import select
from collections.abc import Callable

from fakedev.sandbox.exact.calls import Calls
from fakedev.sandbox.exact.hand import Call, Hand
from fakedev.sandbox.exact.listener import REGISTERS, Notification
from fakedev.sandbox.exact.maps import Maps
from fakedev.sandbox.exact.memory import Mappings
from fakedev.sandbox.exact.numbers import AARCH64, I386, X86_64, Arch
from fakedev.sandbox.exact.owners import Owners
from fakedev.sandbox.exact.rules import ALL_ONES
from fakedev.sandbox.exact.shared import Shared
from fakedev.sandbox.exact.transfers import TRANSFERS
from fakedev.sandbox.exact.users import Users

_NAMES = {"mmap2": "mmap", "fstat64": "fstat", "fstatat64": "newfstatat", "fcntl64": "fcntl",
          "ftruncate64": "ftruncate", "sendfile64": "sendfile"}  # fmt: skip
_Handler = tuple[Arch, str, tuple[int, ...], Callable[[Call], bool]]


class Dispatch:
    """Receives and handles until the descriptor `stop` can be read."""

    def __init__(self, shared: Shared, stop: int) -> None:
        self._hand = Hand(shared)
        self._listener = self._hand.listener
        self._statuses = self._hand.statuses
        self._files = shared.files
        self._mappings = Mappings(self._hand)
        self._users = Users(self._hand, Owners(self._hand))
        self._handlers = _table(self._hand)
        self._stop = stop
        self._receive = self._listener.receive
        self._ends = select.poll()
        self._ends.register(shared.listener, select.POLLIN)
        self._ends.register(stop, select.POLLIN)
        self._poll = self._ends.poll
        self._called = [(shared.listener, select.POLLIN)]  # and nothing else, as a rule

    def close(self) -> None:
        """Forget the threads that called."""
        self._hand.close()

    def receive(self) -> Notification | None:
        """The next call; None when it is over."""
        while True:
            found = self._poll()
            if found == self._called or self._goes_on(dict(found)):
                waiting = self._receive()
                if waiting is not None:
                    return waiting
            elif self._stop in dict(found):
                return None

    def _goes_on(self, events: dict[int, int]) -> bool:
        """Whether there is a call, and it is not over."""
        if self._stop in events:
            return False
        if events[self._listener.fd] & select.POLLIN:
            return True
        self._ends.unregister(self._listener.fd)  # no task of the filter is left
        return False

    def handle(self, waiting: Notification) -> None:
        """Answer a call, or let the kernel do it."""
        try:
            handled = self._handle(waiting)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not hang the tool
            if self._listener.waits(waiting.id):  # not just because the caller died
                self._files.failed(error)
            handled = False
        if not handled:
            self._listener.resume(waiting.id)

    def _handle(self, waiting: Notification) -> bool:
        entry = self._handlers.get((waiting.audit, waiting.number))
        if entry is None:
            return self._mappings.handle(waiting) or self._users.handle(waiting)
        arch, name, places, handle = entry
        if arch.bits == 32:  # int $0x80 of 64-bit code: what is above is not looked at
            waiting = waiting.narrow()
        for place in places:
            fd = waiting[place] & ALL_ONES
            ino = self._statuses.ours(waiting.tid, fd)
            file = self._files.file(ino) if ino else None
            if file is not None and handle(Call(waiting, arch, name, fd, file)):
                return True
        return False


def _table(hand: Hand) -> dict[tuple[int, int], _Handler]:
    """Architecture and number to what handles the call, and where its descriptors stand."""
    calls = Calls(hand)
    own = {"mmap": Maps(hand).mmap, **calls.handlers()}
    found: dict[tuple[int, int], _Handler] = {}
    for arch in (X86_64, I386, AARCH64):
        for given, number in arch.calls.items():
            name = _NAMES.get(given, given)
            found[arch.audit, number] = arch, name, _places(name), own.get(name, calls.other)
    return found


def _places(name: str) -> tuple[int, ...]:
    """Where in the notification the descriptors stand."""
    places: tuple[int, ...] = (4,) if name == "mmap" else (0,)
    if transfer := TRANSFERS.get(name):
        places = transfer.source, transfer.target
    return tuple(REGISTERS + place for place in places)
