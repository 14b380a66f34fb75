"""Phase `vmem`: the driver of virtio-mem is loaded under mappings, memory comes and goes, and it is unloaded.

What was done from outside there (drivers, the monitor) is done through the control socket here.
"""

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import support

from truth.caller import Caller
from truth.compare import Kind, Known, Score, score
from truth.probe import Mapping, Probe, Record
from truth.session import Session

DATA = support.DATA / "truth-pc-q35-vmem.jsonl.xz"
PHASE = "vmem"
MEMORY = "/sys/devices/system/memory"
Ctl = Callable[..., None]

TABLES = {
    Kind.NOT_APPLICABLE: (
        Known("vmem: *: shell", 8, "done from outside; the records around it see what it does"),
        Known(
            "vmem: *: qemu_monitor", 10, "done from outside; the records around it see what it does"
        ),
        Known(
            "vmem: kcore-*: *", 10, "addresses of one boot (KASLR); compared in test_kcore_truth"
        ),
    ),
}
#: What happens outside at a record: commands of `fakedev ctl`.
ACTIONS = {
    "modprobe-virtio_mem": ("modprobe virtio_pci", "modprobe virtio_mem"),
    "online-movable": tuple(f"online --kind online_movable {n}" for n in (32, 33, 34, 43)),
    "requested-size-640M": ("virtio-mem vm0 requested-size 640M",),
    "requested-size-64M": ("virtio-mem vm0 requested-size 64M",),
    "offline-vmem-block": ("offline 32",),
    "re-online": ("online 32",),
    "requested-size-0": ("virtio-mem vm0 requested-size 0",),
    "rmmod-virtio_mem-when-empty": ("rmmod virtio_mem",),
    "modprobe-virtio_mem-again": ("modprobe virtio_mem",),
    "requested-size-272M": ("virtio-mem vm0 requested-size 272M",),
    "rmmod-virtio_mem-with-memory": ("rmmod virtio_mem",),
    "modprobe-virtio_mem-third": ("modprobe virtio_mem",),
}
#: The mapping that a touch goes through, by the last words of its case, and where in it.
TOUCHES = {
    "touch-0": ("16M", 0), "readback": ("16M", 0x1000), "touch-old": ("16M", 0),
    "touch-old-1000": ("16M", 0x1000), "touch-900M(unplugged)": ("900M", 0),
    "touch-old-900M": ("900M", 0), "span-before": ("span", 0), "span-inside": ("span", 0x2000),
}  # fmt: skip


def recorded() -> list[Record]:
    """The recorded answers, in order; what a shell or a write shows is not compared."""
    found = []
    for record in map(json.loads, lzma.decompress(DATA.read_bytes()).splitlines()):
        if record["phase"] == PHASE:
            shown = record["op"] not in {"shell", "qemu_monitor", "pwrite"}
            data = record.get("data") if shown else None
            found.append({"extra": {}, "signal": None, **record, "data": data})
    return found


class Replay:
    """Repeats the records one by one; `maps` are those that stay."""

    def __init__(self, root: Probe, user: Probe, ctl: Ctl) -> None:
        self.root, self.user, self.ctl = root, user, ctl
        self.fd = root.fd("/dev/mem")
        self.maps: dict[str, Mapping] = {}
        self.child: Caller | None = None

    def repeat(self, record: Record) -> None:
        for command in ACTIONS.get(record["case"], ()):
            self.ctl(*command.split())
        method = getattr(self, record["op"].replace("+", "_"), None)
        if method is not None and not record["case"].startswith("kcore"):
            method(record["case"], record["args"])

    def mmap(self, case: str, args: dict[str, Any]) -> None:
        offset, length = int(args["off"], 16), int(args["len"], 16)
        made = self.root.map(case, self.fd, offset, length, args["prot"], args["flags"], offset)
        name = "span" if "span" in case else case.removeprefix("premodprobe-map-")[:4].rstrip("(")
        if made is not None:
            self.maps[name.removesuffix("u")] = made

    def touch_read(self, case: str, args: dict[str, Any]) -> None:
        name, offset = TOUCHES[case.partition("-")[2]]
        self.root.touch(case, self.maps.get(name), offset)

    def touch_write(self, case: str, args: dict[str, Any]) -> None:
        self.root.store(case, self.maps["16M"], 0x1000, int(args["value"], 16))

    def child_touch_read(self, case: str, args: dict[str, Any]) -> None:
        if self.child is None:
            self.child = self.root.child()
        self.root.child_touch(case, self.child, self.maps["16M"].address)

    def fork(self, case: str, args: dict[str, Any]) -> None:
        self.root.fork(case)

    def pread(self, case: str, args: dict[str, Any]) -> None:
        self.root.pread(case, self.fd, int(args["off"], 16), int(args["len"], 16))

    def pwrite(self, case: str, args: dict[str, Any]) -> None:
        size = int(args["len"], 16)
        self.root.write(case, "pwrite", self.fd, bytes(size), int(args["off"], 16))

    def mmap_touch(self, case: str, args: dict[str, Any]) -> None:
        offset, length = int(args["off"], 16), int(args["len"], 16)
        self.root.map_and_touch(case, self.fd, offset, length, args["prot"], args["flags"])

    def open_read(self, case: str, args: dict[str, Any]) -> None:
        (self.user if case.endswith("-as-user") else self.root).read_file(case, args["path"])

    def open_write(self, case: str, args: dict[str, Any]) -> None:
        who = self.user if case.endswith("-as-user") else self.root
        who.write_file(case, args["path"], args["value"])


def replay(host: support.Host, folder: Path) -> Score:
    """The phase in a machine of `pc-q35`, after what was done to its persistent memory."""
    records: list[Record] = []
    with (
        Session(host, folder, "pc-q35") as root,
        Session(host, folder, "pc-q35", role="user") as user,
    ):

        def ctl(*words: str) -> None:
            done = root.ctl(*words)
            assert done.returncode == 0, (words, done.stderr)

        ctl("modprobe", "nfit")
        ctl("dax-mode", "namespace0.0", "kmem")
        probes = Probe(root.caller, records, PHASE), Probe(user.caller, records, PHASE)
        replayed = Replay(*probes, ctl)
        for record in recorded():
            replayed.repeat(record)
    return score(recorded(), records, TABLES)
