"""Phases `remove-*`: a function goes away under open files and mappings, and comes back."""

import os
from typing import NamedTuple

from truth.actors import Actors, page
from truth.phase_sysfs import PCIIOC_MMAP_IS_MEM
from truth.probe import AT_FDCWD, Record
from truth.tree import DEVICES, PAGE

RESCAN = "/sys/bus/pci/rescan"
MOST = 0x100000
MS_SYNC = 4


class Case(NamedTuple):
    """One phase: which function and BAR, which driver is loaded before, whether it is pulled out."""

    name: str
    ids: tuple[int, int]
    bar: int
    module: str = ""
    unplugged: bool = False


CASES = [
    Case("ivshmem", (0x1AF4, 0x1110), 2),
    Case("edu", (0x1234, 0x11E8), 0),
    Case("e1000e-hotplug", (0x8086, 0x10D3), 0, unplugged=True),
    Case("e1000-bound", (0x8086, 0x100E), 0, module="e1000"),
]


class Replay:
    """One phase."""

    def __init__(self, actors: Actors, records: list[Record], case: Case) -> None:
        self.actors, self.case = actors, case
        self.probe, self.user = actors.probes(records, f"remove-{case.name}")
        if case.module:
            actors.module("modprobe", case.module)
        tree = self.probe.tree
        self.bdf = tree.find(*case.ids)
        start, end, _ = tree.resources(self.bdf)[case.bar]
        self.start = page(start)
        self.length = min(end - start + 1 + PAGE - 1 & -PAGE, MOST)
        self.folder = f"{DEVICES}/{self.bdf}"
        self.resource = f"{self.folder}/resource{case.bar}"

    def run(self) -> None:
        probe = self.probe
        probe.driver_state("state-before", self.bdf, self.case.bar)
        self._open_and_map()
        self._leave()
        self._gone_mappings()
        self._gone_files()
        self._gone_directory()
        self._gone_memory()
        self._come_back()
        self._afterwards()
        probe.unmap(self.devmem, self.private)
        if self.sysfs is not None:
            done = probe.caller.call("munmap", self.sysfs.address, self.sysfs.length)
            probe.record("munmap-old-sysfs", "munmap", done)
        probe.close(self.mem, self.file, self.config, self.vendor, self.directory, self.proc)

    def _open_and_map(self) -> None:
        probe, start = self.probe, self.start
        self.mem, self.file = probe.fd("/dev/mem"), probe.fd(self.resource)
        self.config = probe.fd(f"{self.folder}/config")
        self.vendor = probe.fd(f"{self.folder}/vendor", os.O_RDONLY)
        self.directory = probe.fd(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self.proc = probe.fd(f"/proc/bus/pci/{self.bdf[5:7]}/{self.bdf[8:]}")
        self.devmem = probe.map("devmem", self.mem, start, self.length, "RW", "SHARED", start)
        self.sysfs = probe.map("sysfs", self.file, 0, self.length, "RW", "SHARED", start)
        self.private = probe.map("sysfs-private", self.file, 0, PAGE, "RW", "PRIVATE", start)
        probe.touch("before devmem", self.devmem)
        probe.touch("before sysfs", self.sysfs)
        self.user.write_file("remove-as-user", f"{self.folder}/remove", "1")
        self.user.write_file("rescan-as-user", RESCAN, "1")
        probe.store("before sysfs-private-COW", self.private, 0x20, 0x12344321)
        probe.stat_fd("before fstat-resource", self.file)

    def _leave(self) -> None:
        probe = self.probe
        if self.case.unplugged:
            self.actors.unplug("unplug", self.bdf)
        else:
            for name, value in (("bad-value", "x"), ("0", "0"), ("1", "1")):
                probe.write_file(f"remove-{name}", f"{self.folder}/remove", value)
        self._exists("exists-after")
        probe.record("iomem-after", "read", data=probe.tree.iomem_path(self.start))

    def _exists(self, case: str) -> None:
        done = self.probe.caller.call("faccessat", AT_FDCWD, self.folder, os.F_OK)
        self.probe.record(case, "access", done, args={"path": self.folder})

    # -- while it is gone ---------------------------------------------------------------------

    def _gone_mappings(self) -> None:
        self.probe.touch("removed touch-devmem", self.devmem)
        self.probe.touch("removed touch-sysfs", self.sysfs)
        self.probe.touch("removed touch-sysfs-private-COW", self.private, 0x20)

    def _gone_files(self) -> None:
        probe, file = self.probe, self.file
        probe.stat_fd("removed fstat-resource-fd", file)
        probe.stat_fd("removed fstat-config-fd", self.config)
        probe.read("removed pread-resource-fd", "pread", file, 4, 0)
        probe.write("removed pwrite-resource-fd", "pwrite", file, bytes(4), 0)
        probe.record("removed lseek-resource-fd", "lseek", probe.caller.call("lseek", file, 0, 0))
        self._unmapped("removed mmap-resource-fd", file, 0)
        probe.read("removed pread-config-fd", "pread", self.config, 64, 0)
        probe.write("removed pwrite-config-fd", "pwrite", self.config, bytes(2), 4)
        probe.read("removed pread-vendor-fd", "pread", self.vendor, 64, 0)

    def _unmapped(self, case: str, fd: int, offset: int) -> None:
        """A mapping that is there for as long as its record takes."""
        self.probe.unmap(self.probe.map(case, fd, offset, PAGE, "R", "SHARED", self.start))

    def _gone_directory(self) -> None:
        probe, caller = self.probe, self.probe.caller
        done = caller.call("openat", self.directory, "vendor", os.O_RDONLY)
        probe.record("removed openat-dirfd-vendor", "openat", done)
        probe.close(done.value)
        done = caller.call("getdents64", self.directory, "@0", 300)
        probe.record("removed getdents-dirfd", "getdents", done)
        probe.read("removed pread-procbuspci-fd", "pread", self.proc, 64, 0)
        caller.call("ioctl", self.proc, PCIIOC_MMAP_IS_MEM, 0)
        self._unmapped("removed mmap-procbuspci-fd", self.proc, self.start)

    def _gone_memory(self) -> None:
        probe = self.probe
        probe.close(probe.open("removed open-resource", self.resource))
        probe.map_and_touch("removed devmem-mmap", self.mem, self.start, PAGE)
        probe.pread("removed devmem-pread", self.mem, self.start, 16)
        if self.sysfs is not None:
            done = probe.caller.call("msync", self.sysfs.address, self.sysfs.length, MS_SYNC)
            probe.record("removed msync-sysfs-map", "msync", done)

    # -- when it is back ----------------------------------------------------------------------

    def _come_back(self) -> None:
        if self.case.unplugged:
            self.actors.unplug("plug", self.bdf)
        else:
            self.probe.write_file("rescan-bad", RESCAN, "x")
            self.probe.write_file("rescan-1", RESCAN, "1")
        self._exists("exists-after-rescan")

    def _afterwards(self) -> None:
        probe, bar = self.probe, self.case.bar
        bdf = probe.tree.find(*self.case.ids)
        probe.driver_state("state-after-rescan", bdf, bar)
        start = probe.tree.resources(bdf)[bar][0]
        probe.record(
            "bar-after-rescan",
            "state",
            old=hex(self.start),
            new=hex(start),
            old_bdf=self.bdf,
            new_bdf=bdf,
        )
        probe.touch("rescanned touch-old-devmem", self.devmem)
        probe.touch("rescanned touch-old-sysfs", self.sysfs)
        probe.stat_fd("rescanned fstat-old-resource-fd", self.file)
        self._unmapped("rescanned mmap-old-resource-fd", self.file, 0)
        probe.read("rescanned pread-old-config-fd", "pread", self.config, 64, 0)
        fd = probe.open("rescanned open-new-resource", f"{DEVICES}/{bdf}/resource{bar}")
        probe.stat_fd("rescanned fstat-new-resource-fd", fd)
        new = probe.map("rescanned mmap-new-resource-fd", fd, 0, PAGE, "R", "SHARED", start)
        probe.touch("rescanned touch-new-sysfs", new)
        probe.unmap(new)
        probe.close(fd)
        probe.map_and_touch("rescanned devmem-mmap", self.mem, page(start), PAGE)


def run(actors: Actors, records: list[Record], case: Case) -> None:
    Replay(actors, records, case).run()
