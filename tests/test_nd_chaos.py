"""Random verbs on persistent memory: nothing but a FakedevError with an errno, and reset is the boot again."""

import random
from collections.abc import Callable

import pytest
from nd_machines import pmem_machine

from fakedev.model.errors import FakedevError
from fakedev.model.machine import Machine
from fakedev.model.resource import Resource

NAMES = ("namespace0.0", "namespace1.0", "namespace1.1", "dax1.0", "pmem0", "nothing")
MODES = ("raw", "fsdax", "devdax", "kmem")


def steps(machine: Machine, dice: random.Random) -> dict[str, Callable[[], object]]:
    """What can be done now."""
    nd = machine.nd
    driver = dice.choice(("kmem", "device_dax"))
    name = dice.choice(("dax0.0", "dax1.0"))
    region = f"region{dice.randrange(2)}"
    block = dice.choice(list(machine.blocks.blocks))
    return {
        "mode": lambda: nd.set_mode(dice.choice(NAMES), dice.choice(MODES)),
        "bind": lambda: nd.bind(driver, name),
        "unbind": lambda: nd.unbind(driver, name),
        "new_id": lambda: nd.new_id(driver, name),
        "unplug": lambda: nd.unplug(region),
        "plug": lambda: nd.plug(region, replace=dice.random() < 0.5),
        "online": lambda: machine.blocks.online(block, "online_movable"),
        "offline": lambda: machine.blocks.offline(block),
        "poke": lambda: machine.poke(0x100000000 + dice.randrange(1 << 30), b"x"),
    }


def check(node: Resource) -> None:
    """Children are sorted, apart, and inside."""
    at = node.start
    for child in node.children:
        assert child.parent is node
        assert at <= child.start <= child.end <= node.end, (node, child)
        at = child.end + 1
        check(child)


@pytest.mark.parametrize("seed", range(12))
def test_random_verbs(seed: int) -> None:
    dice = random.Random(seed)
    machine = pmem_machine()
    boot, paths = machine.iomem(), sorted(machine.nd.catalog.entries)
    for _ in range(120):
        word, step = dice.choice(list(steps(machine, dice).items()))
        before, claims = machine.iomem(), len(machine.claims)
        error: FakedevError | None = None
        try:
            step()
        except FakedevError as caught:
            error = caught
        if (
            error is not None
        ):  # refused, with an errno where the kernel has one, and nothing has changed
            assert word == "poke" or getattr(error, "errno", 0), (word, error)
            assert (machine.iomem(), len(machine.claims)) == (before, claims), (word, error)
        check(machine.tree.root)
        fresh = machine.nd.describe()
        assert sorted(fresh.entries) == sorted(machine.nd.catalog.entries), word
    machine.reset()
    assert machine.iomem() == boot
    assert sorted(machine.nd.catalog.entries) == paths
    assert not machine.claims
