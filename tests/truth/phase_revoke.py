"""Phases `revoke-*`: a driver loads under mappings of its BAR, lets go of it, takes it again, and leaves."""

import os
from typing import NamedTuple

from truth import phase_vm
from truth.actors import Actors, page
from truth.caller import Caller, Fault
from truth.phase_sysfs import PCIIOC_MMAP_IS_MEM
from truth.probe import Mapping, Record
from truth.tree import DEVICES, PAGE

MARGIN = 0x10000


class Case(NamedTuple):
    """One phase: which function and BAR, which module, and its driver's name."""

    name: str
    ids: tuple[int, int]
    bar: int
    module: str
    driver: str


CASES = [
    Case("e1000", (0x8086, 0x100E), 0, "e1000", "e1000"),
    Case("nvme", (0x1B36, 0x10), 0, "nvme", "nvme"),
    Case("ahci-bar5", (0x8086, 0x2922), 5, "ahci", "ahci"),
    Case("xhci", (0x1B36, 0xD), 0, "xhci_pci", "xhci_hcd"),
    Case("hda", (0x8086, 0x2668), 0, "snd_hda_intel", "snd_hda_intel"),
    Case("vga", (0x1234, 0x1111), 0, "bochs", "bochs-drm"),
]


class Replay:
    """One phase."""

    def __init__(self, actors: Actors, records: list[Record], case: Case) -> None:
        self.actors, self.case = actors, case
        self.probe = probe = actors.probes(records, f"revoke-{case.name}")[0]
        self.bdf = probe.tree.find(*case.ids)
        start, end, _ = probe.tree.resources(self.bdf)[case.bar]
        self.start, self.length = page(start), end - start + 1 + PAGE - 1 & -PAGE
        self.resource = f"{DEVICES}/{self.bdf}/resource{case.bar}"
        self.maps: dict[str, Mapping | None] = {}
        self.children: list[Caller] = []

    def run(self) -> None:
        self._state("before")
        self._open_and_map()
        self._before()
        self.actors.module("modprobe", self.case.module)
        self._state("bound")
        self._touches("bound")
        self._bound_mappings()
        self._bound_calls()
        self._bound_files()
        if (mapping := self.maps.pop("third")) is not None:
            phase_vm.mremap(self.probe, mapping)
        if (mapping := self.maps.pop("second")) is not None and self.length >= 2 * PAGE:
            phase_vm.operations(self.probe, mapping._replace(length=self.length))
        self._unbind_and_rebind()
        self._end()

    def _state(self, when: str) -> None:
        self.probe.driver_state(f"state-{when}", self.bdf, self.case.bar)

    # -- mappings that will die ---------------------------------------------------------------

    def _open_and_map(self) -> None:
        probe, start, length = self.probe, self.start, self.length
        self.mem, self.sync = probe.fd("/dev/mem"), probe.fd("/dev/mem", os.O_RDWR | os.O_SYNC)
        self.file = probe.fd(self.resource)
        self.proc = probe.fd(f"/proc/bus/pci/{self.bdf[5:7]}/{self.bdf[8:]}")
        for name, case, fd, offset, size, prot, flags in (
            ("full", "devmem-full", self.mem, start, length, "RW", "SHARED"),
            ("second", "devmem-full2", self.mem, start, max(length, 8192), "RW", "SHARED"),
            ("third", "devmem-full3", self.mem, start, max(length, 16384), "RW", "SHARED"),
            ("page", "devmem-1page-R-sync", self.sync, start, PAGE, "R", "SHARED"),
            ("private", "devmem-private", self.mem, start, length, "RW", "PRIVATE"),
            ("sysfs", "sysfs-full", self.file, 0, length, "RW", "SHARED"),
            ("sysfs-private", "sysfs-private", self.file, 0, PAGE, "RW", "PRIVATE"),
        ):
            self.maps[name] = probe.map(case, fd, offset, size, prot, flags, start)
        around, size = start - MARGIN, length + 2 * MARGIN
        self.span = probe.map("devmem-span(+-64K)", self.mem, around, size, "R", "SHARED", around)
        probe.caller.call("ioctl", self.proc, PCIIOC_MMAP_IS_MEM, 0)
        self.maps["proc"] = probe.map(
            "procbuspci-map", self.proc, start, PAGE, "R", "SHARED", start
        )

    def _touches(self, when: str) -> None:
        """Through every mapping: a word of the BAR; through the span, what is before, in and behind it."""
        touch = self.probe.touch
        for name, case in (
            ("full", "devmem-full"),
            ("page", "devmem-1page-R-sync"),
            ("private", "devmem-private"),
            ("sysfs", "sysfs-full"),
            ("sysfs-private", "sysfs-private"),
            ("proc", "procbuspci"),
        ):
            touch(f"{when} {case}", self.maps.get(name), 8)
        touch(f"{when} span-first-page(outside BAR)", self.span)
        touch(f"{when} span-BAR-page", self.span, MARGIN)
        touch(f"{when} span-after-BAR", self.span, MARGIN + self.length)

    def _before(self) -> None:
        probe, full = self.probe, self.maps["full"]
        self._touches("before")
        if full is not None:
            self.children = [probe.child(), probe.child()]
            self.children[1].tell("default")
            for child, name in zip(self.children, ("handler", "no handler"), strict=True):
                probe.child_touch(f"before child({name})", child, full.address + 8)
        probe.fork("before fork")
        probe.store("before private-COW-write", self.maps["private"], 0x20, 0xDEADBEEF)
        probe.store("before sysfs-private-COW-write", self.maps["sysfs-private"], 0x20, 0xDEADBEEF)
        probe.pread("before", self.mem, self.start + 8, 4)

    # -- while the driver has it --------------------------------------------------------------

    def _bound_mappings(self) -> None:
        probe, full, span = self.probe, self.maps["full"], self.span
        probe.touch("bound again-devmem-full", full, 8)
        probe.store("bound write-devmem-full", full, 8, 0)
        probe.touch("bound devmem-full-lastpage", full, self.length - PAGE)
        if span is not None:
            self._straddle(span)
        probe.touch("bound private-COWed-page", self.maps["private"], 0x20)
        probe.touch("bound sysfs-private-COWed-page", self.maps["sysfs-private"], 0x20)
        for child, name in zip(self.children, ("handler", "no handler"), strict=False):
            assert full is not None
            probe.child_touch(f"bound child({name})", child, full.address + 8)
        probe.fork("bound fork (process holds revoked mappings incl. private)")
        probe.unmap(self.maps.pop("private"), self.maps.pop("sysfs-private"))
        probe.fork("bound fork (process holds only revoked SHARED mappings)")

    def _straddle(self, span: Mapping) -> None:
        probe, edge = self.probe, span.address + MARGIN
        seen = probe.caller.load(edge - 4, 8)
        case = "bound unaligned-8-byte-read-straddling-into-BAR"
        if isinstance(seen, Fault):
            probe.record(case, "touch_read", -1, fault=seen, base=span.address)
        else:
            probe.record(case, "touch_read", data=seen.to_bytes(8, "little").hex())
        phase_vm.pipe_write(probe, "bound write(pipe, span straddling into BAR, 16)", edge - 8)
        phase_vm.file_write(probe, "bound write(tmpfs, span straddling into BAR, 16)", edge - 8, 16)
        for where, address in (
            ("span straddling", edge - 8),
            ("inside revoked BAR", edge),
            ("span outside BAR", span.address),
        ):
            phase_vm.self_read(probe, f"bound pread(/proc/self/mem, {where}, 16)", address)

    def _bound_calls(self) -> None:
        probe, start, length, mem = self.probe, self.start, self.length, self.mem
        self.new = probe.open("bound open-devmem", "/dev/mem")
        around, size = start - MARGIN, length + 2 * MARGIN
        for case, fd, offset, span, prot, flags in (
            ("new-mmap-page", self.new, start, PAGE, "R", "SHARED"),
            ("old-fd-mmap-page", mem, start, PAGE, "R", "SHARED"),
            ("old-fd-mmap-private", mem, start, PAGE, "RW", "PRIVATE"),
            ("mmap-span", mem, around, size, "R", "SHARED"),
            ("mmap-page-before", mem, start - PAGE, PAGE, "R", "SHARED"),
            ("mmap-page-after", mem, start + length, PAGE, "R", "SHARED"),
        ):
            probe.map_and_touch(f"bound {case}", fd, offset, span, prot, flags)
        probe.pread("bound pread", mem, start + 8, 4)
        probe.pread("bound pread-cross-into", mem, start - 8, 16)
        probe.pread("bound pread-cross-out", mem, start + length - 8, 16)
        probe.write("bound pwrite", "pwrite", mem, bytes(4), start + 0x10)

    def _bound_files(self) -> None:
        probe, start = self.probe, self.start
        fd = probe.open("bound open-sysfs-resource", self.resource)
        new = probe.map("bound sysfs-mmap-newfd", fd, 0, PAGE, "R", "SHARED", start)
        probe.touch("bound sysfs-touch-newfd", new, 8)
        old = probe.map("bound sysfs-mmap-oldfd", self.file, 0, PAGE, "R", "SHARED", start)
        probe.touch("bound sysfs-touch-oldfd", old, 8)
        proc = probe.map("bound procbuspci-mmap", self.proc, start, PAGE, "R", "SHARED", start)
        probe.unmap(new, old, proc)
        probe.close(fd)

    # -- afterwards ---------------------------------------------------------------------------

    def _unbind_and_rebind(self) -> None:
        probe = self.probe
        driver = f"/sys/bus/pci/drivers/{self.case.driver}"
        probe.write_file("bound bind-already-bound", f"{driver}/bind", self.bdf)
        probe.write_file("unbind", f"{driver}/unbind", self.bdf)
        self._state("unbound")
        self._touches("unbound")
        self._free_mappings()
        probe.write_file("unbound unbind-again", f"{driver}/unbind", self.bdf)
        probe.write_file("rebind", f"{driver}/bind", self.bdf)
        self._state("rebound")
        probe.touch("rebound touch-remap", self.again, 8)

    def _free_mappings(self) -> None:
        """Descriptors from before do not get the pages back here: what follows goes through new ones."""
        probe, start, mem = self.probe, self.start, self.mem
        probe.map_and_touch("unbound new-mmap-page", mem, start, PAGE)
        probe.pread("unbound pread", mem, start + 8, 4)
        where = (start, self.length, "RW", "SHARED", start)
        self.again = probe.map("unbound remap-full", mem, *where)
        if self.again is None:
            self.again = self._anew("/dev/mem", *where)
        probe.touch("unbound touch-remap", self.again, 8)
        probe.touch("unbound old-map-after-remap", self.maps["full"], 8)
        where = (0, PAGE, "R", "SHARED", start)
        fresh = probe.map("unbound sysfs-mmap-oldfd", self.file, *where)
        if fresh is None:
            fresh = self._anew(self.resource, *where)
        probe.touch("unbound sysfs-touch", fresh, 8)
        probe.unmap(fresh)

    def _anew(self, path: str, *where: int | str) -> Mapping | None:
        """The mapping through a descriptor of now, without a record."""
        fd = self.probe.fd(path)
        mapping = self.probe.map("", fd, *where)  # type: ignore[arg-type]  # as map takes them
        self.probe.records.pop()
        self.probe.close(fd)
        return mapping

    def _end(self) -> None:
        probe = self.probe
        self.actors.module("rmmod", self.case.module)
        self._state("rmmod")
        probe.touch("rmmod touch-remap", self.again, 8)
        probe.map_and_touch("rmmod new-mmap-page", self.mem, self.start, PAGE)
        full = self.maps.pop("full")
        if full is not None:
            probe.fork("rmmod fork before munmap")
            done = probe.caller.call("munmap", full.address, full.length)
            probe.record("munmap-revoked", "munmap", done)
        probe.unmap(*self.maps.values(), self.span, self.again)
        probe.fork("end fork after munmap of all")
        if self.children:
            self.children[0].end()
        probe.close(self.mem, self.sync, self.file, self.new, self.proc)


def run(actors: Actors, records: list[Record], case: Case) -> None:
    Replay(actors, records, case).run()
