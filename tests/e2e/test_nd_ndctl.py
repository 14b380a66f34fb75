"""ndctl and daxctl as they are, changing what persistent memory is used as."""

import json
import re
from typing import Any

import pytest
from nd_machines import PROFILE, listing
from support import DATA, Host, need, need_sandbox

STAGES = DATA / "truth-nd"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MODPROBE = 'modprobe() { fakedev ctl modprobe "$1" > /dev/null; }\n'
CUT = "==== cut here"


@pytest.fixture(autouse=True)
def tools() -> None:
    need_sandbox()
    need("ndctl", "ndctl")
    need("daxctl", "daxctl")


def recorded() -> dict[str, str]:
    """What the commands of phase nvdimm said, as far as it was kept."""
    found: dict[str, str] = json.loads((STAGES / "commands.json").read_text())
    return found


def shell(host: Host, profile: str, script: str) -> list[str]:
    """What each part of a script said, stdout and stderr."""
    done = host.run(profile, "sh", "-c", f"exec 2>&1\n{MODPROBE}{script}", timeout=100)
    assert done.returncode == 0, done.stdout
    return [part.lstrip("\n") for part in done.stdout.split(CUT)]


def same(text: str) -> list[str]:
    """Lines without what differs from run to run: uuids, and all but the name in the listing of a node."""
    lines = [UUID.sub("UUID", line.rstrip()) for line in text.splitlines()]
    return [line.split()[-1] if re.match(r"[-bc]r[-w]{2}-{6}", line) else line for line in lines]


@pytest.mark.timeout(120)
def test_the_recorded_sequence(host: Host) -> None:
    """Phase nvdimm: the same commands, the same answers, the same /proc/iomem after each."""
    script = f"""
        modprobe nfit; modprobe nd_pmem; ls /sys/bus/nd/devices; ls -la /dev/pmem*
        echo "{CUT}"; cat /proc/iomem; echo "{CUT}"
        ndctl create-namespace -f -e namespace0.0 -m devdax -a 2097152 2>&1 | head -40
        modprobe device_dax; modprobe dax_pmem; ls -la /dev/dax* 2>&1; daxctl list 2>&1
        echo "{CUT}"; cat /proc/iomem; echo "{CUT}"
        echo offline > /sys/devices/system/memory/auto_online_blocks
        daxctl reconfigure-device -m system-ram -N dax0.0 2>&1 | head -30; daxctl list 2>&1
        echo "{CUT}"; cat /proc/iomem; echo "{CUT}"
        head -c 16 /dev/pmem1; echo; ls -la /sys/bus/nd/devices/
        """
    said = shell(host, "pc-q35", script)
    expected = recorded()
    for at, case, stage in (
        (0, "modprobe-nfit", "1-pmem"),
        (2, "ndctl-devdax", "2-devdax"),
        (4, "daxctl-system-ram", "3-kmem"),
    ):
        assert same(said[at]) == same(expected[case]), case
        here = (STAGES / f"iomem-nd-{stage}.txt").read_text()
        assert listing(said[at + 1]) == listing(here), stage
    first, *devices = said[6].splitlines()
    assert first == "NVDIMM0-RAW-DATA"
    links = [line.split(" -> ")[1] for line in devices if " -> " in line]
    told = [
        line.split(" -> ")[1] for line in expected["blkdev-pmem1"].splitlines() if " -> " in line
    ]
    assert links[: len(told)] == told


def test_a_verbose_list(host: Host) -> None:
    """Modules, regions and namespaces."""
    (said,) = shell(host, "pc-q35", "modprobe nfit; ndctl list -RNDv")
    expected = recorded()["ndctl-list"].splitlines()
    assert said.splitlines()[: len(expected)] == expected


def listed(text: str) -> dict[str, Any]:
    """Namespaces of `ndctl list` by name."""
    return {one["dev"]: one for one in json.loads(text[text.index("[\n") :])}


@pytest.mark.timeout(120)
def test_every_mode_and_back(host: Host) -> None:
    """fsdax with page structs in the medium and in RAM, devdax, raw; a namespace and a region disabled."""
    script = f"""
        modprobe nfit; modprobe device_dax
        ndctl create-namespace -f -e namespace0.0 -m fsdax > /dev/null
        ndctl disable-namespace namespace0.0; ls /dev/pmem0
        ndctl read-infoblock -j namespace0.0 2> /dev/null
        echo "{CUT}"
        ndctl enable-namespace namespace0.0; ndctl list -N
        echo "{CUT}"
        ndctl create-namespace -f -e namespace0.0 -m fsdax -M mem > /dev/null
        ndctl disable-region region0 2> /dev/null; grep -c namespace0 /proc/iomem
        ndctl enable-region region0 2> /dev/null; ndctl list -N
        echo "{CUT}"
        ndctl create-namespace -f -e namespace0.0 -m devdax > /dev/null
        daxctl reconfigure-device -m system-ram -N dax0.0 > /dev/null
        daxctl reconfigure-device -m devdax dax0.0 > /dev/null
        ndctl list -N
        echo "{CUT}"
        ndctl destroy-namespace -f namespace0.0; ndctl enable-namespace namespace0.0; ndctl list -N
        echo "{CUT}"
        ndctl create-namespace -f -e namespace0.0 -m sector || true
        """
    disabled, again, inside, dax, raw, sector = shell(host, "pc-q35", script)
    head, info = disabled.split("[", 1)
    assert "disabled 1 namespace" in head
    assert "cannot access '/dev/pmem0'" in head
    (block,) = json.loads(f"[{info}")
    assert (block["signature"], block["dataoff"]) == ("NVDIMM_PFN_INFO", 6 << 20)
    found = listed(again)["namespace0.0"]
    assert (found["mode"], found["map"], found["uuid"]) == ("fsdax", "dev", block["uuid"])
    assert found["blockdev"] == "pmem0"
    assert inside.startswith("0\n")
    found = listed(inside)["namespace0.0"]
    assert (found["mode"], found["map"], found["size"]) == ("fsdax", "mem", 254 << 20)
    found = listed(dax)["namespace0.0"]
    assert (found["mode"], found["chardev"], found["size"]) == ("devdax", "dax0.0", 250 << 20)
    found = listed(raw)["namespace0.0"]
    assert (found["mode"], found["size"]) == ("raw", 256 << 20)
    assert "No such device or address" in sector


@pytest.mark.timeout(120)
def test_namespaces_with_labels(host: Host) -> None:
    """One is destroyed, its space made into another, and that one shrunk."""
    script = f"""
        ndctl destroy-namespace -f namespace1.1; ndctl list -R -r region1
        echo "{CUT}"; ndctl create-namespace -m devdax -n again
        echo "{CUT}"; ndctl create-namespace -m fsdax || true
        echo "{CUT}"; ndctl create-namespace -f -e namespace1.1 -m raw -s 128M
        echo "{CUT}"; grep namespace1 /proc/iomem
        fakedev ctl reset > /dev/null; ndctl list -N -n namespace1.1
        """
    gone, made, full, shrunk, rest = shell(host, PROFILE, script)
    assert gone.startswith("destroyed 1 namespace\n")
    (region,) = json.loads(gone[gone.index("[") :])
    assert region["available_size"] == 256 << 20
    namespace = json.loads(made)
    assert [namespace[key] for key in ("dev", "mode", "name")] == [
        "namespace1.1",
        "devdax",
        "again",
    ]
    assert namespace["daxregion"]["devices"][0]["chardev"] == "dax1.1"
    assert "No space left on device" in full
    assert json.loads(shrunk)["size"] == 128 << 20
    assert "  150000000-157ffffff : namespace1.1" in rest
    assert json.loads(rest[rest.index("[") :])[0]["size"] == 256 << 20


def test_files_of_what_is_gone_are_dead(host: Host) -> None:
    """A descriptor of an attribute outlives the device; reads are ENODEV, also when there is another one."""
    script = """
        exec 3< /sys/bus/nd/devices/pfn0.0/uuid
        ndctl disable-region region0 2> /dev/null; ndctl enable-region region0 2> /dev/null
        cat <&3 || cat /sys/bus/nd/devices/pfn0.0/namespace
        fakedev ctl rmmod nfit || true
        """
    (said,) = shell(host, PROFILE, script)
    lines = said.splitlines()
    assert lines[:2] == ["cat: -: No such device", "namespace0.0"]
    assert lines[2].endswith("nfit is in use by region0, region1 (EAGAIN)")
