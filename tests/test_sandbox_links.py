"""What a machine with PCI hides of the host's, and which host links are left out for it."""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakehost import FakeHost
from hostneeds import needs_sandbox
from hypothesis import given
from hypothesis import strategies as st
from pci_hosts import GROUPS, HOST, INSIDE, MACHINE, MERGED, MERGING, NO_PCI, REPLACED, SECOND_ROOT
from tinyfuse import TinyService

from fakedev.sandbox.host import HostView
from fakedev.sandbox.launcher import Sandbox
from fakedev.sandbox.links import left_out, root_buses
from fakedev.sandbox.plan import OPAQUE, Plan, make_plan
from fakedev.sandbox.protocols import Kind

FILE, DIRECTORY, LINK = Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK


def replace(host: Mapping[str, str], virtual: Mapping[str, Kind] = MACHINE) -> Plan:
    return make_plan(virtual, FakeHost(dict(host)), clone_at="/clone", opaque={*OPAQUE, *REPLACED})


def merge(host: Mapping[str, str], virtual: Mapping[str, Kind] = MERGING) -> Plan:
    inside = {path for path in virtual if path in INSIDE or path.endswith("pci_bus")}
    view = FakeHost(dict(host))
    return make_plan(virtual, view, clone_at="/clone", opaque=inside - {*MERGED}, merged=MERGED)


def shown(plan: Plan) -> dict[str, list[str]]:
    return {shadow.path: [entry.name for entry in shadow.entries] for shadow in plan.shadows}


def bound(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {shadow.path: shadow.binds for shadow in plan.shadows}


def test_replace_hides_what_links_into_the_host_s_pci() -> None:
    plan = replace(HOST)
    assert plan.binds == (
        "/proc/bus/pci",
        "/proc/ioports",
        "/sys/bus/pci",
        "/sys/class/pci_bus",
        "/sys/devices/pci0000:00",
    )
    assert shown(plan) == {
        "/sys/block": ["loop0"],
        "/sys/bus/virtio/devices": [],
        "/sys/bus/virtio/drivers/virtio_blk": ["module"],
        "/sys/class/net": ["bonding_masters", "lo"],
        "/sys/dev/block": [],
    }
    assert bound(plan)["/sys/class/net"] == ("bonding_masters",)
    assert plan.unplaced == ()


def test_replace_hides_root_buses_that_the_machine_has_not() -> None:
    plan = replace(HOST | SECOND_ROOT)
    assert shown(plan)["/sys/devices"] == ["virtual"]
    assert shown(plan)["/sys/class/nvme"] == []
    assert "/sys/devices/pci0000:00" not in plan.binds  # the shadow of /sys/devices shows it


def test_replace_with_another_root_bus_than_the_host_s() -> None:
    here = {path.replace("pci0000:00", "pci0001:00"): kind for path, kind in MACHINE.items()}
    opaque = {path.replace("pci0000:00", "pci0001:00") for path in REPLACED}
    plan = make_plan(here, FakeHost(HOST), clone_at="/clone", opaque=opaque)
    assert shown(plan)["/sys/devices"] == ["virtual"]
    assert shown(plan)["/sys/class/net"] == ["bonding_masters", "lo"]


def test_a_root_bus_deep_below_its_bridge() -> None:
    parent = "/sys/devices/platform/soc/pcie"
    deep = {
        path: what.replace("pci0000:00", "platform/soc/pcie/pci0000:00")
        for path, what in HOST.items()
        if not path.startswith("/sys/devices/pci")
    }
    plan = replace(deep | {f"{parent}/pci0000:00/uevent": "file", f"{parent}/uevent": "file"})
    assert shown(plan)[parent] == ["uevent"]
    assert shown(plan)["/sys/class/net"] == ["bonding_masters", "lo"]


def test_a_host_without_pci_keeps_all_it_has() -> None:
    plan = replace(NO_PCI)
    assert shown(plan) == {
        "/sys/bus": ["acpi", "virtio"],
        "/sys/class": ["net", "tty"],
        "/sys/devices": ["virtual"],
    }
    assert plan.unplaced == ("/proc/bus",)  # nothing can be made in /proc


def test_groups_of_hidden_devices_are_hidden() -> None:
    assert shown(replace(HOST | GROUPS))["/sys/kernel/iommu_groups"] == ["1"]


def test_without_pci_of_its_own_a_machine_hides_none() -> None:
    plan = make_plan({"/proc/ioports": FILE}, FakeHost(HOST), clone_at="/clone")
    assert plan == Plan(binds=("/proc/ioports",))


def test_the_machine_s_own_links_win() -> None:
    links = {"/sys/class/net/eth0": LINK, "/sys/class/nvme/nvme0": LINK}
    plan = replace(HOST, MACHINE | links)
    assert shown(plan)["/sys/class"] == ["tty"]
    assert shown(plan)["/sys/class/net"] == ["bonding_masters", "lo"]
    inner = {shadow.path: shadow.inner for shadow in plan.shadows}
    assert (inner["/sys/class"], inner["/sys/class/net"]) == (False, True)


def test_links_to_what_the_machine_has_stay() -> None:
    cpus = {f"/sys/devices/system/cpu/cpu{number}/online": FILE for number in (0, 1)}
    host = {
        **{f"/sys/bus/cpu/devices/cpu{n}": f"link:../../../devices/system/cpu/cpu{n}" for n in range(4)},
        **{f"/sys/devices/system/cpu/cpu{n}/online": "file" for n in range(4)},
    }  # fmt: skip
    plan = make_plan(cpus, FakeHost(host), clone_at="/clone")
    assert shown(plan) == {"/sys/bus/cpu/devices": ["cpu0", "cpu1"]}
    assert plan.binds == ("/sys/devices/system/cpu",)


def test_merge_shows_the_host_s_beside_the_machine_s() -> None:
    plan = merge(HOST)
    found = shown(plan)
    assert found["/sys/bus/pci/devices"] == ["0000:00:05.0"]
    assert found["/sys/bus/pci/drivers"] == ["virtio-pci"]
    assert bound(plan)["/sys/bus/pci/drivers"] == ("virtio-pci",)
    assert found["/sys/devices/pci0000:00"] == ["0000:00:05.0"]
    assert found["/sys/class/pci_bus"] == []
    assert "/sys/block" not in found
    assert "/sys/bus/virtio/devices" not in found


def test_merge_leaves_out_what_lies_below_a_function_that_collides() -> None:
    assert shown(merge(HOST))["/sys/class/net"] == ["bonding_masters", "lo"]
    below = {"/sys/bus/pci/devices/0000:01:00.0": (
        "link:../../../devices/pci0000:00/0000:00:02.0/0000:01:00.0"
    )}  # fmt: skip
    assert shown(merge(HOST | below))["/sys/bus/pci/devices"] == ["0000:00:05.0"]


def test_merge_keeps_other_root_buses() -> None:
    found = shown(merge(HOST | SECOND_ROOT))
    assert found["/sys/class/pci_bus"] == ["0000:40", "0000:41"]
    assert "/sys/devices" not in found
    assert "/sys/class/nvme" not in found


def test_merged_directories_are_shadows_even_when_all_is_covered() -> None:
    virtual = {"/sys/bus/pci/slots": DIRECTORY, "/sys/bus/pci/slots/1": DIRECTORY}
    host = {"/sys/bus/pci/slots/1/address": "file", "/sys/bus/pci/rescan": "file"}
    plan = make_plan(
        virtual, FakeHost(host), clone_at="/clone",
        opaque={"/sys/bus/pci/slots/1"}, merged={"/sys/bus/pci/slots"},
    )  # fmt: skip
    assert (shown(plan), plan.binds) == ({"/sys/bus/pci/slots": []}, ())


def test_merge_on_a_host_without_pci() -> None:
    plan = merge(NO_PCI)
    assert shown(plan) == shown(replace(NO_PCI))


@pytest.mark.parametrize(
    ("target", "root"),
    [
        ("../../devices/pci0000:00/pci_bus/0000:00", "/sys/devices/pci0000:00"),
        (
            "../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/pci_bus/10000:e0",
            "/sys/devices/pci0000:00",
        ),
        (
            "../../devices/LNXSYSTM:00/VMBUS:00/1/pci8a52:00/pci_bus/8a52:00",
            "/sys/devices/LNXSYSTM:00/VMBUS:00/1/pci8a52:00",
        ),
        ("../../devices/virtual/nothing", None),
    ],
)
def test_root_buses(target: str, root: str | None) -> None:
    host = FakeHost({"/sys/class/pci_bus/x": f"link:{target}"})
    assert root_buses(host) == ({root} if root else set())


NAMES = st.sampled_from(["pci0000:00", "pci0000:40", "virtual", "system"])
TARGETS = st.tuples(NAMES, st.sampled_from(["a", "b", "c/d"])).map("/".join)
PLACES = st.sampled_from(
    ["/sys/class/net", "/sys/class/block", "/sys/bus/usb/devices", "/sys/block", "/sys/dev/char"]
)


@given(
    st.dictionaries(st.tuples(PLACES, st.sampled_from("xyz")), TARGETS, max_size=12),
    st.sets(NAMES.map("/sys/devices/".__add__)),
)
def test_no_link_dangles_and_none_is_left_out_for_nothing(
    links: dict[tuple[str, str], str], replaced: set[str]
) -> None:
    host: dict[str, str] = {}
    for (place, name), target in links.items():
        host[f"{place}/{name}"] = f"link:{'../' * (place.count('/') - 1)}devices/{target}"
    view = FakeHost(host)
    found = left_out(view, replaced, lambda path: path.endswith("/b"))
    for (place, name), target in links.items():
        into = any(f"/sys/devices/{target}".startswith(path + "/") for path in replaced)
        assert (name in found.get(place, ())) == (into and not target.endswith("/b"))


def test_this_host_s_links() -> None:
    view = HostView()
    assert ("self", str(Path("/proc/self").readlink())) in view.links("/proc")
    assert "version" in view.names("/proc")
    assert not view.links("/proc/version")
    assert not view.names("/proc/version")
    for root in root_buses(view):
        assert Path(root).is_dir()


CHECK = """
import os, sys
for top in ("/sys/block", "/sys/bus", "/sys/class", "/sys/dev"):
    for path, directories, files in os.walk(top):
        for name in directories + files:
            place = os.path.join(path, name)
            if os.path.islink(place) and not os.path.exists(place):
                print(place, os.readlink(place))
print(sorted(os.listdir("/sys/bus/pci/devices")), os.path.exists("/sys/class/net/lo/mtu"))
"""


@needs_sandbox
def test_no_link_of_this_host_dangles() -> None:
    files: dict[str, Any] = {
        "/sys/bus/pci/devices/0000:00:1f.7": ("link", "../../../devices/pci0000:00/0000:00:1f.7"),
        "/sys/devices/pci0000:00/0000:00:1f.7/vendor": "0x8086\n",
        "/proc/ioports": "",
    }
    service = TinyService(
        files, opaque=["/sys/class/pci_bus", "/sys/bus/pci", "/sys/devices/pci0000:00"]
    )
    done = Sandbox(service).run(["python3", "-c", CHECK], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("['0000:00:1f.7'] True\n", "")


@needs_sandbox
def test_the_host_s_devices_stay_when_merged() -> None:
    name = "0000:00:1f.7"
    files: dict[str, Any] = {
        f"/sys/bus/pci/devices/{name}": ("link", f"../../../devices/pci0000:00/{name}"),
        f"/sys/devices/pci0000:00/{name}": None,
        f"/sys/devices/pci0000:00/{name}/vendor": "0x8086\n",
    }
    merged = ["/sys/bus/pci/devices", "/sys/devices/pci0000:00"]
    service = TinyService(files, opaque=[f"/sys/devices/pci0000:00/{name}"], merged=merged)
    done = Sandbox(service).run(["python3", "-c", CHECK], capture_output=True, text=True)
    devices = Path("/sys/bus/pci/devices")
    here = {path.name for path in devices.iterdir()} if devices.is_dir() else set()
    assert (done.stdout, done.stderr) == (f"{sorted({name} | here)} True\n", "")


def test_a_shadow_of_a_class_keeps_its_mode() -> None:
    plan = replace(HOST)
    assert {stat.S_IMODE(shadow.mode) for shadow in plan.shadows} == {0o755}
