"""Windows: targets at addresses of the bus."""

from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.window import Ones

BAR = 0xD8100000


def with_bar() -> tuple[PhysicalMemory, PhysicalMemory]:
    memory, bar = PhysicalMemory(undecoded=0), PhysicalMemory()
    memory.add(0, 0x10000)
    bar.add(0, 0x4000)
    memory.map_window(BAR, 0x4000, bar, name="bar")
    return memory, bar


def test_a_bar_answers_where_it_is_put_and_moves_with_its_bytes() -> None:
    memory, bar = with_bar()
    memory.write(BAR + 0xFFE, b"word")
    assert bar.read(0xFFE, 4) == memory.read(BAR + 0xFFE, 4) == b"word"
    assert memory.unmap_window(bar) == [Range(BAR, 0x4000)]
    assert memory.read(BAR + 0xFFE, 4) == bytes(4)
    memory.write(BAR + 0xFFE, b"lost")
    memory.map_window(0x9_0000_0000, 0x4000, bar)
    assert memory.read(0x9_0000_0FFE, 4) == b"word"


def test_who_decodes_first_keeps_the_place() -> None:
    memory, bar = with_bar()
    other = PhysicalMemory()
    other.add(0, 0x8000)
    other.write(0x4000, b"other")
    memory.map_window(BAR, 0x8000, other)
    memory.write(BAR, b"bar")
    assert bar.read(0, 3) == b"bar"
    assert memory.read(BAR + 0x4000, 5) == b"other"
    assert memory.unmap_window(bar) == [Range(BAR, 0x4000)]
    assert memory.read(BAR + 0x4000, 5) == b"other"


def test_contents_of_a_profile_land_in_the_bar() -> None:
    memory, bar = with_bar()
    memory.place(BAR, b"\1\2\3")
    memory.fill(BAR + 0x1000, 0x3000, b"\xaa" * 0x3000)
    assert bar.read(0, 3) == b"\1\2\3"
    assert bar.read(0x3FFF, 1) == b"\xaa"


def test_stores_to_a_bar_that_moves_leave_nothing_behind_in_a_snapshot() -> None:
    memory, bar = with_bar()
    with memory.snapshot() as moment:
        for _ in range(3):
            memory.write(BAR, b"word")
            memory.unmap_window(bar)
            memory.map_window(BAR, 0x4000, bar)
        assert not moment.tracker.saved


def test_nobody_answers_all_ones() -> None:
    memory, bar = with_bar()
    memory.unmap_window(bar)
    memory.map_window(BAR, 0x300000, Ones())
    memory.write(BAR, b"lost")
    assert memory.read(BAR, 0x300000) == b"\xff" * 0x300000


def test_bytes_of_windows_are_found_and_left_out_of_snapshots() -> None:
    memory, _ = with_bar()
    with memory.snapshot() as before:
        memory.write(BAR + 0x123, b"needle")
        assert list(memory.find(b"needle")) == [BAR + 0x123]
        assert memory.diff(before) == []
        memory.restore(before)
    assert memory.read(BAR + 0x123, 6) == b"needle"
