"""The same accesses as on a real Debian 6.1 kernel, by a program inside the machine.

Each record is one call on a QEMU machine (512 MiB, no driver bound). The agent repeats it on `pc-q35`:
result, errno and first bytes must be the same. What a real kernel refuses at mmap(2), a FUSE file can only
refuse at the first touch, so a recorded errno of mmap is equal to a SIGBUS here. (The layer that answers
mmap itself comes later.)
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import DATA, Agent, Fault, Host, Refusal, Running, machine_with_agent, records

from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.kcore import Kcore

Record = dict[str, Any]
FLAGS = {"O_RDONLY": 0, "O_WRONLY": 1, "O_RDWR": 2, "O_SYNC": 0o4010000}
PROT = {"R": 1, "RW": 3, "W": 2}
MAP = {"SHARED": 1, "PRIVATE": 2}
SIGBUS, BUS_ADRERR = 7, 2
FUNCTION = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : [0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
PATTERN = bytes(range(0x50, 0x90))


def _bars() -> list[tuple[int, int]]:
    """What `/proc/iomem` names after a PCI function: first and last address of each BAR."""
    found = map(FUNCTION.match, (DATA / "iomem-root-boot.txt").read_text().splitlines())
    return [(int(match[1], 16), int(match[2], 16)) for match in found if match]


BARS = _bars()


def in_bar(start: int, size: int) -> bool:
    """Whether a byte of the range belongs to a PCI function, whose registers come with its model."""
    return any(start <= last and first < start + size for first, last in BARS)


def refusal(record: Record) -> Any:
    return Refusal(record["errno"])


class Replay:
    """Repeats records; `differences` says where the answer was another one."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.files: dict[str, int] = {}
        self.count: Counter[str] = Counter()
        self.differences: list[str] = []

    def fd(self, record: Record) -> int:
        """The descriptor that the record names: `/dev/mem O_RDWR|O_SYNC`."""
        name = record["args"].get("fd", "/dev/mem O_RDWR")
        if name not in self.files:
            path, _, words = name.partition(" ")
            flags = sum(FLAGS[word] for word in (words or "O_RDWR").split("|"))
            self.files[name] = self.agent.open(path, flags)
        return self.files[name]

    def compare(self, record: Record, what: str, recorded: Any, here: Any) -> None:
        if recorded == here:
            return
        op = f"{record['seq']} {record['case']}: {record['op']} {record['args']}"
        self.differences.append(f"{op}: {what}: recorded {recorded!r}, here {here!r}")

    def repeat(self, record: Record) -> None:
        before = len(self.differences)
        kind = getattr(self, record["op"].replace("+", "_"))(record) or "equal"
        self.count[kind if len(self.differences) == before else "different"] += 1

    def range(self, record: Record) -> tuple[int, int]:
        return int(record["args"]["off"], 16), int(record["args"]["len"], 16)

    def pread(self, record: Record) -> str | None:
        start, size = self.range(record)
        here = self.agent("pread", self.fd(record), start, size)
        if size == 0 and record["errno"]:
            # A FUSE server is never asked about a length of 0: the kernel answers 0 by itself.
            self.compare(record, "length 0", b"", here)
            return "not comparable: length 0"
        if record["errno"]:
            self.compare(record, "errno", refusal(record), here)
            return None
        self.compare(record, "result", record["result"], len(here))
        if in_bar(start, size):
            return "data not comparable: PCI function"
        self.compare(record, "data", record.get("data", ""), here[:32].hex())
        return None

    def pwrite(self, record: Record) -> str | None:
        fd, (start, size) = self.fd(record), self.range(record)
        before = self.agent("pread", fd, start, size)
        here = self.agent("pwrite", fd, start, PATTERN[:size].hex())
        after = self.agent("pread", fd, start, size)
        if isinstance(before, bytes) and not isinstance(here, Refusal):
            self.agent("pwrite", fd, start, before.hex())
        self.compare(
            record, "result", refusal(record) if record["errno"] else record["result"], here
        )
        if in_bar(start, size):
            return "data not comparable: PCI function"
        for name, seen in (("before", before), ("after", after)):
            shown = seen[:16].hex() if isinstance(seen, bytes) else None
            self.compare(record, name, record.get("extra", {}).get(name), shown)
        return None

    def mmap_touch(self, record: Record) -> str | None:
        args, (start, size) = record["args"], self.range(record)
        protection, flags = PROT[args["prot"]], MAP[args["flags"]]
        mapped = self.agent("map", self.fd(record), start, size, protection, flags)
        if isinstance(mapped, Refusal):
            if mapped == Refusal("EOVERFLOW") and record["errno"] == "EINVAL":
                # The host ends a mapping of a regular file at offset 2^63, before any server is asked.
                return "errno not comparable: end of a file's offsets"
            self.compare(record, "mmap", refusal(record), mapped)
            return None
        try:
            return self._touch(record, mapped, start, size)
        finally:
            self.agent("unmap", mapped)

    def _touch(self, record: Record, mapped: int, start: int, size: int) -> str | None:
        first = self.agent("bytes", mapped, 0, 16)
        last_at = size - 4 & ~3
        last = self.agent("load", mapped, last_at, 4)
        if record["errno"]:
            faults = [seen for seen in (first, last) if isinstance(seen, Fault)]
            good = {Fault(SIGBUS, BUS_ADRERR, at) for at in (0, last_at)}
            self.compare(record, "SIGBUS for", True, bool(faults) and set(faults) <= good)
            return "equal: SIGBUS for an errno of mmap"
        if isinstance(first, Fault) or isinstance(last, Fault):
            self.compare(record, "touch", "no fault", (first, last))
            return None
        if in_bar(start, size):
            return "data not comparable: PCI function"
        self.compare(record, "data", record["data"], first.hex())
        self.compare(record, "last_u32", record["extra"]["last_u32"], f"0x{last:08x}")
        if record["args"].get("write"):
            return self._write(record, mapped, int.from_bytes(first[:4], "little"))
        return None

    def _write(self, record: Record, mapped: int, old: int) -> str | None:
        extra, shared = record["extra"], record["args"]["flags"] == "SHARED"
        self.compare(record, "store", 0, self.agent("store", mapped, 0, 4, old ^ 0xFFFFFFFF))
        back = self.agent("load", mapped, 0, 4)
        if shared:
            self.agent("store", mapped, 0, 4, old)
        if shared and extra["readback"] != extra["write_u32_at0"]:
            # What does not keep a store (ROM, VGA planes, nothing at all) shows it in a page that the
            # host caches until the page is written back: only a layer that sees every load can do better.
            return "load after store not comparable: nothing keeps the store"
        self.compare(record, "readback", extra["readback"], f"0x{back:08x}")
        return None


@pytest.fixture
def running(host: Host, folder: Path) -> Iterator[Running]:
    with machine_with_agent(host, folder, "pc-q35") as started:
        yield started


def test_matrix_at_boot(running: Running) -> None:
    replay = Replay(running.agent)
    for record in records("matrix-boot"):
        replay.repeat(record)
    assert replay.differences == []
    assert replay.count == {
        "equal": 424,
        "equal: SIGBUS for an errno of mmap": 115,
        "data not comparable: PCI function": 221,
        "load after store not comparable: nothing keeps the store": 2,
        "not comparable: length 0": 2,
        "errno not comparable: end of a file's offsets": 5,
    }


def test_low_ram(running: Running) -> None:
    """Zeros to read(2) and dropped writes, the real pages to mmap(2)."""
    agent, replay = running.agent, Replay(running.agent)
    todo = {record["seq"]: record for record in records("lowram")}
    whole = todo.pop(875)
    start, size = replay.range(whole)
    low = agent.map(replay.fd(whole), start, size)
    scanned = todo.pop(876)["data"].split()
    pages = [agent("bytes", low, at, 4096) for at in range(0, size, 4096)]
    assert [f"{start + 4096 * n:x}" for n, page in enumerate(pages) if any(page)] == scanned
    for record in todo.values():
        args = record["args"]
        if record["case"] == "lowram-kcore-view":
            core = agent.open("/dev/kcore", os.O_RDONLY)
            image = Kcore(build_machine(load_profile("pc-q35"))).image
            ram = next(s for s in image.segments if s.paddr == 0x1000)
            at = image.data_offset + ram.offset + int(args["phys"], 16) - 0x1000
            seen = agent("pread", core, at, 16).hex()
            replay.compare(record, "data", record["data"], seen)
        elif record["op"] == "touch_read":
            at = int(args["phys"], 16) - start
            replay.compare(record, "data", record["data"], agent("bytes", low, at, 16).hex())
        elif record["op"] == "touch_write":
            at, value = int(args["off"], 16), int(args["value"], 16)
            assert agent("store", low, at, args["width"], value) == 0
            back = agent("load", low, at, args["width"])
            replay.compare(record, "readback", record["extra"]["readback"], hex(back))
        elif record["op"] == "pwrite":
            taken = agent("pwrite", replay.fd(record), 0x8000, "5a" * 8)
            replay.compare(record, "result", record["result"], taken)
            seen = agent("bytes", low, 0x8000 - start, 8).hex()
            replay.compare(record, "data", record["data"], seen)
        else:
            replay.repeat(record)
    assert replay.differences == []
    assert len(todo) == 14


def test_descriptors_without_read_or_write(running: Running) -> None:
    """The part of phase `fd` that maps through descriptors of other modes."""
    replay = Replay(running.agent)
    for record in records("fd"):
        if record["op"] == "mmap+touch":
            replay.repeat(record)
    assert (replay.differences, replay.count["equal"]) == ([], 4)
