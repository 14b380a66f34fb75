"""System call numbers of the calls that the exact layer looks at, by architecture of the caller.

Sources: `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`, `include/uapi/asm-generic/unistd.h`.
"""

from typing import NamedTuple


class Arch(NamedTuple):
    """One table: `audit` is the AUDIT_ARCH_* of the filter, `bits` the width of a pointer.

    `identity`: the calls about users, groups and capabilities; `memory`: those about addresses.
    """

    name: str
    audit: int
    bits: int
    calls: dict[str, int]
    identity: dict[str, int]
    memory: dict[str, int]


X86_64 = Arch(
    "x86_64",
    0xC000_003E,
    64,
    {
        "fstat": 5, "lseek": 8, "mmap": 9, "ioctl": 16, "pread64": 17, "pwrite64": 18,
        "sendfile": 40, "fcntl": 72, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
        "readahead": 187, "newfstatat": 262, "splice": 275,
        "sync_file_range": 277, "copy_file_range": 326, "statx": 332,
    },
    {
        "getuid": 102, "getgid": 104, "setuid": 105, "setgid": 106, "geteuid": 107, "getegid": 108,
        "setreuid": 113, "setregid": 114, "getgroups": 115, "setgroups": 116, "setresuid": 117,
        "getresuid": 118, "setresgid": 119, "getresgid": 120, "setfsuid": 122, "setfsgid": 123,
        "capget": 125, "capset": 126, "prctl": 157, "chown": 92, "fchown": 93, "lchown": 94,
        "fchownat": 260,
    },
    {
        "mremap": 25, "mincore": 27, "madvise": 28, "mlock": 149, "mlockall": 151,
        "remap_file_pages": 216, "vmsplice": 278, "process_vm_readv": 310,
        "process_vm_writev": 311, "mlock2": 325,
    },
)  # fmt: skip

I386 = Arch(
    "i386",
    0x4000_0003,
    32,
    {
        "lseek": 19, "ioctl": 54, "fcntl": 55, "ftruncate": 93, "fsync": 118, "_llseek": 140,
        "fdatasync": 148, "pread64": 180, "pwrite64": 181, "sendfile": 187, "mmap2": 192,
        "ftruncate64": 194, "fstat64": 197, "fcntl64": 221, "readahead": 225, "sendfile64": 239,
        "fstatat64": 300, "splice": 313,
        "sync_file_range": 314, "copy_file_range": 377, "statx": 383,
    },
    {
        "prctl": 172, "capget": 184, "capset": 185, "getuid32": 199, "getgid32": 200,
        "geteuid32": 201, "getegid32": 202, "setreuid32": 203, "setregid32": 204,
        "getgroups32": 205, "setgroups32": 206, "setresuid32": 208, "getresuid32": 209,
        "setresgid32": 210, "getresgid32": 211, "setuid32": 213, "setgid32": 214,
        "setfsuid32": 215, "setfsgid32": 216, "lchown32": 198, "fchown32": 207, "chown32": 212,
        "fchownat": 298,
    },
    {
        "mlock": 150, "mlockall": 152, "mremap": 163, "mincore": 218, "madvise": 219,
        "remap_file_pages": 257, "vmsplice": 316, "process_vm_readv": 347,
        "process_vm_writev": 348, "mlock2": 376,
    },
)  # fmt: skip

AARCH64 = Arch(
    "aarch64",
    0xC000_00B7,
    64,
    {
        "fcntl": 25, "ioctl": 29, "ftruncate": 46, "lseek": 62, "pread64": 67,
        "pwrite64": 68, "sendfile": 71, "splice": 76, "newfstatat": 79, "fstat": 80, "fsync": 82,
        "fdatasync": 83, "sync_file_range": 84, "readahead": 213, "mmap": 222,
        "copy_file_range": 285, "statx": 291,
    },
    {
        "capget": 90, "capset": 91, "setregid": 143, "setgid": 144, "setreuid": 145, "setuid": 146,
        "setresuid": 147, "getresuid": 148, "setresgid": 149, "getresgid": 150, "setfsuid": 151,
        "setfsgid": 152, "getgroups": 158, "setgroups": 159, "prctl": 167, "getuid": 174,
        "geteuid": 175, "getgid": 176, "getegid": 177, "fchownat": 54, "fchown": 55,
    },
    {
        "vmsplice": 75, "mremap": 216, "mlock": 228, "mlockall": 230, "mincore": 232,
        "madvise": 233, "remap_file_pages": 234, "process_vm_readv": 270,
        "process_vm_writev": 271, "mlock2": 284,
    },
)  # fmt: skip

#: Tables that a tool may use, by `platform.machine()` of the host; the number of seccomp(2) beside.
HOSTS: dict[str, tuple[Arch, ...]] = {"x86_64": (X86_64, I386), "aarch64": (AARCH64,)}
SECCOMP = {"x86_64": 317, "aarch64": 277}
