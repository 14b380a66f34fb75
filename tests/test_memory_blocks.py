"""Memory blocks: what goes online and offline, what is added and removed, and what that changes."""

import errno
import time
from collections.abc import Callable

import pytest
from memory_machines import BLOCK, DIMMS, GIB, MEMORY, MIB, NODE_SETTINGS, heard, machine_of, shown

from fakedev.devices.memory.plan import DimmPlan
from fakedev.model.effects import Mapper, NodesChanged, Reopened, Revoke
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

HOT = Range(0x2_0000_0000, 2 * BLOCK)


def code_of(action: Callable[[], object]) -> int:
    with pytest.raises((ControlError, ResourceConflictError)) as caught:
        action()
    return int(caught.value.errno)


def state_of(machine: Machine) -> tuple[object, ...]:
    """Everything that a refused verb must leave as it is."""
    return (
        machine.iomem(),
        shown(machine),
        machine.high_memory,
        [segment.range for segment in machine.memory.segments],
    )


# -- boot ----------------------------------------------------------------------------------------


def test_blocks_of_boot_are_online_in_the_zone_of_their_address() -> None:
    found = shown(machine_of())
    assert list(found) == [*range(8), *range(32, 40)]
    assert found[0] == "none"  # DMA and DMA32
    assert {found[n] for n in range(1, 8)} == {"DMA32"}
    assert {found[n] for n in range(32, 40)} == {"Normal"}


@pytest.mark.parametrize(
    ("arch", "zones"), [("aarch64", {"DMA", "Normal"}), ("riscv64", {"DMA32", "Normal"})]
)
def test_zones_of_other_architectures(arch: str, zones: set[str]) -> None:
    assert set(shown(machine_of(rules={"arch": arch})).values()) == zones


def test_nodes_by_address() -> None:
    blocks = machine_of(nodes=NODE_SETTINGS).blocks.blocks
    assert {block.nid for number, block in blocks.items() if number < 8} == {0}
    assert {block.nid for number, block in blocks.items() if number >= 32} == {1}


def test_ram_ranges_are_whole_pages() -> None:
    machine = machine_of()
    assert machine.blocks.ram_ranges()[0] == Range(0x1000, 0x9E000)
    machine.blocks.add_memory(HOT)
    assert machine.blocks.ram_ranges()[-1] == HOT


# -- online and offline --------------------------------------------------------------------------


def test_offline_and_online_again() -> None:
    machine = machine_of()
    machine.blocks.offline(34)
    assert machine.blocks.blocks[34].state == "offline"
    machine.blocks.online(34)
    assert shown(machine)[34] == "Normal"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0, errno.EINVAL),  # two zones
        (2, errno.EBUSY),  # the kernel is in it
        (99, errno.ENODEV),
    ],
)
def test_what_cannot_go_offline(number: int, code: int) -> None:
    machine = machine_of()
    before = state_of(machine)
    assert code_of(lambda: machine.blocks.offline(number)) == code
    assert state_of(machine) == before


def test_a_block_with_holes_cannot_go_offline() -> None:
    machine = machine_of(iomem="00100000-3ffdffff : System RAM\n")
    assert code_of(lambda: machine.blocks.offline(7)) == errno.EINVAL


def test_the_state_that_it_has_is_an_error() -> None:
    machine = machine_of()
    assert code_of(lambda: machine.blocks.online(34)) == errno.EINVAL
    machine.blocks.offline(34)
    assert code_of(lambda: machine.blocks.offline(34)) == errno.EINVAL
    assert code_of(lambda: machine.blocks.online(34, "sideways")) == errno.EINVAL


def test_a_block_with_poison_does_not_go_online() -> None:
    machine = machine_of()
    machine.blocks.offline(34)
    machine.blocks.blocks[34].poisoned = True
    assert code_of(lambda: machine.blocks.online(34)) == 133
    assert shown(machine)[34] == "offline"


def test_kinds_of_online() -> None:
    machine = machine_of()
    machine.blocks.add_memory(HOT)
    machine.blocks.online(64, "online_movable")
    machine.blocks.online(65, "online_kernel")
    assert (shown(machine)[64], shown(machine)[65]) == ("Movable", "Normal")


def test_the_zone_around_a_block_is_its_default() -> None:
    """`default_zone_for_pfn`: between blocks of Movable a block is Movable, unless zones overlap."""
    machine = machine_of()
    blocks = machine.blocks
    blocks.add_memory(Range(0x2_0000_0000, 4 * BLOCK))
    assert blocks.zones.candidates(0, 65) == ["Normal", "Movable"]
    blocks.online(64, "online_movable")
    blocks.online(66, "online_movable")
    assert blocks.zones.candidates(0, 65) == ["Movable", "Normal"]
    assert blocks.zones.candidates(0, 67) == ["Normal", "Movable"]
    blocks.online(67, "online_kernel")
    assert blocks.zones.candidates(0, 65) == ["Normal", "Movable"]


def test_movable_node_on_the_command_line() -> None:
    machine = machine_of(movable_node=True)
    machine.blocks.add_memory(HOT)
    machine.blocks.online(64)
    assert shown(machine)[64] == "Movable"


# -- the memory notifier -------------------------------------------------------------------------


def test_listeners_hear_in_order() -> None:
    machine, said = machine_of(), []
    machine.blocks.listeners.append(lambda word, span: said.append((word, span.start // BLOCK)))
    machine.blocks.offline(34)
    machine.blocks.online(34)
    words = ("going-offline", "offline", "going-online", "online")
    assert said == [(word, 34) for word in words]


def test_a_listener_says_no() -> None:
    machine, said = machine_of(), []

    def refuse(word: str, _: Range) -> None:
        said.append(word)
        if word.startswith("going"):
            assert machine.blocks.blocks[34].state in {"going-offline", "offline"}
            raise ControlError("no", errno=errno.EBUSY)

    machine.blocks.listeners.append(refuse)
    assert code_of(lambda: machine.blocks.offline(34)) == errno.EBUSY
    assert machine.blocks.blocks[34].state == "online"
    assert said == ["going-offline", "cancel-offline"]


# -- adding and removing -------------------------------------------------------------------------


def test_added_memory_is_ram_at_once() -> None:
    machine = machine_of()
    found = heard(machine)
    assert machine.policy.read(HOT.start, 16).errno == errno.EFAULT
    new = machine.blocks.add_memory(HOT)
    assert [(block.number, block.state) for block in new] == [(64, "offline"), (65, "offline")]
    assert "200000000-20fffffff : System RAM\n" in machine.iomem()
    assert machine.high_memory == HOT.end
    assert machine.policy.read(HOT.start, 16).errno == errno.EPERM
    assert machine.policy.mmap(HOT.start, 4096).errno == errno.EPERM
    assert NodesChanged(MEMORY, ("memory64", "memory65")) in found
    assert [effect.span for effect in found if isinstance(effect, Revoke)] == [HOT]


def test_removed_memory_is_nobodys_and_high_memory_stays() -> None:
    machine = machine_of()
    boot = machine.iomem()
    machine.blocks.add_memory(HOT)
    found = heard(machine)
    machine.blocks.remove_memory(HOT)
    assert machine.iomem() == boot
    assert machine.high_memory == HOT.end
    assert machine.policy.read(HOT.start, 16).allowed
    assert Reopened(HOT) in found
    assert 64 not in machine.blocks.blocks


def test_mergeable_memory_becomes_one_line_and_is_cut_again() -> None:
    machine = machine_of()
    add = machine.blocks.add_memory
    for start in (0, 2, 1):
        add(Range(HOT.start + start * BLOCK, BLOCK), name="System RAM (x)", driver_managed=True,
            mergeable=True)  # fmt: skip
    assert machine.iomem().splitlines()[-1] == "200000000-217ffffff : System RAM (x)"
    machine.blocks.remove_memory(Range(HOT.start + BLOCK, BLOCK))
    assert machine.iomem().splitlines()[-2:] == [
        "200000000-207ffffff : System RAM (x)",
        "210000000-217ffffff : System RAM (x)",
    ]
    assert machine.policy.read(HOT.start + BLOCK, 16).allowed
    assert not machine.policy.read(HOT.start + 2 * BLOCK, 16).allowed


@pytest.mark.parametrize(
    ("span", "options", "code"),
    [
        (Range(HOT.start + 4096, BLOCK), {}, errno.EINVAL),
        (Range(HOT.start, BLOCK - 4096), {}, errno.EINVAL),
        (Range(HOT.start, 0), {}, errno.EINVAL),
        (Range(0x1_0000_0000, BLOCK), {}, errno.EEXIST),
        (Range(1 << 46, BLOCK), {}, errno.ERANGE),
        (HOT, {"driver_managed": True, "name": "RAM"}, errno.EINVAL),
    ],
)
def test_what_cannot_be_added(span: Range, options: dict[str, object], code: int) -> None:
    machine = machine_of()
    before = state_of(machine)
    assert code_of(lambda: machine.blocks.add_memory(span, **options)) == code
    assert state_of(machine) == before


def test_a_claim_is_in_the_way() -> None:
    machine = machine_of()
    machine.claim(Range(HOT.start + 4096, 16), "somebody")
    before = state_of(machine)
    assert code_of(lambda: machine.blocks.add_memory(HOT)) == errno.EEXIST
    assert state_of(machine) == before


def test_deny_claim_names_who_maps_it() -> None:
    machine = machine_of(rules={"claim_policy": "deny-claim"})
    machine.holders = lambda span: [Mapper(7, "gdb", span)]
    before = state_of(machine)
    with pytest.raises(ResourceConflictError, match=r"gdb\[7\]") as caught:
        machine.blocks.add_memory(HOT)
    assert caught.value.errno == errno.EBUSY
    assert state_of(machine) == before


def test_what_cannot_be_removed() -> None:
    machine = machine_of()
    machine.blocks.add_memory(HOT)
    machine.blocks.online(65)
    before = state_of(machine)
    assert code_of(lambda: machine.blocks.remove_memory(HOT)) == errno.EBUSY
    other = Range(HOT.start, 4 * BLOCK)
    assert code_of(lambda: machine.blocks.remove_memory(other)) == errno.ENXIO
    assert code_of(lambda: machine.blocks.remove_memory(Range(HOT.start, 4096))) == errno.EINVAL
    assert state_of(machine) == before


@pytest.mark.parametrize("kind", ["online", "online_kernel", "online_movable"])
def test_auto_online(kind: str) -> None:
    machine = machine_of(auto_online=kind)
    machine.blocks.add_memory(HOT)
    assert shown(machine)[64] == ("Movable" if kind == "online_movable" else "Normal")


def test_arm64_reads_hot_added_memory_by_memblock() -> None:
    machine = machine_of(rules={"arch": "aarch64", "strict_devmem": False})
    assert machine.policy.read(HOT.start, 16).errno == errno.EFAULT
    machine.blocks.add_memory(HOT)
    assert machine.policy.read(HOT.start, 16).allowed
    machine.blocks.remove_memory(HOT)
    assert machine.policy.read(HOT.start, 16).errno == errno.EFAULT


# -- DIMMs ---------------------------------------------------------------------------------------


def test_plug_and_unplug() -> None:
    machine = machine_of()
    boot = machine.iomem()
    machine.blocks.dimms.plug("dimm0")
    assert machine.memory.read(HOT.start, 4) == bytes(4)
    assert machine.blocks.blocks[64].nid == 1
    assert 1 in machine.blocks.nodes
    machine.memory.write(HOT.start, b"data")
    machine.blocks.online_all([64, 65])
    machine.blocks.dimms.unplug("dimm0")
    assert machine.iomem() == boot
    assert machine.memory.read(HOT.start, 4) == b"\xff" * 4
    machine.blocks.dimms.plug("dimm0")
    assert machine.memory.read(HOT.start, 4) == bytes(4)


@pytest.mark.parametrize(
    ("verb", "slot", "code"),
    [
        ("plug", "dimm9", errno.ENODEV),
        ("unplug", "dimm9", errno.ENODEV),
        ("plug", "dimm0", errno.EEXIST),
        ("unplug", "dimm1", errno.ENODEV),
    ],
)
def test_slots_that_are_not_so(verb: str, slot: str, code: int) -> None:
    machine = machine_of()
    machine.blocks.dimms.plug("dimm0")
    before = state_of(machine)
    assert code_of(lambda: getattr(machine.blocks.dimms, verb)(slot)) == code
    assert state_of(machine) == before


def test_a_plug_that_fails_leaves_nothing() -> None:
    machine = machine_of()
    machine.claim(Range(HOT.start, 16), "somebody")
    before = state_of(machine)
    assert code_of(lambda: machine.blocks.dimms.plug("dimm0")) == errno.EEXIST
    assert state_of(machine) == before
    assert machine.blocks.dimms.present == set()


def test_an_unplug_that_fails_leaves_blocks_as_they_were() -> None:
    machine = machine_of()
    machine.blocks.dimms.plug("dimm0")
    machine.blocks.online(64, "online_movable")
    machine.blocks.online(65)
    machine.blocks.blocks[65].unmovable = True
    before = state_of(machine)
    assert code_of(lambda: machine.blocks.dimms.unplug("dimm0")) == errno.EBUSY
    assert state_of(machine) == before


def test_a_dimm_that_is_plugged_at_boot() -> None:
    plugged = (DIMMS[0]._replace(plugged=True),)
    machine = machine_of(dimms=plugged)
    assert shown(machine)[64] == "offline"
    assert shown(machine_of(dimms=plugged, auto_online="online"))[64] == "Normal"


# -- reset ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugged", [False, True])
def test_reset(plugged: bool) -> None:
    machine = machine_of(dimms=(DIMMS[0]._replace(plugged=plugged), DIMMS[1]))
    before, objects = state_of(machine), dict(machine.blocks.blocks)
    machine.blocks.offline(34)
    machine.blocks.dimms.plug("dimm1")
    if plugged:
        machine.blocks.dimms.unplug("dimm0")
    machine.blocks.add_memory(Range(0x3_0000_0000, BLOCK), name="System RAM (x)", nid=5)
    machine.blocks.set_auto_online("online")
    machine.reset()
    assert state_of(machine) == before
    assert machine.blocks.auto_online == "offline"
    assert 5 not in machine.blocks.nodes
    kept = [n for n, block in machine.blocks.blocks.items() if objects[n] is block]
    assert set(kept) >= {*range(8), *range(32, 40)}


# -- speed ---------------------------------------------------------------------------------------


def test_onlining_costs_what_changes() -> None:
    def seconds(count: int) -> float:
        iomem = f"100000000-{0x1_0000_0000 + count * BLOCK - 1:x} : System RAM\n"
        machine = machine_of(iomem=iomem, dimms=(DimmPlan("far", 0x200_0000_0000, GIB),))
        blocks = machine.blocks
        assert len(blocks.blocks) == count
        started = time.process_time()
        for number in range(100, 400):
            blocks.offline(number)
            blocks.online(number)
        assert machine.policy.read(4 * GIB + MIB, 16).errno == errno.EPERM
        return time.process_time() - started

    assert min(seconds(8192) for _ in range(3)) < 4 * max(seconds(512) for _ in range(3))
