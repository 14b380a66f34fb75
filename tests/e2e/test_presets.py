"""What changed between kernels, seen by a process that holds a mapping."""

from typing import Any

import pytest
from support import Fault

# A function of pc-q35 without a driver, and its register block.
EDU = "0000:00:05.0"
RESOURCE = f"/sys/bus/pci/devices/{EDU}/resource0"
SIGBUS, BUS_ADRERR = 7, 2


@pytest.mark.parametrize(("version", "lives"), [("5.4", False), ("5.10", False), ("5.12", True)])
def test_a_mapping_of_a_removed_file(machine: Any, version: str, lives: bool) -> None:
    with machine("pc-q35", settings=[f"kernel.version='{version}'"]) as running:
        agent = running.agent
        shown = agent.map(agent.open(RESOURCE), 0, 0x1000)
        before = agent("load", shown, 0, 4)
        assert not isinstance(before, Fault)
        assert running.ctl("remove", EDU).returncode == 0
        after = agent("load", shown, 0, 4)
        assert after == (before if lives else Fault(SIGBUS, BUS_ADRERR, 0))


@pytest.mark.parametrize(
    ("version", "mem_lives", "pci_lives"),
    [("5.4", True, True), ("5.10", False, True), ("5.12", False, False), ("7.2", False, False)],
)
def test_which_mappings_a_claim_ends(
    machine: Any, version: str, mem_lives: bool, pci_lives: bool
) -> None:
    with machine("pc-q35", settings=[f"kernel.version='{version}'"]) as running:
        agent = running.agent
        functions = running.client.call("pci")["functions"]
        bars = next(one["bars"] for one in functions if one["bdf"] == EDU)
        start = int(bars[0]["range"].partition("-")[0], 16)
        through_pci = agent.map(agent.open(RESOURCE), 0, 0x1000)
        through_mem = agent.map(agent.open(), start, 0x1000)
        value = agent("load", through_pci, 0, 4)
        assert agent("load", through_mem, 0, 4) == value
        running.claim(f"{start:#x}+4K", "driver")
        dead = Fault(SIGBUS, BUS_ADRERR, 0)
        assert agent("load", through_mem, 0, 4) == (value if mem_lives else dead)
        assert agent("load", through_pci, 0, 4) == (value if pci_lives else dead)
