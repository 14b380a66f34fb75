"""Numbers of system calls and layouts of structs against the system's own headers."""

import functools
import os
import re
import subprocess
from pathlib import Path

import pytest
from support import need

from fakedev.sandbox.exact import layouts
from fakedev.sandbox.exact.numbers import AARCH64, I386, SECCOMP, X86_64, Arch
from fakedev.views.calls import Shown

INCLUDE = Path("/usr/include")
#: Tables by name: options of the compiler, and what to include.
HEADERS = {
    "x86_64": (["-m64"], "#include <asm/unistd_64.h>"),
    "i386": (["-m32"], "#include <asm/unistd_32.h>"),
    "aarch64": (
        ["-m64"],
        "#define __ARCH_WANT_NEW_STAT\n#define __BITS_PER_LONG 64\n#include <asm-generic/unistd.h>",
    ),
}
STATS = {
    "x86_64": ("-m64", "#include <asm/stat.h>", "struct stat"),
    "i386": ("-m32", "#include <asm/stat.h>", "struct stat64"),
    "aarch64": ("-m64", "#include <asm-generic/stat.h>", "struct stat"),
}
DEVICE = os.makedev(0x12, 0x345)
LOOK = Shown(
    ino=0x1234_5678_9, mode=0o020640, nlink=7, uid=1001, gid=1002,
    rdev=os.makedev(1, 1), size=0x1_2345_6789, time=1_700_000_000,
)  # fmt: skip
FIELDS = {
    "st_dev": DEVICE, "st_ino": LOOK.ino, "st_mode": LOOK.mode, "st_nlink": LOOK.nlink,
    "st_uid": LOOK.uid, "st_gid": LOOK.gid, "st_rdev": LOOK.rdev, "st_size": LOOK.size,
    "st_blksize": 4096, "st_blocks": (LOOK.size + 511) // 512, "st_atime": LOOK.time,
    "st_mtime": LOOK.time, "st_ctime": LOOK.time, "st_atime_nsec": 0, "st_mtime_nsec": 0,
    "st_ctime_nsec": 0,
}  # fmt: skip
STATX = {
    "stx_mask": 0x7FF, "stx_blksize": 4096, "stx_attributes": 0, "stx_nlink": LOOK.nlink,
    "stx_uid": LOOK.uid, "stx_gid": LOOK.gid, "stx_mode": LOOK.mode, "stx_ino": LOOK.ino,
    "stx_size": LOOK.size, "stx_blocks": (LOOK.size + 511) // 512, "stx_attributes_mask": 0,
    "stx_atime.tv_sec": LOOK.time, "stx_ctime.tv_sec": LOOK.time, "stx_mtime.tv_sec": LOOK.time,
    "stx_atime.tv_nsec": 0, "stx_btime.tv_sec": 0, "stx_rdev_major": 1, "stx_rdev_minor": 1,
    "stx_dev_major": 0x12, "stx_dev_minor": 0x345,
}  # fmt: skip


def compile_only(source: str, *options: str) -> str:
    """The assembly of a source that needs no C library, so that it compiles for 32 bits too."""
    include = [f"-I{path}" for path in INCLUDE.glob("*-linux-gnu")]
    if os.uname().machine != "x86_64":
        options = ()  # other compilers know one width
    command = [need("gcc", "gcc"), *options, *include, "-S", "-x", "c", "-o", "-", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(words: list[str], option: str, include: str) -> list[int]:
    """Constant expressions, as the compiler sees them."""
    table = ", ".join(f"1 + (int)({word})" for word in words)
    source = f"#include <stddef.h>\n{include}\nconst int table[] = {{{table}}};\n"
    found = re.findall(r"\.long\s+(\d+)", compile_only(source, option))
    assert len(found) == len(words)
    return [int(word) - 1 for word in found]


@pytest.mark.parametrize("arch", [X86_64, I386, AARCH64], ids=lambda arch: arch.name)
def test_every_number_is_that_of_the_header(arch: Arch) -> None:
    (option,), include = HEADERS[arch.name]
    if arch is not AARCH64 and os.uname().machine != "x86_64":
        pytest.skip("no x86 headers on this host")
    expected = arch.calls | arch.memory | arch.identity
    expected |= {"seccomp": SECCOMP[arch.name]} if arch.name in SECCOMP else {}
    names = list(expected)
    found = numbers([f"__NR_{name}" for name in names], option, include)
    assert dict(zip(names, found, strict=True)) == expected


@functools.cache
def places(option: str, include: str, struct: str, fields: tuple[str, ...]) -> dict[str, slice]:
    words = [
        word
        for field in fields
        for word in (f"offsetof({struct}, {field})", f"sizeof((({struct} *)0)->{field})")
    ]
    found = iter(numbers([*words, f"sizeof({struct})"], option, include))
    table = {field: slice(at := next(found), at + next(found)) for field in fields}
    return table | {"": slice(0, next(found))}


@pytest.mark.parametrize("arch", STATS)
def test_struct_stat(arch: str) -> None:
    if arch != "aarch64" and os.uname().machine != "x86_64":
        pytest.skip("no x86 headers on this host")
    data = layouts.stat(arch, DEVICE, LOOK)
    fields = FIELDS | ({"__st_ino": LOOK.ino & 0xFFFF_FFFF} if arch == "i386" else {})
    where = places(*STATS[arch], tuple(fields))
    assert len(data) == where[""].stop
    for field, value in fields.items():
        assert int.from_bytes(data[where[field]], "little") == value, field


def test_struct_statx() -> None:
    data = layouts.statx(DEVICE, LOOK)
    where = places("-m64", "#include <linux/stat.h>", "struct statx", tuple(STATX))
    assert len(data) == where[""].stop
    for field, value in STATX.items():
        assert int.from_bytes(data[where[field]], "little") == value, field
