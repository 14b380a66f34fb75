"""Where a machine's PCI stands: the host's is gone with all links to it, and everything else is still there."""

import json
from pathlib import Path

import pytest
from support import Host, need_sandbox

# What `find -L /sys/class /sys/bus /sys/block /sys/dev -type l` lists: links that lead nowhere.
LOOK = """
import json, os
dangling = []
for top in ("/sys/block", "/sys/bus", "/sys/class", "/sys/dev"):
    for path, directories, files in os.walk(top):
        for name in directories + files:
            place = os.path.join(path, name)
            if os.path.islink(place) and not os.path.exists(place):
                dangling.append([place, os.path.realpath(place)])
roots = [name for name in os.listdir("/sys/devices") if name.startswith("pci")]
devices = sorted(os.listdir("/sys/bus/pci/devices"))
real = [os.path.realpath("/sys/bus/pci/devices/" + name) for name in devices]
lo = open("/sys/class/net/lo/mtu").read()
print(json.dumps({"dangling": dangling, "roots": roots, "devices": devices, "real": real, "lo": lo}))
"""


# Drivers of the machine link to their modules, and the modules that are shown are the host's.
MODULES = "/sys/module/"


def look(host: Host, profile: str, role: str, **options: object) -> dict[str, list[str]]:
    need_sandbox()
    done = host.run(profile, "python3", "-c", LOOK, role=role, **options)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, list[str]] = json.loads(done.stdout)
    found["dangling"] = [place for place, to in found["dangling"] if not to.startswith(MODULES)]
    return found


@pytest.mark.parametrize("role", ["root", "user"])
@pytest.mark.parametrize("profile", ["fd-9000", "pc-q35", "workstation"])
def test_no_link_dangles(host: Host, profile: str, role: str) -> None:
    found = look(host, profile, role)
    assert found["dangling"] == []
    assert found["devices"]
    assert {path.split("/")[3] for path in found["real"]} == set(found["roots"])


def test_replace_shows_only_the_machine_s(host: Host) -> None:
    found = look(host, "fd-9000", "root")
    listed = host.run("fd-9000", "cat", "/proc/bus/pci/devices").stdout
    assert len(found["devices"]) == len(listed.splitlines()) == 17
    assert [Path(path).name for path in found["real"]] == found["devices"]


def test_the_host_s_own_stays(host: Host) -> None:
    found = look(host, "fd-9000", "user")
    assert "".join(found["lo"]) == Path("/sys/class/net/lo/mtu").read_text()


def test_merge_shows_both(host: Host) -> None:
    merged = look(host, "fd-9000", "root", settings=["pci.sysfs=merge"])
    alone = look(host, "fd-9000", "root")
    here = Path("/sys/bus/pci/devices")
    names = {path.name for path in here.iterdir()} if here.is_dir() else set()
    assert merged["dangling"] == []
    assert set(merged["devices"]) >= set(alone["devices"])
    missing = names - set(merged["devices"])
    # A device of the host is gone only with a bridge that has the address of a function of ours.
    assert all(set((here / name).resolve().parts) & set(alone["devices"]) for name in missing)


def test_the_bus_is_the_machine_s_also_when_merged(host: Host) -> None:
    """A rescan that reached the host's bus would be a surprise."""
    need_sandbox()
    script = "stat -c %d /sys/bus/pci/rescan /sys/bus/pci/slots /sys/class/pci_bus /dev/mem | uniq"
    done = host.run("fd-9000", "sh", "-c", script, settings=["pci.sysfs=merge"])
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_walks_end_without_a_word(host: Host) -> None:
    script = "find /sys/bus/pci /sys/devices/pci0000:00 /sys/class > /dev/null && ls -lR /sys/class > /dev/null"
    done = host.run("fd-9000", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
