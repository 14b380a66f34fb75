"""Several memory blocks at once: all of them change, or nothing does, whatever stands in the way."""

import errno
from collections.abc import Callable

import pytest
from memory_machines import BLOCK, GIB, machine_of

from fakedev.devices.memory.poison import EHWPOISON, poison_of
from fakedev.model.errors import ControlError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile


def state(machine: Machine) -> dict[int, tuple[str, tuple[str, ...], bool]]:
    return {n: (b.state, b.zones, b.unmovable) for n, b in machine.blocks.blocks.items()}


def refused(machine: Machine, action: Callable[[], object]) -> ControlError:
    """The refusal of an action, after which everything is as before and the log says nothing."""
    before, events = (state(machine), machine.iomem()), len(machine.events)
    with pytest.raises(ControlError) as caught:
        action()
    assert (state(machine), machine.iomem()) == before
    assert len(machine.events) == events
    return caught.value


def test_a_block_whose_pages_failed_could_not_come_back() -> None:
    machine = machine_of(unmovable=[Range(34 * BLOCK, BLOCK)])
    poison_of(machine).add(Range(33 * BLOCK, 4096))
    error = refused(machine, lambda: machine.blocks.offline_all([33, 34]))
    assert (error.errno, "memory34 has pages that cannot be moved" in str(error)) == (
        errno.EBUSY,
        True,
    )
    machine.blocks.offline_all([33, 35])


def test_blocks_that_hold_kernel_pages_once_online_could_not_go_back() -> None:
    machine = build_machine(
        load_profile("virtio-mem-guest", overrides=["memory_blocks.auto_online=offline"])
    )
    poison_of(machine).add(Range(34 * BLOCK, 4096))
    error = refused(machine, lambda: machine.blocks.online_all([32, 33, 34]))
    assert (error.errno, "memory34" in str(error)) == (EHWPOISON, True)


def test_a_block_would_come_back_to_another_zone() -> None:
    iomem = f"40000000-{4 * GIB + 8 * BLOCK - 1:x} : System RAM\n"
    machine = machine_of(iomem=iomem, unmovable=[Range(32 * BLOCK, BLOCK)], dimms=())
    assert state(machine)[31][1] == ("DMA32",)
    assert refused(machine, lambda: machine.blocks.offline_all([31, 32])).errno == errno.EBUSY


@pytest.mark.parametrize("numbers", [[32, 99], [32, 33, 32]])
def test_what_is_not_there_and_what_is_named_twice(numbers: list[int]) -> None:
    machine = machine_of()
    refused(machine, lambda: machine.blocks.offline_all(numbers))
    machine.blocks.offline_all([32, 33])
    refused(machine, lambda: machine.blocks.online_all(numbers))


def test_a_dimm_with_one_block_that_stays() -> None:
    machine = machine_of()
    machine.blocks.dimms.plug("dimm0")
    machine.blocks.online_all([64, 65], "online_kernel")
    machine.blocks.mark_unmovable(Range(65 * BLOCK, BLOCK))
    poison_of(machine).add(Range(64 * BLOCK, 4096))
    assert refused(machine, lambda: machine.blocks.dimms.unplug("dimm0")).errno == errno.EBUSY
    assert machine.blocks.dimms.present == {"dimm0"}


@pytest.mark.parametrize("what", ["online", "offline"])
def test_who_was_asked_hears_that_it_is_called_off(what: str) -> None:
    machine, said = machine_of(), []
    if what == "online":
        machine.blocks.offline_all([32, 33, 34])

    def listener(word: str, span: Range) -> None:
        said.append((word, span.start // BLOCK))
        if (word, span.start) == (f"going-{what}", 34 * BLOCK):
            raise ControlError("no", errno=errno.EAGAIN)

    machine.blocks.listeners.append(listener)
    blocks = machine.blocks
    verb = blocks.online_all if what == "online" else blocks.offline_all
    assert refused(machine, lambda: verb([32, 33, 34])).errno == errno.EAGAIN
    asked = [(f"going-{what}", n) for n in (32, 33, 34)]
    assert said == [*asked, *((f"cancel-{what}", n) for n in (34, 33, 32))]


def test_a_driver_that_takes_a_block_away_meanwhile() -> None:
    """What it hears of is done, so it may act; the rest goes on without what it took."""
    machine = machine_of()
    machine.blocks.add_memory(Range(64 * BLOCK, 3 * BLOCK))

    def listener(word: str, span: Range) -> None:
        if (word, span.start) == ("online", 64 * BLOCK):
            machine.blocks.remove_memory(Range(65 * BLOCK, BLOCK))

    machine.blocks.listeners.append(listener)
    machine.blocks.online_all([64, 65, 66])
    found = state(machine)
    assert (found[64][0], 65 in found, found[66][0]) == ("online", False, "online")


def test_poison_looks_at_its_own_blocks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of()
    poison, looked = poison_of(machine), []
    covers = poison.covers

    def counted(span: Range) -> bool:
        looked.append(span)
        return covers(span)

    monkeypatch.setattr(poison, "covers", counted)
    poison.add(Range(33 * BLOCK + 4096, 4096))
    poison.soft_offline(35 * BLOCK)
    poison.remove(Range(33 * BLOCK, BLOCK))
    blocks = machine.blocks.blocks
    assert {span.start // BLOCK for span in looked} == {33, 35}
    assert [n for n, block in blocks.items() if block.poisoned] == [35]
    poison.reset()
    assert not any(block.poisoned for block in blocks.values())


def test_blocks_that_are_added_where_pages_failed() -> None:
    machine = machine_of()
    poison_of(machine).add(Range(65 * BLOCK, 4096))
    new = machine.blocks.add_memory(Range(64 * BLOCK, 2 * BLOCK))
    assert [block.poisoned for block in new] == [False, True]
