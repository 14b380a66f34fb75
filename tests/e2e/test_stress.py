"""Much of everything: no hang, no stale byte, no descriptor left open in the server.

`FAKEDEV_SOAK=10` does ten times as much, with ten times the time.
"""

import base64
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import SOAK, TIMEOUT, Fault, Host, Running, compiled, need_sandbox, wait_for

from fakedev.control.client import Client
from fakedev.model.errors import ControlError
from fakedev.sandbox.exact.tasks import MOST

HERE = Path(__file__).parent
STRICT, WIDE = str(HERE / "strict.yaml"), str(HERE / "wide.yaml")
BOARD = 0xD000_0000
PAGE = "d0000000-d0000fff"
CACHED = {"FAKEDEV_CACHED": "1"}
both_ways = pytest.mark.parametrize("env", [{}, CACHED], ids=["direct", "cached"])
soaking = pytest.mark.timeout(60 * SOAK)


def python(host: Host, profile: str, script: str, **options: Any) -> list[str]:
    """Run a Python program inside the machine; returns the words that it prints."""
    need_sandbox()
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = host.run(profile, *command, timeout=55 * SOAK, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout).split()


@soaking
@pytest.mark.parametrize(("step", "size"), [(4096, 288 << 20), (1 << 20, 1 << 30)])
def test_read_much(host: Host, step: int, size: int) -> None:
    """Of FD-9000, from 1 MiB on: the page at 0x9f000 is half RAM, and memremap refuses such a page."""
    total = SOAK * size
    script = f"""
        import os
        step, total, low = {step}, {total}, 1 << 20
        fd, room, seen, where = os.open("/dev/mem", os.O_RDONLY), bytearray(step), 0, []
        marker = (0x1122334455667788).to_bytes(8, "little")
        while seen < total:
            at = low + seen % (1 << 30)
            assert os.preadv(fd, [room], at) == step, hex(at)
            if marker in room:
                where.append(at + room.index(marker))
            seen += step
        print(seen, *sorted(set(where)))
        """
    assert python(host, "fd-9000", script) == [str(total), str(0x1000_0000)]


@soaking
def test_every_byte_of_a_sequential_read(host: Host) -> None:
    script = """
        import os, array
        fd, step = os.open("/dev/mem", os.O_RDONLY), 1 << 20
        room = bytearray(step)
        for at in range(0x100000000, 0x104000000, step):
            assert os.preadv(fd, [room], at) == step
            assert array.array("Q", bytes(room)).tolist() == list(range(at, at + step, 8)), hex(at)
        print("good")
        """
    assert python(host, WIDE, script) == ["good"]


@soaking
@both_ways
def test_random_faults(host: Host, env: dict[str, str]) -> None:
    """Loads and stores all over a gibibyte through two mappings, and preads behind them."""
    script = f"""
        import mmap, os, random
        turns, size, base = 15000 * {SOAK}, 1 << 30, 0x100000000
        dice = random.Random(1)
        fd = os.open("/dev/mem", os.O_RDWR)
        one, two = (mmap.mmap(fd, size, offset=base) for _ in range(2))
        stored = {{}}
        for turn in range(turns):
            at = dice.randrange(0, size, 8)
            want = stored.get(at, base + at).to_bytes(8, "little")
            assert one[at : at + 8] == want, (turn, hex(at))
            if turn % 3 == 0:
                stored[at] = turn
                two[at : at + 8] = turn.to_bytes(8, "little")
        for at in dice.sample(sorted(stored), 1000):
            assert os.pread(fd, 8, base + at) == stored[at].to_bytes(8, "little"), hex(at)
        print(len(stored))
        """
    assert int(python(host, WIDE, script, env=env)[0]) > 4900 * SOAK


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@soaking
@both_ways
def test_claims_under_mapping_processes(host: Host, folder: Path, env: dict[str, str]) -> None:
    need_sandbox()
    storm = compiled(HERE / "storm.c", folder)
    with Running(host, STRICT, storm, hex(BOARD), "8", env=env) as running:
        assert running.receive() == "ready\n"
        start = running.peek(f"{BOARD:#x}+64")
        for _ in range(1000 * SOAK):
            running.claim(PAGE)
            running.release(PAGE)
        assert running.peek(f"{BOARD:#x}+64") != start
        running.send_end()
        stores, faults, stale, failures = (int(word) for word in running.receive().split())
    assert (stale, failures) == (0, 0)
    assert stores > 0
    assert faults >= 8


AGAIN = f"""
import mmap, os, sys, time
def mapped():
    file = os.open("/dev/mem", os.O_RDWR)
    page = mmap.mmap(file, 4096, offset={BOARD})
    page[0] = 1
    return file, page
file, page = mapped()
page.close()
os.close(file)
time.sleep(0.3)  # until the machine has heard of it, and has nobody left that has pages
file, page = mapped()
print("mapped", flush=True)
sys.stdin.readline()
print(page[0])
"""


@both_ways
def test_a_page_from_before_the_last_close_is_revoked(host: Host, env: dict[str, str]) -> None:
    need_sandbox()
    with Running(host, STRICT, sys.executable, "-c", AGAIN, env=env) as running:
        assert running.receive() == "mapped\n"
        running.claim(PAGE)
        running.send("\n")
        assert (running.receive(), running.tool.wait(TIMEOUT)) == ("", -signal.SIGBUS)


@soaking
def test_no_descriptor_is_left(host: Host, folder: Path) -> None:
    """The server holds as many descriptors after the storm as before it."""
    need_sandbox()
    storm = compiled(HERE / "storm.c", folder)
    over = folder / "over"
    script = (
        'echo idle; read go; "$1" "$2" 4 <&0; echo done; until [ -e "$3" ]; do sleep 0.02; done'
    )
    with Running(host, STRICT, "sh", "-c", script, "sh", storm, hex(BOARD), over) as running:
        assert running.receive() == "idle\n"
        before = descriptors(running.pid)
        running.send("go\n")
        assert running.receive() == "ready\n"
        for _ in range(100 * SOAK):
            running.claim(PAGE)
            running.release(PAGE)
        for _ in range(3):
            assert running.ctl("state").returncode == 0
        running.send_end()
        assert running.receive().split()[2:] == ["0", "0"]
        assert running.receive() == "done\n"
        # Some of /proc stay open for the threads that asked last.
        wait_for(lambda: descriptors(running.pid) <= before + 2 * MOST, "descriptors are closed")
        over.touch()


@soaking
def test_two_drivers_at_once(host: Host, folder: Path) -> None:
    """Claims and releases of neighbouring pages from two shells, under mappings of both."""
    need_sandbox()
    storm = compiled(HERE / "storm.c", folder)
    program = (
        "import sys; from pathlib import Path; from fakedev.control.client import Client\n"
        "client = Client(Path(sys.argv[1]), timeout=20)\n"
        "for _ in range(int(sys.argv[3])):\n"
        "    client.call('claim', range=sys.argv[2], name='d'); client.call('release', range=sys.argv[2])"
    )
    with Running(host, STRICT, storm, hex(BOARD), "4") as running:
        assert running.receive() == "ready\n"
        words = [str(200 * SOAK)]
        drivers = [
            subprocess.Popen([sys.executable, "-c", program, running.socket, span, *words])
            for span in ("0xd0000000+0x800", "0xd0000800+0x800")
        ]
        assert [driver.wait(TIMEOUT) for driver in drivers] == [0, 0]
        running.send_end()
        _, _, stale, failures = (int(word) for word in running.receive().split())
    assert (stale, failures) == (0, 0)


@soaking
@both_ways
def test_two_generations_see_each_other(machine: Any, env: dict[str, str]) -> None:
    """After a claim and release a new open is another inode: one memory behind two page caches."""
    dice = random.Random(2)
    page = BOARD + 0x2000
    with machine(STRICT, env=env) as running:
        agent = running.agent
        old = agent.open()
        views = [agent.map(old, page, 0x2000)]
        assert agent("load", views[0], 0, 8) == page
        running.claim(PAGE)
        running.release(PAGE)
        new = agent.open()
        views.append(agent.map(new, page, 0x2000))
        model = {at: page + at for at in range(0, 0x2000, 8)}
        for turn in range(1, 5000 * SOAK):
            # Few words of two pages, so that they meet.
            at = dice.choice((0, 8, 0x7F8, 0xFF8, 0x1000, 0x1FF8))
            which = dice.randrange(2)
            action = dice.choice(
                ("load", "load", "store", "store", "pread", "pwrite", "peek", "poke")
            )
            value = model[at].to_bytes(8, "little")
            where = f"turn {turn}: {action} {at:#x} through {which}"
            if action == "load":
                assert agent("load", views[which], at, 8) == model[at], where
            elif action == "pread":
                assert agent("pread", (old, new)[which], page + at, 8) == value, where
            elif action == "peek":
                assert running.peek(f"{page + at:#x}+8") == value, where
            else:
                model[at] = turn
                data = turn.to_bytes(8, "little")
                if action == "store":
                    assert agent("store", views[which], at, 8, turn) == 0, where
                elif action == "pwrite":
                    assert agent("pwrite", (old, new)[which], page + at, data.hex()) == 8, where
                else:
                    text = base64.b64encode(data).decode()
                    running.client.call("poke", address=hex(page + at), base64=text)
        assert not isinstance(agent("load", views[0], 0, 8), Fault)


@soaking
@both_ways
def test_two_processes_pass_a_word(host: Host, folder: Path, env: dict[str, str]) -> None:
    """Each waits for the other's number, through mappings of different generations, all at full speed."""
    need_sandbox()
    storm = compiled(HERE / "storm.c", folder)
    with Running(
        host, STRICT, storm, "pong", hex(BOARD + 0x2000), str(500 * SOAK), env=env
    ) as running:
        assert running.receive() == "ready\n"
        running.claim(PAGE)
        running.release(PAGE)
        running.send("go\n")
        assert running.receive(seconds=40.0 * SOAK) == f"{1000 * SOAK}\n"


@soaking
@both_ways
def test_claim_release_and_peek_race(host: Host, folder: Path, env: dict[str, str]) -> None:
    """A claim is released by somebody else while its mappings are still being revoked."""
    need_sandbox()
    storm = compiled(HERE / "storm.c", folder)
    turns = [0, 0, 0]
    end = time.monotonic() + 4 * SOAK

    def hammer(number: int, path: Path, verb: str, **args: str) -> None:
        with Client(path, timeout=10) as client:
            while time.monotonic() < end:
                # What is claimed, or not, when its turn comes is refused; a hang is a HostError.
                with contextlib.suppress(ControlError):
                    client.call(verb, range=PAGE, **args)
                    turns[number] += 1

    with Running(host, STRICT, storm, hex(BOARD), "8", env=env) as running:
        assert running.receive() == "ready\n"
        with ThreadPoolExecutor(3) as pool:
            jobs = [
                pool.submit(hammer, 0, running.socket, "claim", name="driver"),
                pool.submit(hammer, 1, running.socket, "release"),
                pool.submit(hammer, 2, running.socket, "peek"),
            ]
            for job in jobs:
                job.result()
        with contextlib.suppress(ControlError):
            running.release(PAGE)
        running.send_end()
        _, _, stale, failures = (int(word) for word in running.receive().split())
    assert (stale, failures) == (0, 0)
    assert min(turns) > 10
