"""The kernel's memory as an ELF core (`fs/proc/kcore.c` on x86-64): segments, headers and notes. Pure.

Without KASLR: the direct map, `vmalloc`, `vmemmap` and the kernel's image stand at the addresses that
the architecture's documentation names.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fakedev.model.ranges import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Range

PAGE_OFFSET = 0xFFFF_8880_0000_0000
VMALLOC = Range(0xFFFF_C900_0000_0000, 0x1FFF_FFFF_FFFF)
VMEMMAP = 0xFFFF_EA00_0000_0000
TEXT = 0xFFFF_FFFF_8100_0000
MODULES = Range(0xFFFF_FFFF_C000_0000, 0x3F00_0000)
VIRTUAL_MASK = (1 << 47) - 1
DIRECT_MAP_SIZE = 64 << 40
NO_PADDR = (1 << 64) - 1
BRK = 0x30000  # what the image has behind its bss

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_PRPSINFO = struct.Struct("<BcBB4xQIIiiii16s80s")
_IDENT = b"\x7fELF\x02\x01\x01"
_ET_CORE, _EM_X86_64, _EV_CURRENT, _PT_LOAD, _PT_NOTE, _RWX = 4, 62, 1, 1, 4, 7
_NT_PRSTATUS, _NT_PRPSINFO, _NT_TASKSTRUCT, _NT_VMCOREINFO = 1, 3, 4, 0
_PRSTATUS_SIZE = 336
_PAGE_STRUCT = 64  # bytes of a struct page
NOTES_SIZE = 0x2FC4  # as long as those of a distribution's 6.1; most of it is the task_struct


class Segment(NamedTuple):
    """A PT_LOAD. `kind`: text, vmalloc, modules, ram or vmemmap; `paddr` where that is known."""

    kind: str
    start: int
    size: int
    paddr: int | None = None

    @property
    def offset(self) -> int:
        """Where it lies in the file, from the data's start on (`kc_vaddr_to_offset`)."""
        return self.start & VIRTUAL_MASK

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.size


def fixed_segments(code: int | None, image_end: int) -> list[Segment]:
    """What does not change: the kernel's image (physical `code` to `image_end`), vmalloc, modules."""
    image = []
    if code is not None:
        size = (image_end + PAGE_MASK & ~PAGE_MASK) + BRK - code
        image = [Segment("text", TEXT, size, code)]
    return [*image, Segment("vmalloc", *VMALLOC), Segment("modules", *MODULES)]


def ram_segments(ram: Iterable[Range]) -> list[Segment]:
    """`kcore_ram_list`: each range of the direct map, and the slice of `vmemmap` that describes it."""
    found: list[Segment] = []
    shown = 0  # up to where vmemmap is listed already
    for span in ram:
        size = min(span.end, DIRECT_MAP_SIZE) - span.start
        if size <= 0:
            continue
        found.append(Segment("ram", PAGE_OFFSET + span.start, size, span.start))
        low = max(_page_struct(span.start) & ~PAGE_MASK, shown)
        shown = _page_struct(span.start + size) + PAGE_MASK & ~PAGE_MASK
        if low < shown:
            found.append(Segment("vmemmap", VMEMMAP + low, shown - low))
    return found


def _page_struct(address: int) -> int:
    return (address >> PAGE_SHIFT) * _PAGE_STRUCT


class Image:
    """The file: `head` is all before the data, which begins at `data_offset`."""

    __slots__ = ("_by_offset", "_ends", "data_offset", "head", "segments", "size")

    def __init__(self, segments: list[Segment], notes: bytes) -> None:
        self.segments = segments
        count = len(segments) + 1
        notes_at = _EHDR.size + count * _PHDR.size
        self.data_offset = notes_at + len(notes) + PAGE_MASK & ~PAGE_MASK
        self.size = self.data_offset + max((segment.end for segment in segments), default=0)
        head = _EHDR.pack(_IDENT, _ET_CORE, _EM_X86_64, _EV_CURRENT, 0, _EHDR.size, 0, 0,
                          _EHDR.size, _PHDR.size, count, 0, 0, 0)  # fmt: skip
        head += _PHDR.pack(_PT_NOTE, 0, notes_at, 0, 0, len(notes), 0, 0)
        head += b"".join(map(self._program_header, segments)) + notes
        self.head = memoryview(head.ljust(self.data_offset, b"\0"))
        self._by_offset = sorted(segments, key=lambda segment: segment.offset)
        self._ends = [segment.end for segment in self._by_offset]

    def _program_header(self, segment: Segment) -> bytes:
        paddr = NO_PADDR if segment.paddr is None else segment.paddr
        offset, size = segment.offset + self.data_offset, segment.size
        return _PHDR.pack(
            _PT_LOAD, _RWX, offset, segment.start, paddr, size, size, PAGE_SIZE
        )  # fmt: skip

    def pieces(self, low: int, high: int) -> Iterator[tuple[int, int, Segment | None]]:
        """File offsets `low`..`high`, behind the head: each part with its segment, or None."""
        at, stop = low - self.data_offset, high - self.data_offset
        index = bisect_right(self._ends, at)
        while at < stop:
            segment = self._by_offset[index] if index < len(self._by_offset) else None
            if segment is None or segment.offset >= stop:
                yield at, stop, None
                return
            if at < segment.offset:
                yield at, segment.offset, None
                at = segment.offset
            end = min(segment.end, stop)
            yield at, end, segment
            at, index = end, index + 1


def notes(cmdline: str, release: str, code: int | None) -> bytes:
    """NT_PRSTATUS, NT_PRPSINFO, NT_TASKSTRUCT and VMCOREINFO; registers and task are zeros."""
    args = cmdline.encode("utf-8", "surrogateescape")[:79]
    info = _PRPSINFO.pack(0, b"R", 0, 0, 0, 0, 0, 0, 0, 0, 0, b"vmlinux", args)
    first = _note(b"CORE", _NT_PRSTATUS, bytes(_PRSTATUS_SIZE)) + _note(b"CORE", _NT_PRPSINFO, info)
    last = _note(b"VMCOREINFO", _NT_VMCOREINFO, _vmcoreinfo(release, code).encode())
    frame = len(_note(b"CORE", _NT_TASKSTRUCT, b""))
    task = bytes(max(NOTES_SIZE - len(first) - len(last) - frame, 0))
    return first + _note(b"CORE", _NT_TASKSTRUCT, task) + last


def _note(name: bytes, kind: int, data: bytes) -> bytes:
    return _NOTE.pack(len(name) + 1, len(data), kind) + _padded(name + b"\0") + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _vmcoreinfo(release: str, code: int | None) -> str:
    """The lines that can be known of a kernel that is not there."""
    symbols = "" if code is None else (
        f"SYMBOL(_stext)={TEXT:x}\nNUMBER(phys_base)={code - (TEXT & 0x7FFF_FFFF)}\n"
    )  # fmt: skip
    return (
        f"OSRELEASE={release}\nPAGESIZE={PAGE_SIZE}\nSIZE(page)={_PAGE_STRUCT}\nSIZE(list_head)=16\n"
        f"{symbols}NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\nNUMBER(KERNEL_IMAGE_SIZE)=1073741824\n"
        "NUMBER(MAX_PHYSMEM_BITS)=46\nNUMBER(SECTION_SIZE_BITS)=27\nNUMBER(sme_mask)=0\n"
    )
