"""Threads that take over from one another: with hands of paper, and where tools keep them waiting."""

import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from support import wait_for

from fakedev import Sandbox, build_machine, load_profile
from fakedev.sandbox.exact import crew
from fakedev.sandbox.exact.crew import Crew

STUCK = Path(__file__).parent / "e2e" / "exact_stuck.py"


class Office:
    """A queue of calls; one that is an event is waited for. Ends by None."""

    def __init__(self) -> None:
        self.calls: queue.Queue[object] = queue.Queue()
        self.done: list[object] = []
        self.hands, self.ended = 0, 0
        self.errors: list[BaseException] = []
        self.receiving = 0
        self.crew = Crew(self.hand, self.errors.append, self.end)

    def hand(self) -> "Office":
        self.hands += 1
        return self

    def close(self) -> None:
        self.hands -= 1

    def end(self) -> None:
        self.ended += 1

    def receive(self) -> object:
        self.receiving += 1
        assert self.receiving == 1, "one at a time"
        found = self.calls.get()
        if found is None:
            self.calls.put(None)
        self.receiving -= 1
        return found

    def handle(self, waiting: object) -> None:
        if isinstance(waiting, BaseException):
            raise waiting
        if isinstance(waiting, threading.Event):
            waiting.wait(20)
        self.done.append(waiting)

    def stop(self) -> None:
        self.calls.put(None)
        self.crew.stop()


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(crew, "TICK", 0.01)
    made = Office()
    made.crew.start()
    yield made
    made.stop()
    assert made.crew.wait(10)
    assert (made.ended, made.hands) == (1, 0)
    assert made.errors == []


def test_one_thread_is_enough_for_quick_calls(office: Office) -> None:
    for number in range(500):
        office.calls.put(number)
    wait_for(lambda: office.done == list(range(500)), "all are answered")
    assert len(office.crew.threads) == 1


def test_who_is_kept_waiting_is_relieved_and_ends(office: Office) -> None:
    slow = [threading.Event() for _ in range(20)]
    for event in slow:
        office.calls.put(event)
    office.calls.put("another")
    wait_for(lambda: office.done == ["another"], "others go on")
    assert len(office.crew.threads) == 21
    for event in slow:
        event.set()
    wait_for(lambda: len(office.crew.threads) == 1, "the slow ones end")
    assert sorted(map(str, office.done)) == sorted(map(str, [*slow, "another"]))
    office.calls.put("the last")
    wait_for(lambda: office.done[-1] == "the last", "the one that is left goes on")


def test_there_are_not_more_than_so_many(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "MOST", 3)
    slow = [threading.Event() for _ in range(3)]
    for call in (*slow, "another"):
        office.calls.put(call)
    wait_for(lambda: len(office.crew.threads) == 3, "all are there")
    time.sleep(0.1)
    assert (len(office.crew.threads), office.done) == (3, [])
    slow[1].set()
    wait_for(lambda: office.done == [slow[1], "another"], "one that comes back goes on")
    for event in slow:
        event.set()


def test_the_watchdog_sleeps_and_wakes(office: Office) -> None:
    for _ in range(3):
        wait_for(lambda: office.crew._asleep, "it sleeps")
        slow = threading.Event()
        office.calls.put(slow)
        wait_for(lambda: len(office.crew.threads) == 2, "it is awake")
        slow.set()
        wait_for(lambda: len(office.crew.threads) == 1, "there is one again")


def test_a_thread_that_cannot_be_started_is_tried_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        tries.append(self.name)
        if len(tries) < 3:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    slow = threading.Event()
    office.calls.put(slow)
    office.calls.put("another")
    wait_for(lambda: office.done == ["another"], "it was tried again")
    assert tries == ["fakedev-exact"] * 3
    slow.set()


def test_the_end_waits_for_who_is_kept_waiting(office: Office) -> None:
    slow = threading.Event()
    office.calls.put(slow)
    wait_for(lambda: len(office.crew.threads) == 2, "it was relieved")
    office.stop()
    assert not office.crew.wait(0.05)
    assert office.ended == 0  # what it uses is not let go of
    slow.set()
    assert office.crew.wait(10)
    assert office.ended == 1


def test_whatever_is_raised_is_told() -> None:
    for error in (ValueError("broken"), SystemExit(1)):
        office = Office()
        office.crew.start()
        office.calls.put(error)
        wait_for(lambda seen=office.errors: bool(seen), "it is told")
        assert office.errors == [error]
        office.stop()
        assert office.crew.wait(10)


def test_a_crew_that_never_began_ends() -> None:
    office = Office()
    office.stop()
    office.stop()
    assert (office.crew.wait(0), office.ended) == (True, 1)


@needs_sandbox
@pytest.mark.parametrize(("count", "how"), [(1, "answered"), (20, "answered"), (20, "killed")])
def test_tools_that_wait_for_each_other_through_the_supervisor(
    tmp_path: Path, count: int, how: str
) -> None:
    machine = build_machine(load_profile("pc-q35"))
    sandbox = Sandbox(machine)
    if sandbox.filter is None:
        pytest.skip(sandbox.without_exact)
    command = [sys.executable, STUCK, tmp_path, str(count), how]
    done = sandbox.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert [event for event in machine.events if event.kind == "error"] == []
