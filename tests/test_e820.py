"""The e820 map: what sysfs, the memory and the iomem tree make of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakedev.firmware.base import FirmwareError
from fakedev.firmware.e820 import ACPI, NVS, RAM, RESERVED, TYPES, E820Map, build_e820
from fakedev.model.ranges import Range

# pc-q35 as its kernel printed it: start, end, type of /sys/firmware/memmap
PC_Q35 = """\
0x0 0x9fbff System RAM
0x9fc00 0x9ffff Reserved
0xf0000 0xfffff Reserved
0x100000 0x1ffd5fff System RAM
0x1ffd6000 0x1fffffff Reserved
0xb0000000 0xbfffffff Reserved
0xfed1c000 0xfed1ffff Reserved
0xfffc0000 0xffffffff Reserved
0xfd00000000 0xffffffffff Reserved
"""


def entries(text: str) -> list[dict[str, str]]:
    split = [line.split(" ", 2) for line in text.splitlines()]
    return [{"range": f"{start}-{end}", "type": kind} for start, end, kind in split]


def build(text: str) -> E820Map:
    return build_e820(entries(text))


def lines(table: E820Map) -> list[str]:
    return [f"{r.start:08x}-{r.end:08x} : {r.name}{' *' * r.busy}" for r in table.resources]


def test_memmap_files_are_what_the_kernel_printed() -> None:
    files = build(PC_Q35).files
    place = "/sys/firmware/memmap"
    count = len(PC_Q35.splitlines())
    shown = "".join(
        " ".join(
            files[f"{place}/{i}/{name}"].data.decode().rstrip("\n")
            for name in ("start", "end", "type")
        )
        + "\n"
        for i in range(count)
    )
    assert shown == PC_Q35
    assert len(files) == 3 * count
    assert files[f"{place}/0/end"].mode & 0o777 == 0o444


def test_resources_are_those_of_the_kernel() -> None:
    assert lines(build(PC_Q35)) == [
        "00000000-00000fff : Reserved *",
        "00001000-0009fbff : System RAM *",
        "0009fc00-0009ffff : Reserved *",
        "000f0000-000fffff : Reserved *",
        "00100000-1ffd5fff : System RAM *",
        "1ffd6000-1fffffff : Reserved",
        "b0000000-bfffffff : Reserved",
        "fed1c000-fed1ffff : Reserved",
        "fffc0000-ffffffff : Reserved",
        "fd00000000-ffffffffff : Reserved",
    ]


def test_memory_is_whole_pages_and_high_memory_is_the_end_of_ram() -> None:
    table = build(PC_Q35)
    assert table.ram == (Range(0, 0xA0000), Range(0x100000, 0x1FFD6000 - 0x100000))
    assert table.high_memory == 0x1FFD6000
    assert table.ram_buffers == ()


def test_acpi_memory_is_memory_and_busy() -> None:
    table = build(
        f"0x0 0x7ffdffff {RAM}\n0x7ffe0000 0x7fffefff {ACPI}\n0x7ffff000 0x7fffffff {NVS}\n"
    )
    assert table.ram == (Range(0, 0x80000000),)
    assert lines(table)[-2:] == [
        "7ffe0000-7fffefff : ACPI Tables *",
        f"7ffff000-7fffffff : {NVS} *",
    ]
    assert table.high_memory == 0x7FFE0000


def test_ram_between_640k_and_1m_is_removed_from_the_tree_only() -> None:
    table = build(f"0x0 0x3ffffff {RAM}\n")
    assert lines(table) == [
        "00000000-00000fff : Reserved *",
        "00001000-0009ffff : System RAM *",
        "00100000-03ffffff : System RAM *",
    ]
    assert table.ram == (Range(0, 0x4000000),)
    assert table.files["/sys/firmware/memmap/0/end"].data == b"0x3ffffff\n"


def test_neighbours_of_one_type_merge_and_order_does_not_matter() -> None:
    text = f"0x200000 0x2fffff {RAM}\n0x100000 0x1fffff {RAM}\n0x0 0xfff {RESERVED}\n"
    assert [entry.end for entry in build(text).entries] == [0xFFF, 0x2FFFFF]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0x0 0x9efff System RAM", [(0x9F000, 0x9FFFF)]),
        ("0x0 0x9fbff System RAM\n0x9fc00 0x9ffff Reserved", []),
        ("0x100000 0x8fffff System RAM", []),
        ("0x100000 0x8effff System RAM", [(0x8F0000, 0x8FFFFF)]),
        ("0x100000 0x1ffd5fff System RAM\n0x1fff0000 0x1fff0fff Reserved",
         [(0x1FFD6000, 0x1FFEFFFF), (0x1FFF1000, 0x1FFFFFFF)]),
    ],
)  # fmt: skip
def test_ram_buffers_fill_the_rest_of_the_alignment(
    text: str, expected: list[tuple[int, int]]
) -> None:
    buffers = build(text).ram_buffers
    assert [(b.start, b.end) for b in buffers] == expected
    assert all(b.name == "RAM buffer" and b.busy for b in buffers)


@pytest.mark.parametrize(
    ("given", "path", "words"),
    [
        ([{"range": "0-fffff", "typ": RAM}], (0, "typ"), "did you mean 'type'"),
        ([{"range": "0-fffff", "type": "System Ram"}], (0, "type"), "did you mean 'System RAM'"),
        ([{"type": RAM}], (0,), "a range is missing"),
        ([{"range": "5-3", "type": RAM}], (0, "range"), "the end lies before the start"),
        (
            [{"range": "0-fffff"}, {"range": "80000-90000", "type": RESERVED}],
            (1, "range"),
            "overlaps",
        ),
        ([{"range": "100000-1ffd5ffe"}], (0, "range"), "is not whole pages"),
        ([{"range": "0-fffff", "type": RESERVED}], (), "needs memory"),
        (["0-fffff"], (0,), "a mapping"),
        ("0-fffff", (), "a list is needed"),
    ],
)
def test_errors(given: object, path: tuple[object, ...], words: str) -> None:
    with pytest.raises(FirmwareError, match=words) as caught:
        build_e820(given)  # type: ignore[arg-type]
    assert path in [problem.path for problem in caught.value.problems]


@given(
    st.lists(st.tuples(st.integers(1, 64), st.sampled_from(TYPES)), min_size=1, max_size=12),
    st.integers(0, 512),
)
def test_invariants(sizes: list[tuple[int, str]], first: int) -> None:
    given, at = [{"range": f"{0x4000000:#x}+1M", "type": RAM}], first
    for pages, kind in sizes:
        given.append({"range": f"{at << 12:#x}+{pages << 12:#x}", "type": kind})
        at += pages
    table = build_e820(given)
    nodes = sorted((*table.resources, *table.ram_buffers))
    assert all(a.end < b.start for a, b in pairwise(nodes))
    assert all(a.end < b.start for a, b in pairwise(table.ram))
    for node in table.resources:
        if node.name == RAM:
            assert node.start >= 0x1000
            assert not (node.start < 0x100000 and node.end >= 0xA0000)
            assert any(r.start <= node.start and node.end < r.end for r in table.ram)
