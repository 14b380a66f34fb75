import array
import gc
import os
import struct
import sys
import time
from pathlib import Path

import pytest

from fakedev.model.backing import AnonymousBacking
from fakedev.model.chunk import CHUNK_SIZE
from fakedev.model.contents import ZERO, AddressPattern, BytePattern, RandomContent, RawBytes
from fakedev.model.errors import MemoryLayoutError
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range

PAGE = 4096
MIB = 1 << 20
TIB = 1 << 40
TOP = 1 << 64


def layout(memory):
    return [(s.start, s.end, s.name) for s in memory.segments]


def status_kib(*fields):
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in fields)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


# Layout


def test_segments_are_sorted_and_described():
    memory = PhysicalMemory()
    assert memory.segments == ()
    assert memory.top == 0
    memory.add(0x100000, 1023 * MIB, name="ram")
    memory.add(0, 0x9FC00, AddressPattern())
    assert [s.describe() for s in memory.segments] == [
        "00000000-0009fbff : (639 KiB, address)",
        "00100000-3fffffff : ram (1023 MiB, zero)",
    ]
    assert memory.top == 1 << 30
    assert memory.segments[1].range == Range(0x100000, 1023 * MIB)
    assert [s.kind for s in memory.segments] == ["address", "zero"]


@pytest.mark.parametrize(
    ("start", "size", "message"),
    [
        (0x1000, 0, "needs a size"),
        (0x1000, -5, "needs a size"),
        (-1, 5, "64-bit"),
        (TOP - 4, 5, "64-bit"),
        (0x1FFF, 1, "overlaps 00001000-00001fff : ram"),
        (0, 0x1001, "overlaps"),
        (0, 0x10000, "overlaps"),
        (0x1800, 8, "overlaps"),
    ],
)
def test_add_refuses(start, size, message):
    memory = PhysicalMemory()
    memory.add(0x1000, 0x1000, name="ram")
    memory.write(0x1000, b"kept")
    with pytest.raises(MemoryLayoutError, match=message):
        memory.add(start, size, name="new")
    assert layout(memory) == [(0x1000, 0x2000, "ram")]
    assert memory.read(0x1000, 4) == b"kept"


def test_neighbours_touch():
    memory = PhysicalMemory()
    memory.add(0x1001, 0xFFF)
    memory.add(0x1000, 1)
    memory.add(0x2000, 1)
    assert len(memory.segments) == 3
    memory.write(0xFFF, b"abcd" + bytes(0xFFB) + b"yz!")
    assert memory.read(0xFFF, 5) == b"\xffbcd\0"
    assert memory.read(0x1FFF, 3) == b"z!\xff"


def test_the_end_of_the_64_bit_space():
    memory = PhysicalMemory()
    memory.add(TOP - 5, 5, AddressPattern())
    assert memory.top == TOP
    memory.write(TOP - 2, b"xy")
    word = struct.pack("<Q", TOP - 8)
    assert memory.read(TOP - 8, 8) == b"\xff\xff\xff" + word[3:6] + b"xy"
    assert list(memory.find(b"xy")) == [TOP - 2]
    for call in (memory.read, memory.buffers):
        with pytest.raises(MemoryLayoutError, match="64-bit"):
            call(TOP - 1, 2)
    with pytest.raises(MemoryLayoutError, match="64-bit"):
        memory.write(TOP - 1, b"xy")


def test_the_whole_64_bit_space_is_one_segment():
    memory = PhysicalMemory()
    memory.add(0, TOP)
    memory.write(TOP - 1, b"!")
    memory.write(1 << 63, b"middle")
    assert list(memory.find(b"middle")) == [1 << 63]
    assert memory.read(TOP - 2, 2) == b"\0!"


def test_remove_carves_and_keeps_the_rest():
    memory = PhysicalMemory()
    memory.add(0x1000, 0x4000, AddressPattern(), name="ram")
    memory.write(0x1800, b"low")
    memory.write(0x4800, b"high")
    memory.remove(0x2001, 0x1000)
    assert layout(memory) == [(0x1000, 0x2001, "ram"), (0x3001, 0x5000, "ram")]
    assert memory.read(0x1800, 3) + memory.read(0x4800, 4) == b"lowhigh"
    assert memory.read(0x2000, 3) == b"\x00\xff\xff"
    assert memory.read(0x3008, 8) == struct.pack("<Q", 0x3008)
    memory.remove(0, 0x10000)
    assert memory.segments == ()
    memory.remove(0, 0x10000)
    with pytest.raises(MemoryLayoutError):
        memory.remove(0, 0)


# Reading and writing


def test_gaps_read_as_undecoded_and_drop_stores():
    memory = PhysicalMemory(undecoded=0xA5)
    memory.add(0x1000, 0x10)
    memory.add(0x1020, 0x10)
    memory.write(0xFF0, b"w" * 0x60)
    expected = b"\xa5" * 16 + b"w" * 16 + b"\xa5" * 16 + b"w" * 16 + b"\xa5" * 16
    assert memory.read(0xFF0, 0x50) == expected
    assert memory.read(1 << 50, 3 * MIB) == b"\xa5" * (3 * MIB)
    memory.add(0x1010, 0x10)
    assert memory.read(0x1010, 0x10) == bytes(16)
    assert PhysicalMemory(undecoded=0).read(5, 5) == bytes(5)
    with pytest.raises(MemoryLayoutError):
        PhysicalMemory(undecoded=256)


def test_nothing_is_read_and_written():
    memory = PhysicalMemory()
    memory.add(0, PAGE)
    assert memory.buffers(5, 0) == []
    assert memory.read(TOP, 0) == b""
    memory.write(5, b"")
    memory.place(1 << 40, b"")
    with pytest.raises(MemoryLayoutError):
        memory.read(0, -1)


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(8)),
        bytearray(range(8)),
        memoryview(bytes(range(8))),
        memoryview(bytes(range(16))).cast("B", (2, 8))[0:1],
        array.array("H", [0x0100, 0x0302, 0x0504, 0x0706]),
        memoryview(bytes(n // 2 for n in range(16)))[::2],
    ],
    ids=["bytes", "bytearray", "view", "matrix", "words", "steps"],
)
def test_any_buffer_can_be_stored(data):
    if isinstance(data, array.array) and sys.byteorder == "big":
        data.byteswap()
    memory = PhysicalMemory()
    memory.add(0, PAGE)
    memory.write(16, data)
    memory.place(32, data)
    assert memory.read(16, 8) == memory.read(32, 8) == bytes(range(8))


def test_buffers_are_views_and_cannot_be_stored_to():
    memory = PhysicalMemory()
    memory.add(0, 4 * MIB)
    memory.write(0, b"a" * MIB)
    (view,) = memory.buffers(0, MIB)
    memory.write(5, b"b")
    assert view[5] == ord("b")
    for address in (0, 3 * MIB, 5 * MIB):
        with pytest.raises(TypeError):
            memory.buffers(address, 1)[0][0] = 1


@pytest.mark.parametrize("content", [ZERO, AddressPattern(), BytePattern(b"123"), RandomContent(3)])
def test_stores_over_a_content(content):
    start, size = 0x1FF123, 3 * CHUNK_SIZE
    memory = PhysicalMemory()
    memory.add(start, size, content)
    model = bytearray(content.generate(start, size, origin=start))
    assert memory.read(start, size) == model
    stores = [(0, 1), (5000, 3), (PAGE * 9, PAGE), (CHUNK_SIZE - 77, 9000), (size - 4, 4)]
    for at, length in stores:
        data = bytes([at % 251]) * length
        memory.write(start + at, data)
        model[at : at + length] = data
    assert memory.read(start, size) == model
    assert b"".join(memory.buffers(start + 1, size - 2)) == model[1:-1]


def test_place_is_all_or_nothing():
    memory = PhysicalMemory()
    memory.add(0x1000, 0x10)
    memory.add(0x1010, 0x10)
    memory.place(0x100C, b"12345678")
    assert memory.read(0x100C, 8) == b"12345678"
    for address, data in [(0x101C, b"12345"), (0xFFF, b"ab"), (0x9000, b"x")]:
        with pytest.raises(MemoryLayoutError, match="do not fit"):
            memory.place(address, data)
    assert memory.read(0x101C, 4) == bytes(4)


def test_a_host_without_memory_leaves_everything_as_it_was(monkeypatch):
    memory = PhysicalMemory()
    memory.add(0, CHUNK_SIZE)
    memory.add(CHUNK_SIZE, CHUNK_SIZE)
    memory.write(0, b"kept")

    def fail(*_args):
        raise MemoryLayoutError("no memory")

    monkeypatch.setattr("fakedev.model.backing.Chunk", fail)
    with pytest.raises(MemoryLayoutError):
        memory.write(0, bytes(CHUNK_SIZE + 1))
    assert memory.read(0, 4) == b"kept"


# Contents


def test_raw_bytes_start_the_range_and_must_fit():
    memory = PhysicalMemory()
    memory.add(0x1000, 16, b"abc", name="rom")
    assert memory.segments[0].describe() == "00001000-0000100f : rom (16 bytes, bytes 3)"
    assert memory.read(0x1000, 5) == b"abc\0\0"
    with pytest.raises(MemoryLayoutError, match="17 bytes do not fit into the 16 bytes at 0x1000"):
        memory.fill(0x1000, 16, bytes(17))
    with pytest.raises(MemoryLayoutError, match="do not fit"):
        memory.add(0x2000, 2, RawBytes(b"abc"))
    assert len(memory.segments) == 1


@pytest.mark.parametrize("size", [100, 65536, 65537, 3 * MIB + 5])
@pytest.mark.parametrize("content", [ZERO, BytePattern(b"abc"), AddressPattern(), b"raw"])
def test_fill_replaces_and_keeps_names(size, content):
    memory = PhysicalMemory()
    memory.add(0, 2 * MIB, RandomContent(1), name="low")
    memory.add(2 * MIB, 8 * MIB, RandomContent(2), name="high")
    before = memory.read(0, 10 * MIB)
    start = 2 * MIB - 50
    memory.fill(start, size, content)
    made = content if not isinstance(content, bytes) else RawBytes(content)
    expected = made.generate(start, size, origin=start)
    assert memory.read(0, 10 * MIB) == before[:start] + expected + before[start + size :]
    assert {s.name for s in memory.segments if s.start < 2 * MIB} == {"low"}
    assert {s.name for s in memory.segments if s.start >= 2 * MIB} == {"high"}


def test_fill_needs_memory_everywhere():
    memory = PhysicalMemory()
    memory.add(0, 2 * PAGE)
    with pytest.raises(MemoryLayoutError, match=r"4 KiB .* do not fit at 0x1800: .* at 0x2000"):
        memory.fill(0x1800, PAGE, BytePattern(b"x"))
    assert memory.read(0, 2 * PAGE) == bytes(2 * PAGE)


# Files


def sparse_file(path, size, **data):
    with path.open("wb") as file:
        file.truncate(size)
        for at, text in data.items():
            file.seek(int(at[1:]))
            file.write(text)
    return path


def test_a_private_file_keeps_the_file(tmp_path):
    path = tmp_path / "rom"
    path.write_bytes(bytes(range(256)) * 64)
    memory = PhysicalMemory()
    segment = memory.add_file(0x1003, path, offset=5, size=5000, name="rom")
    assert segment.describe() == f"00001003-0000238a : rom (5000 bytes, file {path} offset 0x5)"
    assert memory.read(0x1003, 5000) == path.read_bytes()[5:5005]
    assert len(memory.buffers(0x1003, 5000)) == 1
    memory.write(0x1003, b"mine")
    assert memory.read(0x1003, 4) == b"mine"
    assert path.read_bytes()[5:9] == bytes([5, 6, 7, 8])


def test_a_shared_file_is_the_memory(tmp_path):
    path = tmp_path / "nvram"
    path.write_bytes(bytes(256 * 1024))
    memory = PhysicalMemory()
    memory.add_file(0, path, shared=True)
    memory.write(5, b"five")
    assert path.read_bytes()[5:9] == b"five"
    snapshot = memory.snapshot()
    memory.fill(0, 200 * 1024, BytePattern(b"ab"))
    assert path.read_bytes()[: 200 * 1024] == b"ab" * (100 * 1024)
    assert memory.segments[0].kind == "file"
    memory.restore(snapshot)
    assert path.read_bytes() == bytes(5) + b"five" + bytes(256 * 1024 - 9)


def test_load_returns_the_length_and_keeps_the_edges(tmp_path):
    for size in (100, 70_000, 3 * MIB + 7):
        path = tmp_path / f"blob{size}"
        path.write_bytes(os.urandom(size))
        memory = PhysicalMemory()
        memory.add(0, 2 * MIB, BytePattern(b"x"), name="a")
        memory.add(2 * MIB, 4 * MIB, BytePattern(b"y"), name="b")
        assert memory.load(MIB + 3, path, offset=1) == size - 1
        expected = bytearray(b"x" * (2 * MIB) + b"y" * (4 * MIB))
        expected[MIB + 3 : MIB + 2 + size] = path.read_bytes()[1:]
        assert memory.read(0, 6 * MIB) == expected
        memory.write(MIB + 3, b"store")
        assert path.read_bytes()[1:6] != b"store"


def test_a_sparse_file_stays_sparse(tmp_path):
    path = sparse_file(tmp_path / "big", 64 << 30, _0=b"head", _34359738368=b"middle")
    if path.stat().st_blocks * 512 > MIB:
        pytest.skip("the file system of the temporary directory makes no sparse files")
    memory = PhysicalMemory()
    memory.add(0, TIB)
    before = status_kib("VmRSS", "VmPTE")
    memory.load(1 << 32, path)
    assert memory.read(1 << 32, 5) == b"head\0"
    assert memory.read((1 << 32) + (1 << 35), 6) == b"middle"
    for at in range(1 << 32, (1 << 32) + (64 << 30), 64 * MIB):
        memory.read(at, MIB)
    assert list(memory.find(b"middle")) == [(1 << 32) + (1 << 35)]
    assert status_kib("VmRSS", "VmPTE") - before < 4096
    assert path.stat().st_blocks * 512 < MIB


def test_a_file_that_is_longer_than_its_place(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(bytes(0x2000))
    memory = PhysicalMemory()
    memory.add(0x1000, 0x1000)
    memory.write(0x1000, b"kept")
    pattern = r"long: 8 KiB \(0x2000\) do not fit at 0x1000: memory ends after 4 KiB \(0x1000\)"
    with pytest.raises(MemoryLayoutError, match=pattern):
        memory.load(0x1000, path)
    assert memory.load(0x1800, path, size=0x800) == 0x800
    assert memory.read(0x1000, 4) == b"kept"


@pytest.mark.parametrize("verb", ["load", "add_file"])
def test_files_that_cannot_be_used(tmp_path, verb):
    (tmp_path / "empty").touch()
    (tmp_path / "small").write_bytes(b"small")
    os.mkfifo(tmp_path / "fifo")
    memory = PhysicalMemory()
    if verb == "load":
        memory.add(0, MIB)
    before = layout(memory)
    fds = open_descriptors()
    cases = [
        ("missing", {}, "missing: No such file"),
        ("empty", {}, "empty: the file is empty"),
        ("fifo", {}, "fifo: not a regular file"),
        (".", {}, "not a regular file"),
        ("small/x", {}, "Not a directory"),
        ("nul\0", {}, "null byte"),
        ("small", {"offset": 5}, "any byte at offset 5 wanted, but it has 5 bytes"),
        ("small", {"size": 6}, "6 bytes at offset 0 wanted, but it has 5 bytes"),
        ("small", {"offset": -1}, "no bytes at offset -1"),
        ("small", {"size": 0}, "size 0"),
    ]
    for name, options, message in cases:
        with pytest.raises(MemoryLayoutError, match=message):
            getattr(memory, verb)(0, tmp_path / name, **options)
    assert layout(memory) == before
    assert open_descriptors() == fds


def test_a_file_over_memory_is_refused(tmp_path):
    path = tmp_path / "rom"
    path.write_bytes(bytes(PAGE))
    memory = PhysicalMemory()
    memory.add(0x1000, PAGE, name="ram")
    with pytest.raises(MemoryLayoutError, match=r"rom\) overlaps 00001000-00001fff : ram"):
        memory.add_file(0x800, path)


# Snapshots


def test_restore_returns_the_changed_pages_and_works_twice():
    memory = PhysicalMemory()
    memory.add(0x800, 16 * PAGE, AddressPattern())
    memory.write(0x5000, b"before")
    old = memory.read(0, 20 * PAGE)
    snapshot = memory.snapshot()
    for _ in range(2):
        memory.write(0x3FFF, b"ab")
        memory.write(0x5001, b"after")
        memory.write(0x9000, b"x")
        memory.write(0x9000, old[0x9000:0x9001])
        assert memory.restore(snapshot) == [Range(0x3000, 3 * PAGE)]
        assert memory.read(0, 20 * PAGE) == old
        assert memory.diff(snapshot) == []
    assert memory.restore(snapshot) == []


def test_diff_is_exact():
    memory = PhysicalMemory()
    memory.add(0, 4 * PAGE)
    memory.write(10, b"abcdef")
    snapshot = memory.snapshot()
    memory.write(10, b"abXdYZ")
    memory.write(2 * PAGE - 1, b"12")
    memory.write(3 * PAGE, bytes(50))
    assert memory.diff(snapshot) == [Range(12, 1), Range(14, 2), Range(2 * PAGE - 1, 2)]


def test_several_snapshots_live_side_by_side():
    memory = PhysicalMemory()
    memory.add(0, 4 * PAGE)
    moments = []
    for text in (b"one", b"two", b"three"):
        memory.write(0, text.ljust(8))
        moments.append((memory.snapshot(), text.ljust(8)))
    memory.write(0, b"now")
    for snapshot, text in (*moments, moments[0], moments[2], moments[1]):
        memory.restore(snapshot)
        assert memory.read(0, 8) == text
        assert [m.read(0, 8) for m, _ in moments] == [t for _, t in moments]
    moments[1][0].close()
    memory.restore(moments[0][0])
    assert memory.read(0, 3) == b"one"


def test_restore_brings_the_layout_back(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(MIB))
    memory = PhysicalMemory()
    memory.add(0, 4 * MIB, RandomContent(1), name="ram")
    before, segments = memory.read(0, 8 * MIB), memory.segments
    snapshot = memory.snapshot()
    memory.load(MIB, path)
    memory.write(MIB, b"over the file")
    memory.remove(3 * MIB, MIB)
    memory.add(5 * MIB, MIB, name="new")
    memory.write(0, b"!")
    assert Range(3 * MIB, MIB) in memory.diff(snapshot)
    assert Range(5 * MIB, MIB) in memory.diff(snapshot)
    assert snapshot.read(0, 8 * MIB) == before
    changed = memory.restore(snapshot)
    assert changed == [Range(0, PAGE), Range(MIB, MIB), Range(3 * MIB, MIB), Range(5 * MIB, MIB)]
    assert memory.segments == segments
    assert memory.read(0, 8 * MIB) == before


def test_closed_and_foreign_snapshots_are_refused():
    memory, other = PhysicalMemory(), PhysicalMemory()
    snapshot = memory.snapshot()
    with snapshot, pytest.raises(MemoryLayoutError, match="another memory"):
        other.restore(snapshot)
    assert snapshot.closed
    snapshot.close()
    for call in (lambda: memory.restore(snapshot), lambda: memory.diff(snapshot)):
        with pytest.raises(MemoryLayoutError, match="closed"):
            call()
    with pytest.raises(MemoryLayoutError, match="closed"):
        snapshot.read(0, 1)


def test_a_forgotten_snapshot_stops_the_tracking():
    memory = PhysicalMemory()
    memory.add(0, PAGE)
    snapshot = memory.snapshot()
    memory.write(0, b"x")
    assert len(memory._trackers) == 1
    del snapshot
    gc.collect()
    assert memory._trackers == ()


def test_diff_of_a_replaced_content_is_exact():
    memory = PhysicalMemory()
    memory.add(0, 8 * MIB)
    memory.write(5 * MIB, b"zero")
    snapshot = memory.snapshot()
    memory.fill(0, 8 * MIB, ZERO)
    assert memory.diff(snapshot) == [Range(5 * MIB, 4)]
    memory.write(5 * MIB, b"zerO")
    assert memory.diff(snapshot) == [Range(5 * MIB + 3, 1)]


# Finding


def test_find_crosses_segments_and_chunks_but_no_gap():
    memory = PhysicalMemory(undecoded=ord("e"))
    memory.add(0, CHUNK_SIZE + 5)
    memory.add(CHUNK_SIZE + 5, PAGE)
    memory.write(CHUNK_SIZE - 2, b"needle")
    memory.write(CHUNK_SIZE + 5, b"dle")
    memory.write(CHUNK_SIZE + 2, b"nee")
    memory.write(CHUNK_SIZE + PAGE + 2, b"nee")
    assert list(memory.find(b"needle")) == [CHUNK_SIZE + 2]
    assert list(memory.find(b"nee")) == [CHUNK_SIZE - 2, CHUNK_SIZE + 2, CHUNK_SIZE + PAGE + 2]
    assert list(memory.find(b"neee")) == []
    assert list(memory.find(b"needle", end=CHUNK_SIZE + 8)) == [CHUNK_SIZE + 2]
    assert list(memory.find(b"needle", end=CHUNK_SIZE + 7)) == []
    assert list(memory.find(b"nee", start=CHUNK_SIZE + 3)) == [CHUNK_SIZE + PAGE + 2]
    with pytest.raises(MemoryLayoutError):
        memory.find(b"")


def test_find_sees_overlaps_and_reaches_into_untouched_zeros():
    memory = PhysicalMemory()
    memory.add(0, TIB)
    memory.write(TIB // 2, b"x" * PAGE)
    end = TIB // 2 + PAGE
    assert len(list(memory.find(b"xx"))) == PAGE - 1
    assert list(memory.find(b"x" + bytes(5000))) == [end - 1]
    assert list(memory.find(bytes(5000) + b"x")) == [TIB // 2 - 5000]


def test_find_in_a_pattern():
    memory = PhysicalMemory()
    memory.add(0x1000, 4 * MIB, AddressPattern())
    assert list(memory.find(struct.pack("<Q", 0x234568))) == [0x234568]


# Cost


def test_a_machine_of_a_tebibyte_costs_nothing():
    memory = PhysicalMemory()
    AddressPattern().generate(0, PAGE, origin=0)  # numpy is not what is measured
    before = status_kib("VmRSS", "VmPTE")
    memory.add(0, TIB)
    memory.add(TIB, TIB, AddressPattern())
    memory.add(2 * TIB, TIB, RandomContent(1))
    snapshot = memory.snapshot()
    for step in range(512):
        at = step * (6 * TIB // 1024) + 8 * step
        memory.read(at, MIB // 4)
    memory.write(TIB - 1, b"ab")
    assert memory.read(TIB + 8, 8) == struct.pack("<Q", TIB + 8)
    assert list(memory.find(b"ab", end=TIB + PAGE)) == [TIB - 1]
    assert memory.diff(snapshot)[0] == Range(TIB - 1, 2)
    memory.fill(0, TIB, ZERO)
    memory.restore(snapshot)
    assert status_kib("VmRSS", "VmPTE") - before < 4096


def test_restored_pages_are_given_back_to_the_host():
    memory = PhysicalMemory()
    memory.add(0, 64 * MIB)
    snapshot = memory.snapshot()
    memory.write(0, bytes(32 * MIB))
    full = status_kib("VmRSS")
    memory.restore(snapshot)
    if sys.platform == "linux":
        assert full - status_kib("VmRSS") > 28 * 1024


def test_the_data_path_takes_about_a_microsecond():
    memory = PhysicalMemory()
    memory.add(0, TIB)
    memory.write(0, bytes(MIB))
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(2000):
            memory.buffers(0, PAGE)
        best = min(best, time.process_time() - started)
    assert best / 2000 < 40e-6  # many times what it takes: a loop over pages would be far above


def test_zero_pages_and_backing_bounds_are_whole_pages():
    backing = AnonymousBacking(0x1234, 0x5678, ZERO)
    assert (backing.start, backing.end) == (0x1000, 0x6000)
    backing.store(0x1234, b"x")
    assert list(backing.extents(0x1234, 0x5678)) == [(0x1234, 0x2000)]
    assert list(backing.extents(0x1234, 0x5678, coarse=True)) == [(0x1234, 0x5678)]
