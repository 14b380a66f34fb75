"""`/proc/kcore`: what the kernel has in its address space, as an ELF core file (`fs/proc/kcore.c`).

It stands at `/dev/kcore`, too: a host's /proc may have no such file, and none can be made there.

The kernel refreshes its list of RAM at an open, and only after memory went online or offline; files
that are open follow. A page of RAM that the kernel must not touch reads as zeros.
"""

import errno
import stat
from functools import partial
from typing import TYPE_CHECKING

from fakedev.devices.memory.kcore import Image, Segment, fixed_segments, notes, ram_segments
from fakedev.model.chunk import zeros
from fakedev.model.lockdown import LOCKDOWN_KCORE
from fakedev.model.machine import Machine
from fakedev.model.poisoned import Table, united, within, without
from fakedev.model.ranges import Range
from fakedev.views.kinds import SEQ_FILE, generic_file_llseek
from fakedev.views.lockdown import check_lockdown
from fakedev.views.node import (
    CAP_SYS_RAWIO,
    Attr,
    Buffers,
    Handle,
    Node,
    Opener,
    Refused,
    access_mask,
    check_access,
)

if TYPE_CHECKING:
    from fakedev.views.tree import Tree

PATHS = ("/proc/kcore", "/dev/kcore")
MODE = 0o400
_VERSION = "/proc/version"
_PAGES_ARE_TESTED = (5, 14)  # for being online, plugged and sound


def paths(machine: Machine) -> dict[str, int]:
    """Where the file stands, with its `st_mode`; a profile's own file wins."""
    return {path: stat.S_IFREG for path in PATHS if path not in machine.files}


def directories(_: Machine) -> dict[str, bool]:
    """No directory of the host is replaced for it."""
    return {}


def install(tree: "Tree", machine: Machine) -> None:
    """Put the file into the tree, once under each name."""
    for path in PATHS:
        tree.mount(path, Kcore(machine))


class Kcore(Node):
    """The file, and the kernel's list of what is in it."""

    __slots__ = ("_changes", "_code", "_image", "_ram", "machine")
    kind = SEQ_FILE._replace(seek=generic_file_llseek)

    def __init__(self, machine: Machine) -> None:
        self.mode = MODE
        self.machine = machine
        self._changes = machine.blocks.changes
        self._ram: list[Range] = machine.blocks.ram_ranges()
        self._image: Image | None = None

    @property
    def image(self) -> Image:
        """Headers and segments, as of the last refresh."""
        found = self._image
        if found is None:
            found = self._image = self._made()
        return found

    def _made(self) -> Image:
        machine = self.machine
        with machine.lock:
            code = next(machine.tree.named("Kernel code"), None)
            last = next(machine.tree.named("Kernel bss"), code)
        start = None if code is None else code.start
        fixed = fixed_segments(start, 0 if last is None else last.end + 1)
        text = notes(machine.rules.cmdline, _release(machine), start)
        return Image([*fixed, *ram_segments(self._ram)], text)

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.image.size)

    def open(self, opener: Opener) -> Handle:
        """EACCES by mode, EPERM without CAP_SYS_RAWIO or under lockdown=confidentiality."""
        mask = access_mask(opener.flags)
        check_access(Attr(stat.S_IFREG | self.mode), self.owner, opener, mask)  # without a size
        machine = self.machine
        check_lockdown(machine, LOCKDOWN_KCORE, opener.pid)  # before the capability
        if not opener.capable(CAP_SYS_RAWIO):
            raise Refused(errno.EPERM)
        with machine.lock:
            if self._changes != machine.blocks.changes:
                self._changes = machine.blocks.changes
                self._ram = machine.blocks.ram_ranges()
                self._image = None
        return KcoreHandle(self)


class KcoreHandle:
    """An open `/proc/kcore`. It has neither a write nor an mmap operation, and no end."""

    __slots__ = ("_machine", "_node")
    settles = True
    mappable = False

    def __init__(self, node: Kcore) -> None:
        self._node = node
        self._machine = node.machine

    def read(self, offset: int, size: int) -> Buffers:
        """`read_kcore`: all that was asked for, zeros where nothing is."""
        image, end = self._node.image, offset + size
        found: Buffers = []
        if offset < image.data_offset:
            found.append(image.head[offset:end])
            offset = image.data_offset
        for low, high, segment in image.pieces(offset, end):
            if segment is None or segment.paddr is None:
                found.extend(zeros(high - low))
            else:
                span = Range(segment.paddr + low - segment.offset, high - low)
                found.extend(self._bytes(segment, span))
        return found

    def write(self, offset: int, data: memoryview) -> int:
        raise Refused(errno.EIO)

    def _bytes(self, segment: Segment, span: Range) -> Buffers:
        """Physical memory, with zeros for the pages that the kernel leaves alone."""
        machine = self._machine
        read = partial(machine.memory.buffers, *span)
        holes = self._holes(segment, span)
        if holes == (span,):
            return list(zeros(span.size))
        # Stores through mappings of the same memory are written back first.
        whole: Buffers = machine.settle(span, read)
        return _with_zeros(whole, span, holes) if holes else whole

    def _holes(self, segment: Segment, span: Range) -> Table:
        """What `pfn_to_online_page`, PageOffline and PageHWPoison say no to: sorted, apart."""
        machine = self._machine
        bad = list(
            machine.poisoned
        )  # on older kernels a read that fails, which gives zeros as well
        if segment.kind == "ram" and machine.rules.release >= _PAGES_ARE_TESTED:
            if machine.poison is not None:
                bad += machine.poison.soft
            if machine.virtio_mem is not None and machine.virtio_mem.reaches(span):
                bad += machine.virtio_mem.hidden()
            bad += machine.blocks.not_online(span)
        table: Table = ()
        for hole in bad:
            for part in within((hole,), span):
                table = united(table, part)
        return table


def _with_zeros(whole: Buffers, span: Range, holes: Table) -> Buffers:
    """The bytes of a range, zeros in the holes."""
    parts = sorted([*holes, *_outside(span, holes)])
    found: Buffers = []
    for part in parts:
        if part in holes:
            found.extend(zeros(part.size))
        else:
            found.extend(_slices(whole, part.start - span.start, part.end - span.start))
    return found


def _outside(span: Range, holes: Table) -> Table:
    left: Table = (span,)
    for hole in holes:
        left = without(left, hole)
    return left


def _slices(whole: Buffers, low: int, high: int) -> Buffers:
    """Bytes `low`..`high` of the views, as views."""
    found, at = [], 0
    for view in whole:
        part = view[max(low - at, 0) : max(high - at, 0)]
        if len(part):
            found.append(part)
        at += len(view)
    return found


def _release(machine: Machine) -> str:
    """The release in the profile's `/proc/version`, or the version of the rules."""
    file = machine.files.get(_VERSION)
    words = file.data.decode("utf-8", "replace").split() if file is not None else []
    return (
        words[2] if words[:2] == ["Linux", "version"] and len(words) > 2 else machine.rules.version
    )
