"""The info block of a stacked namespace (`struct nd_pfn_sb`): what makes fsdax or devdax of plain memory.

It lies 4 KiB behind the start of the namespace, so a mode lives as long as the bytes of the medium.
"""

import errno
import struct
import uuid
from typing import NamedTuple

from fakedev.model.errors import ControlError
from fakedev.model.ranges import Range

PLACE, SIZE, RESERVED = 4096, 4096, 8192  # where it lies, and what it and the label before it take
SIGNATURES = {"pfn": b"NVDIMM_PFN_INFO\0", "dax": b"NVDIMM_DAX_INFO\0"}
MODES = {"none": 0, "ram": 1, "pmem": 2}  # where the page structs are: nowhere, RAM, the medium
ALIGNMENTS = (4096, 2 << 20, 1 << 30)
SUBSECTION = 2 << 20  # `memremap_compat_align`
_STRUCT_PAGE, _PAGE = 64, 4096
_LAYOUT = struct.Struct("<16s16s16sIHHQQIIIIIH")
_WORDS = struct.Struct("<1024I")


class InfoBlock(NamedTuple):
    """What a valid block says; `uuid` and `parent` are 16 bytes."""

    kind: str
    uuid: bytes
    parent: bytes
    dataoff: int
    npfns: int
    mode: int
    align: int
    start_pad: int = 0
    end_trunc: int = 0
    page_size: int = _PAGE
    page_struct_size: int = _STRUCT_PAGE

    def data(self, span: Range) -> Range:
        """The part of a namespace that is not metadata."""
        start = span.start + self.start_pad + self.dataoff
        return Range(start, span.end - self.end_trunc - start)

    def encode(self) -> bytes:
        """The 4096 bytes as the kernel writes them, version 1.4."""
        head = _LAYOUT.pack(
            SIGNATURES[self.kind], self.uuid, self.parent, 0, 1, 4, self.dataoff, self.npfns,
            self.mode, self.start_pad, self.end_trunc, self.align, self.page_size,
            self.page_struct_size,
        )  # fmt: skip
        body = head.ljust(SIZE - 8, b"\0")
        return body + struct.pack("<Q", fletcher64(body + bytes(8)))


def fletcher64(data: bytes) -> int:
    """`nd_fletcher64` of 4096 bytes."""
    low = high = 0
    for word in _WORDS.unpack(data):
        low = low + word & 0xFFFFFFFF
        high += low
    return (high << 32 | low) & 0xFFFFFFFFFFFFFFFF


def decode(raw: bytes, kind: str, parent: bytes) -> InfoBlock | None:
    """The first half of `nd_pfn_validate`: None without a block of this kind (ENODEV there).

    ControlError: ENXIO for a mode that there is not.
    """
    found = _LAYOUT.unpack_from(raw)
    (
        signature,
        name,
        above,
        _,
        _,
        minor,
        dataoff,
        npfns,
        mode,
        pad,
        trunc,
        align,
        page,
        page_struct,
    ) = found
    (checksum,) = struct.unpack_from("<Q", raw, SIZE - 8)
    if signature != SIGNATURES[kind] or above != parent:
        return None
    if checksum != fletcher64(raw[: SIZE - 8] + bytes(8)):
        return None
    if minor < 1:
        pad = trunc = 0
    if minor < 4:
        page, page_struct = _PAGE, _STRUCT_PAGE
    if mode not in {MODES["ram"], MODES["pmem"]}:
        raise ControlError(f"the info block has mode {mode} (ENXIO)", errno=errno.ENXIO)
    align = align if minor >= 2 and align else 1 << dataoff.bit_length() - 1 if dataoff else 0
    return InfoBlock(kind, name, above, dataoff, npfns, mode, align, pad, trunc, page, page_struct)


def check(block: InfoBlock, span: Range) -> None:
    """The second half of `nd_pfn_validate`: whether it fits the namespace. ControlError (EOPNOTSUPP)."""
    inside = block.mode == MODES["pmem"]
    first, end = span.start + block.start_pad, span.end - block.end_trunc
    wrong = (
        (inside and block.page_size > _PAGE, "page size mismatch"),
        (inside and block.page_struct_size < _STRUCT_PAGE, "struct page size mismatch"),
        (block.kind == "dax" and block.align not in ALIGNMENTS, "alignment mismatch"),
        (block.align > span.size, f"alignment {block.align:#x} exceeds capacity {span.size:#x}"),
        (block.dataoff >= span.size, "pfn array size exceeds capacity"),
        ((first + block.dataoff) % (block.align or 1) or block.dataoff % _PAGE, "bad offset"),
        (first % SUBSECTION or end % SUBSECTION, "misaligned for a mapping"),
        (first + block.dataoff >= end, "no data is left"),
    )
    for hit, why in wrong:
        if hit:
            raise ControlError(f"init failed, {why} (EOPNOTSUPP)", errno=errno.EOPNOTSUPP)


def new_block(
    kind: str,
    span: Range,
    name: uuid.UUID,
    parent: bytes,
    *,
    mode: str,
    align: int,
    dataoff: int = 0,
) -> InfoBlock:
    """What `nd_pfn_init` makes for a namespace without one. ControlError: EINVAL, ENXIO."""
    if span.start % SUBSECTION:
        raise ControlError(f"start {span.start:#x} misaligned to {SUBSECTION:#x} (EINVAL)",
                           errno=errno.EINVAL)  # fmt: skip
    if mode == "none":
        raise ControlError("the device has no mode (ENXIO)", errno=errno.ENXIO)
    step = max(align, SUBSECTION)
    offset = dataoff or data_offset(span, step, mode)
    trunc = span.end % step
    if offset >= span.size - trunc:
        raise ControlError(
            f"{span} unable to satisfy requested alignment (ENXIO)", errno=errno.ENXIO
        )
    npfns = (span.size - offset - trunc) // _PAGE
    return InfoBlock(kind, name.bytes, parent, offset, npfns, MODES[mode], align, 0, trunc)


def data_offset(span: Range, align: int, mode: str = "pmem") -> int:
    """Where data begins, behind the info block and, with `pmem`, the page structs."""
    structs = (span.size - RESERVED) // _PAGE * _STRUCT_PAGE if mode == "pmem" else 0
    return -(-(span.start + RESERVED + structs) // align) * align - span.start
