"""ndctl, daxctl, cxl and programs that map persistent memory, on machines that have some."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from nd_machines import PROFILE
from support import DATA, Host, need, need_sandbox

CROWD = Path(__file__).parent / "pmem_crowd.py"
SERVER = "server-pmem-cxl"


def tools(*names: str) -> None:
    need_sandbox()
    for name in names:
        need(name, "ndctl" if name == "cxl" else name)


def shell(host: Host, profile: str, script: str) -> str:
    """stdout of a script that says nothing else."""
    done = host.run(profile, "sh", "-ec", script, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    return done.stdout


def test_transcript(host: Host) -> None:
    """O10: byte for byte."""
    tools("ndctl", "daxctl")
    text = (DATA / "clients" / "O10-ndctl-daxctl.txt").read_text()
    first, _, expected = text.partition("\n")[2].partition("\n")
    assert shell(host, "fd-9000", first.removeprefix("$ ")) == expected


def test_daxctl_makes_memory_of_a_device_and_back(host: Host) -> None:
    """What daxctl writes to unbind, new_id, bind, and to the memory blocks."""
    tools("daxctl")
    script = """
        fakedev ctl modprobe nfit
        fakedev ctl dax-mode namespace0.0 devdax
        daxctl reconfigure-device -m system-ram -N dax0.0 > first
        daxctl online-memory dax0.0 2> /dev/null
        cat /sys/devices/system/memory/memory43/state
        grep -A3 'namespace0.0' /proc/iomem
        daxctl offline-memory dax0.0 2> /dev/null
        daxctl reconfigure-device -m devdax dax0.0 > /dev/null
        daxctl list
        """
    script = script.replace("> first", "> /dev/null")
    done = host.run("pc-q35", "sh", "-ec", script, timeout=50)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    at = lines.index("online")
    assert lines[at + 1 : at + 4] == [
        "  150000000-1505fffff : namespace0.0",
        "  158000000-15fffffff : dax0.0",
        "    158000000-15fffffff : System RAM (kmem)",
    ]
    (device,) = json.loads(done.stdout[done.stdout.index("[\n") :])
    assert (device["mode"], device["size"]) == ("devdax", 262144000)


def listed(host: Host, command: str) -> Any:
    return json.loads(shell(host, SERVER, command))


def test_the_server_as_ndctl_sees_it(host: Host) -> None:
    tools("ndctl", "daxctl")
    (bus,) = listed(host, "ndctl list -BDRN")
    assert [one["dev"] for one in bus["dimms"]] == ["nmem1", "nmem0"]
    found = {n["dev"]: n for region in bus["regions"] for n in region["namespaces"]}
    assert found["namespace0.0"]["mode"] == "fsdax"
    assert found["namespace0.0"]["blockdev"] == "pmem0"
    assert (found["namespace1.0"]["mode"], found["namespace1.0"]["chardev"]) == ("devdax", "dax1.0")
    regions = {region["id"]: region for region in listed(host, "daxctl list -DMR")}
    (ram,) = regions[2]["devices"]
    assert (ram["mode"], ram["target_node"], ram["online_memblocks"]) == ("system-ram", 8, 32)
    assert regions[1]["devices"][0]["mappings"][0]["start"] == 0x11410200000


def test_the_server_as_cxl_sees_it(host: Host) -> None:
    tools("cxl")
    found = listed(host, "cxl list -BDEMPRT")
    bus = found[0] if isinstance(found, list) else found
    assert (bus["bus"], bus["nr_dports"]) == ("root0", 1)
    (port,) = bus["ports:root0"]
    assert sorted(e["memdev"]["memdev"] for e in port["endpoints:port1"]) == ["mem0", "mem1"]
    (window,) = bus["decoders:root0"]
    (region,) = window["regions:decoder0.0"]
    assert (region["region"], region["interleave_ways"]) == ("region2", 2)
    assert {m["memdev"]: m["decoder"] for m in region["mappings"]} == {
        "mem0": "decoder2.0",
        "mem1": "decoder3.0",
    }


def test_the_server_as_lsmem_sees_it(host: Host) -> None:
    tools("lsmem", "chmem")
    span = "0x14000000000-0x1407fffffff"
    text = shell(host, SERVER, f"lsmem -o +ZONES; chmem -d {span}; lsmem; chmem -e {span}")
    assert "1.1T" in text
    assert "0x0000014000000000-0x000001407fffffff    2G offline" in text


# -- mappings -----------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_crowd_of_mappers_loses_everything(host: Host) -> None:
    """Twenty processes with thirty files each: all die, none sees the other device."""
    need_sandbox()
    done = host.run(PROFILE, sys.executable, str(CROWD), "20", "30", timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bus errors"] == said["processes"] == 20
    assert (said["head"], said["there while out"]) == ("00000000", False)


def test_files_of_persistent_memory(host: Host) -> None:
    """read, write and stat; what is stored through one is seen through the other."""
    need_sandbox()
    script = """
        printf hello | dd of=/dev/pmem-fs/pmem0/data7 conv=notrunc status=none
        head -c 5 /dev/pmem-fs/pmem0/data7; echo
        stat -c %s /dev/pmem-fs/pmem0/data7
        dd if=/dev/pmem0 bs=1 skip=$((7 * 16384)) count=5 status=none; echo
        ls /dev/pmem-fs/pmem0 | wc -l
        fakedev ctl unplug-pmem region0
        ls /dev/pmem-fs
        fakedev ctl plug-pmem region0
        head -c 5 /dev/pmem-fs/pmem0/data7; echo
        """
    assert shell(host, PROFILE, script).splitlines() == [
        "hello", "16384", "hello", "1000",
        "region0 is unplugged (100000000-11fffffff)",
        "region0 is active (100000000-11fffffff)",
        "hello",
    ]  # fmt: skip


def test_device_dax_is_mapped_not_read(host: Host) -> None:
    need_sandbox()
    script = """
        cat /dev/dax1.0 2>&1 || true
        fakedev ctl dax-mode dax1.0 kmem
        cat /dev/dax1.0 2>&1 || true
        ls /dev/pmem1.1
        """
    assert shell(host, PROFILE, script).splitlines() == [
        "cat: /dev/dax1.0: Invalid argument",
        "namespace1.0 is kmem",
        "cat: /dev/dax1.0: No such device or address",
        "/dev/pmem1.1",
    ]


def test_a_mapping_of_device_dax_dies_with_its_driver(host: Host) -> None:
    need_sandbox()
    program = """if True:
        import mmap, os, subprocess
        fd = os.open("/dev/dax1.0", os.O_RDWR)
        view = mmap.mmap(fd, 2 << 20)
        view[:4] = b"mine"
        assert os.pread(os.open("/dev/pmem1.1", os.O_RDONLY), 4, 0) == bytes(4)
        open("/sys/bus/dax/drivers/device_dax/unbind", "w").write("dax1.0")
        open("/sys/bus/dax/drivers/device_dax/bind", "w").write("dax1.0")
        again = mmap.mmap(os.open("/dev/dax1.0", os.O_RDWR), 2 << 20)
        print(bytes(again[:4]), flush=True)
        view[0]
        """
    done = host.run(PROFILE, sys.executable, "-c", program, timeout=50)
    assert done.stdout == "b'mine'\n", done.stderr
    assert done.returncode == -7


@pytest.mark.timeout(120)
def test_a_thousand_files_are_let_go_at_once(host: Host) -> None:
    """The aim is 200 ms on an idle host (docs/benchmarks.md); here only that it is no crawl."""
    need_sandbox()
    done = host.run(PROFILE, sys.executable, str(CROWD), "1", "1000", timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bus errors"] == 1
    assert said["seconds"] < 5


def test_stores_before_the_end_are_on_the_medium(host: Host) -> None:
    """What a mapping had stored when the module was pulled out is there when it is put back."""
    need_sandbox()
    program = """if True:
        import mmap, os, subprocess
        path = "/dev/pmem-fs/pmem0/data3"
        view = mmap.mmap(os.open(path, os.O_RDWR), 16384)
        view[4096:4100] = b"mine"
        for verb in ("unplug-pmem", "plug-pmem"):
            subprocess.run(["fakedev", "ctl", verb, "region0"], check=True, stdout=-3)
        print(os.pread(os.open(path, os.O_RDONLY), 4, 4096), flush=True)
        view[0]
        """
    done = host.run(PROFILE, sys.executable, "-c", program, timeout=50)
    assert done.stdout == "b'mine'\n", done.stderr
    assert done.returncode == -7


def test_failed_pages_of_a_file(host: Host) -> None:
    """read(2) is EIO, a touch SIGBUS; the rest of the file is as it was."""
    need_sandbox()
    program = """if True:
        import errno, mmap, os, subprocess
        fd = os.open("/dev/pmem-fs/pmem0/data0", os.O_RDWR)
        view = mmap.mmap(fd, 16384)
        view[0], view[4096]
        start = 0x100000000 + META + 4096
        subprocess.run(["fakedev", "ctl", "poison", f"{start:#x}+4K"], check=True, stdout=-3)
        try:
            os.pread(fd, 16, 4096)
        except OSError as error:
            print(errno.errorcode[error.errno], os.pread(fd, 2, 0), flush=True)
        view[0]
        view[4096]
        """.replace("META", "10485760")
    done = host.run(PROFILE, sys.executable, "-c", program, timeout=50)
    assert done.stdout == "EIO b'\\x00\\x00'\n", done.stderr
    assert done.returncode == -7
