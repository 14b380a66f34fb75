"""Each answer is in the log with its rule, and once where the same is asked again."""

import re
import sys
from typing import cast

import pytest
from hostneeds import needs_sandbox
from test_exact_supervisor import exact, faults

from fakedev import Machine, build_machine, load_profile
from fakedev.fuse.exact import ExactFiles
from fakedev.fuse.session import Session
from fakedev.views.calls import Answer

pytestmark = needs_sandbox
SHOWN = "generic_fillattr: crw-r-----, device 1:1, 0 bytes"


@pytest.fixture
def machine() -> Machine:
    return build_machine(load_profile("pc-q35"))


def told(machine: Machine, code: str) -> list[str]:
    """What the log has of the calls of a program, without its name and number."""
    done = exact(machine).run(
        [sys.executable, "-c", f"import ctypes, os\n{code}"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert faults(machine) == []
    messages = [event.message for event in machine.events if event.kind == "exact"]
    return [re.sub(r"^\S+\[\d+\]: ", "", message) for message in messages]


def test_stat(machine: Machine) -> None:
    code = """
fd = os.open("/dev/mem", os.O_RDONLY)
for _ in range(5):
    ctypes.CDLL(None).fstat(fd, ctypes.create_string_buffer(256))
ctypes.CDLL(None).fstat(fd, None)
"""
    name = told(machine, code)[0].split()[0]
    assert name in ("fstat", "newfstatat")  # the C library's choice
    messages = [event.message.partition("]: ")[2] for event in machine.events]
    assert messages == [f"{name} gives 0x0: {SHOWN}", f"{name} EFAULT: {SHOWN}"]


def test_what_is_looked_at_between_other_calls_is_told_once(machine: Machine) -> None:
    """A program that lists and opens one file after the other."""
    code = """
files = [os.open(path, os.O_RDONLY) for path in ("/dev/mem", "/dev/port")]
for _ in range(50):
    for fd in files:
        os.fstat(fd)
        try:
            os.fsync(fd)
        except OSError:
            pass
"""
    found = told(machine, code)
    assert len([line for line in found if "fillattr" in line]) == 2
    assert len(found) == 3  # and fsync, which is the same for both


def test_after_news_it_is_told_again(machine: Machine) -> None:
    files = ExactFiles(cast("Session", None), machine)
    answer = Answer(0, SHOWN)
    for news in (False, True):
        if news:
            machine.record("claim", "a driver came")
            machine.record("denied", "something else that is no news")
        for _ in range(3):
            files.answered(7, "fstat", answer)
            files.answered(8, "fstat", answer)
    kinds = [event.kind for event in machine.events]
    assert kinds == ["exact", "exact", "claim", "denied", "exact", "exact"]


def test_very_many_different_ones_are_forgotten(machine: Machine) -> None:
    files = ExactFiles(cast("Session", None), machine)
    for tid in (*range(300), 299, 0):
        files.answered(tid, "fstat", Answer(0, SHOWN))
    assert len(machine.events) == 301


def test_users(machine: Machine) -> None:
    code = """
os.chown("/dev/mem", 5, 6)
os.setgid(7)
os.setuid(1000)
assert os.getuid() == 1000
try:
    os.setuid(0)
except PermissionError:
    pass
"""
    assert told(machine, code) == [
        "chown gives 0x0: setattr_prepare: chown_ok, chgrp_ok",
        "setgid gives 0x0: __sys_setgid: by the ids that it has set here",
        "setuid gives 0x0: __sys_setuid: by the ids that it has set here",
        "getuid gives 0x3e8: current_cred: the ids that it has set here",
        "setuid EPERM: __sys_setuid: by the ids that it has set here",
    ]
