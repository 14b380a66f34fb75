"""Capabilities and users in a sandbox: what a real kernel recorded, what the model says, what tools make of it."""

import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Host, need, need_sandbox
from test_credentials import PROGRAM, follow

from fakedev.sandbox.exact.credentials import KEEP, Bounds, Credentials, Ids

CALLS = Path(__file__).with_name("credentials_calls.py")
MACHINE = "pc-q35"
WITH_ADMIN, WITHOUT_ADMIN = [True, 256, 0], [False, 64, "EPERM"]


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


def ask(host: Host, what: str, *options: str) -> dict[str, Any]:
    """The answers of a part of the program, by case."""
    done = host("run", "-q", *options, MACHINE, "--", sys.executable, "-S", CALLS, what)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("options", [(), ("--no-exact",)])
def test_single_capabilities_are_asked_for(host: Host, options: tuple[str, ...]) -> None:
    assert ask(host, "everything", *options) == {
        "root": [0, *WITH_ADMIN, 0],
        "no rawio": ["EPERM", *WITH_ADMIN, 0],
        "no admin": [0, *WITHOUT_ADMIN, 0],
        "namespace": ["EPERM", *WITHOUT_ADMIN, 0],
        "held": [256],
    }


def test_an_ordinary_user_has_none(host: Host) -> None:
    assert ask(host, "everything", "--as=user")["root"] == [
        "EACCES", False, 64, "EACCES", "EACCES"
    ]  # fmt: skip


def test_users_meet_what_was_recorded(host: Host) -> None:
    assert ask(host, "recorded") == {
        "open-devmem-user-mode0600": ["EACCES", "EACCES"],
        "open-devmem-user-O_PATH": [0],
        "open-devmem-user-in-kmem-group-0640": ["EPERM"],
        "open-devmem-user-mode0666": ["EPERM"],
        "open-devmem-root-without-CAP_SYS_ADMIN": [0],
        "open-devmem-user-with-CAP_SYS_RAWIO-mode0666": [0],
        "open-devmem-root-in-child-userns": ["EPERM"],
        "open-devmem-user-with-CAP_SYS_RAWIO-mode0600": ["EACCES"],
        "reopen-proc-self-fd-user": ["EACCES"],
    }


def test_who_inherits_what(host: Host) -> None:
    script = (
        f"{sys.executable} -S {CALLS} inheritance 2>&1 | cat"  # which ends when the orphan does
    )
    done = host.run(MACHINE, "sh", "-c", script)
    *lines, orphan = done.stdout.split("(1000, 1000, 1000) ")
    assert dict(json.loads(line) for line in lines[0].splitlines()) == {
        "slack": [[7, 0, 1000, "EACCES"]],
        "threads": [[[1000, "EACCES"]]],
        "parent": [7],
    }
    assert orphan.startswith("True\n")
    assert orphan.endswith("PermissionError: [Errno 13] Permission denied: '/dev/mem'\n")


def test_pointers_that_lead_nowhere(host: Host) -> None:
    done = host.run(MACHINE, sys.executable, "-S", CALLS, "pointers")
    assert done.stdout == "[-1, -1, -1, -1, -1, -1] 14\n", done.stderr


def test_the_other_table_of_x86(host: Host, folder: Path) -> None:
    binary = folder / "credentials_i386"
    source = CALLS.with_name("credentials_i386.c")
    if platform.machine() != "x86_64":
        pytest.skip("int $0x80 is of x86")
    subprocess.run(
        [need("gcc", "gcc"), "-Wall", "-Werror", "-no-pie", "-o", binary, source], check=True
    )
    if subprocess.run([binary], capture_output=True, check=False).returncode < 0:
        pytest.skip("this kernel has no table of i386 (CONFIG_IA32_EMULATION)")
    assert host.run(MACHINE, binary).stdout == "0 0 77 78 0 77 78 0 2 8 9 -1\n"


def test_calls_do_what_the_model_does(host: Host) -> None:
    """`tests/test_credentials.py` compares that with the kernel."""
    chance = random.Random(5)
    ids = [0, 1000, 1001, KEEP]
    masks = [0, 1 << 17, 1 << 7 | 1 << 6, (1 << 9) - 1]
    calls = {"setuid": 1, "setgid": 1, "setreuid": 2, "setregid": 2, "setresuid": 3, "setresgid": 3,
             "setfsuid": 1, "setfsgid": 1}  # fmt: skip
    others: list[list[Any]] = [
        ["setgroups", [7, 9]],
        ["keepcaps", 1],
        ["keepcaps", 0],
        ["securebits", 4],
    ]

    def step() -> list[Any]:
        if chance.random() < 0.2:
            return chance.choice(others)
        if chance.random() < 0.15:
            return ["capset", *chance.choices(masks, k=3)]
        name = chance.choice(list(calls))
        return [name, *chance.choices(ids, k=calls[name])]

    programs = [[["setgroups", []], *(step() for _ in range(8))] for _ in range(60)]
    done = host.run(MACHINE, sys.executable, "-S", PROGRAM, json.dumps(programs))
    answers = iter([json.loads(line) for line in done.stdout.splitlines()])
    for program in programs:
        mine = [next(answers) for _ in program]
        limits = Bounds(*mine[0]["bounds"])
        start = Credentials(Ids(), Ids(), (), limits.bounding, limits.bounding)
        follow(program, mine, start, limits)


GROUPS = "import os; print(os.getgroups()); os.setgroups([]); print(os.getgroups())"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have any groups")
def test_groups_of_the_user(host: Host) -> None:
    """Those that have no number in the sandbox are 65534, and all can be dropped."""
    own = os.getegid()
    command = host.command("run", "-q", MACHINE, "--", sys.executable, "-S", "-c", GROUPS)
    done = subprocess.run(
        command,
        env=host.env,
        preexec_fn=lambda: os.setgroups([own, own + 4]),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stdout == "[0, 65534]\n[]\n"


def test_owners_are_kept(host: Host) -> None:
    script = """
        chgrp 7 /dev/mem; chmod 660 /dev/mem
        setpriv --reuid=5 --regid=7 --clear-groups test -w /dev/mem && echo group
        cd /dev; chown 5 mem; chmod 600 mem
        setpriv --reuid=5 --regid=5 --clear-groups sh -c '
            test -w /dev/mem && echo owner; chmod 0 mem; test -r /dev/mem || echo nothing
            chown 5:6 mem 2>&1; chown 0 mem 2>&1'
        touch $0; chown 5 $0 2>&1
    """
    need("setpriv", "util-linux")
    own = host.runtime / "mine"
    done = host.run(MACHINE, "sh", "-c", script, own)
    assert done.stdout.splitlines() == [
        "group",
        "owner",
        "nothing",
        "chown: changing ownership of 'mem': Operation not permitted",
        "chown: changing ownership of 'mem': Operation not permitted",
        f"chown: changing ownership of '{own}': Invalid argument",
    ], done.stderr
    own.unlink()


ZEROS = "00000000-00000000 : Reserved"
SHOWN = "00000000-00000fff : Reserved"
AMBIENT = "--inh-caps=+sys_rawio,+sys_admin --ambient-caps=+sys_rawio,+sys_admin"
ADDAMB = "--inh=cap_sys_admin --addamb=cap_sys_admin"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("setpriv --reuid=77 --regid=78 --clear-groups id -u", "77"),
        ("setpriv --reuid=77 --regid=78 --groups=8,9 id -G", "78 8 9"),
        ("setpriv --reuid=77 --clear-groups cat /dev/mem 2>&1", "cat: /dev/mem: Permission denied"),
        ("setpriv --clear-groups head -n1 /proc/iomem", SHOWN),
        ("setpriv --reuid=77 --clear-groups head -n1 /proc/iomem", ZEROS),
        ("setpriv --bounding-set=-sys_admin head -n1 /proc/iomem", ZEROS),
        (f"setpriv --reuid=77 --clear-groups {AMBIENT} head -n1 /proc/iomem", SHOWN),
        ("capsh --drop=cap_sys_rawio -- -c 'cat /dev/mem' 2>&1", "cat: /dev/mem: Operation not permitted"),
        ("capsh --user=daemon -- -c 'id -un; head -n1 /proc/iomem'", f"daemon\n{ZEROS}"),
        (f"capsh --keep=1 --user=daemon {ADDAMB} -- -c 'head -n1 /proc/iomem'", SHOWN),
        ("su -s /bin/sh daemon -c 'id -un; head -n1 /proc/iomem'", f"daemon\n{ZEROS}"),
        ("chroot --userspec=77:78 / id -g", "78"),
        ("unshare -Ur sh -c 'id -u; head -n1 /proc/iomem'", f"0\n{ZEROS}"),
        ("setpriv --reuid=77 --clear-groups unshare -U id -u", "65534"),
        ("setpriv --dump | head -n1", "uid: 0"),
    ],
)  # fmt: skip
def test_tools(host: Host, command: str, expected: str) -> None:
    need(command.partition(" ")[0], "util-linux or libcap2-bin")
    if command.startswith("su ") and not os.access("/etc/shadow", os.R_OK):
        pytest.skip("/etc/shadow cannot be read: PAM asks for it whoever calls su")
    assert host.run(MACHINE, "sh", "-c", command).stdout == expected + "\n"


def test_without_the_layer_the_host_decides(host: Host) -> None:
    command = "setpriv --reuid=77 --clear-groups id -u; id -u"
    for options in (("--no-exact",), ("--as=user",)):
        done = host("run", "-q", *options, MACHINE, "--", "sh", "-c", command)
        assert len(done.stdout.splitlines()) == 1
        assert "setpriv: set" in done.stderr
