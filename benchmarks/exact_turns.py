"""`python -m benchmarks.exact_turns ROUNDS CPUS`: the same programs without and with the exact layer, in turn.

CPUS is `one` or `all`, for single calls; whole programs always have all. Prints one line of JSON.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.arena import TIMEOUT, compile_c, one_cpu
from fakedev.fuse.service import Service
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.sandbox.exact.listener import Listener, Notification
from fakedev.sandbox.launcher import Sandbox

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
COUNT = 1000
Turns = dict[str, dict[str, Any]]


class Sides:
    """Two sandboxes of one machine, without and with the layer."""

    def __init__(self) -> None:
        service = Service(build_machine(load_profile("pc-q35")))
        self.sandboxes = {
            "without": Sandbox(service, exact=False),
            "with": Sandbox(service, exact=True),
        }

    def run(self, side: str, command: list[str]) -> tuple[float, int]:
        """Milliseconds and exit status. Nobody reads what it prints: that would hold up who answers calls."""
        before = time.perf_counter()
        done = self.sandboxes[side].run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TIMEOUT
        )
        return (time.perf_counter() - before) * 1000, done.returncode

    def in_turn(self, rounds: int, job: Callable[[str], None]) -> None:
        """Call `job` for each side, `rounds` times; who comes first changes."""
        order = list(self.sandboxes)
        for _ in range(rounds):
            for side in order:
                job(side)
            order.reverse()


def main() -> None:
    """Measure both kinds and print."""
    rounds, pinned = int(sys.argv[1]), sys.argv[2] == "one"
    sides = Sides()
    with tempfile.TemporaryDirectory(prefix="fakedev-bench-") as name:
        place = Path(name)
        with one_cpu(wanted=pinned):
            calls = _calls(sides, rounds, place)
        programs = {
            title: _program(sides, max(rounds // rarely, 2), command)
            for title, (rarely, command) in _commands(place).items()
        }
    print(json.dumps({"calls": calls, "programs": programs}))


def _calls(sides: Sides, rounds: int, place: Path) -> Turns:
    """Medians in microseconds of each call that `exact.c` makes."""
    other = place / "other"
    other.write_bytes(bytes(4096))
    command = [str(compile_c("exact.c", place)), str(COUNT), str(other)]
    found: Turns = {}

    def job(side: str) -> None:
        done = sides.sandboxes[side].run(
            command, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=True
        )
        for line in done.stdout.splitlines():
            title, median, _ = line.split()
            found.setdefault(title, {}).setdefault(side, []).append(int(median) / 1000)

    sides.in_turn(rounds, job)
    return found


def _commands(place: Path) -> dict[str, tuple[int, list[str]]]:
    """What to run; the number tells how much more rarely, because it takes long."""
    source = place / "hello.c"
    source.write_text(HELLO)
    commands = {
        "true": (1, ["true"]),
        "gcc of a small file": (1, ["gcc", "-o", str(place / "hello"), str(source)]),
        "find /usr -xdev": (4, ["find", "/usr", "-xdev"]),
    }
    if importlib.util.find_spec("numpy"):
        commands['python -c "import numpy"'] = (1, [sys.executable, "-c", "import numpy"])
    return commands


def _program(sides: Sides, rounds: int, command: list[str]) -> dict[str, Any]:
    """Milliseconds by side, and how many calls waited. RuntimeError when the layer changes what it does."""
    found: dict[str, Any] = {"without": [], "with": []}
    statuses = {side: sides.run(side, command)[1] for side in sides.sandboxes}  # they warm up, too
    if len(set(statuses.values())) > 1:
        raise RuntimeError(f"{' '.join(command)} ends with {statuses}")
    sides.in_turn(rounds, lambda side: found[side].append(sides.run(side, command)[0]))
    found["calls"] = _count(lambda: sides.run("with", command))
    return found


def _count(job: Callable[[], object]) -> int:
    """How many calls the listeners receive meanwhile."""
    received, receive = 0, Listener.receive

    def counting(listener: Listener) -> Notification | None:
        nonlocal received
        received += 1
        return receive(listener)

    Listener.receive = counting  # type: ignore[method-assign]
    try:
        job()
    finally:
        Listener.receive = receive  # type: ignore[method-assign]
    return received


if __name__ == "__main__":
    main()
