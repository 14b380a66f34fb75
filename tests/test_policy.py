"""The verdicts on read, write, mmap and claims."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakedev.model.errors import ResourceConflictError
from fakedev.model.flags import (
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_MEM,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.policy import Access, Policy, Verdict
from fakedev.model.ranges import ADDRESS_LIMIT, Range
from fakedev.model.resources import Region, Resource, ResourceTree

BUSY, RAM = IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM
ALLOW, ZEROS, DENY, FAULT = Access.ALLOW, Access.ZEROS, Access.DENY, Access.FAULT

IOMEM = """
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : System ROM
00100000-1fffffff : System RAM
  01000000-01ffffff : Kernel code
20000000-200fffff : ACPI Tables
c0000000-febfffff : PCI Bus 0000:00
  feb00000-feb1ffff : 0000:00:03.0
    feb00000-feb1ffff : e1000
  feb20000-feb3ffff : 0000:00:04.0
fec00000-fec003ff : IOAPIC 0
100000000-13fffffff : virtio0
  100000000-10fffffff : System RAM (virtio_mem)
140000000-14fffffff : Persistent Memory
"""
TOP = 0x1_8000_0000
LOW_RAM, HIGH_RAM, IDLE, CLAIMED, ROM = 0x1000, 0x20_0000, 0xFEB2_0000, 0xFEB0_0000, 0xF0000


def machine(*, high_memory: int = TOP, **rules: Any) -> tuple[ResourceTree, Policy]:
    tree = build_tree(parse_iomem(IOMEM))
    return tree, Policy(tree, KernelRules(**rules), high_memory=high_memory)


def code(verdict: Verdict) -> str:
    assert verdict.allowed is (verdict.errno == 0)
    return errno.errorcode[verdict.errno] if verdict.errno else "ok"


# -- the table of kernel-semantics 2.3 ------------------------------------------------------------

STRICT_N: dict[str, Any] = {"strict_devmem": False}
IO_N: dict[str, Any] = {"io_strict_devmem": False}
RELAXED: dict[str, Any] = {"cmdline": "iomem=relaxed"}
WHERE = ("high ram", "idle", "busy", "busy+exclusive", "exclusive", "virtio hole")
TABLE = [
    # rules, read of each place, mmap of each place
    (STRICT_N, "ok ok ok ok ok ok", "EINVAL ok ok ok ok EINVAL"),
    (STRICT_N | {"version": "6.16"}, "ok ok ok ok ok ok", "ok ok ok ok ok ok"),
    (STRICT_N | {"pat": False}, "ok ok ok ok ok ok", "ok ok ok ok ok ok"),
    (IO_N, "EPERM ok ok EPERM ok EPERM", "EPERM ok ok EPERM ok EPERM"),
    ({}, "EPERM ok EPERM EPERM ok EPERM", "EPERM ok EPERM EPERM ok EPERM"),
    (RELAXED, "EPERM ok ok ok ok EPERM", "EPERM ok ok ok ok EPERM"),
    (RELAXED | IO_N, "EPERM ok ok ok ok EPERM", "EPERM ok ok ok ok EPERM"),
    (RELAXED | {"version": "5.10"}, "EPERM ok ok ok ok EPERM", "EPERM ok ok ok ok EPERM"),
    (
        STRICT_N | {"cmdline": "iomem=strict"},
        "ok ok ok ok ok ok",
        "EINVAL ok ok EINVAL ok EINVAL",
    ),
]


@pytest.mark.parametrize(("rules", "reads", "maps"), TABLE)
def test_page_states_against_configurations(rules: dict[str, Any], reads: str, maps: str) -> None:
    tree = build_tree(parse_iomem(IOMEM))
    tree.request_region(0xFEB2_1000, 0x1000, "vfio", IORESOURCE_EXCLUSIVE)
    tree.insert_resource(Resource(0xFEB2_2000, 0xFEB2_2FFF, "odd", 0x200 | IORESOURCE_EXCLUSIVE))
    policy = Policy(tree, KernelRules(**rules), high_memory=TOP)
    pages = (HIGH_RAM, IDLE, CLAIMED, 0xFEB2_1000, 0xFEB2_2000, 0x1_2000_0000)
    assert dict(zip(WHERE, (code(policy.read(p, 4)) for p in pages), strict=True)) == dict(
        zip(WHERE, reads.split(), strict=True)
    )
    assert dict(zip(WHERE, (code(policy.mmap(p, 4096)) for p in pages), strict=True)) == dict(
        zip(WHERE, maps.split(), strict=True)
    )
    assert [code(policy.write(p, 4)) for p in pages] == reads.split()


@pytest.mark.parametrize(
    ("address", "size", "high_memory", "expected"),
    [
        (0, 0, TOP, "EFAULT"),  # pos - 1 wraps
        (0x1000, 0, TOP, "ok"),
        (HIGH_RAM, 0, TOP, "ok"),  # no page is tested
        (TOP, 0, TOP, "ok"),
        (TOP + 1, 0, TOP, "EFAULT"),
        (TOP - 4, 4, TOP, "ok"),
        (TOP - 4, 5, TOP, "EFAULT"),
        (0x1FFF_F000, 0x2000, 0x2000_0000, "EFAULT"),  # range before permission
        (0x1FFF_F000, 0x1000, 0x2000_0000, "EPERM"),
        (IDLE, 4, 0x2000_0000, "EFAULT"),
        (ROM, 0x1_0000, TOP, "ok"),
        (ROM, 0x1_0001, TOP, "EPERM"),
        (0, 0x10_0000, TOP, "ok"),
        (0xFEC0_0500, 4, TOP, "EPERM"),  # 1 KiB of IOAPIC poisons its page
        (0x2000_0000, 4, TOP, "EPERM"),
        (0x1_4000_0000, 4, TOP, "ok"),  # idle persistent memory
        (1 << 63, 16, TOP, "EFAULT"),
        ((1 << 64) - 16, 16, TOP, "EFAULT"),
    ],
)
def test_read_and_write(address: int, size: int, high_memory: int, expected: str) -> None:
    _, policy = machine(high_memory=high_memory)
    assert code(policy.read(address, size)) == expected
    assert code(policy.write(address, size)) == expected


@pytest.mark.parametrize(
    ("address", "size", "expected"),
    [
        (0xF0001, 0x1000, "EINVAL"),
        (0xF0000, 0, "EINVAL"),
        (0xF0000, 1, "ok"),
        (0xF0000, 0x1_0001, "EPERM"),
        (0, 0x10_0000, "ok"),
        (0, 0x10_1000, "EPERM"),
        ((1 << 40) - 0x1000, 0x1000, "ok"),
        ((1 << 40) - 0x1000, 0x2000, "EINVAL"),
        (1 << 40, 0x1000, "EINVAL"),
        (0, 1 << 46, "EINVAL"),  # width before permission
        ((1 << 64) - 0x1000, 0x1000, "EINVAL"),
        ((1 << 64) - 0x1000, 0x2000, "EOVERFLOW"),
        (0xC000_0000, 0x3EB0_0000, "ok"),
        (0xC000_0000, 0x3EB0_1000, "EPERM"),
    ],
)
def test_mmap(address: int, size: int, expected: str) -> None:
    _, policy = machine(phys_bits=40, high_memory=0x2000_0000)
    assert code(policy.mmap(address, size)) == expected


# -- what a verdict says --------------------------------------------------------------------------


def test_verdicts_name_function_reason_and_resource() -> None:
    tree, policy = machine()
    claim = tree.request_region(0xFEB2_0010, 0x10, "uart", since=12)
    policy = policy.updated(tree, claim.start, claim.end + 1)
    cases = [
        (
            policy.read(0x10_1234, 4),
            ("devmem_is_allowed: page 0x101000 is System RAM (00100000-1fffffff)"),
        ),
        (
            policy.read(CLAIMED, 4),
            (
                "iomem_is_exclusive: page 0xfeb00000 is BUSY under "
                "IO_STRICT_DEVMEM, claimed by e1000 (feb00000-feb1ffff)"
            ),
        ),
        (
            policy.mmap(IDLE, 0x1000),
            (
                "iomem_is_exclusive: page 0xfeb20000 is BUSY under "
                "IO_STRICT_DEVMEM, claimed by uart (feb20010-feb2001f) since event 12"
            ),
        ),
        (
            policy.read(0x1_2000_0000, 4),
            ("devmem_is_allowed: page 0x120000000 is System RAM of virtio0 (100000000-13fffffff)"),
        ),
        (
            policy.read(TOP, 4),
            (
                "valid_phys_addr_range: 0x4 bytes at 0x180000000 do not end below "
                "high_memory (0x180000000)"
            ),
        ),
        (
            policy.read(LOW_RAM, 4),
            (
                "devmem_is_allowed: System RAM below 1 MiB: read gives zeros, "
                "write is counted and dropped"
            ),
        ),
        (
            policy.mmap(LOW_RAM, 4),
            ("devmem_is_allowed: System RAM below 1 MiB: mmap maps the real RAM"),
        ),
        (
            policy.read(ROM, 4),
            ("devmem_is_allowed: below 1 MiB a BUSY page that is not System RAM is allowed"),
        ),
        (policy.read(0xC000_0000, 4), "devmem_is_allowed: no page is System RAM or exclusive"),
        (
            policy.mmap(1 << 46, 4),
            ("valid_mmap_phys_addr_range: 0x400000000fff is wider than the 46 bits of this CPU"),
        ),
    ]
    assert [verdict.rule for verdict, _ in cases] == [rule for _, rule in cases]
    assert policy.mmap(IDLE, 4096).resource is claim
    assert policy.read(LOW_RAM, 4).access is ZEROS


@pytest.mark.parametrize(
    ("rules", "flags", "text"),
    [
        (IO_N, BUSY | IORESOURCE_EXCLUSIVE, "is BUSY and EXCLUSIVE, claimed by vfio"),
        ({"arch": "aarch64"}, RAM | IORESOURCE_EXCLUSIVE, "is exclusive System RAM of vfio"),
    ],
)
def test_kinds_of_exclusive(rules: dict[str, Any], flags: int, text: str) -> None:
    tree, policy = machine(**rules)
    claim = Resource(IDLE, IDLE + 0xFFF, "vfio", IORESOURCE_MEM | flags)
    tree.insert_resource(claim)
    verdict = policy.updated(tree, IDLE, IDLE + 0x1000).mmap(IDLE, 0x1000)
    assert text in verdict.rule
    assert verdict.resource is claim


def test_a_verdict_holds_for_its_interval() -> None:
    _, policy = machine()
    verdict = policy.read(0xD000_0000, 4)
    assert (verdict.start, verdict.end) == (0x2010_0000, CLAIMED)
    assert policy.read(0xC000_0000, 0x1000) is verdict
    assert policy.read(verdict.end - 4, 4) is verdict
    assert policy.read(verdict.end - 4, 5).errno == errno.EPERM
    mapped = policy.mmap(0xD000_0000, 0x1000)
    assert policy.mmap(0xD000_1000, 0x1000) is mapped


def test_spans_cut_a_request_where_the_answer_changes() -> None:
    _, policy = machine()
    assert policy.spans(0xE80, 0x200) == [(0xE80, 0x1000, ALLOW), (0x1000, 0x1080, ZEROS)]
    assert policy.spans(0x9_F000, 0x6_2000) == [
        (0x9_F000, 0xA_0000, ZEROS),
        (0xA_0000, 0x10_0000, ALLOW),
        (0x10_0000, 0x10_1000, DENY),
    ]
    assert policy.spans(0x5000, 0) == []
    assert policy.spans((1 << 64) - 8, 64) == [((1 << 64) - 8, 1 << 64, ALLOW)]


def test_without_strict_devmem_a_page_of_two_kinds_has_no_translation() -> None:
    _, policy = machine(**STRICT_N)
    assert code(policy.read(0x9_F000, 4)) == "EFAULT"
    assert "REGION_MIXED" in policy.read(0x9_F000, 4).rule
    assert policy.spans(0x9_E000, 0x3000) == [
        (0x9_E000, 0x9_F000, ALLOW),
        (0x9_F000, 0xA_0000, FAULT),
        (0xA_0000, 0xA_1000, ALLOW),
    ]
    assert policy.mmap(HIGH_RAM, 0x1000).rule.startswith("phys_mem_access_prot_allowed, with PAT")


# -- claims ---------------------------------------------------------------------------------------


def test_claim_verdict() -> None:
    tree, policy = machine()
    assert policy.claim_verdict(IDLE, 0x1000).allowed
    refused = policy.claim_verdict(CLAIMED, 0x1000)
    assert code(refused) == "EBUSY"
    assert refused.rule == "__request_region: e1000 (feb00000-feb1ffff) is BUSY"
    assert refused.resource is tree.find(CLAIMED, CLAIMED + 0x1_FFFF, "e1000")
    assert "straddles the edge of" in policy.claim_verdict(IDLE + 0x1000, 0x4_0000).rule


def claimed(
    start: int, size: int, *, flags: int = 0, **rules: Any
) -> tuple[Policy, Resource, Range | None]:
    tree, policy = machine(**rules)
    claim = tree.request_region(start, size, "driver", flags)
    policy = policy.updated(tree, start, start + size)
    return policy, claim, policy.should_revoke(claim)


@pytest.mark.parametrize(
    ("start", "size", "rules", "revoked"),
    [
        (IDLE, 0x2000, {}, Range(IDLE, 0x2000)),
        (IDLE + 0x10, 0x10, {}, Range(IDLE, 0x1000)),
        (IDLE + 0x800, 0x1000, {}, Range(IDLE, 0x1000)),  # the second page is missed
        (IDLE + 0x800, 0x1001, {}, Range(IDLE, 0x2000)),
        (IDLE, 0x2000, {"version": "5.4"}, None),
        (IDLE, 0x2000, {"version": "5.8"}, Range(IDLE, 0x2000)),
        (IDLE, 0x2000, IO_N, None),
        (IDLE, 0x2000, STRICT_N, None),
        (IDLE, 0x2000, RELAXED, None),
        (IDLE, 0x2000, {"claim_policy": "ignore"}, None),
        (IDLE, 0x2000, {"claim_policy": "deny-claim"}, Range(IDLE, 0x2000)),
        (0xA_0000, 0x1000, {}, None),  # below 1 MiB
        (0xC_0000, 0x1000, {"arch": "aarch64"}, Range(0xC_0000, 0x1000)),
    ],
)
def test_what_a_claim_revokes(
    start: int, size: int, rules: dict[str, Any], revoked: Range | None
) -> None:
    assert claimed(start, size, **rules)[2] == revoked


def test_exclusive_does_not_revoke_by_itself_nor_below_1_mib() -> None:
    exclusive = IORESOURCE_EXCLUSIVE
    policy, claim, revoked = claimed(IDLE, 0x1000, flags=exclusive, **IO_N)
    assert revoked is None
    assert policy.iomem_is_exclusive(IDLE) is claim
    assert claimed(0xA_0000, 0x1000, flags=exclusive)[2] is None


def test_exclusive_system_ram_revokes_in_spite_of_relaxed() -> None:
    flags = RAM | IORESOURCE_EXCLUSIVE
    expected = Range(0x2_0000_0000, 0x1000)
    for version, revoked in (("5.16", expected), ("5.12", expected)):
        result = claimed(0x2_0000_0000, 0x1000, flags=flags, version=version, **RELAXED)
        # Before 5.16 x86 revokes as well: its System RAM test does not know `iomem=`.
        assert result[2] == revoked
    arm: dict[str, Any] = {"arch": "aarch64", **RELAXED}
    assert claimed(0x2_0000_0000, 0x1000, flags=flags, version="5.16", **arm)[2] == expected


def test_a_region_that_crosses_1_mib_is_revoked_as_a_whole() -> None:
    tree = ResourceTree()
    claim = tree.request_region(0xF_0000, 0x2_0000, "driver")
    policy = Policy(tree, KernelRules(), high_memory=TOP)
    assert policy.should_revoke(claim) == Range(0xF_0000, 0x2_0000)


def test_release_opens_the_pages_again() -> None:
    tree, policy = machine()
    tree.release_region(CLAIMED, 0x2_0000)
    after = policy.updated(tree, CLAIMED, CLAIMED + 0x2_0000)
    assert code(policy.read(CLAIMED, 4)) == "EPERM"
    assert code(after.read(CLAIMED, 4)) == "ok"


def test_high_memory_can_grow() -> None:
    tree, policy = machine(high_memory=0x2000_0000)
    grown = policy.updated(tree, 0, 0, high_memory=TOP)
    assert code(policy.read(IDLE, 4)) == "EFAULT"
    assert code(grown.read(IDLE, 4)) == "ok"


# -- other architectures --------------------------------------------------------------------------

ARM_IOMEM = """
09000000-09000fff : pl011@9000000
40000000-7fffffff : System RAM
  41000000-41ffffff : Kernel code
90000000-900007ff : System RAM
a0000000-a0000fff : 0000:00:01.0
  a0000000-a0000fff : ahci
"""


@pytest.mark.parametrize(
    ("arch", "strict", "address", "size", "read", "mmap"),
    [
        ("aarch64", True, 0x900_0000, 4, "EFAULT", "ok"),  # no MMIO through read
        ("aarch64", True, 0x4000_0000, 4, "EPERM", "EPERM"),
        ("aarch64", True, 0x9000_0000, 4, "EPERM", "EPERM"),  # half a page: not RAM, but BUSY
        ("aarch64", True, 0xA000_0000, 4, "EFAULT", "EPERM"),
        ("aarch64", True, 0, 0, "EFAULT", "EINVAL"),
        ("aarch64", False, 0x4000_0000, 4, "ok", "ok"),
        ("aarch64", False, 0x7FFF_F000, 0x1001, "EFAULT", "ok"),  # leaves the memory block
        ("aarch64", True, 1 << 48, 4096, "EFAULT", "EINVAL"),
        ("riscv64", True, 0x900_0000, 4, "EFAULT", "ok"),  # below high_memory, not mapped
        ("riscv64", True, 0xA000_0000, 4, "EFAULT", "EPERM"),
        ("riscv64", True, 0x4000_0000, 4, "EPERM", "EPERM"),
        ("riscv64", True, 0, 0, "ok", "EINVAL"),
        ("riscv64", False, 0x4000_0000, 4, "ok", "ok"),
        ("riscv64", False, 0x900_0000, 4, "EFAULT", "ok"),
        ("riscv64", True, 1 << 60, 4096, "EFAULT", "ok"),  # the width is not tested
    ],
)
def test_generic_rules(
    arch: str, strict: bool, address: int, size: int, read: str, mmap: str
) -> None:
    rules = KernelRules(arch=arch, strict_devmem=strict)
    policy = Policy(build_tree(parse_iomem(ARM_IOMEM)), rules, high_memory=0x9000_0800)
    assert code(policy.read(address, size)) == read
    assert code(policy.mmap(address, size)) == mmap
    if read == "EFAULT":
        assert policy.read(address, size).rule


def test_generic_ram_is_whole_pages_only() -> None:
    rules = KernelRules(arch="aarch64", io_strict_devmem=False)
    policy = Policy(build_tree(parse_iomem(ARM_IOMEM)), rules, high_memory=0)
    assert code(policy.read(0x9000_0000, 4)) == "ok"
    assert code(policy.read(0x4000_0000, 4)) == "EPERM"


def test_ram_that_is_not_busy_is_ram_for_x86_only() -> None:
    for arch, access in (("x86_64", DENY), ("aarch64", ALLOW), ("riscv64", ALLOW)):
        tree = ResourceTree()
        tree.insert_resource(Resource(0x1_0000_0000, 0x1_3FFF_FFFF, "virtio0", RAM))
        policy = Policy(tree, KernelRules(arch=arch), high_memory=TOP)
        assert policy.devmem_is_allowed(0x1_0000_0000) is access


def test_old_kernels_do_not_see_ram_below_other_nodes() -> None:
    for version, access in (("6.11", ALLOW), ("6.12", DENY)):
        tree = ResourceTree()
        tree.insert_resource(Resource(0x2_0000_0000, 0x2_FFFF_FFFF, "Soft Reserved"))
        tree.insert_resource(Resource(0x2_0000_0000, 0x2_0FFF_FFFF, "System RAM (kmem)", RAM))
        policy = Policy(tree, KernelRules(version=version), high_memory=TOP)
        assert policy.devmem_is_allowed(0x2_0000_0000) is access


# -- compiled against computed --------------------------------------------------------------------

BASE, PAGES = 0xF_8000, 16
NAMES = ("idle", "busy", "exclusive", "ram", "busy ram", "virtio")
KINDS = {
    "idle": IORESOURCE_MEM,
    "busy": IORESOURCE_MEM | BUSY,
    "exclusive": IORESOURCE_MEM | BUSY | IORESOURCE_EXCLUSIVE,
    "ram": RAM,
    "busy ram": RAM | BUSY,
    "virtio": RAM | IORESOURCE_EXCLUSIVE,
}
NODES = st.tuples(st.sampled_from(NAMES), st.integers(0, 127), st.integers(1, 40))
RULES = st.builds(
    KernelRules,
    version=st.sampled_from(["5.10", "5.15", "5.16", "6.6", "6.12", "7.2"]),
    arch=st.sampled_from(["x86_64", "aarch64", "riscv64"]),
    strict_devmem=st.booleans(),
    io_strict_devmem=st.booleans(),
    cmdline=st.sampled_from(["", "iomem=relaxed", "iomem=strict"]),
)
BLOCKS = (Range(BASE + 0x2000, 0x4000), Range(BASE + 0x9000, 0x3000))


def is_ram(tree: ResourceTree, rules: KernelRules, page: int) -> bool:
    if rules.arch == "x86_64":
        found = tree.region_intersects(page, 4096, RAM, look_below=rules.looks_below_top_level)
        return found is not Region.DISJOINT
    return any(r.matches(RAM | BUSY) and r.contains(page, page + 0xFFF) for _, r in tree.walk())


def computed(tree: ResourceTree, rules: KernelRules, page: int) -> tuple[Access, Access]:
    """devmem_is_allowed and what read meets, page by page, straight from the reference."""
    exclusive = tree.resource_is_exclusive(
        page,
        4096,
        strict_checks=rules.strict_iomem_checks,
        io_strict=rules.io_strict_devmem,
        exclusive_system_ram=rules.has_exclusive_system_ram,
    )
    ram, low = is_ram(tree, rules, page), rules.arch == "x86_64" and page < 1 << 20
    allowed = ALLOW
    if ram or exclusive:
        allowed = (ZEROS if ram else ALLOW) if low else DENY
    data = allowed if rules.strict_devmem else ALLOW
    mixed = tree.region_intersects(page, 4096, RAM, look_below=rules.looks_below_top_level)
    unmapped = {
        "x86_64": mixed is Region.MIXED,
        "aarch64": False,
        "riscv64": not any(b.start <= page < b.end for b in BLOCKS),
    }[rules.arch]
    return allowed, FAULT if data is ALLOW and unmapped else data


def place(tree: ResourceTree, kind: str, unit: int, length: int) -> Range | None:
    """Insert a node (units of half a kilobyte), or take the one away that is there."""
    span = Range(BASE + unit * 0x200, length * 0x200)
    there = tree.find(span.start, span.end - 1)
    actions: list[Callable[[], None]] = [
        lambda: tree.insert_resource(Resource(span.start, span.end - 1, kind, KINDS[kind])),
        lambda: tree.remove_resource(there) if there else None,
    ]
    try:
        actions[there is not None]()
    except ResourceConflictError:
        return None
    return span


@settings(max_examples=300)
@given(st.lists(NODES, max_size=12), RULES)
def test_compiled_map_equals_the_kernel_functions(
    nodes: list[tuple[str, int, int]], rules: KernelRules
) -> None:
    tree = ResourceTree()
    policy = Policy(tree, rules, high_memory=TOP, memblocks=BLOCKS)
    for node in nodes:
        span = place(tree, *node)
        if span is not None:
            policy = policy.updated(tree, span.start, span.end)
    fresh = Policy(tree, rules, high_memory=TOP, memblocks=BLOCKS)
    cells = [[(c.start, c.end, c.facts) for c in p._map.cells] for p in (policy, fresh)]
    assert cells[0] == cells[1]
    assert cells[0][0][0] == 0
    assert cells[0][-1][1] == ADDRESS_LIMIT
    for page in range(BASE, BASE + PAGES * 4096 + 0x8000, 4096):
        allowed, data = computed(tree, rules, page)
        assert policy.devmem_is_allowed(page) is allowed
        assert policy.spans(page + 8, 8) == [(page + 8, page + 16, data)]
        assert (policy.iomem_is_exclusive(page) is None) is (
            tree.resource_is_exclusive(
                page,
                4096,
                strict_checks=rules.strict_iomem_checks,
                io_strict=rules.io_strict_devmem,
                exclusive_system_ram=rules.has_exclusive_system_ram,
            )
            is None
        )


@given(st.lists(NODES, max_size=8), RULES, st.integers(0, 0x1_0000), st.integers(1, 0x5000))
def test_a_request_gets_the_answer_of_its_first_refused_page(
    nodes: list[tuple[str, int, int]], rules: KernelRules, offset: int, size: int
) -> None:
    tree = ResourceTree()
    for node in nodes:
        place(tree, *node)
    policy = Policy(tree, rules, high_memory=TOP, memblocks=(Range(0, TOP),))
    address = BASE + offset
    pages = range(address & ~0xFFF, address + size, 4096)
    expected = {DENY: errno.EPERM, FAULT: errno.EFAULT}
    answers = [expected.get(policy.spans(page, 1)[0][2], 0) for page in pages]
    verdict = policy.read(address, size)
    assert verdict.errno == next((answer for answer in answers if answer), 0)
    assert policy.read(address, size) == verdict
    whole = policy.mmap(address & ~0xFFF, (address & 0xFFF) + size)
    denied = any(policy.devmem_is_allowed(page) is DENY for page in pages)
    refuses = rules.strict_devmem or rules.mmap_ram_einval
    assert whole.allowed is not (denied and refuses)


def test_ten_thousand_claims_cost_what_ten_cost_per_update() -> None:
    """The number of cells that an update makes depends on the pages it covers, not on the map."""
    tree = ResourceTree()
    for index in range(10_000):
        tree.request_region(0x1_0000_0000 + index * 0x4000, 0x1000, "driver")
    policy = Policy(tree, KernelRules(), high_memory=1 << 40)
    assert len(policy._map.cells) == 20_001
    tree.request_region(0x1_0000_2000, 0x1000, "more")
    updated = policy.updated(tree, 0x1_0000_2000, 0x1_0000_3000)
    old = {id(cell) for cell in policy._map.cells}
    assert sum(id(cell) not in old for cell in updated._map.cells) == 3
