"""One memory behind every path, against a sequential model (`aliases.c`)."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support import AGENT_SOURCE, Host, compiled

SOURCE = AGENT_SOURCE.parent / "aliases.c"
#: pc-q35 with memory above its BARs, so that read(2) and write(2) of /dev/mem reach them.
GROWN = str(AGENT_SOURCE.parents[1] / "grown.yaml")
#: FD-9000's FPGA, and a prefetchable BAR of 16 MiB.
FPGA = ("/dev/mem@0xd8100000", "/sys/bus/pci/devices/0000:04:00.0/resource0@0")
_SHARED = "/sys/bus/pci/devices/0000:00:02.0/resource2"
IVSHMEM = ("/dev/mem@0xfb000000:rw", f"{_SHARED}@0", f"{_SHARED}_wc@0")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Tally(NamedTuple):
    """What the processes did and met."""

    operations: int
    wrong: int
    failures: int
    said: str


@contextlib.contextmanager
def dropping_caches(every: float = 0.05) -> Iterator[list[int]]:
    """The kernel forgets clean pages now and then, where the host lets us; yields how often it did."""
    stop, count = threading.Event(), [0]

    def drop() -> None:
        while not stop.wait(every):
            try:
                DROP_CACHES.write_text("1")
            except OSError:
                return
            count[0] += 1

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


def _done(
    host: Host, folder: Path, profile: str, words: list[str], seconds: float
) -> subprocess.CompletedProcess[str]:
    return host.run(profile, compiled(SOURCE, folder), *words, timeout=seconds)


def ping_pong(host: Host, folder: Path, turns: int, *, seconds: float) -> None:
    """Two processes hand a word over, `turns` times each. AssertionError, or TimeoutExpired for a hang."""
    done = _done(host, folder, "fd-9000", ["pong", str(turns), *FPGA], seconds)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{2 * turns}\n")


def at_random(host: Host, folder: Path, seconds: float, *, seed: int, processes: int = 8) -> Tally:
    """Processes do anything through three files."""
    words = ["random", str(seconds), str(seed), str(processes), "4", *IVSHMEM]
    with dropping_caches():
        done = _done(host, folder, GROWN, words, seconds * 2 + 30)
    assert done.returncode == 0, done.stderr
    operations, wrong, failures = (int(word) for word in done.stdout.split())
    return Tally(operations, wrong, failures, done.stderr)
