"""A module of persistent memory is pulled out under processes that map files on it: what `on_unplug` leaves."""

import sys
from pathlib import Path

import pytest
from support import Host, need_sandbox

PROFILE = str(Path(__file__).parent.parent / "pmem.yaml")
PROGRAM = """if True:
    import mmap, os, subprocess, sys
    def ctl(*words):
        subprocess.run(["fakedev", "ctl", *words], check=True, stdout=-3)
    path = "/dev/pmem-fs/pmem0/data3"
    fd = os.open(path, os.O_RDWR)
    view, unread = mmap.mmap(fd, 16384), mmap.mmap(fd, 16384)
    view[4096:4100] = b"mine"
    view[0]
    ctl("unplug-pmem", "region0", *sys.argv[2:])
    if sys.argv[1] == "lives":
        print(bytes(view[4096:4100]).hex(), bytes(unread[8192:8196]).hex(), flush=True)
        view[4096:4100] = unread[:4] = b"lost"
        ctl("plug-pmem", "region0")
        print(os.pread(os.open(path, os.O_RDONLY), 4, 4096), flush=True)
        ctl("unplug-pmem", "region0")
        ctl("plug-pmem", "region0", "--replace")
        again = mmap.mmap(os.open(path, os.O_RDWR), 16384)
        again[:4] = b"new!"
        print(bytes(view[:4]).hex(), bytes(again[:4]), bytes(view[:4]).hex(), flush=True)
    else:
        view[0]
    """


@pytest.mark.timeout(120)
@pytest.mark.parametrize("env", [{}, {"FAKEDEV_CACHED": "1"}], ids=["direct", "cached"])
def test_mappings_live_on_and_read_ones(host: Host, env: dict[str, str]) -> None:
    need_sandbox()
    settings = ["nvdimm.regions.0.on_unplug=all-ones"]
    done = host.run(PROFILE, sys.executable, "-c", PROGRAM, "lives", settings=settings, env=env)
    assert done.stdout == "ffffffff ffffffff\nb'mine'\nffffffff b'new!' ffffffff\n", done.stderr
    assert done.returncode == 0


@pytest.mark.timeout(120)
def test_pages_fail(host: Host) -> None:
    need_sandbox()
    after = ("--on-unplug", "poison")
    done = host.run(PROFILE, sys.executable, "-c", PROGRAM, "dies", *after)
    assert done.returncode == -7, done.stderr
    script = """
        fakedev ctl unplug-pmem region0 --on-unplug poison
        fakedev ctl state | grep ^poison
        fakedev ctl plug-pmem region0
        fakedev ctl state | grep ^poison
        """
    assert host.run(PROFILE, "sh", "-c", script).stdout.splitlines() == [
        "region0 is unplugged (100000000-11fffffff)",
        "poison       100000000-11fffffff hard",
        "region0 is active (100000000-11fffffff)",
    ]


def test_what_it_cannot_be(host: Host) -> None:
    need_sandbox()
    done = host.run(PROFILE, "fakedev", "ctl", "unplug-pmem", "region0", "--on-unplug", "zeros")
    assert done.returncode == 2
    assert "'zeros' is not one of" in done.stderr
