"""Unmodified tools on FD-9000 print, byte for byte, what they print on that machine's plain files."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from support import BIN, DATA, Host, need, need_sandbox

PACKAGES = {
    "busybox": "busybox-static",
    "memtool": "memtool",
    "dmidecode": "dmidecode",
    "acpidump": "acpica-tools",
    "hexdump": "bsdextrautils",
    "xxd": "xxd",
    "od": "coreutils",
    "dd": "coreutils",
    "strings": "binutils",
    "md5sum": "coreutils",
}
NEEDS = {
    "O1-busybox-devmem": ["busybox"],
    "O2-memtool": ["memtool"],
    "O3-dmidecode": ["dmidecode", "md5sum"],
    "O5-acpidump": ["acpidump"],
    "O7-hexdump-dd": ["hexdump", "xxd", "od", "dd", "strings"],
    "O8-periphery": [],
}


def expected(name: str) -> tuple[str, str]:
    """The command and its output, from a transcript that starts with `$ COMMAND`."""
    first, _, rest = (DATA / "clients" / f"{name}.txt").read_text().partition("\n")
    return first.removeprefix("$ "), rest


def need_periphery() -> None:
    if not list(BIN.parent.glob("lib/python3*/site-packages/periphery")):
        pytest.skip("the Python package python-periphery is not installed")


@pytest.mark.parametrize("name", NEEDS)
def test_transcript(host: Host, name: str) -> None:
    need_sandbox()
    for tool in NEEDS[name]:
        need(tool, PACKAGES[tool])
    if name == "O8-periphery":
        need_periphery()
    command, output = expected(name)
    done = host.run("fd-9000", "sh", "-c", command)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", output)


def _interpreter(path: Path) -> bool:
    """Whether an ELF program asks for a dynamic linker (PT_INTERP)."""
    data = path.read_bytes()
    start, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    return any(struct.unpack_from("<I", data, start + n * size) == (3,) for n in range(count))


def test_static_busybox(host: Host) -> None:
    """A program without a dynamic linker: nothing is preloaded into anybody."""
    need_sandbox()
    path = need("busybox", "busybox-static")
    if _interpreter(Path(path)):
        pytest.skip("busybox is not statically linked (package busybox-static)")
    done = host.run("fd-9000", path, "devmem", "0xd8100004", "8")
    assert (done.returncode, done.stdout) == (0, "0xEF\n")


def test_what_one_tool_writes_another_reads(host: Host) -> None:
    need_sandbox()
    need("busybox", "busybox-static")
    need("od", "coreutils")
    script = (
        "busybox devmem 0xd8100040 32 0x0badcafe;"
        "od -A n -t x4 -j 0xd8100040 -N 4 /dev/mem;"
        "printf '\\001\\002\\003\\004' | dd of=/dev/mem bs=1 seek=$((0xd8100044)) conv=notrunc status=none;"
        "busybox devmem 0xd8100044"
    )
    done = host.run("fd-9000", "sh", "-c", script)
    assert (done.stderr, done.stdout) == ("", " 0badcafe\n0x04030201\n")


@pytest.mark.parametrize(("status", "script"), [(0, "true"), (3, "exit 3"), (-15, "kill -TERM $$")])
def test_the_end_of_a_tool_is_ours(host: Host, status: int, script: str) -> None:
    need_sandbox()
    assert host.run("fd-9000", "sh", "-c", script).returncode == status


def test_streams_pass_through(host: Host) -> None:
    need_sandbox()
    text = os.urandom(100_000)
    done: Any = host.run("fd-9000", "sh", "-c", "cat; echo aside >&2", input=text, text=False)
    assert (done.stdout, done.stderr) == (text, b"aside\n")
