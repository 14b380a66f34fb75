"""`claim_policy: deny-claim`: no driver gets what a process maps, and no process loses a mapping."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import SOAK, Host, Refusal, Running, compiled, need, need_sandbox

from fakedev.model.errors import ControlError

HERE = Path(__file__).parent
STRICT = str(HERE / "strict.yaml")
DENY = "kernel.claim_policy=deny-claim"
BOTH_STRICT = ["kernel.strict_devmem=true", "kernel.io_strict_devmem=true"]
BOARD = 0xD000_0000  # at boot each of its words holds its own address
PAGE = "d0000000-d0000fff"
FILES = {
    "resourceN": ("/sys/bus/pci/devices/0000:01:00.0/resource0", 0),
    "devmem": ("/dev/mem", 0xD800_0000),
}


@pytest.mark.parametrize("kind", FILES)
def test_modprobe_fails_until_gdb_quits(host: Host, folder: Path, kind: str) -> None:
    need_sandbox()
    need("gdb", "gdb")
    path, offset = FILES[kind]
    # the debugger itself maps the BAR, as a script of its user may
    holds = f"""
import mmap, sys
file = open("{path}", "r+b")
window = mmap.mmap(file.fileno(), 4096, offset={offset})
file.close()
print("mapped", flush=True)
sys.stdin.readline()
"""
    source = folder / "holds.py"
    source.write_text(holds)
    script = f"read line; gdb -nx -q -batch -x {source} 2>&1; echo quit; read line"
    with Running(host, "fd-9000", "sh", "-c", script, settings=[DENY, *BOTH_STRICT]) as running:
        running.client.call("rmmod", name="nvme")
        running.send("\n")
        assert running.receive() == "mapped\n"

        before = running.ctl("iomem").stdout
        for _ in range(2):  # again: the first one has left nothing loaded
            done = running.ctl("modprobe", "nvme")
            assert (done.returncode != 0, done.stdout) == (True, "")
            assert "gdb[" in done.stderr
            assert "EBUSY" in done.stderr
        assert "nvme is not loaded" in running.ctl("bind", "nvme", "01:00.0").stderr
        assert running.ctl("iomem").stdout == before
        (event,) = [e for e in running.client.call("log")["events"] if e["kind"] == "denied"][-1:]
        assert [mapper["comm"] for mapper in event["mappers"]] == ["gdb"]

        running.send("\n")
        assert running.receive() == "quit\n"
        bound = running.ctl("modprobe", "nvme")
        assert (bound.returncode, bound.stderr) == (0, "")
        assert bound.stdout == "nvme loaded\n0000:01:00.0 bound to nvme\n"
        assert "nvme" in running.ctl("iomem").stdout.replace(before, "")


def test_only_a_claim_that_spares_mappings_says_so(host: Host) -> None:
    need_sandbox()
    script = f"fakedev ctl claim {PAGE} --name board"
    relaxed = "kernel.cmdline=iomem=relaxed"
    done = host.run(STRICT, "sh", "-c", script, settings=[DENY])
    assert (done.stdout, done.stderr) == (f"{PAGE} : board\n", "")
    done = host.run(STRICT, "sh", "-c", script, settings=[DENY, relaxed])
    assert "mappings live on" in done.stderr


def test_mappings_count_not_descriptors_nor_pages(machine: Any) -> None:
    with machine(STRICT, settings=[DENY]) as running:
        agent = running.agent
        fd = agent.open()
        assert running.ctl("claim", PAGE, "--name", "board").returncode == 0
        running.release(PAGE)
        # the descriptor is as good as before: it had no mapping to lose
        untouched = agent.map(fd, BOARD, 0x1000)
        denied = running.ctl("claim", PAGE, "--name", "board")
        assert denied.returncode != 0
        assert "agent[" in denied.stderr
        # nobody lost anything, and the page is there still
        assert agent("load", untouched, 0x20, 8) == BOARD + 0x20
        # a claim beside it does not concern the mapping
        assert running.ctl("claim", "d0001000-d0001fff", "--name", "next").returncode == 0
        assert agent("load", untouched, 0x28, 8) == BOARD + 0x28
        assert agent("close", fd) == 0
        assert running.ctl("claim", PAGE, "--name", "board").returncode != 0
        assert agent("unmap", untouched) == 0
        assert running.ctl("claim", PAGE, "--name", "board").returncode == 0


def test_a_child_holds_what_it_inherited(machine: Any) -> None:
    with machine(STRICT, settings=[DENY]) as running:
        agent = running.agent
        shown = agent.map(agent.open(), BOARD, 0x1000)
        child = agent.child()
        assert agent("unmap", shown) == 0
        denied = running.ctl("claim", PAGE, "--name", "board")
        assert denied.returncode != 0
        assert child("unmap", shown) == 0
        assert running.ctl("claim", PAGE, "--name", "board").returncode == 0


def test_relaxed_lets_the_claim_through(machine: Any) -> None:
    with machine(STRICT, settings=[DENY, "kernel.cmdline=iomem=relaxed"]) as running:
        agent = running.agent
        shown = agent.map(agent.open(), BOARD, 0x1000)
        assert agent("load", shown, 0x20, 8) == BOARD + 0x20
        assert running.ctl("claim", PAGE, "--name", "board").returncode == 0
        assert agent("load", shown, 0x28, 8) == BOARD + 0x28


def test_ignored_mappings_live_on(machine: Any) -> None:
    with machine(STRICT, settings=["kernel.claim_policy=ignore"]) as running:
        agent = running.agent
        fd = agent.open()
        shown = agent.map(fd, BOARD, 0x1000)
        assert agent("load", shown, 0x20, 8) == BOARD + 0x20
        assert running.ctl("claim", PAGE, "--name", "board").returncode == 0
        assert agent("load", shown, 0x28, 8) == BOARD + 0x28
        assert agent("pread", fd, BOARD, 16) == Refusal("EPERM")


@pytest.mark.parametrize("env", [{}, {"FAKEDEV_CACHED": "1"}], ids=["direct", "cached"])
def test_nobody_who_has_a_page_loses_it(host: Host, folder: Path, env: dict[str, str]) -> None:
    """Processes come and go while a driver tries: each page is held by one side or the other."""
    need_sandbox()
    holder, seconds = compiled(HERE / "holder.c", folder), 2 * SOAK
    runs = (
        f"read line; for n in 1 2; do {holder} /dev/mem {BOARD:#x} {seconds} & done; wait; echo end"
    )
    claimed = denied = 0
    with Running(host, STRICT, "sh", "-c", runs, settings=[DENY], env=env) as running:
        client = running.client
        running.send("\n")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                client.call("claim", range=PAGE, name="board")
            except ControlError as error:
                denied += "EBUSY" in str(error)
                continue
            claimed += 1
            time.sleep(0.001)
            client.call("release", range=PAGE)
        said = list(iter(running.receive, "end\n"))
    assert len(said) == 2
    for line in said:
        had, _, lost = (int(word) for word in line.split()[1::2])
        assert (had > 0, lost) == (True, 0), (said, claimed, denied)
    assert claimed > 0, (said, denied)
    assert denied > 0, (said, claimed)


def test_a_process_that_cannot_be_looked_at_counts(host: Host) -> None:
    need_sandbox()
    script = f"""
import ctypes, mmap, subprocess
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: /proc/PID/maps is root's now
file = open("/dev/mem", "r+b")
window = mmap.mmap(file.fileno(), 4096, offset={BOARD:#x})
print(window[:4].hex())
claim = ["fakedev", "ctl", "claim", "{PAGE}", "--name", "again"]
print(subprocess.run(claim, capture_output=True, text=True).stderr)
print(window[8:12].hex())
"""
    done = host.run(STRICT, sys.executable, "-c", script, settings=[DENY])
    assert done.returncode == 0, done.stderr
    assert "for again: python" in done.stdout
    assert done.stdout.splitlines()[-1] == "080000d0"
