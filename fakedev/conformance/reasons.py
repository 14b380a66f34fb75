"""What is not comparable, each with its reason. Nothing here is matched by an address or a number."""

import fnmatch
from collections.abc import Iterator
from typing import NamedTuple

from fakedev.conformance.records import Record


class Reason(NamedTuple):
    """Records whose phase, case and op match are not compared in `field`, or with `*` not at all.

    With `mask`, only what this expression matches in the field is left out. `missing`: only those that the
    machine could not be asked for. `records`: of a deviation, how many records it explains in all recordings
    that come with fakedev, and no more.
    """

    text: str
    phase: str = "*"
    case: str = "*"
    op: str = "*"
    field: str = "*"
    mask: str = ""
    missing: bool = False
    records: int = 0

    def is_about(self, record: Record) -> bool:
        """Whether it is about a record."""
        return (
            _matches(record["phase"], self.phase)
            and _matches(record["op"], self.op)
            and _matches(record["case"], self.case)
        )

    def whole(self, *, missing: bool) -> bool:
        """Whether the record is not compared at all; `missing` says that there is no second one."""
        return self.field == "*" and (missing or not self.missing)

    def covers(self, field: str) -> bool:
        """Whether it is about a field of the record."""
        return self.field != "*" and _matches(field, self.field)


def _matches(text: str, pattern: str) -> bool:
    return pattern == "*" or fnmatch.fnmatchcase(text, pattern)


_CACHE = "cache attributes of pages: a mapping of a file has none"
_TABLES = "the host's own account of its mapping: smaps, page tables"
_KASLR = "addresses that are drawn at boot (KASLR)"
_TEXT = "the text of a command, or what it prints; its exit status is compared"
_MONITOR = "what QEMU's monitor says of QEMU"
_PLACE = "names and numbers of this run: temporary files, descriptors, inodes"
_KCORE = "a host without /proc/kcore: fakedev shows it below /dev"
_COUNT = "the number of records"
_UDEV = "permission bits: a kernel without udev was recorded"
_NODES = "an ordinary user of the host can make no device node"
_EDU = "QEMU's edu: a register answers with the inverse of what was stored, and only to loads of 4 bytes"
_E1000 = "QEMU's e1000 answers a load of a byte with the lowest of four"
_DRIVER = "what a driver left in the registers or the memory of its device"
_CHIPS = "registers of interrupt controllers, which the kernel uses all the time"
_AML = "the page through which ACPI methods talk to QEMU's NVDIMMs"
_RAM = "what a kernel keeps in its RAM"

#: Accesses to a BAR after its driver was loaded; those beside it are compared.
_OF_BAR = (
    *(
        "bound *devmem-*",
        "bound sysfs-*",
        "bound procbuspci*",
        "bound span-BAR-page",
        "bound child*",
    ),
    *("bound unaligned-*", "bound write(*", "bound pread*", "bound pwrite", "bound *-mmap-p*"),
    *("revoked-*", "unbound *", "rebound *", "rmmod *"),
)
_CONTENTS = "data last_u32 readback before after args.value"
_ADDRESSES = r"(?<=^LOAD   )0x\w+ 0x(?:ffffffff[89a]\w+ 0x\w+|\w+)"
_LIVENESS = r"(?<=^\w{8})\w{8}"  # the second word of its BAR
_BEHIND = r"(?<=^\w{16})\w+"  # what lies behind the first 8 bytes


def _fields(text: str, phase: str, case: str, fields: str) -> Iterator[Reason]:
    """One for each field."""
    return (Reason(text, phase=phase, case=case, field=field) for field in fields.split())


REASONS = (
    Reason(_CACHE, field="memtype"),
    Reason(_TABLES, field="smaps"),
    Reason(_TABLES, case="*smaps*", op="read", field="data"),
    Reason(_TABLES, op="pagemap", field="entry"),
    Reason(_TEXT, op="shell", field="args.cmd"),
    Reason(_TEXT, op="shell", field="data"),
    Reason(_MONITOR, case="mtree", op="qemu_monitor"),
    Reason(_MONITOR, case="memory_size_summary", op="qemu_monitor"),
    Reason(_COUNT, phase="end"),
    Reason(_PLACE, field="st.ino"),
    Reason(_PLACE, case="reopen-proc-self-fd-user", field="args.path", mask=r"\d+$"),
    Reason(_KCORE, case="*open*kcore*", field="args.path", mask=r"^/(?:proc|dev)(?=/kcore$)"),
    Reason(_KASLR, case="kcore-phdrs", field="data", mask=_ADDRESSES),
    Reason(_KASLR, case="kcore-read-segment", field="args.offset"),
    Reason(_RAM, case="kcore-read-segment", field="data"),
    Reason(_UDEV, case="stat-devmem-devtmpfs", field="st.mode", mask=r"\d{3}$"),
    Reason(_NODES, case="open-mknod-*"),
    Reason(_NODES, case="open-mem-on-nodev-mount"),
    Reason(_EDU, case="*edu*", field="data", mask=_LIVENESS),
    Reason(_EDU, case="*edu*", op="touch_write", field="readback"),
    Reason(_EDU, case="edu-*", op="pread", field="data"),
    Reason(_EDU, case="edu-id-u[68]*", op="touch_read", field="data"),
    Reason(_EDU, case="devmem-edu-write(pipe*", field="data"),
    Reason(_EDU, phase="bind-errors", case="uio-devmem-mmap", field="data", mask=_LIVENESS),
    Reason(_EDU, phase="remove-edu", op="mmap+touch", field="data", mask=_LIVENESS),
    Reason(_EDU, phase="remove-edu", op="pread", field="data"),
    Reason(_EDU, phase="lockdown-runtime", op="touch_write", field="readback"),
    Reason(_EDU, phase="lockdown-runtime", op="mmap+touch", field="data", mask=_LIVENESS),
    Reason(_E1000, phase="matrix-*", case="e1000-bar0-unaligned", op="pread", field="data"),
    *(one for case in _OF_BAR for one in _fields(_DRIVER, "revoke-*", case, _CONTENTS)),
    *_fields(_DRIVER, "revoke-*", "bound mmap-span", "last_u32"),
    Reason(_DRIVER, phase="cross-write", case="*-into-claimed", field="data", mask=_BEHIND),
    *_fields(_DRIVER, "cross-write", "mmap-*-into-claimed", "last_u32"),
    *_fields(_DRIVER, "remove-e1000-bound", "*devmem*", "data"),
    *_fields(_DRIVER, "remove-e1000-bound", "*sysfs", "data"),
    *_fields(_DRIVER, "remove-e1000-bound", "rescanned devmem-mmap", "last_u32"),
    *_fields(_DRIVER, "matrix-vmem-*", "virtio-* drv=virtio-pci", "data last_u32"),
    *_fields(_DRIVER, "matrix-all-drivers", "*drv=[!(]*", "data last_u32 before after"),
    *_fields(_DRIVER, "matrix-all-drivers", "e1000-*", "data last_u32"),
    *_fields(_DRIVER, "matrix-all-drivers", "*vga-*", "data last_u32 before after"),
    *_fields(_DRIVER, "lockdown-runtime", "*: pwrite held devmem fd", "before after"),
    *_fields(_CHIPS, "matrix-*", "ioapic-*", "data last_u32"),
    *_fields(_CHIPS, "matrix-*", "lapic-*", "data last_u32"),
    *_fields(_AML, "matrix-vmem-*", "Reserved@*-last4k", "data"),
    *_fields(_AML, "matrix-all-drivers", "Reserved@*-last4k", "data"),
)
