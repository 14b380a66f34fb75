"""The resource tree and the text of /proc/iomem."""

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakedev.model.errors import RangeError, ResourceConflictError
from fakedev.model.flags import (
    IORES_DESC_ACPI_TABLES,
    IORES_DESC_CRASH_KERNEL,
    IORES_DESC_PERSISTENT_MEMORY,
    IORES_DESC_RESERVED,
    IORES_DESC_SOFT_RESERVED,
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_IO,
    IORESOURCE_MEM,
    IORESOURCE_MUXED,
    IORESOURCE_READONLY,
    IORESOURCE_SYSRAM_MERGEABLE,
    IORESOURCE_SYSTEM_RAM,
    flag_text,
)
from fakedev.model.iomem_names import standard_flags
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.resources import Region, Resource, ResourceTree

MEM, BUSY, RAM = IORESOURCE_MEM, IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM


def tree_of(*entries: tuple[int, int, str, int]) -> ResourceTree:
    tree = ResourceTree()
    for start, end, name, flags in entries:
        tree.insert_resource(Resource(start, end, name, flags))
    return tree


def shape(tree: ResourceTree) -> str:
    return tree.iomem_text(privileged=True)


def bus_and_bar() -> ResourceTree:
    return tree_of(
        (0xC000_0000, 0xFEBF_FFFF, "PCI Bus 0000:00", MEM),
        (0xFEB0_0000, 0xFEB1_FFFF, "0000:00:03.0", MEM),
    )


# -- request_resource, request_region -------------------------------------------------------------


def test_request_resource_sees_direct_children_only() -> None:
    tree = bus_and_bar()
    bus = tree.root.children[0]
    inside = Resource(0xFEB0_0000, 0xFEB0_0FFF, "inside")
    assert tree.request_resource(tree.root, inside) is bus
    assert tree.request_resource(bus, inside) is bus.children[0]
    assert tree.request_resource(bus.children[0], inside) is None
    assert tree.lookup(0xFEB0_0000) is inside


@pytest.mark.parametrize(("start", "end"), [(0x10, 0xF), (0xBFFF_F000, 0xC000_0FFF)])
def test_request_resource_outside_of_the_parent_names_the_parent(start: int, end: int) -> None:
    tree = bus_and_bar()
    bus = tree.root.children[0]
    assert tree.request_resource(bus, Resource(start, end, "x")) is bus


def test_a_claim_goes_below_the_deepest_idle_container() -> None:
    tree = bus_and_bar()
    claim = tree.request_region(0xFEB0_0000, 0x2_0000, "e1000", since=3)
    assert claim.parent is not None
    assert claim.parent.name == "0000:00:03.0"
    assert claim.busy
    assert claim.flags == MEM | BUSY
    assert claim.since == 3


@pytest.mark.parametrize(
    ("start", "size", "conflict", "text"),
    [
        (0xFEB0_0000, 0x1000, "e1000", "e1000 (feb00000-feb1ffff) is BUSY since event 7"),
        (0xFEB1_F000, 0x1000, "e1000", "is BUSY"),
        (0xFEB1_F000, 0x2000, "0000:00:03.0", "straddles the edge of 0000:00:03.0"),
        (0xFEA0_0000, 0x80_0000, "PCI Bus 0000:00", "straddles the edge of PCI Bus"),
        (0xFEA0_0000, 0x20_0000, "0000:00:03.0", "contains 0000:00:03.0"),
        (0xFEA0_0000, 0, "PCI mem", "empty or wraps"),
        ((1 << 64) - 0x1000, 0x2000, "PCI mem", "straddles the edge of PCI mem"),
    ],
)
def test_a_refused_claim_names_what_is_in_the_way(
    start: int, size: int, conflict: str, text: str
) -> None:
    tree = bus_and_bar()
    tree.request_region(0xFEB0_0000, 0x2_0000, "e1000", since=7)
    before = tree.generation
    with pytest.raises(ResourceConflictError) as caught:
        tree.request_region(start, size, "other")
    assert caught.value.conflict.name == conflict
    assert caught.value.errno == errno.EBUSY
    assert str(caught.value).startswith("other: cannot claim ")
    assert text in str(caught.value)
    assert tree.generation == before


def test_a_claim_inherits_type_sysram_and_desc_but_not_exclusive() -> None:
    tree = ResourceTree()
    parent = Resource(0x1000, 0xFFFF, "virtio0", RAM | IORESOURCE_EXCLUSIVE, desc=4)
    tree.insert_resource(parent)
    claim = tree.request_region(0x2000, 0x1000, "System RAM (virtio_mem)")
    assert claim.flags == RAM | BUSY
    assert claim.desc == 4


def test_muxed_requests_conflict_like_others() -> None:
    tree = ResourceTree.ioports()
    first = tree.request_region(0x2E, 2, "superio", IORESOURCE_MUXED)
    assert first.flags == IORESOURCE_IO | BUSY | IORESOURCE_MUXED
    with pytest.raises(ResourceConflictError):
        tree.request_region(0x2E, 2, "other", IORESOURCE_MUXED)
    assert shape(tree) == "002e-002f : superio\n"


def test_placement_changes_nothing() -> None:
    tree = bus_and_bar()
    place, conflict = tree.placement(0xFEB0_0000, 0xFEB0_0FFF)
    assert (place.name, conflict) == ("0000:00:03.0", None)
    assert not place.children


# -- insert ---------------------------------------------------------------------------------------


def test_insert_goes_between_parent_and_children() -> None:
    tree = tree_of(
        (0x1000, 0x1FFF, "low", MEM), (0x3000, 0x3FFF, "mid", MEM), (0x8000, 0x8FFF, "high", MEM)
    )
    tree.insert_resource(Resource(0x1000, 0x7FFF, "over"))
    assert [str(r) for r in tree.root.children] == [
        "over (00001000-00007fff)",
        "high (00008000-00008fff)",
    ]
    over = tree.root.children[0]
    assert [child.name for child in over.children] == ["low", "mid"]
    assert all(child.parent is over for child in over.children)


def test_insert_of_an_equal_range_goes_above() -> None:
    tree = tree_of((0x1000, 0x1FFF, "first", MEM), (0x1000, 0x1FFF, "second", MEM))
    assert shape(tree) == "00001000-00001fff : second\n  00001000-00001fff : first\n"


@pytest.mark.parametrize(
    ("start", "end"), [(0x1800, 0x2FFF), (0x0, 0x17FF), (0x1800, 0x3FFF), (0x0, 0x37FF)]
)
def test_insert_refuses_a_partial_overlap_and_expand_covers_it(start: int, end: int) -> None:
    entries = ((0x1000, 0x1FFF, "a", MEM), (0x3000, 0x3FFF, "b", MEM))
    tree = tree_of(*entries)
    before = shape(tree)
    with pytest.raises(ResourceConflictError) as caught:
        tree.insert_resource(Resource(start, end, "new"))
    assert caught.value.conflict.name in {"a", "b"}
    assert shape(tree) == before
    grown = Resource(start, end, "new")
    tree.insert_resource_expand_to_fit(grown)
    overlapped = [e for e in entries if e[0] <= end and start <= e[1]]
    assert grown.start == min(start, *(e[0] for e in overlapped), start)
    assert grown.end == max(end, *(e[1] for e in overlapped), end)
    assert [child.name for child in grown.children] == [e[2] for e in overlapped]


def test_insert_outside_of_the_root_is_refused_both_ways() -> None:
    ports = ResourceTree.ioports()
    for insert in (ports.insert_resource, ports.insert_resource_expand_to_fit):
        with pytest.raises(ResourceConflictError):
            insert(Resource(0xFFF0, 0x1_0000, "x", IORESOURCE_IO))


# -- release --------------------------------------------------------------------------------------


def family() -> tuple[ResourceTree, Resource]:
    tree = tree_of(
        (0x1000, 0x8FFF, "parent", MEM), (0x2000, 0x2FFF, "a", MEM), (0x4000, 0x4FFF, "b", MEM)
    )
    return tree, tree.root.children[0]


def test_release_takes_the_subtree_and_remove_leaves_it() -> None:
    tree, parent = family()
    tree.remove_resource(parent)
    assert [r.name for r in tree.root.children] == ["a", "b"]
    assert all(r.parent is tree.root for r in tree.root.children)
    tree, parent = family()
    tree.release_resource(parent)
    assert shape(tree) == ""
    with pytest.raises(ResourceConflictError, match="not in the tree") as caught:
        tree.release_resource(parent)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("start", "size", "freed"),
    [
        (0xFEB0_0000, 0x2_0000, True),
        (0xFEB0_0000, 0x1_0000, False),
        (0xFEB0_0000, 0x4_0000, False),
        (0xC000_0000, 0x1000, False),
        (0x1000, 0x1000, False),
    ],
)
def test_release_region_needs_the_exact_busy_node(start: int, size: int, freed: bool) -> None:
    tree = bus_and_bar()
    tree.request_region(0xFEB0_0000, 0x2_0000, "e1000")
    assert tree.release_region(start, size) is freed
    assert any(tree.named("e1000")) is not freed
    assert any(tree.named("0000:00:03.0"))


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        (0x10000, 0x10000, []),
        (0x10000, 0x4000, ["00014000-0001ffff"]),
        (0x1C000, 0x4000, ["00010000-0001bfff"]),
        (0x14000, 0x4000, ["00010000-00013fff", "00018000-0001ffff"]),
        (0x1C000, 0x8000, None),
        (0x30000, 0x1000, None),
    ],
)
def test_adjustable_release_deletes_shrinks_or_splits(
    start: int, size: int, expected: list[str] | None
) -> None:
    tree = tree_of((0, 0xFFFFF, "window", MEM), (0x10000, 0x1FFFF, "System RAM", RAM | BUSY))
    done = tree.release_mem_region_adjustable(start, size, reparent=False)
    assert done is (expected is not None)
    left = [f"{r.span}" for r in tree.named("System RAM")]
    assert left == (["00010000-0001ffff"] if expected is None else expected)


@pytest.mark.parametrize("reparent", [False, True])
def test_split_with_a_child_above_the_hole(reparent: bool) -> None:
    tree = tree_of(
        (0x10000, 0x1FFFF, "System RAM", RAM | BUSY), (0x1F000, 0x1FFFF, "child", RAM | BUSY)
    )
    assert tree.release_mem_region_adjustable(0x14000, 0x4000, reparent=reparent) is reparent
    child = next(tree.named("child"))
    assert child.parent is not None
    assert str(child.parent.span) == ("00018000-0001ffff" if reparent else "00010000-0001ffff")
    assert tree.release_mem_region_adjustable(0x1F800, 0x800, reparent=reparent) is False


def test_merge_joins_equal_neighbours() -> None:
    name = "System RAM (virtio_mem)"
    tree = ResourceTree()
    merged = None
    for start in (0x1000, 0x3000, 0x2000):
        merged = tree.merge_system_ram_resource(
            tree.request_region(start, 0x1000, name, IORESOURCE_SYSTEM_RAM)
        )
    assert shape(tree) == f"00001000-00003fff : {name}\n"
    assert merged is tree.root.children[0]
    assert merged.flags & IORESOURCE_SYSRAM_MERGEABLE


def test_merge_leaves_other_names_holes_and_idle_nodes_alone() -> None:
    tree = ResourceTree()
    for start, name in ((0x1000, "a"), (0x2000, "b"), (0x4000, "b")):
        tree.merge_system_ram_resource(tree.request_region(start, 0x1000, name, RAM))
    assert len(tree.root.children) == 3
    idle = Resource(0x9000, 0x9FFF, "b", RAM)
    tree.insert_resource(idle)
    assert tree.merge_system_ram_resource(idle) is idle
    assert not idle.flags & IORESOURCE_SYSRAM_MERGEABLE


# -- spans: union and intersection (the questions of resource_kunit) ------------------------------

R0, R1, R2 = (0x0, 0xFFF), (0x1000, 0x1FFF), (0x800, 0x17FF)
R3, R4 = (0x0, 0x1FFF), (0x400, 0x7FF)


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        (R0, R1, None),
        (R0, R2, (0x800, 0xFFF)),
        (R1, R2, (0x1000, 0x17FF)),
        (R0, R3, R0),
        (R4, R0, R4),
        (R4, R1, None),
        (R2, R2, R2),
    ],
)
def test_overlap_and_covering(
    a: tuple[int, int], b: tuple[int, int], common: tuple[int, int] | None
) -> None:
    left, right = Resource(*a, "a"), Resource(*b, "b")
    assert left.span.overlaps(right.span) is right.span.overlaps(left.span) is (common is not None)
    parent = Resource(0, 0xFFFF, "parent")
    parent.adopt(left)
    assert (parent.first_overlap(*b) is left) is (common is not None)
    assert left.contains(*b) is (common == b)
    tree = tree_of((*a, "a", MEM))
    grown = Resource(*b, "b")
    tree.insert_resource_expand_to_fit(grown)
    union = (min(a[0], b[0]), max(a[1], b[1]))
    inside = left.contains(*b) and a != b
    assert (grown.start, grown.end) == (union if common and not inside else b)


# -- region_intersects ----------------------------------------------------------------------------

CASES = [
    # start, size, old answer, new answer
    (0x0000, 0x1000, "DISJOINT", "DISJOINT"),  # a hole
    (0x1000, 0x1000, "INTERSECTS", "INTERSECTS"),  # top-level RAM
    (0x1800, 0x1000, "INTERSECTS", "INTERSECTS"),  # RAM and a hole
    (0x1000, 0x4000, "MIXED", "MIXED"),  # RAM and a device
    (0x4000, 0x1000, "DISJOINT", "DISJOINT"),  # the device
    (0x8000, 0x1000, "DISJOINT", "INTERSECTS"),  # RAM below a window
    (0x8000, 0x2000, "DISJOINT", "INTERSECTS"),  # two RAM blocks below it, no gap
    (0x8000, 0x3000, "DISJOINT", "MIXED"),  # RAM, then the window alone
    (0xA000, 0x1000, "DISJOINT", "DISJOINT"),  # the window alone
    (0xA000, 0x2000, "DISJOINT", "MIXED"),  # the window alone, then RAM
    (0x1000, 0xC000, "MIXED", "MIXED"),  # everything
]


@pytest.mark.parametrize(("start", "size", "old", "new"), CASES)
def test_region_intersects(start: int, size: int, old: str, new: str) -> None:
    tree = tree_of(
        (0x1000, 0x1FFF, "System RAM", RAM | BUSY),
        (0x4000, 0x4FFF, "device", MEM),
        (0x8000, 0xBFFF, "CXL Window 0", MEM),
        (0x8000, 0x9FFF, "region0", MEM),
        (0x8000, 0x8FFF, "System RAM (kmem)", RAM | BUSY),
        (0x9000, 0x9FFF, "System RAM (kmem)", RAM | BUSY),
        (0xB000, 0xBFFF, "System RAM (kmem)", RAM | BUSY),
    )
    assert tree.region_intersects(start, size, RAM, look_below=False) is Region(old)
    assert tree.region_intersects(start, size, RAM, look_below=True) is Region(new)


def test_region_intersects_by_descriptor() -> None:
    tree = ResourceTree()
    tree.insert_resource(Resource(0x1000, 0x1FFF, "pmem", MEM, IORES_DESC_PERSISTENT_MEMORY))
    for desc, answer in (
        (IORES_DESC_PERSISTENT_MEMORY, Region.INTERSECTS),
        (IORES_DESC_RESERVED, Region.DISJOINT),
    ):
        assert tree.region_intersects(0x1000, 1, MEM, desc, look_below=True) is answer


# -- resource_is_exclusive ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "strict", "io_strict", "exclusive_ram", "exclusive"),
    [
        (MEM, True, True, True, False),
        (MEM | BUSY, True, True, True, True),
        (MEM | BUSY, True, False, True, False),
        (MEM | BUSY, False, True, True, False),
        (MEM | BUSY | IORESOURCE_EXCLUSIVE, True, False, True, True),
        (MEM | BUSY | IORESOURCE_EXCLUSIVE, False, True, True, False),
        (MEM | IORESOURCE_EXCLUSIVE, True, True, True, False),
        (RAM | IORESOURCE_EXCLUSIVE, False, False, True, True),
        (RAM | IORESOURCE_EXCLUSIVE, False, False, False, False),
        (RAM | IORESOURCE_EXCLUSIVE, True, True, False, False),
    ],
)
def test_resource_is_exclusive(
    flags: int, strict: bool, io_strict: bool, exclusive_ram: bool, exclusive: bool
) -> None:
    tree = tree_of((0, 0xFFFF, "window", MEM), (0x1010, 0x101F, "node", flags))
    found = tree.resource_is_exclusive(
        0x1000,
        0x1000,
        strict_checks=strict,
        io_strict=io_strict,
        exclusive_system_ram=exclusive_ram,
    )
    assert (found is not None) is exclusive


def test_the_last_page_of_the_address_space_is_never_exclusive() -> None:
    last = (1 << 64) - 0x1000
    tree = tree_of((last, last + 0xFFF, "top", MEM | BUSY))
    args = {"strict_checks": True, "io_strict": True, "exclusive_system_ram": True}
    assert tree.resource_is_exclusive(last, 0x1000, **args) is None
    assert tree.resource_is_exclusive(last, 0xFFF, **args) is tree.root.children[0]


# -- looking --------------------------------------------------------------------------------------


def test_lookup_find_and_walk() -> None:
    tree = bus_and_bar()
    tree.request_region(0xFEB0_0000, 0x2_0000, "e1000")
    assert [(depth, r.name) for depth, r in tree.walk()] == [
        (0, "PCI Bus 0000:00"),
        (1, "0000:00:03.0"),
        (2, "e1000"),
    ]
    found = tree.find(0xFEB0_0000, 0xFEB1_FFFF)
    assert found is not None
    assert found.name == "0000:00:03.0"
    claim = tree.find(0xFEB0_0000, 0xFEB1_FFFF, "e1000")
    assert claim is tree.lookup(0xFEB0_1234)
    assert tree.find(0xFEB0_0000, 0xFEB0_0FFF) is None
    assert tree.lookup(0) is None
    assert repr(claim) == "<Resource e1000 (feb00000-feb1ffff) flags=0x80000200 desc=0>"
    assert flag_text(BUSY | RAM) == "mem sysram busy"


@pytest.mark.parametrize(("cap", "deepest"), [(5, 10), (8, 16)])
def test_text_indent_is_capped_and_width_is_a_minimum(cap: int, deepest: int) -> None:
    tree = ResourceTree()
    for depth in range(10):
        tree.insert_resource(Resource(0x1000, 0x10_0000_0000 - depth, f"level {depth}"))
    lines = tree.iomem_text(privileged=True, depth_cap=cap).splitlines()
    assert lines[0] == "00001000-1000000000 : level 0"
    assert lines[1] == "  00001000-fffffffff : level 1"
    assert [len(line) - len(line.lstrip()) for line in lines][-1] == deepest
    hidden = tree.iomem_text(privileged=False, depth_cap=cap).splitlines()
    assert hidden[0] == "00000000-00000000 : level 0"
    assert build_tree(parse_iomem("\n".join(lines))).iomem_text(
        privileged=True, depth_cap=cap
    ) == "".join(f"{line}\n" for line in lines)


# -- parse_iomem ----------------------------------------------------------------------------------


def test_parse_accepts_a_common_indent_and_empty_lines() -> None:
    entries = parse_iomem("\n    1000-1fff : a\n      1800-18ff : b : c\n\n    2000-2fff : \n")
    assert [(e.start, e.end, e.name, e.line) for e in entries] == [
        (0x1000, 0x1FFF, "a", 2),
        (0x2000, 0x2FFF, "", 5),
    ]
    assert entries[0].children[0].name == "b : c"
    assert parse_iomem("") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000-1fff : a\nrubbish", "line 2: not `START-END : NAME`"),
        ("1000-1fff : a\n 1000-1fff : b", "line 2: indented by 1"),
        ("1000-1fff : a\n    1000-1fff : b", "line 2: indented by 2 levels, at most 1"),
        ("1000-1fff : a\n  1000-2fff : b", "line 2: b .* lies outside of its parent a"),
        ("1000-fff : a", "line 1: 1000-fff: the end lies before the start"),
        ("0-1ffffffffffffffff : a", "line 1: .* ends beyond 64 bits"),
        ("00000000-00000000 : a\n  00000000-00000000 : b", "captured without root"),
        ("2000-2fff : a\n1000-2000 : b", "line 2: b .* overlaps a .* of line 1"),
        ("1000-4fff : p\n  1000-2fff : a\n  2000-2fff : b", "line 3: b .* overlaps a"),
    ],
)
def test_parse_says_which_line_is_wrong(text: str, message: str) -> None:
    with pytest.raises(RangeError, match=message):
        parse_iomem(text)


# -- standard_flags -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "flags", "desc"),
    [
        ("System RAM", 0x1000, RAM | BUSY, 0),
        ("Kernel rodata", 0x1000, RAM | BUSY, 0),
        ("Crash kernel", 0x1000, RAM | BUSY, IORES_DESC_CRASH_KERNEL),
        ("Reserved", 0, MEM | BUSY, IORES_DESC_RESERVED),
        ("Reserved", 0x10_0000, MEM, IORES_DESC_RESERVED),
        ("Soft Reserved", 0x10_0000, MEM, IORES_DESC_SOFT_RESERVED),
        ("Persistent Memory", 0x1_0000_0000, MEM, IORES_DESC_PERSISTENT_MEMORY),
        ("ACPI Tables", 0x10_0000, MEM | BUSY, IORES_DESC_ACPI_TABLES),
        ("Video ROM", 0xC0000, MEM | BUSY | IORESOURCE_READONLY, 0),
        ("PCI ECAM 0000 [bus 00-ff]", 0xB000_0000, MEM | BUSY, 0),
        ("IOAPIC 1", 0xFEC0_0000, MEM | BUSY, 0),
        ("Local APIC", 0xFEE0_0000, MEM | BUSY, 0),
        ("HPET 0", 0xFED0_0000, MEM, 0),
        ("PNP0103:00", 0xFED0_0000, MEM, 0),
        ("pnp 00:07", 0xB000_0000, MEM, 0),
        ("something else", 0xB000_0000, MEM, 0),
    ],
)
def test_flags_of_known_names(name: str, start: int, flags: int, desc: int) -> None:
    assert standard_flags(name, start, start + 0xFFF) == (flags, desc)


@pytest.mark.parametrize(
    ("name", "parent", "children", "busy"),
    [
        ("0000:00:02.0", "PCI Bus 0000:00", [], False),
        ("PCI Bus 0000:01", "PCI Bus 0000:00", [], False),
        ("nvme", "0000:00:04.0", [], True),
        ("PNP0103:00", "HPET 0", [], False),
        ("INT34BB:00 INT34BB:00", "INT34BB:00", [], True),
        ("virtio0", "", [], False),
        ("virtio0", "0000:00:04.0", [], True),
        ("dax0.0", "Persistent Memory", [], True),
        ("dax0.0", "Persistent Memory", ["System RAM (kmem)"], False),
        ("namespace0.0", "Persistent Memory", [], True),
    ],
)
def test_flags_that_depend_on_the_neighbours(
    name: str, parent: str, children: list[str], busy: bool
) -> None:
    flags, _ = standard_flags(name, 0x1_0000_0000, 0x1_0000_0FFF, parent=parent, children=children)
    assert bool(flags & BUSY) is busy


def test_virtio_mem_is_exclusive_system_ram() -> None:
    flags, _ = standard_flags("virtio0", 0x1_0000_0000, 0x1_3FFF_FFFF)
    assert flags == RAM | IORESOURCE_EXCLUSIVE


# -- invariants -----------------------------------------------------------------------------------

SPANS = st.tuples(st.integers(0, 63), st.integers(0, 20))
STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "insert", "expand", "release", "remove", "adjust"]), SPANS),
    max_size=30,
)


def step(tree: ResourceTree, verb: str, start: int, size: int) -> None:
    node = tree.lookup(start)
    actions: dict[str, Callable[[], object]] = {
        "claim": lambda: tree.request_region(start, size, "claim"),
        "insert": lambda: tree.insert_resource(Resource(start, start + size - 1, "insert")),
        "expand": lambda: tree.insert_resource_expand_to_fit(
            Resource(start, start + size - 1, "expand")
        ),
        "release": lambda: tree.release_region(start, size),
        "remove": lambda: tree.remove_resource(node) if node else None,
        "adjust": lambda: tree.release_mem_region_adjustable(start, max(size, 1), reparent=True),
    }
    before = shape(tree)
    try:
        actions[verb]()
    except ResourceConflictError:
        assert shape(tree) == before


@given(STEPS)
def test_siblings_stay_sorted_disjoint_and_inside(steps: list[tuple[str, tuple[int, int]]]) -> None:
    tree = ResourceTree()
    for verb, (start, size) in steps:
        step(tree, verb, start, size)
        for _, node in tree.walk():
            assert node.parent is not None
            assert node.parent.contains(node.start, node.end)
            ends = [-1]
            for child in node.parent.children:
                assert ends[-1] < child.start <= child.end
                ends.append(child.end)
    if _printable(tree):
        assert shape(build_tree(parse_iomem(shape(tree)))) == shape(tree)


def _printable(tree: ResourceTree) -> bool:
    return any(node.end for _, node in tree.walk()) and max(depth for depth, _ in tree.walk()) < 5
