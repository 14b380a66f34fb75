"""What the phases share: each function does one thing in the machine and writes one record of it.

Records have the fields of the recorded ones: case, op, args, result, errno, signal, data, extra. A mapping
that the recorded kernel refused may be made here and be met with SIGBUS at one of its pages; `faults` of the
record says so, and the mapping counts as none, as it did there.
"""

import os
from typing import Any, NamedTuple

from truth.caller import STRUCTURES, Caller, Fault, Outcome
from truth.tree import PAGE, Tree

PROT = {"R": 1, "W": 2, "RW": 3, "RX": 5}
FLAGS = {"SHARED": 1, "PRIVATE": 2}
ANONYMOUS = 0x20
AT_FDCWD = -100
OPEN = {
    name: getattr(os, name)
    for name in (
        *("O_RDONLY", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_CREAT", "O_EXCL", "O_DIRECTORY"),
        *("O_DIRECT", "O_APPEND", "O_SYNC"),
    )
}
Record = dict[str, Any]


class Mapping(NamedTuple):
    """`length` bytes at an address of the caller; `physical` is what its first byte shows."""

    address: int
    length: int
    physical: int = 0


class Probe:
    """Calls of one process, and the records of a phase."""

    def __init__(self, caller: Caller, records: list[Record], phase: str) -> None:
        self.caller, self.records, self.phase = caller, records, phase
        self.tree = Tree(caller)

    def record(
        self,
        case: str,
        op: str,
        outcome: Outcome | int = 0,
        *,
        args: Record | None = None,
        fault: Fault | None = None,
        base: int = 0,
        data: str | None = None,
        **extra: Any,
    ) -> None:
        done = Outcome(outcome) if isinstance(outcome, int) else outcome
        signal = None
        if fault is not None:
            signal = {
                "signo": fault.signo,
                "si_code": fault.code,
                "si_addr_minus_base": fault.address - base,
            }
        self.records.append(
            {
                "phase": self.phase,
                "case": case,
                "op": op,
                "args": args or {},
                "result": done.value,
                "errno": done.errno,
                "signal": signal,
                "data": data,
                "extra": extra,
            }
        )

    def state(self, case: str, op: str, result: str, **extra: Any) -> None:
        """A record whose result is a text."""
        self.record(case, op, **extra)
        self.records[-1]["result"] = result

    # -- files ------------------------------------------------------------------------------

    def fd(self, path: str, flags: int = os.O_RDWR) -> int:
        """A descriptor without a record; -1 where there is none."""
        return self.caller.call("openat", AT_FDCWD, path, flags, 0o600).value

    def open(self, case: str, path: str, flags: str = "O_RDWR", who: str = "root") -> int:
        number = 0
        for word in flags.split("|"):
            number |= OPEN[word]
        done = self.caller.call("openat", AT_FDCWD, path, number, 0o600)
        shown = done if done.errno else Outcome(0)
        self.record(case, "open", shown, args={"path": path, "flags": flags, "as": who})
        return done.value

    def close(self, *fds: int) -> None:
        for fd in fds:
            if fd >= 0:
                self.caller.call("close", fd)

    def write_file(self, case: str, path: str, value: str) -> None:
        args = {"path": path, "value": value}
        done = fd = self.caller.call("openat", AT_FDCWD, path, os.O_WRONLY)
        if fd.errno is None:
            buffer = self.caller.put(0, value.encode())
            done = self.caller.call("write", fd.value, buffer, len(value))
            self.close(fd.value)
        self.record(case, "open+write", done, args=args)

    def read_file(self, case: str, path: str) -> None:
        done = fd = self.caller.call("openat", AT_FDCWD, path, os.O_RDONLY)
        data = None
        if fd.errno is None:
            done = self.caller.call("read", fd.value, "@0", 4096)
            if done.errno is None:
                data = _shown(self.caller.show(0, done.value))
            self.close(fd.value)
        self.record(case, "open+read", done, args={"path": path}, data=data)

    def read(
        self, case: str, op: str, fd: int, size: int, offset: int | None = None, *, shown: int = 0
    ) -> Outcome:
        """read(2), or pread(2) where an offset is given; `shown` bytes of it are recorded as data."""
        if offset is None:
            done = self.caller.call("read", fd, "@0", size)
        else:
            done = self.caller.call("pread64", fd, "@0", size, offset)
        data = self.caller.show(0, min(done.value, shown)).hex() if done.value > 0 else ""
        self.record(case, op, done, data=data or None)
        return done

    def write(self, case: str, op: str, fd: int, data: bytes, offset: int) -> Outcome:
        done = self.caller.call("pwrite64", fd, self.caller.put(0, data), len(data), offset)
        self.record(case, op, done)
        return done

    def pread(self, case: str, fd: int, offset: int, size: int) -> None:
        """A read of /dev/mem into a buffer whose bytes are known, so that partial copies show."""
        self.caller.tell("fill", 0xA5, 0, size + 64)
        done = self.caller.call("pread64", fd, "@0", size, offset)
        room = self.caller.show(0, size)
        touched = len(room.rstrip(b"\xa5"))
        data = room[: min(done.value, 32)].hex() if done.value > 0 else None
        args = {"off": hex(offset), "len": hex(size)}
        self.record(case, "pread", done, args=args, data=data, buf_modified_bytes=touched)

    def stat_fd(self, case: str, fd: int) -> None:
        done = self.caller.call("fstat", fd, f"@{STRUCTURES}")
        stat: Record = {} if done.errno else {"st": self.tree.stat_of_room()}
        self.record(case, "fstat", done, **stat)

    # -- mappings ---------------------------------------------------------------------------

    def raw_map(self, fd: int, offset: int, length: int, prot: int, flags: int) -> Outcome:
        return self.caller.call("mmap", 0, length, prot, flags, fd, offset)

    def unmap(self, *mappings: Mapping | None) -> None:
        for mapping in mappings:
            if mapping is not None:
                self.caller.call("munmap", mapping.address, mapping.length)

    def _faults(self, address: int, length: int) -> list[Fault]:
        """What a page of the mapping answers to a load, if one does not answer well."""
        seen = self.caller.pages(address, (length + PAGE - 1) // PAGE)
        return [seen] if isinstance(seen, Fault) else []

    def map(
        self, case: str, fd: int, offset: int, length: int, prot: str, flags: str, physical: int
    ) -> Mapping | None:
        """A mapping that stays, or None where it is refused."""
        done = self.raw_map(fd, offset, length, PROT[prot], FLAGS[flags])
        faults = [] if done.errno else self._faults(done.value, length)
        args = {"off": hex(offset), "len": hex(length), "prot": prot, "flags": flags}
        shown = done if done.errno else 0
        self.record(case, "mmap", shown, args=args, faults=[fault.signo for fault in faults])
        if done.errno:
            return None
        mapping = Mapping(done.value, length, physical)
        if faults:
            self.unmap(mapping)
            return None
        return mapping

    def map_and_touch(
        self,
        case: str,
        fd: int,
        offset: int,
        length: int,
        prot: str = "R",
        flags: str = "SHARED",
        *,
        words: int = 4,
    ) -> None:
        """Map, load the first bytes and the last 4, look at every page, unmap."""
        done = self.raw_map(fd, offset, length, PROT[prot], FLAGS[flags])
        args = {"off": hex(offset), "len": hex(length), "prot": prot, "flags": flags}
        if done.errno:
            self.record(case, "mmap+touch", done, args=args)
            return
        first = self.caller.words(done.value, words)
        last = self.caller.load(done.value + (length - 4 & ~3), 4)
        pages = self._faults(done.value, length)
        faults = [seen.signo for seen in (first, last, *pages) if isinstance(seen, Fault)]
        extra: Record = {"faults": faults}
        if isinstance(last, int):
            extra["last_u32"] = f"0x{last:08x}"
        data = first.hex() if isinstance(first, bytes) else None
        self.record(case, "mmap+touch", 0, args=args, data=data, **extra)
        self.caller.call("munmap", done.value, length)

    def touch(self, case: str, mapping: Mapping | None, offset: int = 0, width: int = 4) -> None:
        """A load. No mapping, no record."""
        if mapping is None:
            return
        seen = self.caller.load(mapping.address + offset, width)
        where = {"phys": hex(mapping.physical + offset), "off": hex(offset), "width": width}
        if isinstance(seen, Fault):
            self.record(case, "touch_read", -1, args=where, fault=seen, base=mapping.address)
        else:
            data = seen.to_bytes(width, "little").hex()
            self.record(case, "touch_read", 0, args=where, data=data)

    def store(self, case: str, mapping: Mapping | None, offset: int, value: int) -> None:
        """A store of 32 bits, and the load after it."""
        if mapping is None:
            return
        where = {"phys": hex(mapping.physical + offset), "off": hex(offset), "width": 4}
        seen = self.caller.store(mapping.address + offset, 4, value)
        if isinstance(seen, Fault):
            self.record(case, "touch_write", -1, args=where, fault=seen, base=mapping.address)
            return
        back = self.caller.load(mapping.address + offset, 4)
        shown: Record = {} if isinstance(back, Fault) else {"readback": hex(back)}
        self.record(case, "touch_write", 0, args=where, **shown)

    # -- processes --------------------------------------------------------------------------

    def child(self) -> Caller:
        child = self.caller.fork()
        assert isinstance(child, Caller), child
        return child

    def fork(self, case: str) -> None:
        child = self.caller.fork()
        if isinstance(child, Caller):
            child.end()
        self.record(case, "fork", child if isinstance(child, Outcome) else 0)

    def child_touch(self, case: str, child: Caller, address: int) -> None:
        kind, *words = child.tell("load", address, 4)
        op = "child_touch_read"
        if kind == "dead":
            self.record(case, op, -1, termsig=int(words[0]))
        elif kind == "ok":
            self.record(case, op, 0, data=int(words[0], 0).to_bytes(4, "little").hex())
        else:
            fault = Caller.fault(words)
            self.record(case, op, -1, fault=fault, base=fault.address)

    # -- state ------------------------------------------------------------------------------

    def driver_state(self, case: str, bdf: str, bar: int) -> None:
        """Driver, path in /proc/iomem, enable count and command register."""
        folder = f"/sys/bus/pci/devices/{bdf}"
        start = self.tree.resources(bdf)[bar][0]
        command = int.from_bytes(self.tree.slurp(f"{folder}/config")[4:6], "little")
        self.state(
            case,
            "state",
            self.tree.driver(bdf),
            args={"bdf": bdf},
            iomem=self.tree.iomem_path(start),
            enable=self.tree.slurp(f"{folder}/enable").decode(),
            pci_command=hex(command),
        )


def _shown(data: bytes) -> str:
    """Text as text, anything else as hex of the first 64 bytes."""
    if any(byte == 0 or byte > 126 for byte in data):
        return data[:64].hex()
    return data.decode()
