"""Which system calls are worth a look: conditions on numbers and flags, which is all that a filter sees.

Every call that passes here costs its caller some ten microseconds, ours or not; so a rule asks for
what an ordinary program rarely does.
"""

from typing import NamedTuple

from fakedev.sandbox.exact.numbers import Arch
from fakedev.views.kinds import REGULAR_COMMANDS
from fakedev.views.mappings import ADVICE, MCL_CURRENT

ALL_ONES = 0xFFFF_FFFF
SIGN = 0x8000_0000
MAP_ANONYMOUS = 0x20
MAP_DENYWRITE = 0x800  # ld.so sets it; mmap(2) takes no notice of it
AT_EMPTY_PATH = 0x1000
SEEK_END = 2
F_SETFL = 4
O_DIRECT = {"x86_64": 0x4000, "i386": 0x4000, "aarch64": 0x1_0000}
PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_SET_TIMERSLACK = 8, 28, 29
# _IO-less numbers of drivers/pci/proc.c: 'P' << 24 | 'C' << 16 | 'I' << 8.
PCIIOC = range(0x5043_4900, 0x5043_4906)


class Test(NamedTuple):
    """A condition on one 32-bit half of an argument: `eq`, `ne`, `ge`, `set` (any bit), `clear`."""

    argument: int
    kind: str
    value: int
    high: bool = False


Alternative = tuple[Test, ...]
_ALWAYS: tuple[Alternative, ...] = ((),)
_FILE_MAPPED = ((Test(4, "ne", ALL_ONES), Test(3, "clear", MAP_ANONYMOUS | MAP_DENYWRITE)),)


def _any(argument: int, values: "range | tuple[int, ...]") -> tuple[Alternative, ...]:
    return tuple((Test(argument, "eq", value),) for value in values)


def rules(arch: str) -> dict[str, tuple[Alternative, ...]]:
    """The alternatives for each call, by name; a call is sent on when one of them holds."""
    direct = ((Test(1, "eq", F_SETFL), Test(2, "set", O_DIRECT[arch])),)
    from_end = (Test(2, "ge", SEEK_END),)
    nothing = ((Test(2, "eq", 0), Test(2, "eq", 0, high=True)),)
    return {
        "mmap": _FILE_MAPPED,
        "mmap2": _FILE_MAPPED,
        "fstat": _ALWAYS,
        "fstat64": _ALWAYS,
        "newfstatat": ((Test(3, "set", AT_EMPTY_PATH),),),
        "fstatat64": ((Test(3, "set", AT_EMPTY_PATH),),),
        "statx": ((Test(2, "set", AT_EMPTY_PATH),),),
        "lseek": (from_end, (Test(1, "set", SIGN, high=arch != "i386"),)),
        "_llseek": ((Test(4, "ge", SEEK_END),), (Test(1, "set", SIGN),)),
        "pread64": nothing,
        "pwrite64": nothing,
        "ioctl": _any(1, (*REGULAR_COMMANDS, *PCIIOC)),
        "fcntl": direct,
        "fcntl64": direct,
        **dict.fromkeys(
            (
                "fsync", "fdatasync", "ftruncate", "ftruncate64", "sendfile",
                "sendfile64", "splice", "copy_file_range", "readahead",
                "sync_file_range",
            ),
            _ALWAYS,
        ),
    }  # fmt: skip


def identity_rules(arch: Arch) -> dict[str, tuple[Alternative, ...]]:
    """The same for the calls about users, groups and capabilities.

    All of them, but few of prctl(2), and chown(2) only to ids that do not exist in the sandbox.
    """
    options = (PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_SET_TIMERSLACK)
    own = {
        name: _unknown_id(2 if name == "fchownat" else 1)
        for name in arch.identity
        if "chown" in name
    }
    return {**dict.fromkeys(arch.identity, _ALWAYS), **own, "prctl": _any(0, options)}


def _unknown_id(first: int) -> tuple[Alternative, ...]:
    """A user or a group that is neither 0 nor -1."""
    places = (first, first + 1)
    return tuple((Test(at, "ne", 0), Test(at, "ne", ALL_ONES)) for at in places)


def memory_rules(arch: Arch) -> dict[str, tuple[Alternative, ...]]:
    """The same for the calls about addresses."""
    return {
        **dict.fromkeys(arch.memory, _ALWAYS),
        "madvise": _any(2, ADVICE),
        "mlockall": ((Test(0, "set", MCL_CURRENT),),),
    }
