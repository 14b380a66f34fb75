"""Memory that comes and goes at random: nothing is half done, and the policy is that of the tree."""

import contextlib
import random
import threading

import pytest
from memory_machines import BLOCK, MEMORY, machine_of
from pci_tree import Setup, directory_at, node_at, read

from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.machine import Machine
from fakedev.model.policy import Policy
from fakedev.model.ranges import Range
from fakedev.views.node import Refused

PLACE = 0x2_0000_0000
SLOTS = 12
STATES = (b"online\n", b"offline\n", b"going-offline\n")


def step(machine: Machine, dice: random.Random) -> None:
    """One verb, which may be refused."""
    blocks, number = machine.blocks, dice.randrange(64, 64 + SLOTS)
    span = Range(number * BLOCK, dice.randrange(1, 4) * BLOCK)
    name = dice.choice(["System RAM", "System RAM (a)", "System RAM (b)"])
    managed = name != "System RAM"
    verbs = [
        lambda: blocks.add_memory(span, name=name, driver_managed=managed, mergeable=managed),
        lambda: blocks.remove_memory(span),
        lambda: blocks.online(number, dice.choice(["online", "online_kernel", "online_movable"])),
        lambda: blocks.offline(number),
        lambda: blocks.dimms.plug(dice.choice(["dimm0", "dimm1"])),
        lambda: blocks.dimms.unplug(dice.choice(["dimm0", "dimm1"])),
        lambda: machine.claim(Range(number * BLOCK + 4096, 64), "driver"),
        lambda: [machine.release(claim.span) for claim in machine.claims],
    ]
    with contextlib.suppress(ControlError, ResourceConflictError):
        dice.choice(verbs)()


def check(machine: Machine) -> None:
    """Blocks are the RAM of the tree; verdicts are those of a policy that is made anew."""
    hot = [b for b in machine.blocks.blocks.values() if b.span.start >= PLACE]
    ram = [span for span in machine.blocks.ram_ranges() if span.start >= PLACE]
    assert sum(span.size for span in ram) == BLOCK * len(hot)
    assert all(any(span.start <= b.span.start < span.end for span in ram) for b in hot)
    assert list(machine.blocks.blocks) == sorted(machine.blocks.blocks)
    anew = Policy(machine.tree, machine.rules, high_memory=machine.high_memory)
    for number in range(64, 64 + SLOTS + 4):
        for address in (number * BLOCK, number * BLOCK + 4096):
            for judge in ("read", "mmap"):
                mine = getattr(machine.policy, judge)(address, 4096)
                theirs = getattr(anew, judge)(address, 4096)
                assert (mine.errno, mine.allowed) == (theirs.errno, theirs.allowed), hex(address)
    zones = machine.blocks.zones
    for block in hot:
        assert block.number in zones._members.get((block.nid, block.zone), []) or not block.online


@pytest.mark.parametrize("seed", range(12))
def test_random_verbs(seed: int) -> None:
    machine, dice = machine_of(), random.Random(seed)
    boot = machine.iomem()
    for _ in range(150):
        step(machine, dice)
        check(machine)
    machine.reset()
    assert machine.iomem() == boot


def test_readers_beside_verbs() -> None:
    """Who lists and reads while blocks come and go sees whole answers, or ENODEV."""
    machine = machine_of()
    tree, done, wrong = Setup(machine).tree, threading.Event(), []

    def look() -> None:
        while not done.is_set():
            for name in [*directory_at(tree, MEMORY).entries()]:
                if name.startswith("memory6"):
                    text = b"offline\n"
                    with contextlib.suppress(Refused, AssertionError):  # it has gone meanwhile
                        text = read(node_at(tree, f"{MEMORY}/{name}/state"))
                    if text not in STATES:
                        wrong.append(text)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        machine.blocks.dimms.plug("dimm0")
        machine.blocks.online_all([64, 65])
        machine.blocks.dimms.unplug("dimm0")
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
