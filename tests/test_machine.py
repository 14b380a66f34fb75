"""The verbs of a machine: what they answer, which effects they have, what the log says."""

import errno

import pytest
from machines import BAR, HIGH, small_machine

from fakedev.model.effects import Effect, Reopened, Revoke
from fakedev.model.errors import ControlError, RangeError, ResourceConflictError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

PAGE = 4096


def watched(machine: Machine) -> list[Effect]:
    effects: list[Effect] = []
    machine.subscribers.append(effects.append)
    return effects


def joined(machine: Machine, address: int, size: int) -> bytes:
    return b"".join(machine.read(address, size)[1])


def test_a_claim_revokes_its_pages_and_names_who_did_it() -> None:
    machine = small_machine()
    effects = watched(machine)
    machine.claim(Range(BAR + 0x10, 0x20), "fpga")
    assert effects == [Revoke(Range(BAR, PAGE), "claimed by fpga")]
    assert machine.read(BAR, 4)[0].errno == errno.EPERM
    assert machine.read(BAR + PAGE, 4)[0].allowed
    assert "fpga" in machine.read(BAR, 4)[0].rule
    assert f"{BAR + 0x10:08x}-{BAR + 0x2F:08x} : fpga" in machine.iomem()


def test_a_conflict_names_who_is_in_the_way() -> None:
    machine = small_machine()
    machine.claim(f"{BAR:#x}+64K", "fpga")
    with pytest.raises(ResourceConflictError, match="fpga") as caught:
        machine.claim(f"{BAR:#x}+4K", "other")
    assert caught.value.errno == errno.EBUSY
    assert caught.value.conflict.name == "fpga"


def test_release_reopens_and_needs_the_exact_range() -> None:
    machine = small_machine()
    machine.claim(Range(BAR, PAGE), "fpga")
    effects = watched(machine)
    with pytest.raises(ControlError, match=r"nonexistent.*fpga"):
        machine.release(Range(BAR, 2 * PAGE))
    machine.release(Range(BAR, PAGE))
    assert effects == [Reopened(Range(BAR, PAGE))]
    assert machine.read(BAR, 4)[0].allowed
    assert machine.claims == ()


@pytest.mark.parametrize(
    ("version", "rules"),
    [
        ("5.4", {}),
        ("6.1", {"io_strict_devmem": False}),
        ("6.1", {"cmdline": "iomem=relaxed"}),
    ],
)
def test_kernels_that_do_not_revoke(version: str, rules: dict[str, object]) -> None:
    machine = small_machine(version, **rules)
    before = machine.now
    effects = watched(machine)
    machine.claim(Range(BAR, PAGE), "fpga")
    assert effects == []
    assert machine.fault(BAR, PAGE, opened=before)[1], "a mapping made before the claim lives on"


def test_before_5_8_only_mappings_older_than_the_claim_survive() -> None:
    machine = small_machine("5.4")
    machine.claim(Range(BAR, PAGE), "fpga")
    assert not machine.fault(BAR, PAGE, opened=machine.now)[1]


def test_low_ram_reads_as_zeros_swallows_writes_and_maps_for_real() -> None:
    machine = small_machine()
    machine.poke(0x1000, b"real")
    assert joined(machine, 0x1000, 4) == bytes(4)
    assert machine.write(0x1000, memoryview(b"lost")) == (
        machine.explain("write", Range(0x1000, 4)),
        4,
    )
    assert machine.peek(Range(0x1000, 4)) == b"real"
    assert bytes(machine.fault(0x1000, PAGE, opened=0)[1][0][:4]) == b"real"


def test_a_write_that_meets_a_refused_page_has_written_those_before() -> None:
    machine = small_machine()
    machine.claim(Range(BAR + PAGE, PAGE), "fpga")
    verdict, taken = machine.write(BAR, memoryview(b"x" * 2 * PAGE))
    assert (verdict.errno, taken) == (errno.EPERM, 0)
    assert machine.peek(Range(BAR, PAGE)) == b"x" * PAGE
    assert machine.peek(Range(BAR + PAGE, 1)) == b"\0"


def test_a_read_over_a_zeroed_and_a_real_page_gives_both() -> None:
    machine = small_machine()
    machine.poke(0, b"\xaa" * 0x2000)
    assert joined(machine, 0xFF0, 0x20) == b"\xaa" * 0x10 + bytes(0x10)


def test_range_beats_policy() -> None:
    machine = small_machine()
    assert machine.read(1 << 39, 4)[0].errno == errno.EFAULT
    assert machine.read(0x200000, 4)[0].errno == errno.EPERM
    assert machine.explain("mmap", Range(1 << 39, PAGE)).allowed


def test_reset_puts_memory_and_claims_back() -> None:
    machine = small_machine()
    machine.poke(HIGH, b"changed")
    machine.claim(Range(BAR, PAGE), "fpga")
    effects = watched(machine)
    machine.reset()
    assert machine.peek(Range(HIGH, 7)) == bytes(7)
    assert machine.claims == ()
    assert effects == [Reopened(Range(BAR, PAGE))]
    machine.claim(Range(BAR, PAGE), "again")


def test_the_log_counts_and_watchers_hear_it() -> None:
    machine = small_machine()
    heard: list[str] = []
    machine.watchers.append(lambda event: heard.append(event.kind))
    machine.claim(Range(BAR, PAGE), "fpga")
    machine.release(Range(BAR, PAGE))
    assert heard == ["claim", "revoke", "release"]
    assert [event.number for event in machine.events] == [1, 2, 3]


def test_bad_verbs_are_one_clear_error() -> None:
    machine = small_machine()
    with pytest.raises(RangeError):
        machine.claim("nonsense", "x")
    with pytest.raises(ControlError, match="read, write or mmap"):
        machine.explain("jump", Range(0, 1))
