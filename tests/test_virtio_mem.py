"""The device of virtio-mem alone: configuration space, requests, answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_mem_machines import ADDR, plan

from fakedev.devices.memory.virtio_mem import Answer, State, VirtioMemDevice
from fakedev.devices.memory.virtio_mem_plan import GIB, MIB
from fakedev.model.errors import ControlError
from fakedev.model.ranges import Range


def device(**changes: object) -> VirtioMemDevice:
    return VirtioMemDevice(plan(**{"requested_size": 512 * MIB, **changes}))


def at(offset: int, size: int) -> Range:
    """MiB into the region."""
    return Range(ADDR + offset * MIB, size * MIB)


def test_plug_and_unplug() -> None:
    one, gone = device(), []
    one.discard = gone.append
    assert one.plug(at(0, 64)) is Answer.ACK
    assert one.plugged_size == 64 * MIB
    assert one.state(at(0, 64)) is State.PLUGGED
    assert one.state(at(64, 2)) is State.UNPLUGGED
    assert one.state(at(62, 4)) is State.MIXED
    assert one.unplug(at(32, 2)) is Answer.ACK
    assert one.plugged_ranges() == [at(0, 32), at(34, 30)]
    assert gone == [at(32, 2)]


def test_no_more_than_requested() -> None:
    one = device(requested_size=4 * MIB)
    assert one.plug(at(0, 6)) is Answer.NACK
    assert one.plug(at(0, 4)) is Answer.ACK
    assert one.plug(at(4, 2)) is Answer.NACK


@pytest.mark.parametrize(
    "span", [at(1, 2), at(0, 3), at(0, 0), at(-2, 2), at(1022, 4), at(4096, 2)]
)
def test_ranges_that_no_request_may_name(span: Range) -> None:
    one = device()
    assert {one.plug(span), one.unplug(span)} == {Answer.ERROR}
    assert one.state(span) is None


def test_plugged_twice_and_unplugged_twice() -> None:
    one = device()
    one.plug(at(0, 4))
    assert one.plug(at(2, 4)) is Answer.ERROR
    assert one.unplug(at(2, 4)) is Answer.ERROR
    assert one.plugged_ranges() == [at(0, 4)]


def test_the_usable_region_grows_with_the_request_and_shrinks_at_unplug_all() -> None:
    one = device(requested_size=0)
    assert one.usable_region_size == 256 * MIB
    one.request(512 * MIB)
    assert one.usable_region_size == 768 * MIB
    one.request(GIB)
    assert one.usable_region_size == GIB
    one.request(0)
    assert one.usable_region_size == GIB
    assert one.unplug_all() is Answer.ACK
    assert one.usable_region_size == 256 * MIB
    assert device(usable=GIB).usable_region_size == GIB


def test_nothing_is_plugged_outside_the_usable_region() -> None:
    assert device(requested_size=2 * MIB).plug(at(258, 2)) is Answer.ERROR


def test_unplug_all() -> None:
    one, gone = device(), []
    one.discard = gone.append
    one.unplug_all()
    assert gone == []
    one.plug(at(0, 8))
    one.plug(at(16, 8))
    one.unplug_all()
    assert (one.plugged_size, one.plugged_ranges(), gone) == (0, [], [one.span])


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (
            3 * MIB,
            "requested-size 0x300000 is not a multiple of the block size 0x200000; 0x200000 would be",
        ),
        (2 * GIB, "requested-size 0x80000000 exceeds the region, which has 0x40000000 bytes"),
    ],
)
def test_a_size_that_the_device_cannot_have_changes_nothing(size: int, why: str) -> None:
    one = device()
    with pytest.raises(ControlError, match=why):
        one.request(size)
    assert (one.requested_size, one.usable_region_size) == (512 * MIB, 768 * MIB)


def test_reset_keeps_what_is_plugged() -> None:
    one = device()
    one.plug(at(0, 8))
    one.queue_enabled = True
    one.reset()
    assert (one.plugged_size, one.queue_enabled) == (8 * MIB, False)
    one.power_on()
    assert one.plugged_size == 0


requests = st.lists(st.tuples(st.booleans(), st.integers(0, 63), st.integers(1, 32)), max_size=40)


@given(requests)
def test_what_is_plugged_is_what_was_acknowledged(asked: list[tuple[bool, int, int]]) -> None:
    """Against a set of block numbers; the limit is the requested size."""
    one, known, most = device(requested_size=64 * MIB, usable=128 * MIB), set[int](), 32
    for plug, first, count in asked:
        blocks = set(range(first, first + count))
        answer = (one.plug if plug else one.unplug)(at(2 * first, 2 * count))
        if first + count > 160 or (blocks & known if plug else not blocks <= known):
            expected = Answer.ERROR
        elif plug and len(known) + count > most:
            expected = Answer.NACK
        else:
            expected = Answer.ACK
            known = known | blocks if plug else known - blocks
        assert answer is expected
    assert one.plugged_size == 2 * MIB * len(known)
    assert {
        n for s in one.plugged_ranges() for n in range((s.start - ADDR) >> 21, (s.end - ADDR) >> 21)
    } == known
