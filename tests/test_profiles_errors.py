"""Every mistake is reported where it is, with what would be right; all of them at once."""

import errno
import lzma
import os
import time
from pathlib import Path

import pytest
from profile_files import RAM, Folder

from fakedev.profiles import check_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    return Folder(tmp_path)


# text behind line 1, and the whole list of problems
SINGLE = {
    "unknown key": ("kernle: {}\n", "m.yaml:2:1: unknown key 'kernle' (did you mean 'kernel'?)"),
    "unknown key far from all": (
        "files: {/proc/x: {zzz: 1, text: a}}\n",
        "m.yaml:2:19: unknown key 'zzz'; known here: text, hex, base64, file, symlink, directory, mode, size",
    ),
    "a list for a mapping": (
        "kernel: [a]\n",
        "m.yaml:2:9: kernel: a mapping (`key: value` lines) is needed here, not a list",
    ),
    "a text for a list": (
        "memory: {segments: x}\n",
        "m.yaml:2:20: memory.segments: a list (`- ...` lines) is needed here, not 'x'",
    ),
    "a list for a text": ("description: []\n", "m.yaml:2:14: description: a text is needed here, not a list"),
    "not a boolean": (
        "kernel:\n  strict_devmem: maybe\n",
        "m.yaml:3:18: kernel.strict_devmem: true or false is needed here, not 'maybe'",
    ),
    "not one of": (
        "kernel: {lockdown: integrty}\n",
        ("m.yaml:2:20: kernel.lockdown: 'integrty' is not one of 'none', 'integrity' or "
        "'confidentiality' (did you mean 'integrity'?)"),
    ),
    "kernel version": (
        "kernel: {version: 6.x}\n",
        "m.yaml:2:19: kernel.version: not a kernel version: '6.x'; write it as 6.1 or 6.12",
    ),
    "number out of range": (
        "kernel: {phys_bits: 99}\n",
        "m.yaml:2:21: kernel.phys_bits: '99' is out of range; at most 64 (0x40)",
    ),
    "number": (
        "memory: {contents: [{at: 1e00, u8: 1}]}\n",
        ("m.yaml:2:26: memory.contents.0.at: not a number: '1e00' (hexadecimal needs 0x: 0x1e00); "
        "write 4096, 0x1000 or 64K"),
    ),
    "number with stray underscores": (
        "memory: {undecoded: 0x_}\n",
        "m.yaml:2:21: memory.undecoded: not a number: '0x_'; write 4096, 0x1000 or 64K",
    ),
    "range": (
        "memory: {segments: [{range: d8100000-d810}]}\n",
        "m.yaml:2:29: memory.segments.0.range: d8100000-d810: the end lies before the start",
    ),
    "range is missing": (
        "memory: {segments: [{name: x}]}\n",
        "m.yaml:2:21: 'range' is missing (where it decodes); write `range: d8100000-d810ffff`",
    ),
    "misaligned range": (
        "memory: {segments: [{range: d8200000-d82007ff}]}\n",
        ("m.yaml:2:29: the range d8200000-d82007ff is misaligned: a segment is made of whole pages of "
        "4096 bytes; d8200000-d8200fff would be right"),
    ),
    "fill": (
        "memory: {segments: [{range: 0+4K, fill: ones}]}\n",
        ("m.yaml:2:41: memory.segments.0.fill: not a fill: 'ones'; write zero, address, random or "
        '{bytes: "de ad"}'),
    ),
    "value too large": (
        "memory: {segments: [{range: 0+4K}], contents: [{at: 0, u8: 300}]}\n",
        "m.yaml:2:48: memory.contents.0: 0x12c does not fit in u8",
    ),
    "two contents": (
        "memory: {segments: [{range: 0+4K}], contents: [{at: 0, u8: 3, text: a}]}\n",
        ("m.yaml:2:48: memory.contents.0: one content is needed, not 'u8' and 'text'; give one of "
        "u8, u16, u32, u64, text, hex, base64, file, fill"),
    ),
    "no address": (
        "memory: {contents: [{u8: 3}]}\n",
        "m.yaml:2:21: memory.contents.0: give either 'at' (an address) or 'range' (address and room)",
    ),
    "seed without random": (
        "memory: {segments: [{range: 0+4K, seed: 3}]}\n",
        "m.yaml:2:21: memory.segments.0: 'seed' belongs to `fill: random`; take it out or change the fill",
    ),
    "hexadecimal": (
        'memory: {segments: [{range: 0+4K}], contents: [{at: 0, hex: "0g"}]}\n',
        "m.yaml:2:61: memory.contents.0.hex: not hexadecimal bytes: '0g'; write \"00 11 ff\"",
    ),
    "content outside": (
        "memory: {segments: [{range: 0x1000+4K}], contents: [{at: 0x8000, u8: 1}]}\n",
        ("m.yaml:2:53: nothing decodes at 0x8000 (memory near it: 00001000-00001fff); add a segment "
        "or RAM around it"),
    ),
    "content over the end": (
        "memory: {segments: [{range: 0x1000+4K}], contents: [{at: 0x1ffc, u64: 1}]}\n",
        ("m.yaml:2:53: 00001ffc-00002003 is 8 bytes long, and there is memory for 4 (up to 0x1fff); "
        "add a segment or RAM around it"),
    ),
    "content longer than its range": (
        "memory: {segments: [{range: 0+4K}], contents: [{range: 0+2, hex: 001122}]}\n",
        "m.yaml:2:48: the content is 3 bytes long, and its range 00000000-00000001 has room for 2",
    ),
    "overlapping segments": (
        "memory:\n  segments:\n  - {range: 0+8K, name: a}\n  - {range: 4K+8K, name: b}\n",
        ("m.yaml:5:13: memory 00001000-00002fff (b) overlaps 00000000-00001fff (a) of m.yaml:4:13; "
        "move or shorten one of them"),
    ),
    "segment in RAM": (
        RAM + "memory: {segments: [{range: 200000+4K, name: a}]}\n".replace("200000", "0x200000"),
        ("m.yaml:3:29: memory 00200000-00200fff (a) overlaps 00100000-03ffffff (System RAM) of "
        "m.yaml:2:63; move or shorten one of them"),
    ),
    "overlapping RAM": (
        "firmware:\n  e820:\n  - {range: 0-1fffff}\n  - {range: 100000-3fffff}\n",
        ("m.yaml:5:13: e820 entry 00100000-003fffff (System RAM) overlaps 00000000-001fffff "
        "(System RAM) of m.yaml:4:13; move or shorten one of them"),
    ),
    "misaligned RAM": (
        "firmware: {e820: [{range: 100000-2000ff}]}\n",
        "m.yaml:2:27: 00100000-002000ff (System RAM) is not whole pages of 4 KiB",
    ),
    "memory type": (
        "firmware: {e820: [{range: 100000-1fffff, type: Sytem RAM}]}\n",
        ("m.yaml:2:48: firmware.e820.0.type: there is no memory type 'Sytem RAM' (did you mean "
        "'System RAM'?); one of System RAM, Reserved, ACPI Tables, ACPI Non-volatile Storage, "
        "Unusable memory, Persistent Memory, Persistent Memory (legacy), Soft Reserved"),
    ),
    "line of iomem": (
        "iomem: |\n  000a0000-000bffff PCI\n",
        ("m.yaml:3:1: not a line of /proc/iomem: '000a0000-000bffff PCI'; write "
        '"000a0000-000bffff : PCI Bus 0000:00"'),
    ),
    "resources in conflict": (
        "iomem: |\n  10000000-1fffffff : A\n  18000000-2fffffff : B\n",
        ("m.yaml:4:1: B (18000000-2fffffff) is in conflict: it straddles the edge of A "
        "(10000000-1fffffff) of m.yaml:3:1; nodes nest or lie apart"),
    ),
    "resource outside its parent": (
        'iomem:\n- {range: 1000-1fff, name: A, children: ["3000-3fff : B"]}\n',
        ("m.yaml:3:42: B (00003000-00003fff) does not lie inside its parent A (00001000-00001fff) of "
        "m.yaml:3:3"),
    ),
    "resource across RAM": (
        RAM + "iomem: ['03000000-05ffffff : X']\n",
        ("m.yaml:3:9: X (03000000-05ffffff) is in conflict: it straddles the edge of System RAM "
        "(00100000-03ffffff) of m.yaml:2:55; nodes nest or lie apart"),
    ),
    "flag": (
        "iomem: [{range: 1000-1fff, name: A, flags: [MEM]}]\n",
        ("m.yaml:2:45: iomem.0.flags.0: not a resource flag: 'MEM'; one of io, mem, prefetch, readonly, "
        "cacheable, sizealign, startalign, mem_64, window, muxed, sysram, driver_managed, mergeable, "
        "exclusive, disabled, unset, auto, busy"),
    ),
    "unprivileged iomem": (
        "iomem: |\n  00000000-00000000 : A\n  00000000-00000000 : B\n",
        ("m.yaml:2:8: every address is zero: this /proc/iomem was captured without root; capture it "
        "again with sudo"),
    ),
    "place of a file": (
        "files: {/etc/passwd: x}\n",
        "m.yaml:2:22: '/etc/passwd' does not lie below /proc, /sys, /dev; only those are served",
    ),
    "plain path": (
        "files: {/proc/a/../b: x}\n",
        "m.yaml:2:23: '/proc/a/../b' is not a plain path; write /proc/b",
    ),
    "live file": (
        "files: {/dev/mem: x}\n",
        "m.yaml:2:19: /dev/mem is served from the machine itself; describe what it holds under memory:",
    ),
    "file below a file": (
        "files: {/proc/a: x, /proc/a/b: y}\n",
        "m.yaml:2:32: /proc/a/b lies below /proc/a, which is not a directory",
    ),
    "mode": (
        "files: {/proc/a: {text: x, mode: rw}}\n",
        "m.yaml:2:34: files./proc/a.mode: not a file mode: 'rw'; write octal permissions like 0o444",
    ),
    "missing blob": (
        "files: {/proc/a: {file: b/none.bin}}\n",
        "m.yaml:2:25: file 'b/none.bin' (looked for in b): there is no such file",
    ),
    "blob is a folder": (
        "files: {/proc/a: {file: .}}\n",
        "m.yaml:2:25: file '.' (looked for in .): it is a folder; a file is needed",
    ),
    "overlay": (
        "files: {overlay: none}\n",
        "m.yaml:2:18: overlay 'none' (looked for in .): there is no such file",
    ),
    "structure": (
        RAM + "firmware: {}\n",
        "m.yaml:3:1: the key 'firmware' stands twice in this mapping (first on line 2); keep one",
    ),
    "tag": ("name: !!python/object:os.system x\n",
            "m.yaml:2:7: the tag !!python/object:os.system means nothing here; leave it out"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), SINGLE.values(), ids=SINGLE.keys())
def test_message(folder: Folder, text: str, problem: str) -> None:
    assert folder.check(text) == [problem]


def test_problems_of_builders_have_their_line(folder: Folder) -> None:
    found = folder.check(
        "memory: {segments: [{range: f0000-fffff}]}\n"
        "firmware:\n"
        "  e820: [{range: 100000-3ffffff}]\n"
        "  smbios:\n"
        "    structures:\n"
        "    - {type: bios_information, vendr: x}\n"
        "  acpi:\n"
        "    tables_at: 0x3000000\n"
        "    tables:\n"
        "    - {signature: DSDT, file: none.aml}\n"
        "    - {signature: XXXX}\n"
    )
    assert found[0] == "m.yaml:7:39: there is no 'vendr' here; did you mean 'vendor'?"
    assert found[1] == "m.yaml:11:31: file 'none.aml' (looked for in .): there is no such file"
    assert found[2].startswith("m.yaml:12:19: a table 'XXXX' needs content")
    assert len(found) == 3


def test_tables_need_memory(folder: Folder) -> None:
    found = folder.check(RAM.replace("firmware: {", "firmware: {smbios: {table: 0xe1000}, "))
    assert found == [
        (
            "m.yaml:2:20: SMBIOS entry point: nothing decodes at 0xf0010 (memory near it: "
            "00000000-0009ffff and 00100000-03ffffff); add a segment or RAM around it"
        ),
        (
            "m.yaml:2:28: SMBIOS structure table: nothing decodes at 0xe1000 (memory near it: "
            "00000000-0009ffff and 00100000-03ffffff); add a segment or RAM around it"
        ),
    ]


def test_all_at_once(folder: Folder) -> None:
    found = folder.check(
        "kernle: {}\nkernel: {arch: arm}\nmemory:\n  contents:\n  - {at: zz, u8: 1}\n"
        "files: {/etc/x: y, /proc/a: {}}\niomem: ['1000-2fff : A', '2000-3fff : B']\n"
    )
    assert [line.split(": ")[0] for line in found] == [
        "m.yaml:2:1", "m.yaml:3:16", "m.yaml:6:10", "m.yaml:7:29", "m.yaml:7:17", "m.yaml:8:26",
    ]  # fmt: skip


def test_blobs_that_do_not_fit(folder: Folder) -> None:
    (folder.path / "long.bin").write_bytes(bytes(5000))
    (folder.path / "bomb.xz").write_bytes(lzma.compress(bytes(50 << 20)))
    (folder.path / "cut.xz").write_bytes(lzma.compress(bytes(5000))[:-9])
    (folder.path / "bad.xz").write_bytes(b"hello world, this is no xz")
    found = folder.check(
        "memory:\n  segments: [{range: 0+4K}]\n  contents:\n"
        "  - {at: 0, file: long.bin}\n"
        "  - {range: 16+16, file: long.bin}\n"
        "  - {at: 0, file: long.bin, offset: 4999, size: 2}\n"
        "  - {at: 0, file: bomb.xz}\n"
        "  - {at: 0, file: cut.xz}\n"
        "  - {at: 0, file: bad.xz}\n"
        "  - {at: 0, file: bomb.xz, size: 4096}\n"
    )
    assert found == [
        (
            "m.yaml:5:5: 00000000-00001387 is 5,000 bytes long, and there is memory for 4,096 "
            "(up to 0xfff); add a segment or RAM around it"
        ),
        "m.yaml:6:5: the content is 5,000 bytes long, and its range 00000010-0000001f has room for 16",
        (
            "m.yaml:7:19: file 'long.bin' (looked for in .): it holds 5,000 bytes, and 2 from offset "
            "4,999 are wanted"
        ),
        (
            "m.yaml:8:19: file 'bomb.xz' (looked for in .): unpacked it has more than 4,096 bytes, and "
            "there is room for 4,096"
        ),
        (
            "m.yaml:9:19: file 'cut.xz' (looked for in .): unpacked it has more than 4,096 bytes, and "
            "there is room for 4,096"
        ),
        (
            "m.yaml:10:19: file 'bad.xz' (looked for in .): it is not a good .xz file: Input format not "
            "supported by decoder"
        ),
    ]


BROKEN_FILES = {
    "empty": (b"", "m.yaml:1:1: the file is empty; begin with `fakedev: 1`"),
    "comments only": (b"# nothing\n", "m.yaml:1:1: the file is empty; begin with `fakedev: 1`"),
    "a list": (
        b"- a\n",
        "m.yaml:1:1: a profile is a mapping that begins with `fakedev: 1`, not a list",
    ),
    "no version": (
        b"name: x\n",
        "m.yaml:1:1: 'fakedev' is missing; begin with `fakedev: 1` (the version of the schema)",
    ),
    "wrong version": (
        b"fakedev: 2\nnew_key: 1\n",
        "m.yaml:1:10: fakedev: '2' is not a schema version that this fakedev reads; write `fakedev: 1`",
    ),
    "binary": (
        b"fake\0dev",
        "m.yaml: this is a binary file (a NUL byte at offset 4), not a YAML profile",
    ),
    "not UTF-8": (
        b"fakedev: 1\nname: caf\xe9\n",
        "m.yaml:2:10: byte 0xe9 at offset 20 is not UTF-8; save the file as UTF-8",
    ),
    "tabs": (
        b"fakedev: 1\nkernel:\n\tversion: 6.1\n",
        ("m.yaml:3:1: not YAML: found character that cannot start any token (while scanning for the "
        "next token); indent with spaces, and quote a text that starts with a sign"),
    ),
    "colon in a text": (
        b"fakedev: 1\nname: a: b\n",
        ("m.yaml:2:8: not YAML: mapping values are not allowed in this context; a text that contains "
        "': ' needs quotes around it"),
    ),
    "control character": (
        b"fakedev: 1\nname: a\x07\n",
        ("m.yaml:2:8: the control character U+0007 is not allowed in YAML; write it as an escape in "
        'double quotes ("\\x1b")'),
    ),
    "two documents": (
        b"fakedev: 1\n---\nname: x\n",
        "m.yaml:2:1: a second document starts here; a profile is one YAML document",
    ),
    "alias inside itself": (
        b"fakedev: 1\niomem: &a [*a]\n",
        "m.yaml:2:12: the alias *a is used inside itself",
    ),
    "unknown alias": (b"fakedev: 1\nname: *b\n", "m.yaml:2:7: the alias *b is not defined above"),
    "deep nesting": (b"fakedev: 1\niomem: " + b"[" * 9000, "m.yaml:2:71: nested more than 64 levels deep"),
    "a list as key": (b"? [a]\n: b\n", "m.yaml:1:3: a key must be a text, not a list or a mapping"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "problem"), BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_broken_file(folder: Folder, data: bytes, problem: str) -> None:
    (folder.path / "m.yaml").write_bytes(data)
    assert check_file("m.yaml") == [problem]


BOMBS = {
    "lists": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
    "merge keys": "a0: &a0 {k: [x, x, x, x, x, x, x, x, x]}\n"
    + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 40)),
    "long texts": f"t: &t {'x' * 1_000_000}\nl: [{', '.join(['*t'] * 20_000)}]\n",
    "duplicate keys": "{" + "a: 1, " * 500_000 + "}\n",
    "iomem indents": "iomem: |\n" + "".join(f"{' ' * i}  1000-1fff : A\n" for i in range(2000)),
    "unknown keys": "".join(f"k{i}: 1\n" for i in range(100_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_time(folder: Folder, name: str) -> None:
    start = time.monotonic()
    found = folder.check(BOMBS[name])
    assert found
    assert len(found) <= 202
    assert time.monotonic() - start < 20


def test_files_that_are_no_files(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe.yaml")
    (folder.path / "dir.yaml").mkdir()
    with (folder.path / "large.yaml").open("wb") as stream:
        stream.truncate(17 << 20)
    assert check_file("pipe.yaml") == ["pipe.yaml: it is not a regular file; a file is needed"]
    assert check_file("dir.yaml") == ["dir.yaml: it is a folder; a file is needed"]
    assert check_file("none.yaml") == ["none.yaml: there is no such file"]
    assert check_file("./no\0pe") == ["'./no\\x00pe': a file name cannot hold a NUL byte"]
    assert check_file("large.yaml") == [
        "large.yaml: the file has 17,825,792 bytes; at most 16,777,216 are read"
    ]


def test_unreadable_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    folder.write("name: x\n")
    # root may read everything, so the kernel's answer is made here
    monkeypatch.setattr(os, "open", refuse)
    assert check_file("m.yaml") == ["m.yaml: it may not be read (permissions)"]


def test_unknown_name(folder: Folder) -> None:
    assert check_file("fd-900") == [
        (
            "there is no profile 'fd-900' (did you mean 'fd-9000'?); bundled are arm64-server, fd-9000, pc-q35, "
            "server-pmem-cxl, virtio-mem-guest, workstation; or "
            "give the path of a YAML file"
        )
    ]
