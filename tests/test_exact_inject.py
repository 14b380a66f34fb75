"""A process that is made to discard pages, without a machine: its pages are those of an ordinary file."""

import contextlib
import os
import platform
import random
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import SOAK, compiled, need, wait_for

from fakedev.sandbox.exact import inject, ptrace
from fakedev.sandbox.exact.registers import ABIS, Abi
from fakedev.sandbox.exact.seizing import Piece, Spared

E2E = Path(__file__).parent / "e2e"
PAGE = 4096
SEED = int.from_bytes(os.urandom(3), "little")
SOON = 20.0
X86_64, I386, AARCH64 = ABIS[216], ABIS[68], ABIS[272]
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86")


class Program:
    """`exact_private` on eight pages of a file."""

    def __init__(self, folder: Path, *work: str) -> None:
        file = folder / "pages"
        file.write_bytes(b"f" * 8 * PAGE)
        binary = compiled(E2E / "exact_private.c", folder)
        self.process = subprocess.Popen(
            [binary, file, "0", "8", *work],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.pid = self.process.pid
        self.start = int(self._line().split()[2], 16)

    def _line(self) -> str:
        assert self.process.stdout
        # One answer is on its way at a time, so that nothing waits in the stream's own buffer.
        assert select.select([self.process.stdout], [], [], SOON)[0], "a hang"
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        return self._line()

    def pages(self, *numbers: int) -> Callable[[], list[Piece]]:
        return lambda: [(self.start + number * PAGE, PAGE) for number in numbers]

    def status(self, name: str) -> str:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*work: str) -> Program:
        started.append(Program(tmp_path, *work))
        return started[-1]

    yield start
    for one in started:
        one.end()


def borrow(pid: int, wanted: Callable[[], Sequence[Piece]]) -> None:
    """On a thread that ends, as it has to be; a hang is a failure."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            inject.borrow(pid, wanted)
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive(), "a hang"
    if raised:
        raise raised[0]


def test_the_pages_that_are_named_are_discarded(program: Callable[..., Program]) -> None:
    one = program()
    assert one.say("pages") == "copy,file,copy,file,copy,file,copy,file,"
    borrow(one.pid, one.pages(0, 1, 6))
    assert one.say("pages") == "file,file,copy,file,copy,file,file,file,"
    assert (one.status("TracerPid"), one.say("stop")) == ("0", "")
    assert one.process.wait(SOON) == 0


def test_nothing_is_done_where_nothing_is_wanted(program: Callable[..., Program]) -> None:
    one = program()
    borrow(one.pid, list)
    assert one.say("pages") == "copy,file,copy,file,copy,file,copy,file,"
    assert one.status("TracerPid") == "0"


WORK = [
    ("busy", "getppid"),
    ("nanosleep", "poll", "pselect", "sem", "pipe"),
    ("sigsuspend", "pause", "itimer"),
    pytest.param(("epoll", "sigtimedwait", "recv", "semop"), marks=needs_x86),  # elsewhere: EINTR
]  # fmt: skip


@pytest.mark.parametrize("work", WORK, ids="-".join)
def test_threads_notice_nothing(program: Callable[..., Program], work: tuple[str, ...]) -> None:
    one = program(*work)
    blocked = one.status("SigBlk")
    for _ in range(200 * SOAK):
        borrow(one.pid, one.pages(0))
    found = {name: rest for name, *rest in (w.split() for w in one.say("stop").split(",") if w)}
    assert found.keys() == set(work)
    assert {name: rest for name, (_, mishaps, *rest) in found.items() if mishaps != "0"} == {}
    assert one.status("SigBlk") == blocked
    assert one.process.wait(SOON) == 0


def test_a_stopped_process_stays_stopped(program: Callable[..., Program]) -> None:
    one = program("nanosleep")
    for _ in range(20):
        os.kill(one.pid, signal.SIGSTOP)
        wait_for(lambda: one.status("State") == "T", "it is stopped")
        borrow(one.pid, one.pages(0))
        wait_for(lambda: one.status("State") == "T", "it is stopped again")
        assert one.status("TracerPid") == "0"
        os.kill(one.pid, signal.SIGCONT)
        assert one.say("pages").startswith("file,file,copy,")


def test_stops_and_continues_meanwhile(program: Callable[..., Program]) -> None:
    one = program("nanosleep", "busy")
    chance, over = random.Random(SEED), threading.Event()

    def disturb() -> None:
        while not over.is_set():
            os.kill(one.pid, chance.choice((signal.SIGSTOP, signal.SIGCONT)))

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(60 * SOAK):
            borrow(one.pid, one.pages(0))
    finally:
        over.set()
        thread.join()
    os.kill(one.pid, signal.SIGCONT)
    assert one.say("pages").startswith("file,file,copy,"), SEED
    assert one.process.poll() is None


def test_processes_that_end_or_exec_meanwhile(tmp_path: Path) -> None:
    """Threads that come and go, execs by any of them, and deaths: no error, no hang, no zombie."""
    code = (
        "import os, sys, threading\n"
        "left = int(sys.argv[1])\n"
        "for _ in range(4): threading.Thread(target=lambda: None).start()\n"
        "if not left: os._exit(7)\n"
        "go = lambda: os.execv(sys.executable, [sys.executable, '-S', '-c', sys.argv[2], str(left - 1), sys.argv[2]])\n"
        "threading.Thread(target=go).start() if left % 2 else go()\n"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code, "6", code]) as process:
        # Not asked by Popen.poll(), which would take a stop of ours for the end.
        try:
            while ptrace.state(process.pid) != "Z":
                with contextlib.suppress(ProcessLookupError):
                    borrow(process.pid, lambda: [(0x10000, PAGE)])
        except BaseException:
            os.kill(process.pid, signal.SIGKILL)  # nobody else would end it after a hang
            raise
    assert process.returncode == 7


def test_a_process_that_another_one_traces_is_spared(program: Callable[..., Program]) -> None:
    one = program()
    code = (
        "import sys; from fakedev.sandbox.exact import ptrace\n"
        "ptrace.seize(int(sys.argv[1])); print('traced', flush=True); sys.stdin.read()"
    )
    tracer = subprocess.Popen(
        [sys.executable, "-c", code, str(one.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with tracer:
        assert tracer.stdout
        assert tracer.stdout.readline() == b"traced\n"
        with pytest.raises(Spared, match=f"^process {tracer.pid} traces it$"):
            borrow(one.pid, one.pages(0))
        assert one.say("pages").startswith("copy,")
    borrow(one.pid, one.pages(0))
    assert one.say("pages").startswith("file,")


ALLOW = """
import ctypes, struct, sys
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7fff0000))  # return ALLOW
filter = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
for _ in range(int(sys.argv[1])):
    assert libc.prctl(22, 2, filter) == 0
print("filtered", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("filters", [1, 2])
def test_a_process_with_filters_of_its_own_is_spared(filters: int) -> None:
    """It might be killed. One more filter than we have is that of the exact layer."""
    with subprocess.Popen(
        [sys.executable, "-c", ALLOW, str(filters)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"filtered\n"
        if filters == 1:
            borrow(process.pid, lambda: [(0x10000, PAGE)])
        else:
            with pytest.raises(Spared, match="filters its system calls"):
                borrow(process.pid, lambda: [(0x10000, PAGE)])


@needs_x86
def test_a_32_bit_process(tmp_path: Path) -> None:
    binary = tmp_path / "i386"
    options = ["-m32", "-O1", "-nostdlib", "-static", "-no-pie", "-fno-pie", "-fno-stack-protector"]
    command = [need("gcc", "gcc"), *options, "-o", binary, E2E / "exact_private_i386.c"]
    subprocess.run(command, check=True)
    try:
        process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    with process:
        assert process.stdin
        assert process.stdout
        start = int.from_bytes(os.read(process.stdout.fileno(), 4), "little")
        os.write(process.stdin.fileno(), b"\n")
        assert os.read(process.stdout.fileno(), 5) == b"copy\n"
        for _ in range(10):
            borrow(process.pid, lambda: [(start, PAGE)])
        os.write(process.stdin.fileno(), b"\n")
        assert os.read(process.stdout.fileno(), 5) == b"file\n"
    assert process.returncode == 0


@pytest.mark.parametrize("abi", [X86_64, I386, AARCH64], ids=["x86_64", "i386", "aarch64"])
def test_registers_of_a_call(abi: Abi) -> None:
    words = [(1 << abi.bits) - 1 - n for n in range(len(abi.layout.unpack(bytes(abi.layout.size))))]
    before = list(words)
    made = abi.calling(words, 0x1000, (abi.madvise, 1, 2, 3))
    assert words == before
    assert made[abi.pc] == 0x1000
    assert [made[place] for place in (abi.number, *abi.arguments)] == [abi.madvise, 1, 2, 3]
    if abi.before is not None:
        assert abi.signed(made[abi.before]) == -1
    changed = {n for n, (a, b) in enumerate(zip(before, made, strict=True)) if a != b}
    own = {abi.pc, abi.number, *abi.arguments, *([] if abi.before is None else [abi.before])}
    assert changed <= own | ({abi.flags} if abi.clear else set())
    assert not made[abi.flags] & abi.clear


@pytest.mark.parametrize(
    ("abi", "number", "result", "then"),
    [
        (X86_64, 232, -4, -514),  # epoll_wait
        (X86_64, 232, -9, -9),
        (X86_64, 232, 0, 0),
        (X86_64, 3, -4, -4),  # close: it must not be called twice
        (X86_64, (1 << 64) - 1, -4, -4),  # in no call
        (I386, 256, -4, -514),
        (I386, 6, -4, -4),
    ],
)
def test_only_an_eintr_of_ours_is_taken_back(abi: Abi, number: int, result: int, then: int) -> None:
    words = [0] * (abi.layout.size * 8 // abi.bits)
    assert abi.before is not None
    words[abi.before], words[abi.result] = number, result % (1 << abi.bits)
    assert abi.signed(abi.undisturbed(words)[abi.result]) == then


@pytest.mark.parametrize(("pc", "then"), [(99, 99), (100, 7), (109, 7), (110, 110)])
def test_a_restartable_sequence_is_aborted(
    monkeypatch: pytest.MonkeyPatch, pc: int, then: int
) -> None:
    memory = {0x1008: struct.pack("=Q", 0x2000), 0x2000: struct.pack("=2I3Q", 0, 0, 100, 10, 7)}
    monkeypatch.setattr(ptrace, "rseq_area", lambda _: 0x1000)
    monkeypatch.setattr(inject, "_read", lambda _tid, at, size: memory[at][:size])
    assert inject._outside_rseq(1, pc) == then


def test_without_a_sequence_a_thread_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_tid: int, at: int, size: int) -> Any:
        return bytes(size)

    monkeypatch.setattr(inject, "_read", read)
    for area in (0, 0x1000):
        monkeypatch.setattr(ptrace, "rseq_area", lambda _, area=area: area)
        assert inject._outside_rseq(1, 42) == 42
