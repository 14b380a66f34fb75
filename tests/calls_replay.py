"""Puts recorded calls to the nodes of a machine: what a node does not answer, a regular file of the host does."""

import contextlib
import ctypes
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pci_tree import Setup, node_at, write

from fakedev.control.verbs import Verbs
from fakedev.model.errors import FakedevError
from fakedev.model.machine import Machine
from fakedev.views.calls import Answer, IoctlCall, MapCall, SeekCall
from fakedev.views.node import Node, Refused
from fakedev.views.pci.proc_file import PCIIOC_MMAP_IS_MEM

Record = dict[str, Any]
PROT = {"NONE": 0, "R": 1, "W": 2, "RW": 3, "RX": 5}
MAP = {
    "SHARED": 1, "PRIVATE": 2, "SHARED_VALIDATE": 3, "SYNC": 0x80000, "POPULATE": 0x8000, "LOCKED": 0x2000,
    "HUGETLB": 0x40000, "32BIT": 0x40,
}  # fmt: skip
NAMES = {"fadvise": "fadvise64"}
BY_NAME = ("sendfile", "splice", "copy_file_range", "fsync", "ftruncate", "fadvise")
FIONREAD = 0x541B
_MODULE = re.compile(r"(modprobe|rmmod) (\w[\w-]*)")
_BAR = re.compile(r"(?P<bdf>[0-9a-f:.]+)-(?P<file>resource\d)\(")
_SEEK = re.compile(r"(resource0|config|iomem|vendor).*lseek-(end|set-0x[0-9a-f]+)$")
DEVMEM, OLD = "/dev/mem", "old fd"
DEVICES, EDU, IVSHMEM = "/sys/bus/pci/devices", "0000:00:05.0", "0000:00:02.0"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_size_t]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Replay:
    """One machine, and the descriptors that were open in the recording, as nodes."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tree = Setup(machine).tree
        self.verbs = Verbs(machine)
        self.held: dict[str, Node] = {}
        self.device = ""
        self.position = 0

    # -- what happened around the calls -----------------------------------------------------------

    def happen(self, record: Record) -> None:
        """Do what changed the recorded machine: modules, the monitor's hot-plug, writes to sysfs."""
        args = record["args"]
        self.device = args.get("dev", self.device)
        if record["op"] == "shell":
            for verb, name in _MODULE.findall(args["cmd"]):
                self._verb(verb, name=name)
        elif record["op"] == "qemu_monitor" and "hp0" in args.get("cmd", ""):
            self._verb("plug" if "_add" in args["cmd"] else "unplug", device="0000:01:00.0")
        elif record["op"] == "state" and "bdf" in args:
            bdf = args["bdf"]
            for path in (f"/proc/bus/pci/{bdf[5:7]}/{bdf[8:]}", f"{DEVICES}/{bdf}/config"):
                self.held[path] = self.node(path)
        elif record["op"] == "open+write" and record["errno"] != "EACCES":
            with contextlib.suppress(Refused):  # what writes answer is for other tests
                write(self.node(args["path"]), args["value"])

    def _verb(self, verb: str, **values: str) -> None:
        with contextlib.suppress(FakedevError):  # a module of something that is not simulated
            self.verbs(verb, values, lambda: False)

    # -- which file -------------------------------------------------------------------------------

    def node(self, path: str) -> Node:
        """The node at a path; /sys/bus/pci/devices has links."""
        if path.startswith(f"{DEVICES}/"):
            bdf, _, rest = path.removeprefix(f"{DEVICES}/").partition("/")
            path = f"{self.machine.pci.devices[bdf].path}/{rest}"
        return node_at(self.tree, path)

    def place(self, record: Record) -> tuple[Node, int] | None:
        """The file that a call was about, and the flags that it was open with."""
        path, status = self._path(record)
        if path is None:
            return None
        if path == OLD:
            return self.held[OLD], status
        held = record["case"].startswith("removed ") and path != DEVMEM
        if not held:
            self.held[path] = self.node(path)
        if "/resource" in path and "rescanned" not in record["case"]:
            self.held[OLD] = self.held[path]
        return self.held[path], status

    def _path(self, record: Record) -> tuple[str | None, int]:
        text, case = record["args"].get("fd", ""), record["case"]
        words = [word for word in re.split(r"[ |]", text) if word.startswith("O_")]
        status = sum(getattr(os, word) for word in words) if words else os.O_RDWR
        if "ro-fd" in case:
            status = os.O_RDONLY
        if bar := _BAR.match(case):
            return f"{DEVICES}/{bar['bdf']}/{bar['file']}", status
        if text.startswith("resource"):
            return f"{DEVICES}/{EDU if case.startswith('edu') else IVSHMEM}/{text}", status
        if text.startswith(("/sys", "/proc", OLD)):
            return text, status
        if text.startswith(("/dev/mem", "O_")) or record["phase"] in ("fd", "lowram", "open"):
            return DEVMEM, status
        if "old-resource-fd" in case or "lseek-resource-fd" in case:
            return OLD, status
        named = re.match(r"(config|vendor|iomem|resource0|remove|proc-bus-pci)-", case)
        return None if named is None or text else self._named(named[1]), status

    def _named(self, name: str) -> str:
        if name == "iomem":
            return "/proc/iomem"
        if name == "proc-bus-pci":
            return f"/proc/bus/pci/{EDU[5:7]}/{EDU[8:]}"
        return f"{DEVICES}/{self.device if name == 'config' and self.device else EDU}/{name}"

    # -- the calls --------------------------------------------------------------------------------

    def outcome(self, record: Record) -> tuple[int, str | None] | None:
        """(result, errno) here, None for a record that is no call on one of our files."""
        call = _CALLS.get(record["op"])
        placed = self.place(record) if call else None
        return call(self, record, *placed) if call and placed else None

    def mmap(self, record: Record, node: Node, status: int) -> tuple[int, str | None]:
        args = {"off": "0x0", "len": "0x1000", "prot": "R", "flags": "SHARED", **record["args"]}
        flags = sum(MAP[word] for word in args["flags"].split("|") if word)
        state: dict[str, int] = {}
        if "without-ioctl" not in record["case"]:
            node.ioctl(IoctlCall(PCIIOC_MMAP_IS_MEM, 0, state))
        offset, length = int(args["off"], 16), int(args["len"], 16)
        call = MapCall(offset, length, PROT[args["prot"]], flags, status, state)
        answer = node.mmap(call)
        return _shown(answer) if answer is not None else (0 if not (e := on_host(call)) else -1, e)

    def lseek(self, record: Record, node: Node, _: int) -> tuple[int, str | None]:
        args = record["args"]
        if args:
            call = SeekCall(_signed(int(args["offset"], 16)), args["whence"], self.position)
            self.position = int(record["extra"]["pos_after"], 16)
        elif found := _SEEK.match(record["case"]):
            whence = os.SEEK_END if found[2] == "end" else os.SEEK_SET
            call = SeekCall(int(found[2][4:] or "0", 16), whence, 0)
        else:
            call = SeekCall(0, os.SEEK_END if record["op"].endswith("END") else os.SEEK_SET, 0)
        answer = node.seek(call)
        if answer is None:
            return (call.offset, None) if call.whence == os.SEEK_SET else (-1, "EINVAL")
        return _shown(answer)

    def ioctl(self, record: Record, node: Node, _: int) -> tuple[int, str | None]:
        command = PCIIOC_MMAP_IS_MEM if "MMAP_IS_MEM" in record["case"] else FIONREAD
        return _shown(node.ioctl(IoctlCall(command, 0, {})) or Answer(0, "file_ioctl"))

    def by_name(self, record: Record, node: Node, _: int) -> tuple[int, str | None]:
        name = NAMES.get(record["op"], record["op"])
        return _shown(node.call(name) or Answer(0, "the host"))

    def stat(self, record: Record, node: Node, _: int) -> tuple[int, str | None]:
        """Checks mode and size as well."""
        attr = node.look() or node.attr()
        shown = {**record["extra"], **record["extra"].get("st", {})}
        if "size" in shown:
            assert attr.size == shown["size"], record
        if "rdev" in shown:
            assert stat.S_IFMT(attr.mode) == stat.S_IFCHR
            assert f"{os.major(attr.rdev)}:{os.minor(attr.rdev)}" == shown["rdev"]
        return 0, None


_Call = Callable[[Replay, Record, Node, int], tuple[int, str | None]]
_CALLS: dict[str, _Call] = {
    "mmap": Replay.mmap, "mmap+touch": Replay.mmap, "lseek": Replay.lseek, "lseek-END": Replay.lseek,
    "ioctl": Replay.ioctl, "fstat": Replay.stat, "stat": Replay.stat, **dict.fromkeys(BY_NAME, Replay.by_name),
}  # fmt: skip


def on_host(call: MapCall) -> str | None:
    """The errno of this mmap(2) of a regular file of the host."""
    with _descriptor(call.status & os.O_ACCMODE) as fd:
        at = _libc.mmap(None, call.length, call.prot, call.flags, fd, call.offset)
        if at in (None, ctypes.c_void_p(-1).value):
            return errno.errorcode[ctypes.get_errno()]
        _libc.munmap(at, call.length)
        return None


@contextlib.contextmanager
def _descriptor(mode: int) -> Iterator[int]:
    fd = os.memfd_create("regular")
    try:
        again = os.open(f"/proc/self/fd/{fd}", mode)
        try:
            yield again
        finally:
            os.close(again)
    finally:
        os.close(fd)


def _shown(answer: Answer) -> tuple[int, str | None]:
    if -4095 <= answer.value < 0:
        name = errno.errorcode[-answer.value]
        return -1, "EOPNOTSUPP" if name == "ENOTSUP" else name  # one number
    return answer.value, None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def differences(replay: Replay, records: Iterable[Record]) -> tuple[int, list[str]]:
    """How many calls were judged, and those that came out another way."""
    count, found = 0, []
    for record in records:
        replay.happen(record)
        here = replay.outcome(record)
        if here is None:
            continue
        count += 1
        if here != (record["result"], record["errno"]):
            found.append(
                f"{record['phase']}: {record['case']}: {record['op']}: {here}, recorded "
                f"{record['result']}, {record['errno']}"
            )
    return count, found
