"""virtio-mem as programs meet it: mappings that die, a dumper, files and verbs."""

import contextlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Fault, Host, Refusal, Running, machine_with_agent, need_sandbox
from virtio_mem_machines import ADDR

from fakedev.model.errors import FakedevError

MIB = 1 << 20
SIGBUS, BUS_ADRERR = 7, 2
GUEST = "virtio-mem-guest"
DUMPER = Path(__file__).parent / "dumper.py"
RELAXED = ["kernel.cmdline=iomem=relaxed"]


@pytest.fixture
def running(host: Host, folder: Path) -> Iterator[Running]:
    """The recorded machine with the persistent memory that it had by then."""
    with machine_with_agent(host, folder, "pc-q35") as started:
        started.client.call("modprobe", name="nfit")
        started.client.call("dax-mode", name="namespace0.0", mode="kmem")
        yield started


@pytest.fixture
def guest(host: Host, folder: Path) -> Iterator[Running]:
    with machine_with_agent(host, folder, GUEST) as started:
        yield started


def load(running: Running) -> None:
    running.client.call("modprobe", name="virtio_pci")
    running.client.call("modprobe", name="virtio_mem")


def request(running: Running, size: int) -> int:
    """Ask for so many MiB; how many are plugged then."""
    done = running.client.call("virtio-mem-request", name="vm0", size=size * MIB)
    return int(done["plugged_size"] // MIB)


def bus(offset: int) -> Fault:
    return Fault(SIGBUS, BUS_ADRERR, offset)


# -- the recording ------------------------------------------------------------------------------


def test_the_recorded_mappings_die_when_the_driver_loads(running: Running) -> None:
    """Records 1747 to 1765 and 2895: before, after, in a child, plugged or not, and next to the region."""
    agent = running.agent
    fd = agent.open()
    first = agent.map(fd, ADDR, 16 * MIB)
    assert agent("load", first, 0, 4) == 0
    assert agent("store", first, 0x1000, 4, 0xFEEDFACE) == 0
    assert agent("load", first, 0x1000, 4) == 0xFEEDFACE
    far = agent.map(fd, ADDR + 900 * MIB, 64 * MIB)
    assert agent("load", far, 0, 4) == 0
    span = agent.map(fd, ADDR - 0x2000, 0x4000)
    before = agent("load", span, 0, 4)
    assert before == 0x50325000
    assert agent("load", span, 0x2000, 4) == 0
    assert agent("pread", fd, ADDR, 16) == bytes(16)
    child = agent.child()
    assert child("load", first, 0, 4) == 0
    load(running)
    assert agent("load", first, 0, 4) == bus(0)
    assert agent("load", first, 0x1000, 4) == bus(0x1000)
    assert child("load", first, 0, 4) == bus(0)
    assert agent("load", far, 0, 4) == bus(0)
    assert agent("load", span, 0, 4) == before
    assert agent("load", span, 0x2000, 4) == bus(0x2000)
    assert agent.child() is not None
    assert agent("pread", fd, ADDR, 16) == Refusal("EPERM")
    request(running, 0)
    running.client.call("rmmod", name="virtio_mem")
    assert agent("load", first, 0, 4) == bus(0)
    assert agent("pread", agent.open(), ADDR, 16) == bytes(16)


# -- the guest ----------------------------------------------------------------------------------


def dump(host: Host, *settings: str) -> list[str]:
    """What the dumper got of each line of `/proc/iomem`."""
    need_sandbox()
    done = host.run(GUEST, sys.executable, "-I", DUMPER, settings=[*RELAXED, *settings])
    assert done.returncode == 0, done.stderr
    return str(done.stdout).splitlines()


LOW = "System RAM: 1000-1000:ok"
HIGH = "System RAM: 100000-1ff00000:EPERM"


def test_a_dumper_is_refused_on_the_whole_region(host: Host) -> None:
    """RAM of boot is refused as well, for being RAM; only the first MiB is not."""
    ram = "System RAM (virtio_mem): 100000000-17ff00000:EPERM"
    region = "virtio0: 100000000-17ff00000:EPERM"
    assert dump(host, "virtio_mem.vm0.requested_size=2G") == [LOW, HIGH, region, ram]


def test_a_dumper_above_the_last_ram(host: Host) -> None:
    """read(2) looks at high_memory first: where nothing was ever plugged it is EFAULT."""
    assert dump(host) == [
        LOW,
        HIGH,
        "virtio0: 100000000-12ff00000:EPERM 130000000-17ff00000:EFAULT",
        "System RAM (virtio_mem): 100000000-12ff00000:EPERM",
    ]


def test_relaxed_opens_everything_but_the_region_and_the_ram(host: Host, guest: Running) -> None:
    """Of what is idle or merely claimed nothing is refused, of the region everything is."""
    asked = [
        "0xf0000+4K",
        "0xfe000000+4K",
        "0xfec00000+4K",
        "0x100000000+4K",
        "0x17ffff000+4K",
        "0x180000000+4K",
    ]
    with Running(host, GUEST, "cat", settings=RELAXED, name="relaxed") as relaxed:
        found = [relaxed.client.call("explain", range=span, op="mmap")["errno"] for span in asked]
    strict = [guest.client.call("explain", range=span, op="mmap")["errno"] for span in asked]
    assert [bool(code) for code in strict] == [False, True, True, True, True, False]
    assert [bool(code) for code in found] == [False, False, False, True, True, False]


def test_the_dumper_fails_the_same_way_while_half_is_unplugged(host: Host) -> None:
    """Ten dumps, one after the other, while the hypervisor takes memory away and gives it back."""
    need_sandbox()
    loop = f'for n in 0 1 2 3 4 5 6 7 8 9; do "$0" -I {DUMPER} || exit 1; echo; done'
    settings = [*RELAXED, "virtio_mem.vm0.requested_size=2G"]
    with Running(host, GUEST, "sh", "-c", loop, sys.executable, settings=settings) as running:
        sizes, changes = itertools.cycle([1024, 2048]), 0
        while running.tool.poll() is None:
            size = next(sizes)
            with contextlib.suppress(FakedevError):  # it may end at any time
                assert request(running, size) == size
                changes += 1
        assert running.tool.stdout is not None
        dumps = running.tool.stdout.read().strip().split("\n\n")
    assert (len(dumps), changes > 4) == (10, True)
    for one in dumps:
        low, high, region, *ram = one.splitlines()
        assert (low, high, region) == (LOW, HIGH, "virtio0: 100000000-17ff00000:EPERM")
        assert len(ram) == 1
        assert re.fullmatch(r"System RAM \(virtio_mem\): 100000000-1[3-7][7f]f00000:EPERM", ram[0])


def test_files_of_the_memory_blocks_follow(guest: Running) -> None:
    agent = guest.agent

    def text(path: str) -> Any:
        fd = agent("open", f"/sys/devices/system/memory/{path}", 0)
        if isinstance(fd, Refusal):
            return fd.errno
        found = agent("pread", fd, 0, 64)
        agent("close", fd)
        return found if isinstance(found, Refusal) else found.decode().strip()

    assert text("memory37/state") == "online"
    assert text("memory37/valid_zones") == "Movable"
    assert request(guest, 640) == 640
    assert text("memory37/state") == "ENOENT"
    assert text("memory36/state") == "online"
    assert request(guest, 768) == 768
    assert text("memory37/state") == "online"


def test_ctl(guest: Running) -> None:
    assert guest.client.call("virtio-mem")["devices"][0]["mode"] == "SBM"
    table = guest.ctl("virtio-mem").stdout.splitlines()
    assert table[0].split() == [
        "NAME",
        "DEVICE",
        "REGION",
        "NODE",
        "REQUESTED",
        "PLUGGED",
        "USABLE",
        "DRIVER",
    ]
    assert table[1].startswith(
        "vm0   virtio0  100000000-17fffffff  0     768M       768M     1024M   virtio_mem"
    )
    done = guest.ctl("virtio-mem", "vm0", "requested-size", "640M")
    assert done.stdout.splitlines()[-1] == "vm0: requested 640M, plugged 640M"
    assert "virtio0: memory37 removed" in done.stdout
    refused = guest.ctl("virtio-mem", "vm0", "requested-size", "3G")
    assert (refused.returncode, "exceeds the region" in refused.stderr) == (1, True)
    shown = json.loads(guest.ctl("virtio-mem", "--json").stdout)
    assert shown[0]["plugged"] == ["100000000-127ffffff"]


def test_a_request_is_answered_fast(guest: Running) -> None:
    begun = time.monotonic()
    for size in (2048, 256, 2048, 0):
        request(guest, size)
    assert time.monotonic() - begun < 10  # 0.2 s on an idle machine
