"""Ids and capabilities as the exact layer computes them, against the kernel that runs these tests."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from credentials_program import parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakedev.fuse.credentials import CapabilitySets, capabilities
from fakedev.sandbox.exact.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    KEEP,
    Bounds,
    Credentials,
    Ids,
)
from fakedev.sandbox.exact.marks import bounds
from fakedev.views.node import Refused

PROGRAM = Path(__file__).parent / "credentials_program.py"
NEEDED = 1 << CAP_SETUID | 1 << CAP_SETGID | 1 << 8
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or capabilities(os.getpid()).effective & NEEDED != NEEDED,
    reason="not root with CAP_SETUID, CAP_SETGID and CAP_SETPCAP",
)
ids = st.sampled_from([0, 1000, 1001, KEEP])
masks = st.sampled_from([0, 1 << 17, 1 << 7 | 1 << 6, 1 << 17 | 1 << 21, NEEDED, (1 << 41) - 1])
steps = st.one_of(
    *(st.tuples(st.just(f"set{kind}"), ids) for kind in ("uid", "gid", "fsuid", "fsgid")),
    *(st.tuples(st.just(f"setre{kind}"), ids, ids) for kind in ("uid", "gid")),
    *(st.tuples(st.just(f"setres{kind}"), ids, ids, ids) for kind in ("uid", "gid")),
    st.tuples(st.just("setgroups"), st.lists(ids, max_size=2)),
    st.tuples(st.just("keepcaps"), st.sampled_from([0, 1])),
    st.tuples(st.just("securebits"), st.sampled_from([0, 1, 4, 0x10, 0x14, 0x20, 0x30, 0x40])),
    st.tuples(st.just("capset"), masks, masks, masks),
)


def apply(old: Credentials, limits: Bounds, name: str, *words: Any) -> tuple[Credentials, int]:
    """A call as the supervisor makes it: what comes out, and its result."""
    kind = "uids" if "uid" in name else "gids"
    mine: Ids = getattr(old, kind)
    able = old.capable(CAP_SETUID if kind == "uids" else CAP_SETGID)
    if name == "setgroups":
        return old.with_groups(tuple(words[0])), 0
    if name == "keepcaps":
        return old.keeping(keep=bool(words[0])), 0
    if name == "securebits":
        return old.with_securebits(words[0]), 0
    if name == "capset":
        return old.with_capabilities(CapabilitySets(*words), limits), 0
    if name.startswith("setfs"):
        new = mine.set_file(words[0], able=able)
        made = old.with_file_uid(new) if kind == "uids" else old._replace(gids=new)
        return made, mine.file
    how = {1: Ids.set, 2: Ids.set_two, 3: Ids.set_three}[len(words)]
    new = how(mine, *words, able=able)  # type: ignore[operator]
    return (old.with_uids(new) if kind == "uids" else old._replace(gids=new)), 0


def shown(one: Credentials) -> dict[str, Any]:
    """As `credentials_program.py` prints what it has."""
    return {
        "uids": list(one.uids),
        "gids": list(one.gids),
        "groups": sorted(one.groups),
        "effective": one.effective,
        "permitted": one.permitted,
    }


def initial() -> Credentials:
    sets = capabilities(os.getpid())
    return Credentials(
        Ids(*os.getresuid(), os.geteuid()),
        Ids(*os.getresgid(), os.getegid()),
        tuple(os.getgroups()),
        sets.effective,
        sets.permitted,
    )


def kernel(program: list[Any], *, exec_after: bool = False) -> list[dict[str, Any]]:
    """What the kernel makes of each step."""
    done = subprocess.run(
        [sys.executable, "-S", PROGRAM, json.dumps(program), *(["exec"] if exec_after else [])],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    count = sum(len(steps) for steps in program)
    lines = done.stdout.splitlines(keepends=True)
    after = [parse("".join(lines[count:]))] if exec_after else []
    return [*(json.loads(line) for line in lines[:count]), *after]


def follow(
    program: list[Any], answers: list[dict[str, Any]], now: Credentials, limits: Bounds
) -> Credentials:
    """Compare step by step; returns what it comes to."""
    for step, answer in zip(program, answers, strict=True):
        try:
            now, result = apply(now, limits, *step)
        except Refused as refused:
            result = -refused.errno
        got = {**shown(now), "result": result}
        limits = Bounds(*answer.pop("bounds"))
        assert got == answer, (step, now)
    return now


@needs_root
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(steps, min_size=1, max_size=12), min_size=8, max_size=8))
def test_the_kernel_does_the_same(programs: list[list[Any]]) -> None:
    found = iter(kernel(programs))
    for program in programs:
        follow(program, [next(found) for _ in program], initial(), bounds(os.getpid()))


KEPT = ["keepcaps", 1]
DROPPED = ["setresuid", 1000, 1000, 1000]


@needs_root
@pytest.mark.parametrize(
    "program",
    [
        [DROPPED],
        [KEPT, DROPPED],
        [["setresuid", KEEP, 1000, KEEP]],
        [["setresuid", 1000, 0, 0]],
        [["setresuid", 0, 1000, 1001]],
        [["securebits", 1], DROPPED],
        [["securebits", 1]],
        [["setgroups", [5]], ["setfsuid", 1000]],
        [KEPT, DROPPED, ["capset", 1 << 17, 1 << 17, 1 << 17], ["ambient", 17]],
    ],
)  # fmt: skip
def test_exec_does_the_same(program: list[Any]) -> None:
    *answers, after = kernel([program], exec_after=True)
    limits = Bounds(*after.pop("bounds"))
    host = sum(step[0] == "ambient" for step in program)  # at the end, and none of ours
    own = len(program) - host
    now = follow(program[:own], answers[:own], initial(), bounds(os.getpid()))
    assert shown(now.after_exec(limits)) == after
    assert shown(now) == after or not now.is_the_same_after_exec()


@pytest.mark.parametrize(
    ("old", "new", "errors"),
    [(Ids(1000, 1000, 1000, 1000), 0, "EPERM"), (Ids(), KEEP, "EINVAL")],
)  # fmt: skip
def test_what_may_not_be_set(old: Ids, new: int, errors: str) -> None:
    with pytest.raises(Refused) as refused:
        old.set(new, able=False)
    assert errno.errorcode[refused.value.errno] == errors


def test_capability_sets_are_laid_out_as_in_the_kernel() -> None:
    sets = CapabilitySets(1 << 40 | 2, (1 << 41) - 1, 1 << 32)
    assert CapabilitySets.unpacked(sets.packed()) == sets
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t") for line in lines if line.startswith("Cap"))
    found = capabilities(os.getpid())
    assert [f"{mask:016x}" for mask in found] == [
        status["CapEff"], status["CapPrm"], status["CapInh"]
    ]  # fmt: skip


def test_access_goes_by_real_ids() -> None:
    root = Credentials(Ids(0, 1000, 0, 1000), Ids(1, 2, 3, 4), (5,), 0, 7)
    assert root.at_files(real=False) == (1000, (4, 5), 0)
    assert root.at_files(real=True) == (0, (1, 5), 7)
    other = root._replace(uids=Ids(1000, 0, 0, 0), effective=7)
    assert other.at_files(real=True) == (1000, (1, 5), 0)
