"""Private copies of device memory die with a claim, and nothing else of the process that has them."""

import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import SOAK, Host, Running, compiled, need, need_sandbox, wait_for

HERE = Path(__file__).parent
STRICT = str(HERE / "strict.yaml")
BOARD = 0xD0000000
CLAIM = "d0000000-d0002fff"  # three pages of eight; every other one is copied
ALIVE = "copy,file,copy,file,copy,file,copy,file,"
DEAD = "2,2,2,file,copy,file,copy,file,"  # BUS_ADRERR, at the address that was touched
WORK = ("busy", "nanosleep", "poll", "pselect", "epoll", "sigtimedwait", "recv", "semop", "sem")
LOUD = ("busy", "pipe", "itimer", "sigsuspend", "pause", "getppid", "fstat", "nanosleep")


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


class Copier:
    """The program, in a machine."""

    def __init__(self, running: Running) -> None:
        self.running = running
        word, pid, _ = running.receive().split()
        assert word == "ready"
        self.pid = int(pid)

    def say(self, line: str) -> str:
        self.running.send(line + "\n")
        return self.running.receive().strip()

    def stop(self) -> dict[str, tuple[int, ...]]:
        """Rounds, mishaps and last errno of the work."""
        words = (one.split() for one in self.say("stop").split(",") if one)
        return {name: tuple(map(int, numbers)) for name, *numbers in words}

    def events(self, kind: str) -> list[str]:
        return [
            e["message"] for e in self.running.client.call("log")["events"] if e["kind"] == kind
        ]

    def tracers(self) -> set[str]:
        """TracerPid of its threads."""
        tasks = list(Path(f"/proc/{self.pid}/task").iterdir())
        lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
        return {line.split()[1] for line in lines if line.startswith("TracerPid:")}


@contextmanager
def copying(
    host: Host,
    folder: Path,
    *work: str,
    profile: str = STRICT,
    file: tuple[str, int] = ("/dev/mem", BOARD),
) -> Iterator[Copier]:
    program = compiled(HERE / "exact_private.c", folder)
    path, offset = file
    with Running(host, profile, program, path, f"{offset:x}", "8", *work) as running:
        copier = Copier(running)
        assert copier.say("pages") == ALIVE
        yield copier


def test_copies_of_a_claimed_range_are_discarded(host: Host, folder: Path) -> None:
    with copying(host, folder) as copier:
        copier.running.claim(CLAIM)
        assert copier.say("pages") == DEAD
        assert copier.tracers() == {"0"}
        copier.running.release(CLAIM)
        assert copier.say("pages") == DEAD
        assert copier.say("map") == "ok"
        assert copier.say("pages") == ALIVE
        copier.running.claim(CLAIM)
        assert copier.say("pages") == DEAD
        assert copier.events("error") == []


def test_without_the_layer_they_survive(host: Host, folder: Path) -> None:
    program = compiled(HERE / "exact_private.c", folder)
    script = f"{program} /dev/mem d0000000 8"
    with Running(host, STRICT, "sh", "-c", script, options=["--no-exact"]) as running:
        copier = Copier(running)
        running.claim(CLAIM)
        assert copier.say("pages") == "copy,2,copy,file,copy,file,copy,file,"


def test_the_same_through_a_bar_and_by_a_driver(host: Host, folder: Path) -> None:
    """The process waits for the driver that it binds: it has lost them when it is back."""
    path = "/sys/bus/pci/devices/0000:00:03.0/resource0"
    with copying(host, folder, profile="pc-q35", file=(path, 0)) as copier:
        assert copier.running.ctl("modprobe", "e1000").returncode == 0
        assert copier.say("pages") == "2,2,2,2,2,2,2,2,"
        drivers = "/sys/bus/pci/drivers/e1000"
        for _ in range(3):
            assert copier.say(f"write 0000:00:03.0 {drivers}/unbind") == "ok"
            assert copier.say("map") == "ok"
            assert copier.say("pages") == ALIVE
            assert copier.say(f"write 0000:00:03.0 {drivers}/bind") == "ok"
            assert copier.say("pages") == "2,2,2,2,2,2,2,2,"
        wait_for(lambda: copier.tracers() == {"0"}, "nobody traces it")


def test_a_forked_child_loses_them_too(host: Host, folder: Path) -> None:
    with copying(host, folder) as copier:
        child = int(copier.say("fork").split()[1])
        assert child != copier.pid
        copier.running.claim(CLAIM)
        assert copier.say("pages") == DEAD  # the child answers
        copier.pid = child
        assert copier.tracers() == {"0"}


def test_memory_that_fails_takes_no_copies(host: Host, folder: Path) -> None:
    with copying(host, folder) as copier:
        assert copier.running.ctl("poison", CLAIM).returncode == 0
        assert copier.say("pages") == "copy,2,copy,file,copy,file,copy,file,"


def test_locked_pages_are_unlocked_first(host: Host, folder: Path) -> None:
    with copying(host, folder) as copier:
        assert copier.say("lock") == "ok"
        assert copier.say("map") == "ok"
        copier.running.claim(CLAIM)
        assert copier.say("pages") == DEAD


def test_a_stopped_process_stays_stopped(host: Host, folder: Path) -> None:
    with copying(host, folder) as copier:
        copier.pid = int(copier.say("fork").split()[1])  # job control would stop the machine too
        state = Path(f"/proc/{copier.pid}/stat")
        os.kill(copier.pid, signal.SIGSTOP)
        wait_for(lambda: state.read_text().split()[2] == "T", "it is stopped")
        copier.running.claim(CLAIM)
        # Who is let go of runs for a moment, in the kernel, before it stops again.
        wait_for(lambda: state.read_text().split()[2] == "T", "it is stopped again")
        assert copier.tracers() == {"0"}
        os.kill(copier.pid, signal.SIGCONT)
        assert copier.say("pages") == DEAD


def test_a_process_that_is_traced_is_spared(host: Host, folder: Path) -> None:
    need("gdb", "gdb")
    program = compiled(HERE / "exact_private.c", folder)
    script = f"""
        mkfifo "$XDG_RUNTIME_DIR/orders"
        {program} /dev/mem d0000000 8 < "$XDG_RUNTIME_DIR/orders" & pid=$!
        exec 4> "$XDG_RUNTIME_DIR/orders"; rm "$XDG_RUNTIME_DIR/orders"
        read go
        gdb -nx -q -batch -p $pid -ex 'shell echo attached; read line' -ex detach 2> /dev/null |
            grep --line-buffered ^attached
        echo detached; cat >&4"""
    with Running(host, STRICT, "sh", "-c", script) as running:
        copier = Copier(running)
        running.send("go\n")
        assert running.receive() == "attached\n"
        running.claim(CLAIM)
        [event] = [e for e in copier.events("exact") if "keeps private copies" in e]
        assert event.startswith("exact_private[")
        assert event.endswith(" traces it")
        running.send("\n")
        assert running.receive() == "detached\n"
        assert copier.say("pages") == "copy,2,copy,file,copy,file,copy,file,"


@pytest.mark.parametrize("work", [WORK, LOUD], ids=["waiting", "loud"])
def test_nothing_else_of_the_process_is_disturbed(
    host: Host, folder: Path, work: tuple[str, ...]
) -> None:
    """Calls that only a signal with a handler may end do not end, and no signal is lost."""
    with copying(host, folder, *work) as copier:
        for _ in range(60 * SOAK):
            copier.running.claim(CLAIM)
            assert copier.say("pages") == DEAD, (copier.events("exact"), copier.events("error"))
            copier.running.release(CLAIM)
            assert copier.say("map") == "ok"
        found = copier.stop()
    assert {name for name, (rounds, *_) in found.items() if rounds} == set(work)
    assert {name: rest for name, (_, mishaps, *rest) in found.items() if mishaps} == {}


def test_hundreds_of_claims_under_load(host: Host, folder: Path) -> None:
    """Nothing hangs, and nothing stays traced."""
    claims = 150 * SOAK
    with copying(host, folder, *LOUD) as copier:
        for number in range(claims):
            copier.running.claim(CLAIM)
            copier.running.release(CLAIM)
            if number % 10 == 0:
                assert copier.say("pages") == DEAD
            assert copier.say("map") == "ok"
        wait_for(lambda: copier.tracers() == {"0"}, "nobody traces it")
        assert copier.events("error") == []
        assert [e for e in copier.events("exact") if "keeps" in e] == []
        assert {name for name, (_, bad, *_) in copier.stop().items() if bad} == set()


def test_a_claim_costs_a_moment_more(host: Host, folder: Path) -> None:
    with copying(host, folder) as copier:
        times = []
        for _ in range(50):
            began = time.monotonic()
            copier.running.claim(CLAIM)
            times.append(time.monotonic() - began)
            copier.running.release(CLAIM)
            assert copier.say("map") == "ok"
        assert statistics.median(times) < 0.1
