"""Calls on mappings of device memory: the recorded answers, and what the recording did not ask."""

import errno
import re
from collections import Counter

import pytest
from calling import at, said
from pci_tree import IVSHMEM, Setup, device_path
from recordings import records

from fakedev.conformance.records import Record
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views import mappings
from fakedev.views.calls import Answer
from fakedev.views.mappings import Mapping, Remap

ADDRESS, SIZE, ELSEWHERE = 0x7F00_0000_0000, 0x8000, 0x7F10_0000_0000
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
PHASES = ("vm-ops", "revoke-*")
ADVICE = {
    "NORMAL": 0, "RANDOM": 1, "WILLNEED": 3, "FREE": 8, "REMOVE": 9, "DONTFORK": 10, "after": 11,
    "HUGEPAGE": 14, "MERGEABLE": 12, "DONTDUMP": 16, "DODUMP": 17, "WIPEONFORK": 18, "COLD": 20,
    "PAGEOUT": 21, "POPULATE_READ": 22, "POPULATE_WRITE": 23,
}  # fmt: skip
REMAPS = {
    "grow-maymove": (SIZE, 2 * SIZE, MAYMOVE),
    "grow-inplace": (SIZE, 2 * SIZE, 0),
    "dup-oldlen0": (0, SIZE, MAYMOVE),
    "dontunmap": (SIZE, SIZE, MAYMOVE | DONTUNMAP),
    "move-fixed": (SIZE, SIZE, MAYMOVE | FIXED),
    "move-one-page-of-it": (0x1000, 0x1000, MAYMOVE | FIXED),
    "shrink": (SIZE, SIZE - 0x1000, 0),
}
#: EINVAL of the host as well: not anonymous.
BY_THE_HOST = ("FREE", "WIPEONFORK")


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup(build_machine(load_profile("pc-q35")))


@pytest.fixture(scope="module")
def places(setup: Setup) -> dict[str, Mapping]:
    """A mapping of /dev/mem, and one of a BAR."""
    bar = at(setup, f"{device_path(IVSHMEM)}/resource2")
    return {
        "devmem": Mapping(at(setup, "/dev/mem"), 0xFB00_0000, 0x1000, shared=True, writable=True),
        "sysfs": Mapping(bar, 0, 0x1000, shared=True, writable=True),
    }


def recorded(record: Record) -> str | int:
    """As `said` would have it."""
    return record["errno"] or record["result"]


def test_madvise_as_recorded(places: dict[str, Mapping]) -> None:
    seen: Counter[str] = Counter()
    for record in records(*PHASES):
        word = record["case"].rsplit("-", 1)[-1]
        if record["op"] != "madvise" or word == "DONTNEED":
            continue
        place = places["sysfs" if record["case"].startswith("sysfs") else "devmem"]
        found = said(mappings.madvise(ADVICE[word], place))
        by_the_host = "EINVAL" if word in BY_THE_HOST else 0
        assert (by_the_host if found is None else found) == recorded(record), record
        seen[word] += 1
    assert set(seen) == set(ADVICE)


def test_mremap_as_recorded() -> None:
    seen: Counter[str] = Counter()
    for record in records(*PHASES):
        found = re.search(r"mremap-(.+)$", record["case"])
        if record["op"] != "mremap" or found is None:
            continue
        remap = Remap(ADDRESS, *REMAPS[found[1]], ELSEWHERE)
        answer = mappings.mremap(remap, shared="PRIVATE" not in record["case"])
        assert (said(answer) or 0) == recorded(record), record
        seen[found[1]] += 1
    assert set(seen) == set(REMAPS)


@pytest.mark.parametrize(
    ("op", "answer", "data"),
    [
        ("mlock", mappings.UNLOCKED, None),
        ("mincore", mappings.NO_PAGES_CACHED, "00"),
        ("process_vm_readv", mappings.NO_PAGES_TO_PIN, None),
        ("process_vm_writev", mappings.NO_PAGES_TO_PIN, None),
        ("vmsplice", mappings.NO_PAGES_TO_PIN, None),
    ],
)
def test_others_as_recorded(op: str, answer: Answer, data: str | None) -> None:
    found = [record for record in records(*PHASES) if record["op"] == op]
    assert len(found) > 5
    for record in found:
        assert said(answer) == recorded(record)
        assert record["data"] == (data and data * (len(record["data"]) // 2))


@pytest.mark.parametrize(
    ("old", "new", "flags", "target", "expected"),
    [
        (SIZE, SIZE + 1, MAYMOVE, 0, errno.EFAULT),
        (SIZE - 1, SIZE, MAYMOVE, 0, 0),
        (SIZE, 0, MAYMOVE, 0, 0),
        (SIZE, 2 * SIZE, 8, 0, 0),
        (SIZE, 2 * SIZE, FIXED, ELSEWHERE, 0),
        (SIZE, 2 * SIZE, MAYMOVE | FIXED, ELSEWHERE, errno.EFAULT),
        (SIZE, 2 * SIZE, MAYMOVE | FIXED, ELSEWHERE + 1, 0),
        (SIZE, 2 * SIZE, MAYMOVE | FIXED, ADDRESS + SIZE - 0x1000, 0),
        (SIZE, 2 * SIZE, MAYMOVE, ADDRESS, errno.EFAULT),
        (SIZE, 2 * SIZE, MAYMOVE | DONTUNMAP, 0, 0),
        (SIZE, SIZE, DONTUNMAP, 0, 0),
        (0, 0, MAYMOVE | DONTUNMAP, 0, 0),
    ],
)
def test_what_is_wrong_with_any_mapping_is_left_to_the_host(
    old: int, new: int, flags: int, target: int, expected: int
) -> None:
    """0: the host's kernel answers, EINVAL or a new address."""
    answer = mappings.mremap(Remap(ADDRESS, old, new, flags, target), shared=True)
    assert (0 if answer is None else -answer.value) == expected


def test_an_unaligned_address_is_left_to_the_host() -> None:
    remap = Remap(ADDRESS + 1, SIZE, 2 * SIZE, MAYMOVE, 0)
    assert mappings.mremap(remap, shared=True) is None


def test_holes_are_tried_in_shared_writable_mappings_only(places: dict[str, Mapping]) -> None:
    for place in places.values():
        for changed in (place._replace(shared=False), place._replace(writable=False)):
            assert said(mappings.madvise(mappings.MADV_REMOVE, changed)) == "EACCES"


def test_a_bar_below_two_gigabytes_has_no_fallocate(places: dict[str, Mapping]) -> None:
    """Further up it is behind `s_maxbytes`: `vm_pgoff` is the physical page."""
    node = places["sysfs"].node
    moved = Mapping(node, 0x2000_0000 - 0xFB00_0000, 0x1000, shared=True, writable=True)
    assert said(mappings.madvise(mappings.MADV_REMOVE, moved)) == "EOPNOTSUPP"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dev/mem", True), ("/proc/bus/pci/00/02.0", True), ("/proc/iomem", False)],
)
def test_mappings_of_device_memory_are_known(setup: Setup, path: str, expected: bool) -> None:
    assert at(setup, path).pfnmap is expected


@pytest.mark.parametrize(
    ("path", "offset", "expected"),
    [
        ("/dev/mem", 0, "EFAULT"),
        ("/dev/mem", 1, None),
        ("/dev/mem", 0x20_0000, None),
        ("/dev/mem", 1 << 52, "EFAULT"),
        ("/proc/iomem", 0, None),
    ],
)
def test_requests_of_no_bytes(setup: Setup, path: str, offset: int, expected: str | None) -> None:
    """`valid_phys_addr_range`: 0 - 1 is behind everything."""
    assert said(at(setup, path).empty(offset)) == expected
