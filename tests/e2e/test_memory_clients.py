"""lsmem, chmem and numactl on the machines' memory; DIMMs that come and go under them."""

import re
import sys
from pathlib import Path

import pytest
from support import DATA, TIMEOUT, Host, need, need_sandbox

from fakedev.profiles.bundled import bundled_names

PACKAGES = {"lsmem": "util-linux", "chmem": "util-linux", "numactl": "numactl"}
BLOCK = 128 << 20
LARGE = """\
fakedev: 1
kernel: {version: "6.1"}
firmware:
  e820:
    - {range: 0-9fbff, type: System RAM}
    - {range: 100000000-100ffffffff, type: System RAM}
"""
DIMM = """\
fakedev: 1
extends: fd-9000
memory_blocks:
  dimms: [{slot: dimm0, at: 0x200000000, size: 256M}]
kernel: {strict_devmem: true, io_strict_devmem: true}
"""
#: Maps where the DIMM will be, says so, and touches it again when a line comes.
MAPPER = """\
import mmap, os, sys
memory = os.open("/dev/mem", os.O_RDWR | os.O_SYNC)
page = mmap.mmap(memory, 4096, offset=0x200000000)
print(page[0], flush=True)
sys.stdin.readline()
print(page[0], flush=True)
"""


def tools(*names: str) -> None:
    need_sandbox()
    for name in names:
        need(name, PACKAGES[name])


def run(host: Host, profile: str | Path, script: str) -> str:
    done = host.run(profile, "sh", "-c", script, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return str(done.stdout)


def ctl(words: str) -> str:
    """A command line of the control program inside a machine."""
    return f"{sys.executable} -m fakedev ctl {words}"


@pytest.fixture
def dimm(tmp_path: Path) -> Path:
    path = tmp_path / "dimm.yaml"
    path.write_text(DIMM)
    return path


def test_o6_byte_for_byte(host: Host) -> None:
    tools("lsmem", "chmem")
    first, _, rest = (DATA / "clients" / "O6-lsmem-chmem.txt").read_text().partition("\n")
    assert run(host, "fd-9000", first.removeprefix("$ ")) == rest


@pytest.mark.parametrize("profile", bundled_names())
def test_every_machine_has_memory(host: Host, profile: str) -> None:
    tools("lsmem", "numactl")
    text = run(host, profile, "lsmem -b -o +ZONES,NODE; numactl -H")
    assert re.search(r"^Total online memory: +[1-9]\d+$", text, re.MULTILINE)
    assert re.search(r"^0x[0-9a-f]{16}-0x[0-9a-f]{16} +\d+ +online +yes .* 0$", text, re.MULTILINE)
    assert re.search(r"^available: \d+ nodes \(0", text, re.MULTILINE)
    assert re.search(r"^node 0 size: [1-9]\d* MB$", text, re.MULTILINE)


def test_numactl(host: Host) -> None:
    tools("numactl")
    assert run(host, "fd-9000", "numactl -H") == (
        "available: 1 nodes (0)\nnode 0 cpus: 0 1 2 3\nnode 0 size: 3936 MB\n"
        "node 0 free: 3417 MB\nnode distances:\nnode   0 \n  0:  10 \n"
    )


def test_zones(host: Host) -> None:
    tools("lsmem", "chmem")
    script = "chmem -d 0x100000000-0x107ffffff; chmem -z Movable -e 0x100000000-0x107ffffff; lsmem -n --summary=never -o +ZONES"
    assert run(host, "fd-9000", script).splitlines() == [
        "0x0000000000000000-0x0000000007ffffff  128M online       yes     0    None",
        "0x0000000008000000-0x000000007fffffff  1.9G online       yes  1-15   DMA32",
        "0x0000000100000000-0x0000000107ffffff  128M online       yes    32 Movable",
        "0x0000000108000000-0x000000017fffffff  1.9G online       yes 33-47  Normal",
    ]


@pytest.mark.parametrize("number", [0, 15])
def test_chmem_is_told_why_not(host: Host, number: int) -> None:
    tools("chmem")
    done = host.run("fd-9000", "chmem", "-v", "-b", "-d", f"{number}")
    assert done.returncode != 0
    assert "Invalid argument" in done.stderr


def test_a_dimm_comes_and_goes(host: Host, dimm: Path) -> None:
    tools("lsmem")
    text = run(
        host, dimm,
        f"{ctl('plug-dimm dimm0')}; grep 200000000 /proc/iomem; {ctl('online 64 --kind online_movable')}; "
        f"lsmem -n --summary=never | tail -2; {ctl('memory')} | tail -4; {ctl('unplug-dimm dimm0')}; "
        "grep -c 200000000 /proc/iomem; ls -d /sys/devices/system/memory/memory6* 2>&1 | head -1; "
        "ls /sys/bus/memory/devices | wc -l",
    )  # fmt: skip
    assert text.splitlines() == [
        "memory64 200000000-207ffffff offline",
        "memory65 208000000-20fffffff offline",
        "200000000-20fffffff : System RAM",
        "memory64 200000000-207ffffff online (Movable)",
        "0x0000000200000000-0x0000000207ffffff  128M  online       yes    64",
        "0x0000000208000000-0x000000020fffffff  128M offline              65",
        "200000000-207ffffff                        64 online           0 Movable",
        "208000000-20fffffff                        65 offline          0 Normal Movable",
        "200000000-20fffffff                     dimm0 plugged          0",
        "blocks of 128 MiB; new memory: offline",
        "dimm0 unplugged",
        "0",
        "/sys/devices/system/memory/memory6",
        "32",
    ]


def test_a_dimm_in_the_place_of_a_mapping_takes_it(host: Host, dimm: Path, tmp_path: Path) -> None:
    """The hole could be mapped; what is RAM now cannot, and the old mapping is dead."""
    need_sandbox()
    program = tmp_path / "mapper.py"
    program.write_text(MAPPER)
    script = (
        f"mkfifo {tmp_path}/go; {sys.executable} {program} <{tmp_path}/go >{tmp_path}/said & exec 3>{tmp_path}/go; "
        f"while [ ! -s {tmp_path}/said ]; do sleep 0.05; done; {ctl('plug-dimm dimm0')}; echo >&3; "
        "wait $!; echo status $?"
    )
    done = host.run(dimm, "sh", "-c", script, timeout=TIMEOUT)
    assert "status 135" in done.stdout, (done.stdout, done.stderr)  # SIGBUS
    assert (tmp_path / "said").read_text() == "0\n"


def test_eight_thousand_blocks_are_listed_in_a_second(host: Host, tmp_path: Path) -> None:
    need_sandbox()
    path = tmp_path / "large.yaml"
    path.write_text(LARGE)
    count = (1 << 40) // BLOCK + 1
    seconds, names = run(
        host, path,
        "ls /sys/devices/system/memory >/dev/null; s=$(date +%s%N); "
        "n=$(ls /sys/devices/system/memory | grep -c memory); e=$(date +%s%N); echo $(((e - s) / 1000000)) $n",
    ).split()  # fmt: skip
    assert int(names) == count == 8193
    assert int(seconds) < 1000
