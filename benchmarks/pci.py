"""PCI: what tools that walk /sys/bus/pci wait for, and what a page costs that two files show."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks import pci_machines, servers
from benchmarks.arena import TIMEOUT, Arena, compile_c, one_cpu
from benchmarks.report import Report, Target, ratio, row
from fakedev.model.errors import HostError

LISTING = "lspci of `workstation`"
ABSENT = "65,536 look-ups in /sys/bus/pci/devices"
ALIASES = "One page through /dev/mem and resource0"
MANY = "A machine of 4,096 functions"
DEVICES = "sys/bus/pci/devices"
# Files behind which there is more than text: a copy of the tree has them empty.
_MAPPED = re.compile(r"resource[0-5](_wc)?|rom")


def run(arena: Arena, report: Report) -> None:
    """Measure all four."""
    if shutil.which("lspci") is None:
        raise HostError("the benchmarks of PCI need lspci: install pciutils")
    client = compile_c("pci.c", arena.path)
    with one_cpu(wanted=report.pinned):
        with servers.wire(arena, {"kind": "profile", "path": "workstation"}) as served:
            root = served.file.parent.parent
            _listing(arena, report, root)
            _absent(client, report, root)
        _aliases(arena, client, report)
        _many(arena, report)


def _lspci(root: Path, *options: str) -> tuple[float, str]:
    """Milliseconds of lspci on the tree at `root`, and what it printed. RuntimeError when it fails."""
    command = ["lspci", "-O", f"sysfs.path={root}/sys/bus/pci", *options]
    before = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    spent = time.perf_counter() - before
    if done.returncode or not done.stdout:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode} {done.stderr.strip()}")
    return spent * 1000, done.stdout


def _listing(arena: Arena, report: Report, root: Path) -> None:
    trees = {"fakedev": root, "tmpfs": arena.directory("plain")}
    _copy(root, trees["tmpfs"])
    times: dict[str, list[float]] = {who: [] for who in trees}
    for count in range(-1, 5 if report.quick else 15):
        printed = set()
        for who, tree in trees.items():
            spent, text = _lspci(tree, "-vvvxxxx")
            printed.add(text)
            if count >= 0:  # the first one warms up
                times[who].append(spent)
        if len(printed) > 1:
            raise RuntimeError("lspci shows something else of a copy of the tree")
    for who, samples in times.items():
        report.rows.append(row((LISTING, "lspci -vvvxxxx", who), "ms", samples))
    place = (LISTING, "lspci -vvvxxxx", "fakedev / tmpfs")
    report.rows.append(ratio(place, times["fakedev"], times["tmpfs"], Target(3)))


def _copy(root: Path, into: Path) -> None:
    """The PCI part of a tree as plain files, with their content as root reads it."""
    tops = [root / "sys/bus/pci", *(root / "sys/devices").glob("pci*")]
    for top in tops:
        for folder, directories, files in os.walk(top):
            there = into / Path(folder).relative_to(root)
            there.mkdir(parents=True, exist_ok=True)
            for name in [*directories, *files]:
                _copy_one(Path(folder) / name, there / name)


def _copy_one(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif not source.is_dir():
        data = b""
        with contextlib.suppress(OSError):  # write-only, or its text is an error
            data = b"" if _MAPPED.fullmatch(source.name) else source.read_bytes()
        target.write_bytes(data)


def _absent(client: Path, report: Report, root: Path) -> None:
    """Look up every address of domain 0; the second pass finds the answers in the kernel."""
    first, second, absent = _client(client, "absent", root / DEVICES)
    who = f"{absent:,} absent"
    report.rows += [
        row((ABSENT, "first pass", who), "ms", [first / 1e6], target=Target(2000)),
        row((ABSENT, "second pass", who), "ms", [second / 1e6], target=Target(300)),
    ]


def _client(client: Path, *words: object) -> list[int]:
    done = subprocess.run(
        [str(client), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pci {' '.join(map(str, words))}: {done.stderr.strip()}")
    return [int(word) for word in done.stdout.split()]


def _aliases(arena: Arena, client: Path, report: Report) -> None:
    """A round: a store through each file, so two faults, and two recalls from the other."""
    rounds = 2_000 if report.quick else 10_000
    profile = pci_machines.write(arena.directory("profile"), "bench-board", pci_machines.board())
    times: dict[str, list[float]] = {"round": [], "fault": [], "recall": [], "parts": []}
    with servers.wire(arena, {"kind": "profile", "path": str(profile)}) as served:
        resource = served.file.parent.parent / DEVICES / pci_machines.BOARD / "resource0"
        words = (served.file, pci_machines.BAR, resource, 0, rounds)
        for _ in range(3 if report.quick else 9):
            stores, recalls, reads = (ns / rounds / 1000 for ns in _client(client, "parts", *words))
            (alternating,) = _client(client, "alternate", *words)
            times["round"].append(alternating / rounds / 1000)
            times["fault"].append(stores)
            times["recall"].append(recalls - reads)
            times["parts"].append(2 * (stores + recalls - reads))
    for what, name in (
        ("fault", "a store that faults, no other has the page"),
        ("recall", "a recall: pread of a page that the other has, less a pread"),
        ("parts", "two of each"),
        ("round", "a round: a store through each"),
    ):
        report.rows.append(row((ALIASES, name, "time"), "us", times[what]))
    place = (ALIASES, "a round, to two of each", "time")
    report.rows.append(ratio(place, times["round"], times["parts"], Target(2)))


def _many(arena: Arena, report: Report) -> None:
    """Load the profile without its cache, and list everything."""
    text = pci_machines.crowd()
    profile = pci_machines.write(arena.directory("profile"), "bench-crowd", text)
    loads, lists = [], []
    for _ in range(2 if report.quick else 5):
        with servers.wire(arena, {"kind": "profile", "path": str(profile)}) as served:
            assert served.ready is not None
            loads.append(served.ready["built"] * 1000)
            lists.append(_lspci(served.file.parent.parent)[0])
    report.rows += [
        row((MANY, "load the profile, not cached", "time"), "ms", loads, target=Target(2000)),
        row((MANY, "lspci", "time"), "ms", lists, target=Target(2000)),
    ]
