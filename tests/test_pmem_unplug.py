"""What a surprise removal of persistent memory leaves of its mappings: `on_unplug`."""

import errno
import os
from collections.abc import Callable

import pytest
from nd_machines import DEV, FS, PROFILE, M, blocks_of, pmem_machine
from pci_tree import node_at
from pci_tree import refused as refused_call

from fakedev.devices.memory.poison import poison_of
from fakedev.devices.nd.plan import ON_UNPLUG
from fakedev.model.effects import Effect, Revoke
from fakedev.model.errors import ControlError, ProfileError
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.profiles.loader import load_profile
from fakedev.views.nd.files import MediumFile, MediumHandle
from fakedev.views.node import Opener
from fakedev.views.tree import Tree

REGION = Range(FS, 512 * M)
DATA = FS + 10 * M  # what /dev/pmem0 shows first: the metadata lies before it
READ_WRITE = Opener(1, 0, os.O_RDWR)


@pytest.fixture
def machine() -> Machine:
    return pmem_machine()


def held(machine: Machine, path: str = "/dev/pmem0") -> MediumHandle:
    node = node_at(Tree(machine), path)
    assert isinstance(node, MediumFile)
    return node.open(READ_WRITE)


def page(handle: MediumHandle) -> bytes:
    return b"".join(handle.fault(0, PAGE_SIZE))


def code(call: Callable[[], object]) -> int:
    with pytest.raises(ControlError) as caught:
        call()
    return caught.value.errno


@pytest.mark.parametrize("after", ON_UNPLUG)
def test_what_mappings_see(machine: Machine, after: str) -> None:
    machine.poke(DATA, b"old")
    handle = held(machine)
    revoked: list[Effect] = []
    machine.subscribers.append(revoked.append)
    machine.nd.unplug("region0", on_unplug=after)
    dies = after != "all-ones"
    assert any(isinstance(e, Revoke) and e.span == REGION for e in revoked) == dies
    for _ in range(2):  # out; and with another module in its place
        if dies:
            assert refused_call(handle.fault, 0, PAGE_SIZE) == "EIO"
        else:
            assert page(handle) == b"\xff" * PAGE_SIZE
        assert refused_call(handle.read, 0, 4) == "EIO"
        assert refused_call(handle._node.open, READ_WRITE) == "ENXIO"
        handle._node.stored(0, memoryview(b"late"))
        if not machine.nd.region("region0").present:
            machine.nd.plug("region0", replace=True)
    assert machine.peek(Range(DATA, 4)) == bytes(4)
    assert page(held(machine)) == bytes(PAGE_SIZE)


@pytest.mark.parametrize("after", ON_UNPLUG)
def test_the_same_module_comes_back(machine: Machine, after: str) -> None:
    machine.poke(DATA, b"old")
    handle = held(machine)
    for _ in range(3):
        machine.nd.unplug("region0", on_unplug=after)
        assert (code(lambda: machine.nd.unplug("region0")), machine.nd.region("region0").present) == (
            errno.ENODEV, False,
        )  # fmt: skip
        machine.nd.plug("region0")
        assert machine.peek(Range(DATA, 3)) == b"old"
        assert not poison_of(machine).hard
    if after == "all-ones":
        assert page(handle) == b"\xff" * PAGE_SIZE, "it never shows what is there now"


def test_ones_where_the_bus_reads_zeros() -> None:
    machine = pmem_machine("memory.undecoded=0")
    for after, seen in (("sigbus", b"\0"), ("all-ones", b"\xff")):
        machine.nd.unplug("region0", on_unplug=after)
        assert machine.peek(Range(DATA, 1)) == seen
        machine.nd.plug("region0")
    machine.nd.unplug("region0", on_unplug="all-ones")
    machine.reset()
    assert machine.peek(Range(DATA, 1)) == b"\0"
    assert page(held(machine)) == bytes(PAGE_SIZE)


def test_stores_before_the_end_stay_on_the_medium(machine: Machine) -> None:
    """Settling writes back what is dirty, and from then on the old mapping stores nowhere."""
    handle = held(machine)
    settle = machine.settle

    def write_back(spans: object, action: Callable[[], object]) -> object:
        if not handle._node.life.drained:
            handle._node.stored(0, memoryview(b"mine"))
        return settle(spans, action)  # type: ignore[arg-type]

    machine.settle = write_back
    machine.nd.unplug("region0", on_unplug="all-ones")
    machine.settle = settle
    handle._node.stored(0, memoryview(b"\xff" * PAGE_SIZE))
    machine.nd.plug("region0")
    assert machine.peek(Range(DATA, 4)) == b"mine"


def test_pages_fail_until_a_module_is_there(machine: Machine) -> None:
    poison = poison_of(machine)
    bad = Range(DATA + M, PAGE_SIZE)
    poison.add(bad)
    machine.nd.unplug("region0", on_unplug="poison")
    assert poison.hard == (REGION,)
    machine.nd.plug("region0")
    assert poison.hard == (bad,), "the same module has the same bad cells"
    machine.nd.unplug("region0", on_unplug="poison")
    machine.nd.plug("region0", replace=True)
    assert poison.hard == ()
    machine.nd.unplug("region0", on_unplug="poison")
    machine.reset()
    assert poison.hard == ()
    assert page(held(machine)) == bytes(PAGE_SIZE)


@pytest.mark.parametrize("after", ON_UNPLUG)
def test_ram_of_kmem(machine: Machine, after: str) -> None:
    boot = machine.iomem()
    machine.nd.set_mode("namespace1.0", "kmem")
    machine.blocks.online(blocks_of(machine, 0x148000000, 128 * M)[0], "online_movable")
    machine.nd.unplug("region1", on_unplug=after)
    assert machine.nd.region("region1").burned
    machine.reset()
    assert machine.iomem() == boot
    assert not poison_of(machine).hard
    machine.nd.set_mode("namespace1.0", "kmem")
    machine.nd.unplug("region1", on_unplug=after)
    machine.nd.plug("region1")
    assert machine.nd.namespace("namespace1.0").mode == "devdax"


def test_device_dax_reads_ones_too(machine: Machine) -> None:
    handle = held(machine, "/dev/dax1.0")
    life = machine.nd.dax_device("dax1.0").life
    machine.nd.unplug("region1", on_unplug="all-ones")
    assert page(handle) == b"\xff" * PAGE_SIZE
    assert (life.alive, life.drained, life.ones) == (False, True, True)
    assert machine.peek(Range(DEV, 2)) == b"\xff\xff"


def test_the_profile_says_which() -> None:
    machine = pmem_machine("nvdimm.regions.0.on_unplug=all-ones")
    handle, other = held(machine), held(machine, "/dev/dax1.0")
    machine.nd.unplug("region0")
    machine.nd.unplug("region1")
    assert page(handle) == b"\xff" * PAGE_SIZE
    assert refused_call(other.fault, 0, PAGE_SIZE) == "EIO"
    with pytest.raises(
        ProfileError, match="'sigbuss' is not one of 'sigbus', 'all-ones' or 'poison'"
    ):
        load_profile(PROFILE, overrides=["nvdimm.regions.0.on_unplug=sigbuss"])


def test_a_word_that_is_none_of_them(machine: Machine) -> None:
    assert code(lambda: machine.nd.unplug("region0", on_unplug="")) == errno.EINVAL
    assert code(lambda: machine.nd.unplug("region0", on_unplug="ones")) == errno.EINVAL
    assert machine.nd.region("region0").present
