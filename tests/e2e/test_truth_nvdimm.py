"""Phase `nvdimm` of the recording: the same calls, in order, by a program inside the machine.

What a real kernel refuses at mmap(2), a FUSE file can only refuse at the first touch. Two records of
device-dax cannot be repeated at all, because the file system is not asked about an mmap (KNOWN).
"""

import json
import lzma
from typing import Any

import pytest
from support import DATA, Fault, Host, Refusal, Running, machine_with_agent, need, need_sandbox

SIGBUS, BUS_ADRERR, PAGE = 7, 2, 4096
STAGES = {
    "modprobe-nfit": ("modprobe", {"name": "nfit"}, "1-pmem"),
    "ndctl-devdax": ("dax-mode", {"name": "namespace0.0", "mode": "devdax"}, "2-devdax"),
    "daxctl-system-ram": ("dax-mode", {"name": "dax0.0", "mode": "kmem"}, "3-kmem"),
}
#: Records with another answer here, and why.
NO_MMAP = "mmap of a FUSE file cannot be refused by its alignment or as private"
KNOWN = {1735: NO_MMAP, 1736: NO_MMAP}
#: Records that need no call, or are compared elsewhere (test_kcore_truth).
KCORE = "kcore"
SKIPPED = {1711: "a note", 1718: "fork only", 1723: "ndctl", 1742: "pmem1",
           **dict.fromkeys(range(1724, 1728), KCORE)}  # fmt: skip


def records() -> list[dict[str, Any]]:
    """The recorded answers."""
    text = lzma.decompress((DATA / "truth-nd" / "records.jsonl.xz").read_bytes())
    return [json.loads(line) for line in text.splitlines()]


def listing(text: str) -> list[str]:
    """/proc/iomem without the kernel, whose place is random."""
    return [line for line in text.splitlines() if "Kernel" not in line]


class Replay:
    """Repeats records in one machine; `judged` says what came of each."""

    def __init__(self, running: Running) -> None:
        self.running, self.agent = running, running.agent
        self.memory = self.agent.open()
        self.dax = self.view = -1
        self.old = self.agent.map(self.memory, 0x150000000, 0x10000)
        self.judged: dict[int, tuple[Any, Any]] = {}

    def repeat(self, record: dict[str, Any]) -> tuple[Any, Any]:
        """What the record says, and what it is here."""
        kind, args = record["op"], record["args"]
        if kind == "shell":
            verb, values, stage = STAGES[record["case"]]
            self.running.client.call(verb, **values)
            text = (DATA / "truth-nd" / f"iomem-nd-{stage}.txt").read_text()
            here = self.running.client.call("iomem")["text"]
            return listing(text), listing(here)
        offset = int(args.get("off", "0"), 16)
        if kind == "pread":
            return Refusal(record["errno"]), self.agent("pread", self.memory, offset, 16)
        if kind == "mmap+touch":
            there = self.agent.map(self.memory, offset, PAGE)
            data = self.agent("bytes", there, 0, 16)
            bus = Fault(SIGBUS, BUS_ADRERR, 0)
            return bus if record["errno"] else bytes.fromhex(record["data"]), data
        if kind == "touch_read":
            value = int.from_bytes(bytes.fromhex(record["data"] or ""), "little")
            dead = Fault(SIGBUS, BUS_ADRERR, 0)
            return dead if record["signal"] else value, self.agent("load", self.old, 0, 4)
        return self._dax(record)

    def _dax(self, record: dict[str, Any]) -> tuple[Any, Any]:
        if record["op"] == "open":
            self.dax = self.agent.open("/dev/dax0.0")
            return True, self.dax >= 0
        if record["op"] == "touch_write":
            self.agent("store", self.view, 0, 4, 0x11223344)
            return 0x11223344, self.agent("load", self.view, 0, 4)
        size, private = int(record["args"]["len"], 16), record["args"]["flags"] == "PRIVATE"
        if record["args"]["fd"] == "/dev/mem":
            return True, self.old >= 0
        try:
            made = self.agent.map(self.dax, 0, size, private=private)
        except TypeError:
            return record["errno"], "refused"
        self.view = made if record["errno"] is None else self.view
        return record["errno"], None


@pytest.fixture
def judged(host: Host, folder: Any) -> dict[int, tuple[Any, Any]]:
    need_sandbox()
    with machine_with_agent(host, folder, "pc-q35") as running:
        replay = Replay(running)
        wanted = [record for record in records() if record["seq"] not in SKIPPED]
        return {record["seq"]: replay.repeat(record) for record in wanted}


def test_the_phase(judged: dict[int, tuple[Any, Any]]) -> None:
    """Of 32 records 23 are repeated; two of them differ as KNOWN says."""
    different = {seq: pair for seq, pair in judged.items() if pair[0] != pair[1]}
    assert {seq: different[seq] for seq in different if seq not in KNOWN} == {}
    assert set(different) == set(KNOWN)
    assert len(judged) + len(SKIPPED) == len(records()) == 32


def test_what_ndctl_says(host: Host) -> None:
    """Record 1723, as far as it was kept (80 lines): modules, regions, namespaces."""
    need_sandbox()
    need("ndctl", "ndctl")
    said = next(record["data"] for record in records() if record["case"] == "ndctl-list")
    done = host.run("pc-q35", "sh", "-c", "fakedev ctl modprobe nfit >&2; ndctl list -RNDv")
    assert done.returncode == 0, done.stderr
    here = done.stdout.splitlines()
    recorded = said.splitlines()
    assert here[: len(recorded)] == recorded
