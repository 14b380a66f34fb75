"""What a process has mapped, by ioctl and by text."""

import fcntl
import itertools
import mmap
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakedev.sandbox.exact import areas
from fakedev.sandbox.exact.areas import Area

SIZE = 4 * mmap.PAGESIZE


@pytest.fixture(params=["ioctl", "text"])
def _way(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ioctl where the kernel has it, and as before Linux 6.11."""

    def refuse(*_: Any) -> None:
        raise OSError(25, "not there")

    if request.param == "text":
        monkeypatch.setattr(fcntl, "ioctl", refuse)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Where a file is mapped from its second page on, shared and writable; and what stat says of it."""
    path = tmp_path / "a file"
    path.write_bytes(bytes(SIZE + mmap.PAGESIZE))
    with path.open("r+b") as file:
        held = mmap.mmap(file.fileno(), SIZE, offset=mmap.PAGESIZE)
        status = os.fstat(file.fileno())
    lines = Path("/proc/self/maps").read_text().splitlines()
    yield next(int(line.split("-")[0], 16) for line in lines if line.endswith("a file")), status
    held.close()


@pytest.mark.usefixtures("_way")
def test_a_mapping_is_found_from_everywhere_in_it(place: tuple[int, os.stat_result]) -> None:
    start, status = place
    area = Area(
        start,
        start + SIZE,
        writable=True,
        shared=True,
        offset=mmap.PAGESIZE,
        device=status.st_dev,
        ino=status.st_ino,
    )
    tid = threading.get_native_id()
    for first, last in [(0, 1), (0, SIZE), (SIZE - 1, SIZE), (5, 6)]:
        assert list(areas.areas(tid, start + first, start + last)) == [area]
    assert list(areas.areas(tid, start, start)) == []


@pytest.mark.usefixtures("_way")
def test_the_text_and_the_ioctl_agree_on_everything() -> None:
    found = list(areas.areas(os.getpid(), 0, 1 << 47))
    text = [line for line in Path("/proc/self/maps").read_text().splitlines() if "[v" not in line]
    assert {a.start for a in found} >= {int(line.split("-")[0], 16) for line in text[:5]}
    files = list(areas.areas(os.getpid(), 0, 1 << 47, files=True))
    assert files == [a for a in found if a.ino]
    assert 0 < len(files) < len(found)
    assert all(one.end <= two.start for one, two in itertools.pairwise(found))


@pytest.mark.usefixtures("_way")
def test_of_a_process_that_has_ended_there_is_nothing() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    assert list(areas.areas(ended.pid, 0, 1 << 47)) == []
