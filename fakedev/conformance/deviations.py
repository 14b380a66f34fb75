"""What differs, and why: nothing here is left out of a score. A difference that is not here is a new one.

Entries say how many records they are about, so that one more is noticed, too.
"""

from fakedev.conformance.reasons import Reason

_SHORT = "the host's kernel copies the answer to a read, and says how much fitted"
_POSITION = "the host's kernel keeps the position of a descriptor, and its file systems end at 2^63"
_STORE = "a store lies in a page of the host until it is written back, and reads back until then"
_CACHE = "nobody keeps cache attributes of mappings, so nothing conflicts with one"
_FORK = "the host copies page tables of a file that the real kernel refuses to copy"
_DONTNEED = (
    "MADV_DONTNEED is never refused: allocators take no notice of an error, and rely on zeros"
)
_FUTEX = "a page of a file has a place that a shared futex can be named after"
_FIXED = "the real kernel had unmapped what was there before the driver refused"
_LEAK = "generic_access_phys() looks at the first page only, and shows revoked bytes: not followed"
_PROC = (
    "a mapping of a file ends at its size, and that of /proc/bus/pci is the configuration space's"
)
_ROOT = "/sys itself is the host's: two file systems, which is seen first"

#: Where the real kernel had the range mapped with other cache attributes by then.
_CONFLICTS = ("low-ram-unaligned", "whole-low-1M", "flash-top-16")

DEVIATIONS = (
    Reason(_SHORT, phase="fd", case="pread-buf-partially-unmapped", records=1),
    Reason(_POSITION, phase="fd", op="lseek", records=6),
    Reason(_POSITION, phase="fd", case="read16-after-lseek-*", records=2),
    Reason(_STORE, phase="matrix-*", op="mmap+touch", case="*-hole-*", field="readback", records=4),
    *(
        Reason(_CACHE, phase="matrix-vmem-online", case=case, field="errno", records=1)
        for case in _CONFLICTS
    ),
    Reason(_CACHE, phase="lockdown-runtime", case="before sysfs-map", records=1),
    Reason(_FORK, op="fork", records=7),
    Reason(_DONTNEED, op="madvise", case="*-DONTNEED", records=11),
    Reason(_DONTNEED, phase="vm-ops", case="private-after-DONTNEED", records=1),
    Reason(_FUTEX, op="futex", records=5),
    Reason(_FIXED, phase="vm-ops", case="after-failed-MAP_FIXED", records=1),
    Reason(_LEAK, phase="revoke-*", case="bound pread(/proc/self/mem, span straddling*", records=6),
    Reason(_PROC, case="*procbuspci*", op="touch_read", records=6),
    Reason(_PROC, case="proc-bus-pci-touch", records=1),
    Reason(_ROOT, phase="sysfs-ops", op="rename", records=2),
)
