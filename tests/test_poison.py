"""Memory that fails: accesses, mappings, the kernel's two files, and what is told of it."""

import errno
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import BAR, HIGH, small_machine
from memory_machines import BLOCK
from memory_machines import machine_of as with_blocks
from pci_machines import function, machine_of

from fakedev.devices.memory.poison import EHWPOISON, Poison, poison_of
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.model.effects import Effect, Reopened, Revoke
from fakedev.model.errors import ControlError
from fakedev.model.files import StaticFile
from fakedev.model.flags import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM
from fakedev.model.machine import Machine
from fakedev.model.poisoned import Table, first_in, united, verdict_at, within, without
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.meminfo import meminfo
from fakedev.views.node import Opener

PAGE = 4096
RELAXED = {"strict_devmem": False}


@pytest.fixture
def machine() -> Machine:
    return small_machine()


def code(action: Callable[[], object]) -> int:
    with pytest.raises(ControlError) as caught:
        action()
    return caught.value.errno


def read(machine: Machine, address: int, size: int) -> tuple[int, bytes]:
    verdict, data = machine.read(address, size)
    return verdict.errno, b"".join(data)


def fault(machine: Machine, address: int, size: int = PAGE) -> int:
    verdict, data = machine.fault(address, size, opened=machine.now)
    return 0 if data else verdict.errno


# -- accesses -------------------------------------------------------------------------------------


def test_a_poisoned_page_cannot_be_read_written_or_touched(machine: Machine) -> None:
    machine.memory.write(BAR, memoryview(b"before"))
    assert poison_of(machine).add(Range(BAR + PAGE + 8, 4)) == 1
    assert read(machine, BAR, 6) == (0, b"before")
    assert read(machine, BAR + PAGE, 1) == (errno.EIO, b"")
    assert read(machine, BAR, PAGE + 1) == (errno.EIO, b"")
    assert read(machine, BAR + 2 * PAGE, 8)[0] == 0
    assert fault(machine, BAR + PAGE) == errno.EIO
    assert fault(machine, BAR) == fault(machine, BAR + 2 * PAGE) == 0
    verdict, data = machine.fault_bar(Range(BAR, 0x10000), BAR + PAGE, PAGE, opened=0)
    assert (verdict.errno, data) == (errno.EIO, [])
    assert "page 0xd8101000 is poisoned" in verdict.rule


def test_a_write_stores_what_comes_before_the_page(machine: Machine) -> None:
    poison_of(machine).add(f"{BAR + PAGE:#x}+4K")
    verdict, taken = machine.write(BAR + PAGE - 2, memoryview(b"abcd"))
    assert (verdict.errno, taken) == (errno.EIO, 2)
    assert machine.memory.read(BAR + PAGE - 2, 4) == b"ab\0\0"
    verdict, taken = machine.write(BAR + PAGE, memoryview(b"abcd"))
    assert (verdict.errno, taken) == (errno.EIO, 0)


def test_the_policy_comes_first(machine: Machine) -> None:
    poison_of(machine).add(Range(HIGH, PAGE))
    assert read(machine, HIGH, 4)[0] == errno.EPERM
    assert fault(machine, HIGH) == errno.EIO  # SIGBUS either way
    assert machine.write(HIGH, memoryview(b"abcd"))[0].errno == errno.EPERM
    assert machine.explain("read", Range(HIGH, 4)).errno == errno.EPERM
    # a write that meets RAM before the poison is refused at the RAM
    poison_of(machine).add(Range(BAR, PAGE))
    assert machine.explain("read", Range(BAR, 4)).errno == errno.EIO
    assert machine.explain("mmap", Range(BAR, PAGE)).allowed


def test_low_ram_that_reads_as_zeros_is_not_looked_at(machine: Machine) -> None:
    poison_of(machine).add(Range(0x2000, PAGE))
    assert read(machine, 0x2000, 8) == (0, bytes(8))
    assert machine.write(0x2000, memoryview(b"abcd"))[0].allowed
    assert fault(machine, 0x2000) == errno.EIO


def test_ram_of_a_kernel_without_strict_devmem() -> None:
    machine = small_machine(**RELAXED)
    poison_of(machine).add(Range(HIGH, PAGE))
    assert read(machine, HIGH, 4)[0] == errno.EIO
    poison_of(machine).remove(Range(HIGH, PAGE))
    assert read(machine, HIGH, 4) == (0, bytes(4))


# -- verbs ----------------------------------------------------------------------------------------


def test_mappings_die_and_stay_dead(machine: Machine) -> None:
    effects: list[Effect] = []
    machine.subscribers.append(effects.append)
    poison_of(machine).add(Range(BAR + 1, 1))
    assert [e.span for e in effects if isinstance(e, Revoke)] == [Range(BAR, PAGE)]
    effects.clear()
    poison_of(machine).remove(Range(BAR, PAGE))
    assert effects == [Reopened(Range(BAR, PAGE))]
    kinds = [event.kind for event in machine.events]
    assert kinds == ["poison", "revoke", "poison"]


def test_what_cannot_be_poisoned(machine: Machine) -> None:
    poison = poison_of(machine)
    assert code(lambda: poison.add(Range(1 << 40, PAGE))) == errno.EINVAL
    assert code(lambda: poison.remove(Range(BAR, PAGE))) == errno.ENOENT
    assert poison.add(Range(BAR, 2 * PAGE)) == 2
    assert code(lambda: poison.add(Range(BAR + PAGE, 1))) == EHWPOISON
    assert poison.add(Range(BAR + PAGE, 2 * PAGE)) == 1
    assert poison.hard == (Range(BAR, 3 * PAGE),)
    assert poison.remove(Range(BAR, 1 << 20)) == 3
    assert poison.hard == ()


def test_reset_makes_everything_good(machine: Machine) -> None:
    poison_of(machine).add(Range(BAR, PAGE))
    poison_of(machine).soft_offline(HIGH)
    machine.reset()
    assert not poison_of(machine).covers(Range(0, 1 << 40))
    assert read(machine, BAR, 4)[0] == 0


@pytest.mark.parametrize("strategy", ["poison", "sigbus", "all-ones"])
def test_what_an_unplugged_function_leaves_behind(strategy: str) -> None:
    bars = (0, "mem32", 0x10000, 0xE0000000), (1, "mem32", 0x100, 0xE0010000)
    card = function("00:05.0", "1111:2222", 0x020000, *bars, on_unplug=strategy)
    machine = machine_of([card], [PciDriver("card", [PciId(0x1111, 0x2222)], loaded=False)])
    poison = poison_of(machine)
    span = Range(0xE0000000, 0x10000)
    machine.pci.unplug("00:05.0")
    # the small BAR shares its page with whatever is beside it
    assert poison.hard == ((span,) if strategy == "poison" else ())
    gone = (errno.EIO, b"") if strategy == "poison" else (0, b"\xff" * 4)
    assert read(machine, span.start, 4) == gone
    machine.pci.plug("00:05.0")
    assert poison.hard == ()
    machine.pci.unplug("00:05.0")
    machine.reset()
    assert poison.hard == ()


# -- the kernel's files ---------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "number"), [("6.12", errno.ENXIO), ("7.2", errno.EBUSY)])
def test_hard_offline(version: str, number: int) -> None:
    machine = small_machine(version)
    poison = poison_of(machine)
    poison.hard_offline(HIGH + 0x1234)
    assert poison.hard == (Range(HIGH + 0x1000, PAGE),)
    assert code(lambda: poison.hard_offline(HIGH + 0x1000)) == EHWPOISON
    assert code(lambda: poison.hard_offline(BAR)) == number
    assert code(lambda: poison.hard_offline(0xF0000000)) == number


def test_soft_offline(machine: Machine) -> None:
    poison = poison_of(machine)
    poison.soft_offline(HIGH + 5)
    poison.soft_offline(HIGH)
    poison.hard_offline(HIGH + PAGE)
    poison.soft_offline(HIGH + PAGE)
    assert code(lambda: poison.soft_offline(BAR)) == errno.ENXIO
    assert poison.corrupted == 2 * PAGE
    assert fault(machine, HIGH) == errno.EPERM  # its policy; the page itself is good
    assert code(lambda: poison.hard_offline(HIGH + PAGE)) == EHWPOISON
    assert code(lambda: poison.hard_offline(HIGH)) == EHWPOISON
    # the hardware does not ask: then it is one failed page, not two
    assert poison.add(Range(HIGH, PAGE)) == 1
    assert (poison.soft, poison.corrupted) == ((), 2 * PAGE)
    assert poison.remove(Range(HIGH, 2 * PAGE)) == 2


def test_pages_of_the_kernel_cannot_be_taken(machine: Machine) -> None:
    flags = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
    code_of_kernel = Resource(0x1000000, 0x1FFFFFF, "Kernel code", flags)
    machine.tree.insert_resource(code_of_kernel)
    poison = poison_of(machine)
    assert code(lambda: poison.hard_offline(0x1000000)) == errno.EBUSY
    assert code(lambda: poison.soft_offline(0x1000000)) == errno.EBUSY
    assert not poison.covers(Range(0, 1 << 40))


# -- memory blocks --------------------------------------------------------------------------------


def test_a_block_with_failed_pages_does_not_go_online() -> None:
    machine = with_blocks()
    poison, at = poison_of(machine), 34 * BLOCK + 0x5000
    machine.blocks.offline(34)
    assert code(lambda: poison.hard_offline(at)) == errno.ENXIO  # no page of an offline block
    assert code(lambda: poison.soft_offline(at)) == errno.EIO
    poison.add(Range(at, 1))
    assert machine.blocks.blocks[34].poisoned
    assert code(lambda: machine.blocks.online(34)) == EHWPOISON
    poison.remove(Range(at, 1))
    machine.blocks.online(34)
    poison.hard_offline(at)
    machine.blocks.offline(34)
    assert code(lambda: machine.blocks.online(34)) == EHWPOISON
    machine.reset()
    assert machine.blocks.blocks[34].state == "online"


def test_poison_goes_with_its_module() -> None:
    machine = with_blocks()
    poison = poison_of(machine)
    machine.blocks.dimms.plug("dimm0")
    first = machine.blocks.dimms.plans["dimm0"].at
    poison.add(Range(first, PAGE))
    poison.add(Range(BAR, PAGE))
    assert poison.corrupted == PAGE
    machine.blocks.dimms.unplug("dimm0")
    assert poison.hard == (Range(BAR, PAGE),)
    machine.blocks.dimms.plug("dimm0")
    machine.blocks.online(first // BLOCK)


# -- what is told ---------------------------------------------------------------------------------


def test_hardware_corrupted_counts_ram_only(machine: Machine) -> None:
    poison = poison_of(machine)
    poison.add(Range(BAR, PAGE))
    assert poison.corrupted == 0
    poison.add(Range(HIGH - PAGE, 3 * PAGE))
    assert poison.corrupted == 2 * PAGE
    assert poison.state() == {
        "pages": [
            {"range": "d8100000-d8100fff", "kind": "hard", "kpageflags": "0x80000"},
            {"range": "fffff000-100001fff", "kind": "hard", "kpageflags": "0x80000"},
        ],
        "hardware_corrupted_kb": 8,
    }


@pytest.mark.parametrize("tail", [b"", b"HardwareCorrupted:     0 kB\nHugePages_Total:       0\n"])
def test_meminfo(machine: Machine, tail: bytes) -> None:
    node = meminfo(machine, StaticFile(0o100444, b"MemTotal:         524288 kB\n" + tail))

    def lines() -> list[bytes]:
        opened = node.open(Opener(1, 0, 0))
        return b"".join(opened.read(0, 4096)).splitlines()

    assert lines() == [b"MemTotal:         524288 kB", *tail.splitlines()]
    poison_of(machine).add(Range(HIGH, 3 * PAGE))
    assert b"HardwareCorrupted:    12 kB" in lines()
    assert len(lines()) == 1 + max(len(tail.splitlines()), 1)


def test_a_profile_has_it() -> None:
    machine = build_machine(load_profile("fd-9000"))
    assert isinstance(machine.poison, Poison)


# -- the table ------------------------------------------------------------------------------------

spans = st.builds(Range, st.integers(0, 40), st.integers(1, 12))


@given(st.lists(st.tuples(st.booleans(), spans), max_size=12), spans)
def test_the_table_is_a_set_of_pages(changes: list[tuple[bool, Range]], asked: Range) -> None:
    table: Table = ()
    pages: set[int] = set()
    for add, span in changes:
        table = united(table, span) if add else without(table, span)
        touched = set(range(span.start, span.end))
        pages = pages | touched if add else pages - touched
    assert {page for span in table for page in range(span.start, span.end)} == pages
    assert all(a.end < b.start for a, b in pairwise(table))
    inside = sorted(pages & set(range(asked.start, asked.end)))
    assert first_in(table, *asked) == (inside[0] if inside else None)
    assert [p for s in within(table, asked) for p in range(s.start, s.end)] == inside
    if inside:
        assert verdict_at(table, inside[0]).start in pages
