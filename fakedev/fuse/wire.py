"""The wire protocol of /dev/fuse: structs, opcodes and flags. Bytes in, bytes out; no descriptor here.

Names and offsets are those of `<linux/fuse.h>` (protocol 7.31 and later); `tests/test_wire.py`
compiles C against the system header and compares every offset.
"""

import enum
import struct
from typing import NamedTuple

KERNEL_VERSION = 7
KERNEL_MINOR_VERSION = 38
MINIMUM_MINOR = 31
ROOT_ID = 1
OFFSET_LIMIT = (1 << 63) - 1

# INIT flags (bits 32 and up travel in flags2).
ASYNC_READ = 1 << 0
ATOMIC_O_TRUNC = 1 << 3
BIG_WRITES = 1 << 5
DO_READDIRPLUS = 1 << 13
READDIRPLUS_AUTO = 1 << 14
ASYNC_DIO = 1 << 15
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
EXPLICIT_INVAL_DATA = 1 << 25
INIT_EXT = 1 << 30
DIRECT_IO_ALLOW_MMAP = 1 << 36

FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_CACHE_DIR = 1 << 3

POLL_SCHEDULE_NOTIFY = 1 << 0
READ_LOCKOWNER = 1 << 1
WRITE_CACHE = 1 << 0
GETATTR_FH = 1 << 0
FATTR_MODE = 1 << 0
FATTR_UID, FATTR_GID = 1 << 1, 1 << 2
FATTR_SIZE = 1 << 3


class Opcode(enum.IntEnum):
    """Requests that the kernel sends (`enum fuse_opcode`)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47


class Notify(enum.IntEnum):
    """Notifications that the server sends (`enum fuse_notify_code`)."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4


# Plain ints are found and compared faster, and every message is compared.
READ, INTERRUPT = int(Opcode.READ), int(Opcode.INTERRUPT)
NO_REPLY = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY})


class WireError(Exception):
    """A message from the kernel that is too short for its kind."""


class Layout(struct.Struct):
    """A little-endian struct of the header, with its field names and offsets."""

    def __init__(self, name: str, fields: str) -> None:
        pairs = [field.split(":") for field in fields.split()]
        super().__init__("<" + "".join(code for _, code in pairs))
        self.name = name
        self.offsets: dict[str, int] = {}
        offset = 0
        for field, code in pairs:
            self.offsets[field] = offset
            offset += struct.calcsize("<" + code)


IN_HEADER = Layout(
    "fuse_in_header",
    "len:I opcode:I unique:Q nodeid:Q uid:I gid:I pid:I total_extlen:H padding:H",
)
OUT_HEADER = Layout("fuse_out_header", "len:I error:i unique:Q")
INIT_IN = Layout("fuse_init_in", "major:I minor:I max_readahead:I flags:I flags2:I unused:44s")
INIT_IN_SHORT = Layout("fuse_init_in", "major:I minor:I max_readahead:I flags:I")
INIT_OUT = Layout(
    "fuse_init_out",
    "major:I minor:I max_readahead:I flags:I max_background:H congestion_threshold:H max_write:I "
    "time_gran:I max_pages:H map_alignment:H flags2:I unused:28s",
)
ATTR = Layout(
    "fuse_attr",
    "ino:Q size:Q blocks:Q atime:Q mtime:Q ctime:Q atimensec:I mtimensec:I ctimensec:I mode:I "
    "nlink:I uid:I gid:I rdev:I blksize:I flags:I",
)
ENTRY_OUT = Layout(
    "fuse_entry_out",
    "nodeid:Q generation:Q entry_valid:Q attr_valid:Q entry_valid_nsec:I attr_valid_nsec:I attr:88s",
)
ATTR_OUT = Layout("fuse_attr_out", "attr_valid:Q attr_valid_nsec:I dummy:I attr:88s")
GETATTR_IN = Layout("fuse_getattr_in", "getattr_flags:I dummy:I fh:Q")
SETATTR_IN = Layout(
    "fuse_setattr_in",
    "valid:I padding:I fh:Q size:Q lock_owner:Q atime:Q mtime:Q ctime:Q atimensec:I mtimensec:I "
    "ctimensec:I mode:I unused4:I uid:I gid:I unused5:I",
)
SETATTR_MODE, SETATTR_UID, SETATTR_GID = (
    list(SETATTR_IN.offsets).index(name) for name in ("mode", "uid", "gid")
)
OPEN_IN = Layout("fuse_open_in", "flags:I open_flags:I")
OPEN_OUT = Layout("fuse_open_out", "fh:Q open_flags:I padding:I")
READ_IN = Layout("fuse_read_in", "fh:Q offset:Q size:I read_flags:I lock_owner:Q flags:I padding:I")
# What matters in a whole READ message, which is most of the traffic: opcode, unique, pid,
# total_extlen, fh, offset, size, read_flags, flags.
READ_MESSAGE = struct.Struct("<4xIQ16xIH2xQQII8xI4x")
WRITE_IN = Layout(
    "fuse_write_in", "fh:Q offset:Q size:I write_flags:I lock_owner:Q flags:I padding:I"
)
WRITE_OUT = Layout("fuse_write_out", "size:I padding:I")
RELEASE_IN = Layout("fuse_release_in", "fh:Q flags:I release_flags:I lock_owner:Q")
ACCESS_IN = Layout("fuse_access_in", "mask:I padding:I")
FORGET_IN = Layout("fuse_forget_in", "nlookup:Q")
FORGET_ONE = Layout("fuse_forget_one", "nodeid:Q nlookup:Q")
BATCH_FORGET_IN = Layout("fuse_batch_forget_in", "count:I dummy:I")
INTERRUPT_IN = Layout("fuse_interrupt_in", "unique:Q")
POLL_IN = Layout("fuse_poll_in", "fh:Q kh:Q flags:I events:I")
POLL_OUT = Layout("fuse_poll_out", "revents:I padding:I")
KSTATFS = Layout(
    "fuse_kstatfs",
    "blocks:Q bfree:Q bavail:Q files:Q ffree:Q bsize:I namelen:I frsize:I padding:I spare:24s",
)
DIRENT = Layout("fuse_dirent", "ino:Q off:Q namelen:I type:I")
INVAL_INODE_OUT = Layout("fuse_notify_inval_inode_out", "ino:Q off:q len:q")
INVAL_ENTRY_OUT = Layout("fuse_notify_inval_entry_out", "parent:Q namelen:I flags:I")
POLL_WAKEUP_OUT = Layout("fuse_notify_poll_wakeup_out", "kh:Q")
STORE_OUT = Layout("fuse_notify_store_out", "nodeid:Q offset:Q size:I padding:I")

LAYOUTS = (
    IN_HEADER, OUT_HEADER, INIT_IN, INIT_OUT, ATTR, ENTRY_OUT, ATTR_OUT, GETATTR_IN, SETATTR_IN,
    OPEN_IN, OPEN_OUT, READ_IN, WRITE_IN, WRITE_OUT, RELEASE_IN, ACCESS_IN, FORGET_IN, FORGET_ONE,
    BATCH_FORGET_IN, INTERRUPT_IN, POLL_IN, POLL_OUT, KSTATFS, DIRENT, INVAL_INODE_OUT, INVAL_ENTRY_OUT,
    POLL_WAKEUP_OUT, STORE_OUT,
)  # fmt: skip


class Request(NamedTuple):
    """One request. `body` is a view of the receive buffer: valid until the next read into it."""

    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    body: memoryview


def parse(message: memoryview) -> Request:
    """Split a message into header and body. Raises WireError when it is shorter than it says."""
    if len(message) < IN_HEADER.size:
        raise WireError(f"a message of {len(message)} bytes is shorter than its header")
    length, opcode, unique, nodeid, uid, gid, pid, extensions, _ = IN_HEADER.unpack_from(message)
    end = length - 8 * extensions
    if length != len(message) or end < IN_HEADER.size:
        raise WireError(f"a message of {len(message)} bytes says {length}")
    return Request(opcode, unique, nodeid, uid, gid, pid, message[IN_HEADER.size : end])


def unpack(layout: Layout, body: memoryview) -> tuple[int, ...]:
    """The fields of `layout` at the start of `body`. Raises WireError when it is too short."""
    if len(body) < layout.size:
        raise WireError(f"{layout.name} needs {layout.size} bytes, not {len(body)}")
    return layout.unpack_from(body)


def notification(code: Notify, body: bytes) -> bytes:
    """A whole unsolicited message."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), code, 0) + body


def inval_inode(nodeid: int, offset: int, length: int) -> bytes:
    """Drop cached pages of a file, dirty ones after writing them back; length 0 means to the end."""
    return notification(Notify.INVAL_INODE, INVAL_INODE_OUT.pack(nodeid, offset, length))


def inval_entry(parent: int, name: bytes) -> bytes:
    """Forget that `name` in directory `parent` resolves to what it did."""
    return notification(
        Notify.INVAL_ENTRY, INVAL_ENTRY_OUT.pack(parent, len(name), 0) + name + b"\0"
    )


def poll_wakeup(key: int) -> bytes:
    """Let who polls a file ask again; `key` came with the request."""
    return notification(Notify.POLL, POLL_WAKEUP_OUT.pack(key))


def store(nodeid: int, offset: int, data: bytes) -> bytes:
    """Put `data` into the cached pages of a file, where mapped readers see it at once."""
    return notification(Notify.STORE, STORE_OUT.pack(nodeid, offset, len(data), 0) + data)


def dirent(ino: int, next_offset: int, kind: int, name: bytes) -> bytes:
    """One directory entry, padded to 8 bytes. `kind` is the DT_ type."""
    raw = DIRENT.pack(ino, next_offset, len(name), kind) + name
    return raw + bytes(-len(raw) % 8)


def name_in(body: memoryview) -> str:
    """The NUL-terminated name of a LOOKUP; bytes that are not UTF-8 survive as surrogates."""
    raw = bytes(body)
    if not raw or raw[-1] != 0:
        raise WireError("a name without its terminating NUL")
    return raw[:-1].decode("utf-8", "surrogateescape")
