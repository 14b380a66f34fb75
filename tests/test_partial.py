"""Requests that are refused half way: the buffers of a call, and what is done with them."""

import ctypes
import errno
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import BAR, HIGH, TOP, small_machine
from support import need, wait_for
from test_session import Kernel

from fakedev.fuse import callbuffers, pieces
from fakedev.fuse.callbuffers import READS, WRITES, Segment, cut, peek, put, segments
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.session import Options, Session
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.views.node import Partly, Refused
from fakedev.views.tree import Tree

CALLS = ("read", "pread64", "readv", "preadv", "preadv2")
BORDER = BAR + 4 * PAGE_SIZE
_libc = ctypes.CDLL(None, use_errno=True)


def numbers(header: str, names: tuple[str, ...]) -> set[int]:
    """System call numbers out of a header of the kernel."""
    text = f"#include <asm/{header}>\n" + "".join(f"{name} __NR_{name}\n" for name in names)
    done = subprocess.run(
        [need("gcc", "gcc"), "-E", "-P", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"<asm/{header}> is not installed (package linux-libc-dev)")
    return {int(line.split()[1]) for line in done.stdout.splitlines() if line.strip()}


@pytest.mark.parametrize("calls", [READS, WRITES], ids=["reads", "writes"])
def test_numbers_are_those_of_the_kernel(calls: dict[int, object]) -> None:
    names = tuple(name.replace("read", "write") if calls is WRITES else name for name in CALLS)
    if platform.machine() == "x86_64":
        wanted = numbers("unistd_64.h", names) | numbers("unistd_32.h", names)
    else:
        wanted = numbers("unistd.h", names)
    assert set(calls) == wanted


BUFFERS = st.lists(st.integers(0, 9), max_size=6)


@given(BUFFERS, st.integers(0, 30), st.integers(0, 30))
def test_cut_takes_the_bytes_that_are_meant(sizes: list[int], skip: int, size: int) -> None:
    whole = [Segment(1000 * at, count) for at, count in enumerate(sizes)]
    every = [address + at for address, count in whole for at in range(count)]
    pieces = list(cut(whole, skip, size))
    assert all(count > 0 for _, count in pieces)
    taken = [address + at for address, count in pieces for at in range(count)]
    assert taken == every[skip : skip + size]


class Asleep:
    """A thread in a read(2) of a pipe into `data`; the call passes the buffers `parts` of it."""

    def __init__(self, parts: list[tuple[int, int]] | None = None, size: int = 16) -> None:
        self.data = ctypes.create_string_buffer(b"\xa5" * size, size)
        self.address = ctypes.addressof(self.data)
        self.pipe = os.pipe()
        self.tid = 0
        self.thread = threading.Thread(target=self._read, args=(parts, size))
        self.thread.start()
        wait_for(lambda: self.tid and segments(READS, self.tid, 0, size), "it sleeps in its read")

    def _read(self, parts: list[tuple[int, int]] | None, size: int) -> None:
        self.tid = threading.get_native_id()
        if parts is None:
            _libc.read(self.pipe[0], self.data, size)
        else:
            words = [word for at, count in parts for word in (self.address + at, count)]
            _libc.readv(self.pipe[0], (ctypes.c_ulong * len(words))(*words), len(parts))

    def end(self) -> None:
        os.close(self.pipe[1])
        self.thread.join()
        os.close(self.pipe[0])


class Beside(Kernel):
    """Another mount of the same machine."""

    def __init__(self, first: Kernel) -> None:
        self.machine, self.coherence, self.notified = first.machine, first.coherence, []
        self.session = Session(Tree(self.machine), self.coherence, Options(), self.notified.append)
        self.init()


Sleeper = Callable[..., Asleep]


@pytest.fixture
def asleep() -> Iterator[Sleeper]:
    threads: list[Asleep] = []

    def start(*arguments: object) -> Asleep:
        threads.append(Asleep(*arguments))  # type: ignore[arg-type]
        return threads[-1]

    yield start
    for thread in threads:
        thread.end()


def test_the_buffers_of_a_call(asleep: Sleeper) -> None:
    one, three = asleep(), asleep([(0, 4), (4, 0), (8, 8), (4, 4)])
    assert segments(READS, one.tid, 0, 16) == [(one.address, 16)]
    assert segments(READS, one.tid, 4, 8) == [(one.address + 4, 8)], "its position is 0"
    assert segments(READS, one.tid, 8, 9) == [], "more than is left"
    at = three.address
    assert segments(READS, three.tid, 0, 16) == [(at, 4), (at + 8, 8), (at + 4, 4)]
    assert segments(READS, three.tid, 6, 7) == [(at + 10, 6), (at + 4, 1)]
    assert segments(WRITES, three.tid, 0, 16) == []
    assert segments(READS, 1 << 30, 0, 16) == []
    assert segments(READS, os.getpid(), 0, 16) == []  # it runs


def test_a_worker_of_io_uring_has_no_call_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    read = min(READS)
    text = f"{read} 0x3 0x1000 0x10 0x0 0x0 0x0 0x7ff0 0x4000".split()
    monkeypatch.setattr(callbuffers, "system_call", lambda _: text)
    assert segments(READS, 1, 0, 16) == [(0x1000, 16)]
    monkeypatch.setattr(callbuffers, "system_call", lambda _: [*text[:7], "0x0", "0x0"])
    assert segments(READS, 1, 0, 16) == []
    monkeypatch.setattr(callbuffers, "system_call", lambda _: ["running"])
    assert segments(READS, 1, 0, 16) == []


def test_memory_of_another_thread() -> None:
    room = ctypes.create_string_buffer(b"abcd", 4)
    at = ctypes.addressof(room)
    put(os.getpid(), at + 1, b"xy")
    assert room.raw == b"axyd"
    assert peek(os.getpid(), at, 4) == b"axyd"
    assert peek(os.getpid(), 8, 4) == b""
    put(os.getpid(), 8, b"nowhere")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def claimed(machine: Machine) -> bytes:
    """Claim from BORDER on; the bytes before it."""
    machine.poke(BORDER - 16, bytes(range(16)))
    machine.claim(Range(BORDER, PAGE_SIZE), name="driver")
    return bytes(range(8, 16))


def read(kernel: Kernel, tid: int, offset: int, size: int) -> bytes:
    """What a READ of a thread gives in the end."""
    fh, _ = kernel.open(kernel.lookup("dev", "mem"))
    try:
        found = kernel.session.read(tid, fh, offset, size, 2)
    except Deferred as late:
        found = late.wait()
    return b"".join(found)


def test_a_refused_read_puts_what_is_before_it_into_the_buffer(
    kernel: Kernel, asleep: Sleeper
) -> None:
    before = claimed(kernel.machine)
    thread = asleep()
    with pytest.raises(Refused) as refused:
        read(kernel, thread.tid, BORDER - 8, 16)
    assert refused.value.errno == errno.EPERM
    assert thread.data.raw == before + b"\xa5" * 8
    with pytest.raises(Refused):  # nobody knows what this one does
        read(kernel, os.getpid(), BORDER - 8, 16)


def test_buffers_that_were_filled_are_the_answer(kernel: Kernel, asleep: Sleeper) -> None:
    before = claimed(kernel.machine)
    thread = asleep([(0, 4), (4, 8), (12, 4)])
    assert read(kernel, thread.tid, BORDER - 8, 16) == before[:4]
    assert thread.data.raw == b"\xa5" * 4 + before[4:] + b"\xa5" * 8


def test_it_is_the_same_after_a_recall(kernel: Kernel, asleep: Sleeper) -> None:
    """Another file caches the page before the border, so the worker does not read it at once."""
    before = claimed(kernel.machine)
    other = Beside(kernel)
    node = other.lookup("dev", "mem")
    fh, _ = other.open(node)
    other.read(node, fh, BORDER - PAGE_SIZE, PAGE_SIZE, flags=0)
    thread = asleep()
    mine, _ = kernel.open(kernel.lookup("dev", "mem"))
    with pytest.raises(Deferred) as late:
        kernel.session.read(thread.tid, mine, BORDER - 8, 16, 2)
    with pytest.raises(Refused) as refused:
        late.value.wait()
    assert refused.value.errno == errno.EPERM
    assert thread.data.raw == before + b"\xa5" * 8
    other.session.close()


def test_who_is_killed_meanwhile_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of a process can keep us waiting; the kernel waits for our answer before it ends the process."""
    looking, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> list[Segment]:
        looking.set()
        assert go_on.wait(10)
        return []

    monkeypatch.setattr(pieces, "segments", slow)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        late = pieces.read_in_pieces(child.pid, 0, 16, refusal(), lambda *_: [])
        assert looking.wait(10)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(Refused) as refused:
            late.wait()
        go_on.set()
    assert refused.value.errno == errno.EINTR


def refusal() -> Partly:
    return Partly(errno.EPERM, small_machine().explain("read", Range(HIGH, 1)), 8)


def test_a_late_answer_stays_what_it_is_but_for_a_refusal_half_way() -> None:
    def fail(error: Partly) -> Deferred:
        raise RuntimeError("no thread")

    def answered(job: Callable[[], object], again: Callable[[Partly], Deferred]) -> object:
        late = Deferred(job)
        answer = pieces.after(late, again)
        late.run()
        return answer.wait()

    def refuse() -> object:
        raise refusal()

    again = Deferred(lambda: "again")
    again.run()
    assert answered(lambda: "first", lambda _: again) == "first"
    assert answered(refuse, lambda _: again) == "again"
    with pytest.raises(Partly):
        answered(refuse, fail)
    with pytest.raises(ZeroDivisionError):
        answered(lambda: 1 // 0, lambda _: again)


def test_no_thread_to_be_had_leaves_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Deferred:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pieces, "apart", refuse)
    with pytest.raises(Partly):
        pieces.read_in_pieces(1, 0, 16, refusal(), lambda *_: [])


def test_how_much_is_moved_before_a_refusal() -> None:
    machine = small_machine()
    claimed(machine)
    assert machine.moved(BORDER - 8, 16) == 8
    assert machine.moved(BORDER, 16) == 0
    assert machine.moved(TOP - 8, 16) == 0, "the range is tested as a whole"
    machine.poisoned = (Range(BORDER - PAGE_SIZE, PAGE_SIZE),)
    assert machine.moved(BORDER - PAGE_SIZE - 8, 2 * PAGE_SIZE) == 8


def test_only_what_begins_in_allowed_memory_is_looked_at_again(kernel: Kernel) -> None:
    claimed(kernel.machine)
    handle = kernel.session._files[kernel.open(kernel.lookup("dev", "mem"))[0]].handle
    assert handle is not None
    for offset, partly in ((BORDER - 8, True), (BORDER, False), (TOP - 8, False), (TOP, False)):
        for access in (
            lambda at: handle.read(at, 16),
            lambda at: handle.write(at, memoryview(bytes(16))),
        ):
            with pytest.raises(Refused) as refused:
                access(offset)
            assert isinstance(refused.value, Partly) == partly, hex(offset)
