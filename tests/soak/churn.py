"""Functions come and go while lspci, find and processes that map BARs look at them."""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from support import AGENT_SOURCE, TIMEOUT, Host, Running, compiled

ASKER = Path(__file__).parent / "asker.py"
SOURCE = AGENT_SOURCE.parent / "visitors.c"
CALLS = AGENT_SOURCE.parent / "exact_storm.c"
PCI = "/sys/bus/pci"
DEVICES = f"{PCI}/devices"
EDU, NIC, HOTPLUG = "0000:00:05.0", "0000:00:03.0", "0000:01:00.0"
VIEWS = (
    f"{DEVICES}/{EDU}/resource0@0",
    f"{DEVICES}/{NIC}/resource0@0",
    f"{DEVICES}/{HOTPLUG}/resource0@0",
    "/dev/mem@0xfea00000",
    "/dev/mem@0xfeb40000",
)
LOOKERS = {
    "calls": "$calls threads 8",  # of the exact layer
    "lspci": "lspci -vvvxxxx",
    "tree": "lspci -tv",
    "find": f"find {PCI}/ /sys/devices/pci0000:00 /proc/bus/pci -ls",
    "grep": f"grep -rs . {PCI}/devices/*/vendor {PCI}/devices/*/resource",
}


class Report(NamedTuple):
    """Rounds of verbs, turns of each looker, and the server's descriptors and kilobytes at the ends.

    `visits`: turns, mappings that were touched, SIGBUS, and refusals of the processes that mapped.
    """

    rounds: int
    visits: list[int]
    looks: dict[str, int]
    bad: list[str]
    descriptors: tuple[int, int]
    memory: tuple[int, int]


def _script(folder: Path, log: Path) -> str:
    """Lookers in the background, each of which notes the status of every turn; then the asker ("$@")."""
    views = " ".join(map(shlex.quote, VIEWS))
    visitors = compiled(SOURCE, folder)
    lookers = [
        f"while :; do timeout -s KILL 30 {look} > /dev/null 2>&1; echo $? >> {log}/{name}; done &"
        for name, look in LOOKERS.items()
    ]
    return "\n".join(
        [
            f"calls={compiled(CALLS, folder)}",
            f"mkfifo {log}/end",
            f"{visitors} 4 {views} < {log}/end > {log}/visitors & visitors=$!",
            *lookers,
            f'exec 9> {log}/end; "$@"; exec 9>&-; wait $visitors',
        ]
    )


class Churn:
    """The verbs, each followed by what must be true at once."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def ask(self, *words: str) -> tuple[Any, str | None]:
        """What the asker says: a value, or an errno."""
        self.running.send(json.dumps(words) + "\n")
        value, errno = json.loads(self.running.receive(seconds=TIMEOUT))
        return value, errno

    def write(self, path: str, value: str) -> str | None:
        """The errno of writing to a file of the bus, None for success."""
        return self.ask("write", f"{PCI}/{path}", value)[1]

    def good(self, path: str, value: str) -> None:
        assert self.write(path, value) is None, (path, value)

    def ctl(self, *words: str) -> None:
        done = self.running.ctl(*words)
        assert done.returncode == 0, done.stderr

    def there(self, path: str) -> bool:
        return bool(self.ask("exists", path)[0])

    def names(self, path: str) -> list[str]:
        """Entries of a directory; none where it is not there."""
        return self.ask("names", path)[0] or []

    def resources(self, start: int) -> list[str]:
        """The names of /proc/iomem that an address is in."""
        lines = re.findall(r"([0-9a-f]+)-([0-9a-f]+) : (.*)", self.ask("read", "/proc/iomem")[0])
        return [name for first, last, name in lines if int(first, 16) <= start <= int(last, 16)]

    def present(self, bdf: str, *, yes: bool) -> None:
        """Every way to see that a function is there says the same."""
        seen = {
            "link": self.there(f"{DEVICES}/{bdf}"),
            "vendor": self.there(f"{DEVICES}/{bdf}/vendor"),
            "resource": self.there(f"{DEVICES}/{bdf}/resource0"),
            "name": bdf in self.names(DEVICES),
            "proc": self.there(f"/proc/bus/pci/{bdf[5:7]}/{bdf[8:]}"),
            "procname": bdf[8:] in self.names(f"/proc/bus/pci/{bdf[5:7]}"),
            "iomem": f" : {bdf}\n" in self.ask("read", "/proc/iomem")[0],
        }
        assert set(seen.values()) == {yes}, (bdf, yes, seen)

    def bound(self, bdf: str, driver: str, *, yes: bool) -> None:
        link = self.ask("link", f"{DEVICES}/{bdf}/driver")[0] or ""
        bar = int(self.ask("read", f"{DEVICES}/{bdf}/resource")[0].split()[0], 16)
        seen = {
            "link": Path(link).name == driver,
            "back": self.there(f"{PCI}/drivers/{driver}/{bdf}"),
            "name": bdf in self.names(f"{PCI}/drivers/{driver}"),
            "iomem": driver in self.resources(bar),
        }
        assert set(seen.values()) == {yes}, (bdf, driver, yes, seen)

    def bind_and_unbind(self) -> None:
        self.good("drivers/e1000/unbind", NIC)
        self.bound(NIC, "e1000", yes=False)
        self.good("drivers/e1000/bind", NIC)
        self.bound(NIC, "e1000", yes=True)
        assert self.write("drivers/e1000/bind", NIC) == "EBUSY"

    def remove_and_rescan(self) -> None:
        for bdf in (EDU, NIC):
            self.good(f"devices/{bdf}/remove", "1")
            self.present(bdf, yes=False)
        self.good("rescan", "1")
        for bdf in (EDU, NIC):
            self.present(bdf, yes=True)
        self.bound(NIC, "e1000", yes=True)

    def unplug_and_plug(self) -> None:
        self.ctl("unplug", HOTPLUG)
        self.present(HOTPLUG, yes=False)
        self.ctl("plug", HOTPLUG)
        self.present(HOTPLUG, yes=True)

    def load_and_unload(self) -> None:
        self.ctl("rmmod", "e1000")
        assert not self.there(f"{PCI}/drivers/e1000")
        self.ctl("modprobe", "e1000")
        self.bound(NIC, "e1000", yes=True)


def _memory(pid: int) -> int:
    """VmRSS in kilobytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def churn(
    host: Host, folder: Path, seconds: float, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Run all verbs in turn for so long. AssertionError where something stale is seen."""
    log = host.runtime / f"churn-{time.monotonic_ns()}"
    log.mkdir()
    command = ("sh", "-c", _script(folder, log), "sh", sys.executable, str(ASKER))
    with Running(host, "pc-q35", *command, options=["--exact"]) as running:
        work = Churn(running)
        pid, rounds, early = running.pid, 0, (0, 0)
        work.ctl("modprobe", "e1000")
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds:
            for action in (
                work.bind_and_unbind,
                work.remove_and_rescan,
                work.unplug_and_plug,
                work.load_and_unload,
            ):
                action()
            rounds += 1
            if spent < seconds * 0.3 or early == (0, 0):
                early = (_descriptors(pid), _memory(pid))
            if rounds % 100 == 0:
                say(f"churn: {rounds} rounds, {_memory(pid)} kB, {_descriptors(pid)} descriptors")
        late = (_descriptors(pid), _memory(pid))
    turns = {name: _statuses(log / name) for name in LOOKERS}
    bad = [
        f"{name} ended with {status}"
        for name, statuses in turns.items()
        for status in statuses
        if status >= (1 if name == "calls" else 124)
    ]
    visits = [int(word) for word in (log / "visitors").read_text().split()[1:]]
    looks = {name: len(statuses) for name, statuses in turns.items()}
    return Report(rounds, visits, looks, bad, (early[0], late[0]), (early[1], late[1]))


def _statuses(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []
