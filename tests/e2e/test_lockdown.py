"""Lockdown raised under a running tool: what it holds lives on, what it opens anew is refused."""

import os
from typing import Any

import pytest
from support import Fault, Host, Refusal, need_sandbox

FILE = "/sys/kernel/security/lockdown"
EDU = "/sys/bus/pci/devices/0000:00:05.0"
BAR, PAGE = 0xFEA00000, 0x1000
SIGBUS, BUS_ADRERR = 7, 2
EPERM = Refusal("EPERM")


def text(agent: Any) -> str:
    return str(agent("pread", agent.open(FILE, os.O_RDONLY), 0, 80).decode())


def raise_to(agent: Any, level: str) -> Any:
    return agent("pwrite", agent.open(FILE, os.O_WRONLY), 0, level.encode().hex())


def refused_page(agent: Any, path: str, offset: int) -> bool:
    """At mmap where the exact layer is there, else at the first touch."""
    mapped = agent("map", agent.open(path), offset, PAGE, 3, 1)
    return mapped == EPERM or agent("load", mapped, 0, 4) == Fault(SIGBUS, BUS_ADRERR, 0)


@pytest.mark.parametrize("cached", [{}, {"FAKEDEV_CACHED": "1"}], ids=["direct", "cached"])
def test_raised_at_run_time(machine: Any, cached: dict[str, str]) -> None:
    with machine("pc-q35", env=cached) as running:
        agent = running.agent
        assert text(agent) == "[none] integrity confidentiality\n"
        memory, config = agent.open(), agent.open(f"{EDU}/config")
        bar = agent.map(agent.open(f"{EDU}/resource0"), 0, 0x4000)
        assert agent("load", bar, 0, 4) == 0x010000ED
        assert agent("pwrite", config, 4, "0301") == 2
        for level, shown in (
            ("integrity", "none [integrity] confidentiality\n"),
            ("confidentiality", "none integrity [confidentiality]\n"),
        ):
            assert raise_to(agent, level) == len(level)
            assert text(agent) == shown
            assert agent("load", bar, 0, 4) == 0x010000ED
            assert agent("load", agent.map(memory, BAR, PAGE), 0, 4) == 0x010000ED
            assert agent("load", bar, 0x1000, 4) != Fault(SIGBUS, BUS_ADRERR, 0x1000)
            assert agent("pread", memory, 0xF0000, 4) == bytes.fromhex("432483c4")
            assert agent("pread", config, 0, 4) == bytes.fromhex("3412e811")
            assert agent("pwrite", config, 4, "0301") == EPERM
            assert refused_page(agent, f"{EDU}/resource0", 0x2000)
            assert agent("open", "/dev/mem", os.O_RDONLY) == EPERM
            core = agent("open", "/dev/kcore", os.O_RDONLY)
            assert (core == EPERM) == (level == "confidentiality")
            assert raise_to(agent, level) == raise_to(agent, "none") == EPERM
            assert raise_to(agent, "zzz") == Refusal("EINVAL")
        lines = [event["message"] for event in running.client.call("log")["events"]]
        assert (
            "Lockdown: agent: direct PCI access is restricted; see man kernel_lockdown.7" in lines
        )
        assert any("from securityfs" in line and "(agent[" in line for line in lines)


def test_what_ctl_says(host: Host) -> None:
    need_sandbox()
    script = f"""
        fakedev ctl lockdown
        fakedev ctl lockdown integrity
        fakedev ctl lockdown none || cat {FILE}
        fakedev ctl explain 0xf0000
        fakedev ctl reset >&2
        head -c 4 /dev/mem | wc -c
        stat -c %A,%s {FILE}
    """
    done = host.run("pc-q35", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "[none] integrity confidentiality",
        *["none [integrity] confidentiality"] * 2,
    ]
    assert lines[4] == (
        "lockdown=integrity: open of /dev/mem is EPERM; the verdict is for one opened before"
    )
    assert lines[5:] == ["4", "-rw-r--r--,0"]
    assert "fakedev: lockdown is integrity and can only be raised, not set to none" in done.stderr


def test_a_held_descriptor_maps_after_a_claim_too(machine: Any) -> None:
    """Its pages died with the claim, so the exact layer opens the file again: as the one that is open."""
    with machine("pc-q35") as running:
        agent = running.agent
        memory = agent.open()
        assert agent("load", agent.map(memory, BAR, PAGE), 0, 4) == 0x010000ED
        running.claim(f"{BAR:x}-{BAR + PAGE - 1:x}")
        running.release(f"{BAR:x}-{BAR + PAGE - 1:x}")
        raise_to(agent, "integrity")
        assert agent("open", "/dev/mem", os.O_RDONLY) == EPERM
        assert agent("load", agent.map(memory, BAR, PAGE), 0, 4) == 0x010000ED
