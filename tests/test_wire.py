"""The structs of the wire protocol against the system's own header, and what bad messages do."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakedev.fuse import wire

HEADER = "/usr/include/linux/fuse.h"


def _program() -> str:
    lines = [
        "#include <stddef.h>",
        "#include <stdio.h>",
        "#include <linux/fuse.h>",
        "int main(void) {",
    ]
    for layout in wire.LAYOUTS:
        lines.append(f'printf("{layout.name} %zu\\n", sizeof(struct {layout.name}));')
        lines += [
            f'printf("{layout.name}.{field} %zu\\n", offsetof(struct {layout.name}, {field}));'
            for field in layout.offsets
        ]
    names = ["FUSE_" + op.name for op in wire.Opcode]
    names += ["FUSE_NOTIFY_" + code.name for code in wire.Notify]
    names += ["FUSE_ASYNC_READ", "FUSE_ATOMIC_O_TRUNC", "FUSE_MAX_PAGES", "FUSE_INIT_EXT"]
    names += ["FUSE_READ_LOCKOWNER", "FUSE_WRITE_CACHE", "FOPEN_DIRECT_IO", "FATTR_SIZE"]
    lines += [f'printf("{name} %lld\\n", (long long){name});' for name in names]
    return "\n".join([*lines, "return 0; }"])


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: install gcc")
    if not Path(HEADER).exists():
        pytest.skip(f"no {HEADER}: install linux-libc-dev")
    folder = tmp_path_factory.mktemp("layout")
    source = folder / "layout.c"
    source.write_text(_program())
    subprocess.run([compiler, "-o", folder / "layout", source], check=True)
    printed = subprocess.run([folder / "layout"], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split() for line in printed.splitlines())}


@pytest.mark.parametrize("layout", wire.LAYOUTS, ids=lambda layout: layout.name)
def test_every_offset_is_that_of_the_header(layout: wire.Layout, header: dict[str, int]) -> None:
    assert layout.size == header[layout.name]
    for field, offset in layout.offsets.items():
        assert offset == header[f"{layout.name}.{field}"], field


def test_opcodes_and_flags_are_those_of_the_header(header: dict[str, int]) -> None:
    for op in wire.Opcode:
        assert header["FUSE_" + op.name] == op
    for code in wire.Notify:
        assert header["FUSE_NOTIFY_" + code.name] == code
    assert header["FUSE_READ_LOCKOWNER"] == wire.READ_LOCKOWNER
    assert header["FUSE_WRITE_CACHE"] == wire.WRITE_CACHE
    assert header["FOPEN_DIRECT_IO"] == wire.FOPEN_DIRECT_IO
    assert header["FATTR_SIZE"] == wire.FATTR_SIZE
    assert header["FUSE_INIT_EXT"] == wire.INIT_EXT


def message(opcode: int, body: bytes = b"", *, length: int | None = None) -> memoryview:
    size = wire.IN_HEADER.size + len(body)
    header = wire.IN_HEADER.pack(size if length is None else length, opcode, 7, 1, 0, 0, 42, 0, 0)
    return memoryview(header + body)


def test_parse_splits_header_and_body() -> None:
    request = wire.parse(message(wire.Opcode.LOOKUP, b"mem\0"))
    assert (request.opcode, request.unique, request.nodeid, request.pid) == (1, 7, 1, 42)
    assert wire.name_in(request.body) == "mem"


@pytest.mark.parametrize("length", [0, 39, 41, 1 << 31])
def test_a_length_that_lies_is_refused(length: int) -> None:
    with pytest.raises(wire.WireError):
        wire.parse(message(1, length=length))


@given(st.binary(max_size=200))
def test_garbage_is_a_wire_error_or_a_request(data: bytes) -> None:
    try:
        request = wire.parse(memoryview(data))
    except wire.WireError:
        return
    assert len(request.body) <= len(data) - wire.IN_HEADER.size


def test_bodies_that_are_too_short_name_the_struct() -> None:
    with pytest.raises(wire.WireError, match="fuse_read_in needs 40 bytes, not 3"):
        wire.unpack(wire.READ_IN, memoryview(b"abc"))


def test_names_survive_bytes_that_are_not_utf8() -> None:
    assert wire.name_in(memoryview(b"\xff\xfe\0")).encode("utf-8", "surrogateescape") == b"\xff\xfe"
    with pytest.raises(wire.WireError):
        wire.name_in(memoryview(b"mem"))


def test_directory_entries_are_padded_to_eight_bytes() -> None:
    for name in (b".", b"iomem", b"eightful"):
        entry = wire.dirent(2, 1, 8, name)
        assert len(entry) % 8 == 0
        assert wire.DIRENT.unpack_from(entry)[2] == len(name)


def test_notifications_carry_their_code_and_no_unique() -> None:
    for raw, code in (
        (wire.inval_inode(5, 4096, 4096), wire.Notify.INVAL_INODE),
        (wire.inval_entry(1, b"mem"), wire.Notify.INVAL_ENTRY),
        (wire.store(5, 0, b"data"), wire.Notify.STORE),
    ):
        length, error, unique = wire.OUT_HEADER.unpack_from(raw)
        assert (length, error, unique) == (len(raw), code, 0)
