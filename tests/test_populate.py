"""Refused pages of a thread that would ask for ever."""

import struct
from collections.abc import Callable

import pytest

from fakedev.fuse import populate, wire
from fakedev.fuse.populate import Populating

PAGE = 4096
NODE = 7
TID = 4711


class Mount:
    """Collects jobs of the notifier, and what it tells the kernel."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.told: list[bytes] = []
        self.populating = Populating(self.jobs.append, self.told.append)

    def run(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def mount() -> Mount:
    return Mount()


@pytest.fixture(autouse=True)
def _in_mlock(monkeypatch: pytest.MonkeyPatch) -> None:
    number = min(populate.POPULATING)
    monkeypatch.setattr(populate, "system_call", lambda _: [number, "0x0"])


def kept(mount: Mount, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(at, bytes(part)) for at, part in mount.populating.kept(NODE, offset, memoryview(data))]


def test_it_gets_zeros_which_are_recalled(mount: Mount) -> None:
    given = mount.populating.pass_over(TID, NODE, 3 * PAGE, PAGE)
    assert given is not None
    assert b"".join(given) == bytes(PAGE)
    assert mount.told == []
    mount.run()
    assert mount.told == [wire.inval_inode(NODE, 3 * PAGE, PAGE)]


@pytest.mark.parametrize("words", [["-1", "0x0"], ["0", "0x3"], [], ["running"]])
def test_a_touch_is_refused(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Nor does anybody who cannot be looked at get zeros."""
    monkeypatch.setattr(populate, "system_call", lambda _: words)
    assert mount.populating.pass_over(TID, NODE, 0, PAGE) is None
    assert mount.jobs == []


def test_read_ahead_is_refused_so_that_pages_are_asked_for_one_by_one(mount: Mount) -> None:
    assert mount.populating.pass_over(TID, NODE, 0, 2 * PAGE) is None


def test_what_is_stored_into_the_zeros_falls_nowhere(mount: Mount) -> None:
    data = b"".join(struct.pack("=Q", n) * (PAGE // 8) for n in range(3))
    assert kept(mount, 0, data) == [(0, data)]
    mount.populating.pass_over(TID, NODE, PAGE, PAGE)
    mount.populating.pass_over(TID, NODE, PAGE, PAGE)
    beside = [(0, data[:PAGE]), (2 * PAGE, data[2 * PAGE :])]
    assert kept(mount, 0, data) == beside
    mount.jobs.pop(0)()
    assert kept(mount, 0, data) == beside  # the other thread has not passed yet
    mount.run()
    assert kept(mount, 0, data) == [(0, data)]


def test_a_mount_that_is_gone_keeps_no_page(mount: Mount) -> None:
    def fail(_: bytes) -> None:
        raise OSError(19, "gone")

    populating = Populating(mount.jobs.append, fail)
    populating.pass_over(TID, NODE, 0, PAGE)
    with pytest.raises(OSError, match="gone"):
        mount.run()
    assert list(populating.kept(NODE, 0, memoryview(bytes(PAGE)))) == [(0, bytes(PAGE))]
