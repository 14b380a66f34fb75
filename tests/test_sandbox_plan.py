import os
import stat
from typing import Any

import pytest
from fakehost import FakeHost
from hypothesis import given
from hypothesis import strategies as st

from fakedev.sandbox.host import HostView
from fakedev.sandbox.plan import Plan, make_plan
from fakedev.sandbox.protocols import HostEntry, Kind

FILE, DIRECTORY, LINK = Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK
CLONE = "/run/clone"


PC = {
    "/dev/null": "chr:1,3",
    "/dev/fd": "link:/proc/self/fd",
    "/dev/shm": "dir:1777",
    "/dev/pts": "dir",
    "/proc/iomem": "file",
    "/proc/1/maps": "file",
    "/proc/bus/pci/devices": "file",
    "/sys/bus/pci/devices/0000:00:00.0": "link:../../../devices/x",
    "/sys/bus/pci/drivers": "dir",
    "/sys/bus/usb": "dir",
    "/sys/firmware/acpi/tables/DSDT": "file",
    "/sys/firmware/acpi/pm_profile": "file",
    "/sys/firmware/memmap/0/start": "file",
}


def plan(virtual: dict[str, Kind], host: dict[str, str] | FakeHost = PC, **options: Any) -> Plan:
    view = host if isinstance(host, FakeHost) else FakeHost(host)
    return make_plan(virtual, view, clone_at=CLONE, **options)


def shadows(found: Plan) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(shadow.path, shadow.binds, shadow.inner) for shadow in found.shadows]


@pytest.mark.parametrize(
    ("virtual", "binds", "shadowed", "unplaced"),
    [
        pytest.param({}, (), [], (), id="nothing"),
        pytest.param({"/proc/iomem": FILE}, ("/proc/iomem",), [], (), id="file over file"),
        pytest.param(
            {"/dev/mem": FILE}, (), [("/dev", ("null", "pts", "shm"), False)], (), id="new in /dev"
        ),
        pytest.param(
            {"/dev/null": FILE}, (), [("/dev", ("pts", "shm"), False)], (), id="/dev is always one"
        ),
        pytest.param({"/proc/kcore": FILE}, (), [], ("/proc/kcore",), id="never in /proc"),
        pytest.param({"/new/a/b": FILE}, (), [], ("/new",), id="never in /"),
        pytest.param(
            {"/proc/bus/pci/devices": FILE}, ("/proc/bus/pci/devices",), [], (), id="deep in /proc"
        ),
        pytest.param(
            {"/proc/bus/pci/00/00.0": FILE},
            (),
            [("/proc/bus/pci", ("devices",), False)],
            (),
            id="below /proc there can be shadows",
        ),
        pytest.param(
            {"/sys/firmware/dmi/tables/DMI": FILE},
            (),
            [("/sys/firmware", ("acpi", "memmap"), False)],
            (),
            id="opaque and missing",
        ),
        pytest.param(
            {"/sys/firmware/acpi/tables/FACP": FILE, "/sys/firmware/memmap/1/start": FILE},
            ("/sys/firmware/acpi", "/sys/firmware/memmap"),
            [],
            (),
            id="opaque on both sides",
        ),
        pytest.param(
            {"/sys/firmware/acpi/tables/FACP": FILE, "/sys/firmware/dmi/x": FILE},
            (),
            [("/sys/firmware", ("memmap",), False)],
            (),
            id="opaque inside a shadow",
        ),
        pytest.param(
            {"/sys/bus/pci/devices/0000:00:00.0": LINK},
            (),
            [("/sys/bus/pci/devices", (), False)],
            (),
            id="link over link",
        ),
        pytest.param({"/proc/iomem": LINK}, (), [], ("/proc/iomem",), id="a link cannot be bound"),
        pytest.param(
            {"/sys/bus/cxl/devices/mem0": LINK, "/sys/bus/pci/slots/1": FILE},
            (),
            [
                ("/sys/bus", ("usb",), False),
                ("/sys/bus/pci", ("devices", "drivers"), True),
            ],
            (),
            id="what is merged in a shadow is a shadow",
        ),
        pytest.param(
            {"/sys/bus/usb": FILE}, (), [("/sys/bus", ("pci",), False)], (), id="file for directory"
        ),
        pytest.param(
            {"/sys/bus/pci/drivers": DIRECTORY},
            (),
            [],
            (),
            id="an empty directory is there already",
        ),
    ],
)
def test_table(
    virtual: dict[str, Kind],
    binds: tuple[str, ...],
    shadowed: list[tuple[str, tuple[str, ...], bool]],
    unplaced: tuple[str, ...],
) -> None:
    found = plan(virtual)
    assert (found.binds, shadows(found), found.unplaced) == (binds, shadowed, unplaced)


def test_a_shadow_lists_links_and_keeps_types_and_numbers() -> None:
    (shadow,) = plan({"/dev/mem": FILE}).shadows
    by_name = {entry.name: entry for entry in shadow.entries}
    assert by_name["fd"].target == "/proc/self/fd"
    assert by_name["null"] == HostEntry("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert "fd" not in shadow.binds


def test_opaque_is_an_input() -> None:
    virtual = {"/sys/bus/pci/devices/a": FILE}
    assert plan(virtual, opaque={"/sys/bus/pci"}).binds == ("/sys/bus/pci",)


@pytest.mark.parametrize(("mode", "kept"), [("1777", 0o755), ("700", 0o700), ("555", 0o555)])
def test_a_shadow_is_never_writable_by_others(mode: str, kept: int) -> None:
    (shadow,) = plan({"/d/new": FILE}, {"/d": f"dir:{mode}"}).shadows
    assert shadow.mode == kept


def test_an_unreadable_directory_is_no_shadow() -> None:
    host = FakeHost({"/d/a": "file"}, unreadable=["/d"])
    assert plan({"/d/new": FILE, "/d/a": FILE}, host) == Plan(binds=("/d/a",), unplaced=("/d/new",))


@pytest.mark.parametrize(
    ("host", "target", "clones"),
    [
        ({"/dev/ptmx": "chr:5,2", "/dev/pts/ptmx": "chr:5,2 666"}, "pts/ptmx", ()),
        ({"/dev/ptmx": "chr:5,2", "/dev/pts/ptmx": "chr:5,2 000"}, f"{CLONE}/ptmx", ("/dev",)),
        ({"/dev/ptmx": "chr:5,2"}, f"{CLONE}/ptmx", ("/dev",)),
        ({"/dev/ptmx": "link:pts/ptmx"}, "pts/ptmx", ()),
    ],
)
def test_ptmx_is_a_link_to_one_that_works(
    host: dict[str, str], target: str, clones: tuple[str, ...]
) -> None:
    found = plan({"/dev/mem": FILE}, host)
    (ptmx,) = [entry for entry in found.shadows[0].entries if entry.name == "ptmx"]
    assert (ptmx.target, ptmx.is_symlink) == (target, True)
    assert found.clones == tuple((source, CLONE) for source in clones)
    assert "ptmx" not in found.shadows[0].binds


NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def leaves(paths: dict[str, Any]) -> dict[str, Any]:
    """Drop what has something below it, so that only directories have children."""
    return {p: v for p, v in paths.items() if not any(q.startswith(p + "/") for q in paths)}


@given(
    virtual=st.dictionaries(PATHS, st.sampled_from([FILE, LINK]), max_size=6).map(leaves),
    host=st.dictionaries(PATHS, st.sampled_from(["file", "link:x", "dir"]), max_size=8).map(leaves),
)
def test_every_virtual_path_has_exactly_one_place(
    virtual: dict[str, Kind], host: dict[str, str]
) -> None:
    view = FakeHost(host)
    found = plan(virtual, view)
    outer = [shadow.path for shadow in found.shadows if not shadow.inner]
    for path in virtual:
        places = [
            top
            for top in [*outer, *found.binds, *found.unplaced]
            if path == top or path.startswith(top + "/")
        ]
        assert len(places) == 1, (path, found)
    for shadow in found.shadows:
        assert shadow.inner == any(shadow.path.startswith(top + "/") for top in outer)
        merged = {inner.path for inner in found.shadows if inner.inner}
        for entry in view.scan(shadow.path) or []:
            place = f"{shadow.path}/{entry.name}"
            is_virtual = any(p == place or p.startswith(place + "/") for p in virtual)
            assert (entry in shadow.entries) is not is_virtual
            assert place not in merged or is_virtual


def test_the_real_host() -> None:
    host = HostView()
    null = host.lstat("/dev/null")
    assert null is not None
    assert (null.name, null.rdev) == ("null", os.makedev(1, 3))
    assert host.lstat("/dev/nothing-of-that-name") is None
    assert host.scan("/dev/null") is None
    listing = host.scan("/dev")
    assert listing is not None
    assert null in listing
    self_link = host.lstat("/proc/self")
    assert self_link is not None
    assert self_link.target == str(os.getpid())
