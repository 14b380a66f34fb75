"""Phase `fd` of the recorded truth: every call on a descriptor of /dev/mem, against a real kernel.

Reads and writes are equal. `DEVIATIONS` lists the rest that differs, each with its reason: /dev/mem is a
regular file of a FUSE mount here, and the host's VFS answers some calls before any server is asked. If one
of them becomes equal the test fails, so that the list stays true.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Host, need_sandbox, records

_OFFSETS = "the VFS keeps offsets of regular files below 2^63, with EINVAL"
_AFTER = f"at the offset that could be set before: {_OFFSETS}"
_PAGE_CACHE = "the VFS reads regular files for it, and asks the server only for the bytes"
DEVIATIONS = {
    "fstat-devmem": "a FUSE mount is nodev: a node with S_IFCHR could be seen, never opened",
    "lseek-cur-1-below-0": _OFFSETS,
    "lseek-end0": "the VFS computes it from st_size, which tools want to cover all of memory",
    "read16-after-lseek-set-hi": _OFFSETS,
    **dict.fromkeys(
        (
            "lseek-cur+1-past-max",
            "lseek-set-min64",
            "lseek-set-neg1",
            "lseek-set-neg4095",
            "lseek-set-neg4096",
            "lseek-set-neg0x100000",
        ),
        _OFFSETS,
    ),
    **dict.fromkeys(
        (
            "read16-after-lseek-cur+1-past-max",
            "read16-after-lseek-set-min64",
            "read16-after-lseek-set-neg1",
            "read16-after-lseek-set-neg4095",
            "read16-after-lseek-set-neg4096",
            "read16-after-lseek-set-neg0x100000",
        ),
        _AFTER,
    ),
    "pread-buf-partially-unmapped": "direct I/O pins the buffer page by page: a short count",
    "sendfile-from-devmem": _PAGE_CACHE,
    "splice-from-devmem": _PAGE_CACHE,
    "copy_file_range-from-devmem": "the VFS refuses two file systems with EXDEV first",
    "ioctl-FIONREAD": "the VFS answers it for every regular file",
}
PROGRAM = Path(__file__).parent / "fd_calls.py"


@pytest.fixture(scope="module")
def answers(host: Host) -> dict[str, list[Any]]:
    """Case to result, errno and position (or poll events), as the machine answers."""
    need_sandbox()
    done = host.run("pc-q35", sys.executable, PROGRAM)
    assert (done.returncode, done.stderr) == (0, "")
    return {case: rest for case, *rest in map(json.loads, done.stdout.splitlines())}


def recorded(record: dict[str, Any]) -> list[Any]:
    extra = record.get("extra", {})
    after = extra.get("pos_after", extra.get("revents"))
    position = None if after is None else int(after, 16)
    if position is not None and position >= 1 << 63:
        position -= 1 << 64
    return [record["result"], record["errno"], position]


def cases() -> dict[str, list[Any]]:
    """What was recorded; mappings are compared in test_truth_matrix."""
    return {r["case"]: recorded(r) for r in records("fd") if r["op"] != "mmap+touch"}


def test_what_differs_is_what_is_documented(answers: dict[str, list[Any]]) -> None:
    truth = cases()
    different = {case for case in truth if answers.get(case) != truth[case]}
    assert different == set(DEVIATIONS)
    assert len(truth) == 48


def test_every_read_and_write_is_equal(answers: dict[str, list[Any]]) -> None:
    truth = cases()
    plain = [r["case"] for r in records("fd") if r["op"] in {"read", "pread", "pwrite", "readv"}]
    assert {case: answers[case] for case in plain if case not in DEVIATIONS} == {
        case: truth[case] for case in plain if case not in DEVIATIONS
    }
