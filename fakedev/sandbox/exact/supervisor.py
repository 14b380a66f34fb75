"""The thread that answers: receives calls of tools, asks the nodes of the machine, and replies.

Theory of operation
-------------------
Most calls are about descriptors that are not ours. They cost a statx(2) of /proc/TID/fd/N that does not ask
the file system behind it (AT_STATX_DONT_SYNC), and continue. For ours the node decides
(`fakedev.views.calls`); where it has nothing to say, the call continues too.

While a call waits its thread number belongs to its caller. Before memory is written that is asked again
(`Listener.waits`): the caller may have been killed meanwhile.

This thread takes no lock that a worker of the FUSE server holds while it waits for anybody. It may wait
for a worker itself (memory of a tool can be a page that we serve); workers never wait for it.
"""

import errno
import functools
import os
import select
import threading
from collections.abc import Callable
from typing import NamedTuple

from fakedev.sandbox.exact import layouts, tracee
from fakedev.sandbox.exact.copies import Copies
from fakedev.sandbox.exact.listener import REGISTERS, Listener, Notification
from fakedev.sandbox.exact.memory import Mappings
from fakedev.sandbox.exact.numbers import AARCH64, I386, X86_64, Arch
from fakedev.sandbox.exact.owners import Owners
from fakedev.sandbox.exact.rules import ALL_ONES
from fakedev.sandbox.exact.states import States
from fakedev.sandbox.exact.transfers import TRANSFERS, is_sound
from fakedev.sandbox.exact.users import Users
from fakedev.sandbox.protocols import ExactFile, ExactFiles
from fakedev.views.calls import Answer, IoctlCall, MapCall, SeekCall
from fakedev.views.kinds import MAP_PRIVATE, MAP_TYPE

_PAGE_OF_MMAP2 = 4096
_UPPER_HALF = 1 << 63
_MOST_BEYOND = 1024
_NAMES = {"mmap2": "mmap", "fstat64": "fstat", "fstatat64": "newfstatat", "fcntl64": "fcntl",
          "ftruncate64": "ftruncate", "sendfile64": "sendfile"}  # fmt: skip


class _Call(NamedTuple):
    """A call on one of our files; `name` is that of the x86-64 table."""

    waiting: Notification
    arch: Arch
    name: str
    fd: int
    file: ExactFile


class _Seek(SeekCall):
    """Asks for the position when a node does: few do, and it takes longer than to answer."""

    tell: Callable[[], int]

    @property
    def position(self) -> int:
        return self.tell()


class Supervisor:
    """Answers the calls of one sandbox until its last tool has ended, or `close`.

    `root` is an O_PATH descriptor of the root of the tree; both descriptors belong to the supervisor.
    `lost` is called when it cannot go on: nobody would answer the tools any more.
    """

    def __init__(
        self, listener: int, root: int, files: ExactFiles, lost: Callable[[], None]
    ) -> None:
        self._lost = lost
        self._listener = Listener(listener)
        self._root = root
        self._files = files
        self._statuses = tracee.Statuses(root)
        self._memory = tracee.Memory()
        self._stop, self._wake = os.pipe2(os.O_CLOEXEC)
        self._states = States()
        self._beyond: dict[int, int] = {}
        self._mappings = Mappings(self._listener, self._statuses, self._memory, files)
        self._copies = Copies(self._statuses.device, files)
        files.discard = self._copies.discard
        self._comms = tracee.Comms()
        files.comm_of = self._comms.of
        owners = Owners(self._memory, self._statuses, files)
        self._users = Users(self._listener, self._memory, files.callers, owners)
        self._handlers = _table(self)
        self._thread = threading.Thread(target=self._run, name="fakedev-exact", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self, timeout: float | None = None) -> bool:
        """Stop answering and let go of the mount, when the thread has ended: whether it has.

        It may wait for memory of a tool, which a process of the sandbox fills, or nobody.
        """
        os.write(self._wake, b"x")
        if self._thread.is_alive():  # it may never have been started
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        for fd in (self._stop, self._wake, self._root):
            os.close(fd)
        self._statuses.close()
        self._comms.close()
        self._listener.close()
        return True

    # -- the loop

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - whatever it is, the tools must not wait for ever
            try:
                self._files.failed(error)
            finally:
                self._lost()

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._listener.fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        called = [(self._listener.fd, select.POLLIN)]  # and nothing else, as a rule
        while True:
            found = poll.poll()
            if found == called:
                self._one()
                continue
            for fd, events in found:
                if fd == self._stop:
                    return
                if events & select.POLLIN:
                    self._one()
                elif events:  # no task is left that the filter belongs to
                    poll.unregister(fd)

    def _one(self) -> None:
        waiting = self._listener.receive()
        if waiting is None:
            return
        try:
            handled = self._handle(waiting)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not hang the tool
            if self._listener.waits(waiting.id):  # not just because the caller died
                self._files.failed(error)
            handled = False
        if not handled:
            self._listener.resume(waiting.id)

    def _handle(self, waiting: Notification) -> bool:
        """Answer a call; False where the kernel is to do it."""
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
            if file is not None and handle(_Call(waiting, arch, name, fd, file)):
                return True
        return False

    def _answer(self, call: _Call, answer: Answer | None) -> bool:
        if answer is None:
            return False
        self._files.answered(call.waiting.tid, call.name, answer)
        self._listener.answer(call.waiting.id, answer.value)
        return True

    # -- calls

    def _is_open(self, call: _Call) -> bool:
        return self._statuses.is_open(call.waiting.tid, call.fd)

    def _state(self, call: _Call) -> dict[str, int]:
        return self._states.load(call.waiting.tid, call.fd) if self._states.any else {}

    def mmap(self, call: _Call) -> bool:
        """mmap(2): refused by the node, or made by the kernel, from a file that has its pages."""
        tid, arguments = call.waiting.tid, call.waiting.arguments
        access = self._statuses.access(tid, call.fd)
        if access is None:
            return False
        _, length, prot, flags, _, offset = arguments
        if call.arch is I386:
            offset *= _PAGE_OF_MMAP2
        state = self._state(call)
        capable = functools.partial(self._capable, tid)
        request = MapCall(offset, length, prot & ALL_ONES, flags & ALL_ONES, access, state, capable)
        if self._answer(call, call.file.node.mmap(request)):
            return True
        path = call.file.node.mapped_through(request) or (call.file.path if call.file.stale else "")
        if path:
            self._renew(call, path)
        self._mappings.any = True
        self._copies.any |= flags & MAP_TYPE == MAP_PRIVATE
        return False

    def _capable(self, tid: int, capability: int) -> bool:
        return self._files.callers.opener(tid, 0, 0).capable(capability)

    def _renew(self, call: _Call, path: str) -> None:
        """Give the caller a descriptor of the inode that its file has now, or of another file.

        A file that lost pages gives these to nobody again, or old mappings would come to life
        (decision 4): a mapping that the real kernel allows has to be one of the new inode.
        """
        old = tracee.descriptor(call.waiting.tid, call.fd)
        if old is None:
            return
        flags = old.flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOFOLLOW)
        with self._files.again(call.waiting.tid):
            new = os.open(path.lstrip("/"), flags | os.O_CLOEXEC, dir_fd=self._root)
        try:
            os.lseek(new, old.position, os.SEEK_SET)
            if self._states.any:
                self._states.keep(new, self._states.load(call.waiting.tid, call.fd))
            cloexec = bool(old.flags & os.O_CLOEXEC)
            if self._statuses.ours(call.waiting.tid, call.fd) == call.file.ino:  # not closed since
                self._listener.replace(call.waiting.id, new, call.fd, cloexec=cloexec)
        finally:
            os.close(new)

    def stat(self, call: _Call) -> bool:
        """fstat(2), and newfstatat(2) and statx(2) with AT_EMPTY_PATH."""
        tid, device = call.waiting.tid, self._statuses.device
        asked = layouts.asked(call.name, call.waiting)
        if asked is None:
            return False
        path, room = asked
        if path and self._memory.read(tid, path, 1) != b"\0":
            return False
        shown = call.file.look()
        if shown is None:
            return False
        data = layouts.packed(call.name, call.arch.name, device, shown)
        if not self._listener.waits(call.waiting.id):
            return True
        written = self._memory.write(tid, room, data)
        self._listener.answer(call.waiting.id, 0 if written else -errno.EFAULT)
        return True

    def lseek(self, call: _Call) -> bool:
        """lseek(2) and _llseek of i386."""
        if not self._is_open(call):
            return False
        arguments = call.waiting.arguments
        if call.name == "_llseek":
            offset, whence, room = arguments[1] << 32 | arguments[2], arguments[4], arguments[3]
        else:
            offset, whence, room = arguments[1], arguments[2], 0
            if call.arch is I386:
                offset = _signed(offset, 32)
        request = _Seek(_signed(offset, 64), whence & ALL_ONES, 0)
        request.tell = functools.partial(self._position, call)
        answer = call.file.node.seek(request)
        if answer is None or -4095 <= answer.value < 0:
            return self._answer(call, answer)
        return self._moved(call, answer, room)

    def _position(self, call: _Call) -> int:
        """The file position as the caller knows it."""
        found = tracee.descriptor(call.waiting.tid, call.fd)
        return self._beyond.get(found.position, found.position) if found else 0

    def _moved(self, call: _Call, answer: Answer, room: int) -> bool:
        """The position was moved to where no file of the host can have it, or to an end of our own."""
        position = answer.value % (1 << 64)
        kept = position
        if position >= _UPPER_HALF:
            kept = position % (1 << 62) | 1 << 62
            self._beyond[kept] = position
            if len(self._beyond) > _MOST_BEYOND:
                del self._beyond[next(iter(self._beyond))]
        copy = tracee.copy(call.waiting.tid, call.fd)
        try:
            os.lseek(copy, kept, os.SEEK_SET)
        finally:
            os.close(copy)
        if room:
            if not self._listener.waits(call.waiting.id):
                return True
            written = self._memory.write(call.waiting.tid, room, position.to_bytes(8, "little"))
            answer = answer._replace(value=0 if written else -errno.EFAULT)
        return self._answer(call, answer)

    def ioctl(self, call: _Call) -> bool:
        """ioctl(2)."""
        if not self._is_open(call):
            return False
        arguments = call.waiting.arguments
        tid = call.waiting.tid
        state = self._state(call)
        before = dict(state)
        answer = call.file.node.ioctl(IoctlCall(arguments[1] & ALL_ONES, arguments[2], state))
        if state != before:
            self._states.store(tid, call.fd, state)
        return self._answer(call, answer)

    def transfer(self, call: _Call) -> bool:
        """sendfile(2), splice(2) and copy_file_range(2)."""
        sound = is_sound(call.waiting, call.name, call.fd, self._memory)
        return sound and self.other(call)

    def empty(self, call: _Call) -> bool:
        """pread64(2) and pwrite64(2) of 0 bytes."""
        _, _, _, offset, high, *_ = call.waiting.arguments
        if call.arch is I386:
            offset |= high << 32
        wrong = os.O_WRONLY if call.name == "pread64" else os.O_RDONLY
        if offset >= _UPPER_HALF or self._statuses.access(call.waiting.tid, call.fd) in (
            None,
            wrong,
        ):
            return False
        return self._answer(call, call.file.node.empty(offset))

    def readahead(self, call: _Call) -> bool:
        """readahead(2): EBADF where it is not open for reading."""
        wrong = (None, os.O_WRONLY)
        return self._statuses.access(call.waiting.tid, call.fd) not in wrong and self.other(call)

    def other(self, call: _Call) -> bool:
        """Calls of which only the name matters."""
        return self._is_open(call) and self._answer(call, call.file.node.call(call.name))


_Handler = tuple[Arch, str, tuple[int, ...], Callable[[_Call], bool]]


def _table(supervisor: Supervisor) -> dict[tuple[int, int], _Handler]:
    """Architecture and number to what handles the call, and where its descriptors stand."""
    own: dict[str, Callable[[_Call], bool]] = {
        "mmap": supervisor.mmap,
        **dict.fromkeys(("fstat", "newfstatat", "statx"), supervisor.stat),
        "lseek": supervisor.lseek,
        "_llseek": supervisor.lseek,
        "ioctl": supervisor.ioctl,
        "pread64": supervisor.empty,
        "pwrite64": supervisor.empty,
        "readahead": supervisor.readahead,
        **dict.fromkeys(TRANSFERS, supervisor.transfer),
    }
    found: dict[tuple[int, int], _Handler] = {}
    for arch in (X86_64, I386, AARCH64):
        for given, number in arch.calls.items():
            name = _NAMES.get(given, given)
            found[arch.audit, number] = arch, name, _places(name), own.get(name, supervisor.other)
    return found


def _places(name: str) -> tuple[int, ...]:
    """Where in the notification the descriptors stand."""
    places: tuple[int, ...] = (4,) if name == "mmap" else (0,)
    if transfer := TRANSFERS.get(name):
        places = transfer.source, transfer.target
    return tuple(REGISTERS + place for place in places)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
