"""Memory hot-plug: many memory blocks, and persistent memory that goes while files of it are mapped."""

import contextlib
import mmap
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import servers
from benchmarks.arena import TIMEOUT, Arena, compile_c, one_cpu
from benchmarks.report import Report, Target, row
from fakedev.control.client import Client
from fakedev.model.errors import HostError

BLOCKS = "8,192 memory blocks"
PMEM = "Persistent memory that goes"
COUNT = 8192
FILES = 1_000
CROWD, EACH = 20, 30
PAGE = 4096
MEMORY = "sys/devices/system/memory"
MACHINE = """\
fakedev: 1
name: bench-blocks
description: A machine of 8,192 memory blocks.
kernel: {version: "6.12"}
firmware: {e820: [{range: 0x100000000+1T, type: System RAM}]}
"""
MODULES = """\
fakedev: 1
name: bench-pmem
description: A machine with files on persistent memory.
kernel: {version: "6.12"}
firmware:
  e820:
    - {range: 0x40000000+1G, type: System RAM}
    - {range: 0x100000000+1G, type: Persistent Memory}
nvdimm:
  dimms: {nmem0: {}}
  regions:
    - range: 0x100000000+1G
      mappings: [{dimm: nmem0}]
      namespaces: [{mode: fsdax, files: [{name: "file-%d", count: 1000}]}]
"""


def run(arena: Arena, report: Report) -> None:
    """Measure all of it."""
    if shutil.which("lsmem") is None:
        raise HostError("the benchmarks of memory blocks need lsmem: install util-linux")
    with one_cpu(wanted=report.pinned):
        with _served(arena, MACHINE) as (served, root):
            _list(report, served, root)
            _online(report, served, root)
        _unplug(arena, report)


@contextlib.contextmanager
def _served(arena: Arena, text: str) -> Iterator[tuple[servers.Served, Path]]:
    path = arena.directory("profile") / "machine.yaml"
    path.write_text(text, encoding="utf-8")
    with servers.wire(arena, {"kind": "profile", "path": str(path)}) as served:
        yield served, served.file.parent.parent


def _list(report: Report, served: servers.Served, root: Path) -> None:
    """Once with nothing in the kernel's cache of names, and again."""
    assert served.ready is not None
    first, *again = [_lsmem(root) for _ in range(3 if report.quick else 6)]
    names = []
    for _ in range(5 if report.quick else 15):
        before = time.perf_counter()
        found = os.listdir(root / MEMORY)  # noqa: PTH208 - names only
        names.append((time.perf_counter() - before) * 1000)
        if sum(name[-1].isdigit() for name in found) != COUNT:
            raise RuntimeError(f"there are {len(found)} names in {MEMORY}")
    built = served.ready["built"] * 1000
    report.rows += [
        row((BLOCKS, "load the profile, not cached", "time"), "ms", [built]),
        row((BLOCKS, "lsmem, the first", "time"), "ms", [first]),
        row((BLOCKS, "lsmem", "time"), "ms", again),
        row((BLOCKS, "the names of all", "time"), "ms", names),
    ]


def _lsmem(root: Path) -> float:
    """Milliseconds of one."""
    command = ["lsmem", "--all", "--bytes", "--sysroot", str(root)]
    before = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    spent = time.perf_counter() - before
    if done.returncode or str(1 << 40) not in done.stdout:
        raise RuntimeError(f"lsmem: {done.returncode} {done.stderr.strip()}")
    return spent * 1000


def _online(report: Report, served: servers.Served, root: Path) -> None:
    """One block goes offline and online, by its file and by the control socket."""
    assert served.ready is not None
    times: dict[str, list[float]] = {"state": [], "control socket": []}
    with Client(Path(served.ready["socket"]), timeout=30) as client:
        for number in range(100, 150 if report.quick else 300):
            for how, samples in times.items():
                client.call("offline", blocks=f"memory{number}")
                before = time.perf_counter()
                if how == "state":
                    (root / MEMORY / f"memory{number}/state").write_text("online_movable")
                else:
                    client.call("online", blocks=f"memory{number}", kind="online_movable")
                samples.append((time.perf_counter() - before) * 1e6)
    for how, samples in times.items():
        report.rows.append(row((BLOCKS, f"online one, by {how}", "time"), "us", samples, tail=True))


def _unplug(arena: Arena, report: Report) -> None:
    """Until the verb returns: no process can see a page of any file, and the claims are gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a mapping keeps its file open
    times, deaths, crowd = [], [], compile_c("crowd.c", arena.directory("crowd"))
    with _served(arena, MODULES) as (served, root):
        assert served.ready is not None
        with Client(Path(served.ready["socket"]), timeout=TIMEOUT) as client:
            for _ in range(2 if report.quick else 5):
                with _mapped(sorted((root / "dev/pmem-fs").glob("*/file-*"))):
                    before = time.perf_counter()
                    client.call("unplug-pmem", region="region0")
                    times.append((time.perf_counter() - before) * 1000)
                client.call("plug-pmem", region="region0")
            for _ in range(2 if report.quick else 9):
                deaths.append(_until_all_are_dead(client, crowd, root))
                client.call("plug-pmem", region="region0")
    place = (PMEM, f"unplug with {FILES:,} mapped files", "time")
    report.rows.append(row(place, "ms", times, target=Target(200)))
    place = (PMEM, f"the last of {CROWD} processes with {EACH} files each is dead", "time")
    report.rows.append(row(place, "ms", deaths, target=Target(100)))


def _until_all_are_dead(client: Client, crowd: Path, root: Path) -> float:
    """Milliseconds from the start of the verb, with processes that look at all their files again and again."""
    files = sorted((root / "dev/pmem-fs").glob("*/file-*"))[:EACH]
    command = [str(crowd), str(CROWD), *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the crowd could not map its files")
        before = time.perf_counter()
        client.call("unplug-pmem", region="region0")
        dead = process.stdout.readline()
        spent = time.perf_counter() - before
    if dead != f"{CROWD}\n":
        raise RuntimeError(
            f"SIGBUS has ended {dead.strip()} of {CROWD} processes whose files have gone"
        )
    return spent * 1000


@contextlib.contextmanager
def _mapped(files: list[Path]) -> Iterator[None]:
    if len(files) != FILES:
        raise RuntimeError(f"{len(files)} files are there, not {FILES}")
    with contextlib.ExitStack() as stack:
        for path in files:
            with path.open("r+b") as file:
                page = stack.enter_context(mmap.mmap(file.fileno(), PAGE))
            page[0] = 1
        yield
