"""What differs from the recording, and why. A test fails where an entry matches more or fewer records.

Patterns are of `phase: case: op`. An entry says how many records it covers; all of these are forced by the
host's kernel, done elsewhere, or of another issue: nothing is here because it was not done.
"""

from truth.compare import Kind, Known

_OUTSIDE = (
    "done from outside, through the control socket; what it does is seen by the records around it"
)
_VM = "asks the host's memory management about mappings of pages, which /dev/mem's have none of"
_CLIENT = "the host's kernel copies between processes through its own pages"
_SMAPS = "the text of the host's /proc/self/smaps"
_GROW = "a mapping of a file may grow and be copied; one of /dev/mem may not: the host asks nobody"
_IOCTL = "the host's FUSE copies 4163 bytes from address 0 before it asks: the number says so"
_NODES = "device nodes of the host's kernel; a sandbox can make none"
_UIO = "no /dev/uio0 is served"
_ONE_USER = "one sandbox has one user"

NOT_APPLICABLE = (
    Known("*: *: shell", 24, _OUTSIDE),
    Known("*: *: qemu_monitor", 8, _OUTSIDE),
    Known("revoke-*: revoked-madvise-*: madvise", 75, _VM),
    Known("revoke-*: revoked-m*lock: m*lock", 10, _VM),
    Known("revoke-*: revoked-mincore: mincore", 5, _VM),
    Known("revoke-*: bound pagemap devmem-full: pagemap", 6, _VM),
    Known("revoke-*: revoked-futex-*: futex", 10, _VM),
    Known("revoke-*: revoked-process_vm_*-self: process_vm_*", 10, _CLIENT),
    Known("revoke-*: revoked-vmsplice: vmsplice", 5, _CLIENT),
    Known("revoke-*: revoked-ptrace-PEEKDATA: ptrace", 5, _CLIENT),
    Known("*: *smaps*: read", 20, _SMAPS),
    Known("revoke-*: revoked-mremap-grow-*: mremap", 12, _GROW),
    Known("revoke-*: revoked-mremap-d*: mremap", 12, _GROW),
    Known(
        "revoke-*: before fork-with-COWed-private: fork", 6, "a quirk of remap_pfn_range mappings"
    ),
    Known("sysfs-ops: resource0-user-*: *", 3, _ONE_USER),
    Known("sysfs-ops: nodev-mount: mount", 1, _NODES),
    Known("sysfs-ops: open-m*: open", 2, _NODES),
    Known("bind-errors: uio-open: open", 1, _UIO),
    Known("bind-errors: uio-mmap: mmap", 1, _UIO),
    Known("sysfs: proc-bus-pci-ioctl-MMAP_IS_MEM: ioctl", 1, _IOCTL),
)

_ST_SIZE = "the VFS computes it from st_size, which tools want to be the real one"
_PRIVATE = "an invalidation through FUSE spares the private copies of a page"
_ONE_REQUEST = "direct I/O makes one request of it: all of it is refused, nothing is copied"
_INODE = (
    "the host asks for a page of a file, not of a mapping: a file that lost a page gives it to nobody "
    "again, or old mappings would come to life; a new descriptor does, and is used from here on"
)
_SURVIVES = (
    "the host asks for a page of a file, not of a mapping: mappings from before the removal live on, as "
    "on a real kernel, and a new one through the same descriptor cannot be told from them"
)

_SIZE = "a mapping of a file ends at its st_size, here that of the configuration space; the offset is an address"

_EXEC = "the errno of mmap is another issue's: the mount is not noexec, as that of sysfs is"

DEVIATIONS = (
    Known("sysfs: * mmap-exec: mmap+touch", 6, _EXEC),
    Known("sysfs: 0000:*(mem,*: lseek-END", 6, _ST_SIZE),
    Known("sysfs-ops: resource0-lseek-end: lseek", 1, _ST_SIZE),
    Known("sysfs-ops: iomem-lseek-end: lseek", 1, _ST_SIZE),
    Known(
        "sysfs-ops: rename: rename", 1, "/sys itself is the host's: two file systems, EXDEV first"
    ),
    Known("revoke-*: bound *private: touch_read", 12, _PRIVATE),
    Known("revoke-*: bound *private-COWed-page: touch_read", 12, _PRIVATE),
    Known(
        "revoke-*: bound pread(/proc/self/mem, span straddling, 16): pread",
        6,
        "a leak of generic_access_phys: the device's bytes, although they were revoked",
    ),
    Known("revoke-*: bound pread-cross-into: pread", 6, _ONE_REQUEST),
    Known("cross-write: pread-cross-into-claimed: pread", 1, _ONE_REQUEST),
    Known("cross-write: p*v-2x8-cross: p*v", 2, _ONE_REQUEST),
    Known("revoke-*: unbound new-mmap-page: mmap+touch", 6, _INODE),
    Known("revoke-*: unbound remap-full: mmap", 6, _INODE),
    Known("revoke-*: unbound sysfs-mmap-oldfd: mmap", 6, _INODE),
    Known("revoke-*: rmmod new-mmap-page: mmap+touch", 6, _INODE),
    Known("sysfs: proc-bus-pci-mmap-mem: mmap", 1, _SIZE),
    Known("sysfs: proc-bus-pci-touch: touch_read", 1, _SIZE),
    Known("revoke-*: procbuspci-map: mmap", 6, _SIZE),
    Known("revoke-*: * procbuspci: touch_read", 18, _SIZE),
    Known(
        "remove-e1000-bound: removed devmem-mmap: mmap+touch",
        1,
        "a page that was refused to a file stays refused: to the host the mapping that failed on the real "
        "kernel is there, and would come to life",
    ),
    Known("remove-*: removed mmap-resource-fd: mmap", 3, _SURVIVES),
    Known("remove-*: rescanned mmap-old-resource-fd: mmap", 3, _SURVIVES),
)

_EDU = "the liveness register inverts what earlier phases of the recording stored: behaviour, no memory"

CONTENTS = (
    Known(
        "sysfs: edu-write-mem-decode-off: touch_write",
        1,
        "the store is in a page that the host caches until it is written back, and then gone",
    ),
    Known("*: *edu*: mmap+touch", 2, _EDU),
    Known("bind-errors: uio-devmem-mmap: mmap+touch", 1, _EDU),
    Known("remove-edu: *: mmap+touch", 2, _EDU),
    Known("remove-edu: removed devmem-pread: pread", 1, "the model answers 32-bit loads only"),
    Known(
        "remove-ivshmem: * devmem-*: *", 3, "what phase vm-ops of the recording had stored there"
    ),
    Known(
        "remove-e1000e-hotplug: removed *devmem*: *",
        3,
        "QEMU answers 0 where nothing decodes, a PC all-ones",
    ),
    Known("remove-e1000e-hotplug: removed touch-sysfs: touch_read", 1, "the same"),
    Known("revoke-vga: unbound *: *", 3, "the driver had cleared the screen"),
    Known("revoke-hda: unbound *: *", 3, "the driver had set the controller up"),
    Known("remove-e1000-bound: removed devmem-*: *", 1, "the driver had reset the card"),
)

TABLES = {
    Kind.NOT_APPLICABLE: NOT_APPLICABLE,
    Kind.DEVIATION: DEVIATIONS,
    Kind.CONTENTS: CONTENTS,
}
