"""Memory that fails under a running tool: SIGBUS, EIO, and what the log and the state say."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import Fault, Host, Refusal, need_sandbox, wait_for

STRICT = str(Path(__file__).parent / "strict.yaml")
BOARD = 0xD000_0000  # at boot each of its words holds its own address
SIGBUS, BUS_ADRERR = 7, 2
CACHED = {"FAKEDEV_CACHED": "1"}
both_ways = pytest.mark.parametrize("env", [{}, CACHED], ids=["direct", "cached"])


def bus(offset: int) -> Fault:
    return Fault(SIGBUS, BUS_ADRERR, offset)


@both_ways
@pytest.mark.parametrize("version", ["6.1", "5.4"])
def test_touches_are_sigbus_and_reads_eio(machine: Any, env: dict[str, str], version: str) -> None:
    with machine(STRICT, env=env, settings=[f"kernel.version='{version}'"]) as running:
        agent = running.agent
        fd = agent.open()
        two = agent.map(fd, BOARD, 0x2000)
        assert agent("store", two, 0x1010, 8, 0x1234) == 0
        assert agent("load", two, 0x20, 8) == BOARD + 0x20
        done = running.ctl("poison", "0xd0001234")
        assert done.stdout == "1 page of d0001000-d0001fff poisoned\nHardwareCorrupted: 0 kB\n"
        assert agent("load", two, 0x1010, 8) == bus(0x1010)
        assert agent("store", two, 0x1FF8, 8, 0) == bus(0x1FF8)
        assert agent("load", two, 0x28, 8) == BOARD + 0x28
        assert agent("pread", fd, BOARD + 0x1010, 16) == Refusal("EIO")
        assert agent("pread", fd, BOARD + 0x10, 8) == (BOARD + 0x10).to_bytes(8, "little")
        assert agent("pwrite", fd, BOARD + 0x1010, "00") == Refusal("EIO")
        assert agent("load", agent.map(fd, BOARD, 0x2000), 0x1000, 8) == bus(0x1000)
        # who lost a mapping is told, as after a claim
        wait_for(
            lambda: any(
                event["kind"] == "lost" and event["mappers"][0]["comm"] == "agent"
                for event in running.client.call("log")["events"]
            ),
            "the log names the agent",
        )
        # the store made before had landed, and stays behind the poison
        assert running.peek("0xd0001010+8") == (0x1234).to_bytes(8, "little")
        assert running.ctl("unpoison", "0xd0001000+4K").returncode == 0
        assert agent("load", two, 0x1010, 8) == bus(0x1010)
        fresh = agent.map(agent.open(), BOARD, 0x2000)
        assert agent("load", fresh, 0x1010, 8) == 0x1234


def test_what_ctl_says(host: Host) -> None:
    need_sandbox()
    script = """
        fakedev ctl poison 0x100000+8K
        fakedev ctl poison 0x100000
        fakedev ctl unpoison 0xd0000000 || echo refused
        fakedev ctl state --json
    """
    done = host.run(STRICT, "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["2 pages of 00100000-00101fff poisoned", "HardwareCorrupted: 8 kB"]
    assert lines[2] == "refused"
    assert "poisoned already" in done.stderr
    assert "no page of d0000000-d0000fff is poisoned" in done.stderr
    assert json.loads("".join(lines[3:]))["poison"] == {
        "pages": [{"range": "00100000-00101fff", "kind": "hard", "kpageflags": "0x80000"}],
        "hardware_corrupted_kb": 8,
    }


def test_a_page_goes_offline_through_sysfs(host: Host) -> None:
    need_sandbox()
    script = """
        cd /sys/devices/system/memory
        echo 0x8080000000 > hard_offline_page && echo taken
        echo 0x8080000000 > hard_offline_page
        echo 0x8080001000 > soft_offline_page && echo moved
        echo 0x8080001000 > soft_offline_page && echo again
        echo 0x80210000 > hard_offline_page
        echo 0x9010000 > hard_offline_page
        grep Hardware /proc/meminfo
        fakedev ctl state
    """
    done = host.run("arm64-server", "bash", "-c", script)
    assert done.stdout.splitlines()[:4] == [
        "taken",
        "moved",
        "again",
        "HardwareCorrupted:     8 kB",
    ]
    assert "poison       8080000000-8080000fff hard" in done.stdout
    assert "poison       8080001000-8080001fff soft" in done.stdout
    reasons = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert reasons == [
        "Memory page has hardware error",
        "Device or resource busy",
        "No such device or address",
    ]
