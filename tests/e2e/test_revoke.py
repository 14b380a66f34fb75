"""A driver claims a region: every mapping of it dies, in every process, and never heals."""

from pathlib import Path
from typing import Any

import pytest
from support import Fault, Refusal

STRICT = str(Path(__file__).parent / "strict.yaml")
BOARD = 0xD000_0000  # at boot each of its words holds its own address
PAGE = "d0000000-d0000fff"
SIGBUS, BUS_ADRERR = 7, 2
VALUE = 0x1122_3344_5566_7788
CACHED = {"FAKEDEV_CACHED": "1"}
both_ways = pytest.mark.parametrize("env", [{}, CACHED], ids=["direct", "cached"])


def bus(offset: int) -> Fault:
    return Fault(SIGBUS, BUS_ADRERR, offset)


@both_ways
def test_claim_and_release(machine: Any, env: dict[str, str]) -> None:
    with machine(STRICT, env=env) as running:
        agent = running.agent
        fd = agent.open()
        two = agent.map(fd, BOARD, 0x2000)
        assert agent("store", two, 0x10, 8, VALUE) == 0
        assert agent("store", two, 0x1010, 8, VALUE + 1) == 0
        done = running.ctl("claim", PAGE, "--name", "board")
        assert (done.returncode, done.stderr) == (0, "")
        for width in (1, 2, 4, 8):
            assert agent("load", two, 0x120, width) == bus(0x120)
            assert agent("store", two, 0xFF8, width, 0) == bus(0xFF8)
        assert agent("load", two, 0x1010, 8) == VALUE + 1
        assert agent("store", two, 0x1018, 8, VALUE + 2) == 0
        assert agent("load", two, 0xFFC, 8) in (bus(0xFFC), bus(0x1000))
        # The kernel's own copy of the bytes fails as well, without a signal.
        assert agent("send", two, 0, 16) == Refusal("EFAULT")
        assert agent("send", two, 0x1010, 8) == 8
        # The store made before is there, by the shell's view of the machine.
        shown = running.ctl("peek", "--raw", "0xd0000010+8", text=False).stdout
        assert shown == VALUE.to_bytes(8, "little")
        assert running.peek("0xd0001018+8") == (VALUE + 2).to_bytes(8, "little")
        other = agent.open()
        assert agent("map", other, BOARD, 0x1000, 3, 1) == Refusal("EPERM")
        running.release(PAGE)
        assert agent("load", two, 0x10, 8) == bus(0x10)
        assert agent("load", agent.map(fd, BOARD, 0x1000), 0x10, 8) == VALUE
        assert agent("load", two, 0x10, 8) == bus(0x10)
        fresh = agent.map(agent.open(), BOARD, 0x1000)
        assert agent("load", fresh, 0x10, 8) == VALUE
        assert agent("store", fresh, 0x20, 8, VALUE) == 0
        assert agent("load", two, 0x10, 8) == bus(0x10)
        assert running.peek("0xd0000020+8") == VALUE.to_bytes(8, "little")


@both_ways
def test_read_and_write_of_a_claimed_page(machine: Any, env: dict[str, str]) -> None:
    # Through the page cache, many kernels make every error of read(2) EIO.
    refused = {Refusal("EPERM"), Refusal("EIO")} if env else {Refusal("EPERM")}
    with machine(STRICT, env=env) as running:
        agent = running.agent
        fd = agent.open()
        agent("load", agent.map(fd, BOARD, 0x2000), 0, 8)
        running.claim(PAGE)
        assert agent("pread", fd, BOARD, 8) in refused
        assert agent("pwrite", fd, BOARD, "5a" * 8) in refused
        assert agent("pread", fd, BOARD + 0x1000, 8) == (BOARD + 0x1000).to_bytes(8, "little")
        assert agent("pwrite", fd, BOARD + 0x1000, "5a" * 8) == 8
        running.release(PAGE)
        fresh = agent.open()
        assert agent("pread", fresh, BOARD, 8) == BOARD.to_bytes(8, "little")
        assert agent("pwrite", fresh, BOARD, "a5" * 8) == 8
        assert running.peek("0xd0000000+8") == b"\xa5" * 8


@pytest.mark.parametrize(
    "settings",
    [
        ["kernel.cmdline=iomem=relaxed"],
        ["kernel.io_strict_devmem=false"],
        ["kernel.strict_devmem=false", "kernel.io_strict_devmem=false"],
        ["kernel.version=5.4"],
        ["kernel.claim_policy=ignore"],
    ],
    ids=",".join,
)
def test_kernels_that_do_not_revoke(machine: Any, settings: list[str]) -> None:
    with machine(STRICT, settings=settings) as running:
        agent = running.agent
        mapped = agent.map(agent.open(), BOARD, 0x1000)
        assert agent("load", mapped, 8, 8) == BOARD + 8
        running.claim(PAGE)
        assert agent("load", mapped, 16, 8) == BOARD + 16
        assert agent("store", mapped, 16, 8, VALUE) == 0
        assert agent("load", mapped, 16, 8) == VALUE
        assert running.peek("0xd0000010+8") == VALUE.to_bytes(8, "little")


def test_below_one_megabyte_nothing_is_revoked(machine: Any) -> None:
    with machine(STRICT) as running:
        agent = running.agent
        fd = agent.open()
        mapped = agent.map(fd, 0xD0000, 0x1000)
        assert agent("load", mapped, 8, 8) == 0xD0008
        running.claim("000d0000-000d0fff")
        assert agent("load", mapped, 8, 8) == 0xD0008
        assert agent("store", mapped, 8, 8, VALUE) == 0
        assert running.peek("0xd0008+8") == VALUE.to_bytes(8, "little")


@both_ways
def test_every_process(machine: Any, env: dict[str, str]) -> None:
    """Inherited mappings, mappings of other descriptors, and a child made after the claim."""
    with machine(STRICT, env=env) as running:
        agent = running.agent
        stranger = agent.child()
        mapped = agent.map(agent.open(), BOARD, 0x3000)
        assert agent("store", mapped, 0x1000, 8, VALUE) == 0
        heirs = [agent.child() for _ in range(3)]
        own = stranger.map(stranger.open(), BOARD + 0x1000, 0x1000)
        assert stranger("load", own, 0, 8) == VALUE
        assert heirs[0]("store", mapped, 0x1008, 8, VALUE) == 0
        # The last heir has not touched the page: for it the fault comes first.
        assert heirs[1]("load", mapped, 0x1008, 8) == VALUE
        running.claim("d0001000-d0001fff")
        late = agent.child()
        for process in (agent, *heirs, late):
            assert process("load", mapped, 0x1008, 4) == bus(0x1008)
            assert process("load", mapped, 0x2008, 8) == BOARD + 0x2008
            assert process("load", mapped, 0x0FF8, 8) == BOARD + 0x0FF8
        assert stranger("load", own, 8, 1) == bus(8)
        assert running.peek("0xd0001000+16") == VALUE.to_bytes(8, "little") * 2


@both_ways
def test_a_store_of_a_child_right_before_the_claim(machine: Any, env: dict[str, str]) -> None:
    with machine(STRICT, env=env) as running:
        agent = running.agent
        mapped = agent.map(agent.open(), BOARD, 0x1000)
        child = agent.child()
        for turn in range(50):
            writer = (agent, child)[turn % 2]
            fresh = writer.map(writer.open(), BOARD, 0x1000)
            assert writer("store", fresh, 8 * turn, 8, turn + 1) == 0
            running.claim(PAGE)
            assert running.peek(f"{BOARD + 8 * turn:#x}+8") == (turn + 1).to_bytes(8, "little")
            assert writer("load", fresh, 8 * turn, 8) == bus(8 * turn)
            running.release(PAGE)
            assert writer("unmap", fresh) == 0
        assert agent("load", mapped, 0, 8) in (bus(0), 1)


@both_ways
def test_private_mappings(machine: Any, env: dict[str, str]) -> None:
    with machine(STRICT, env=env) as running:
        agent = running.agent
        mapped = agent.map(agent.open(), BOARD, 0x3000, private=True)
        assert agent("load", mapped, 8, 8) == BOARD + 8
        assert agent("store", mapped, 0x1008, 8, VALUE) == 0
        running.claim("d0000000-d0001fff")
        assert agent("load", mapped, 8, 8) == bus(8)
        assert agent("load", mapped, 0x1008, 8) == bus(0x1008)  # copied before
        assert agent("load", mapped, 0x2008, 8) == BOARD + 0x2008
        assert running.peek("0xd0001008+8") == (BOARD + 0x1008).to_bytes(8, "little")


def test_on_the_recorded_machine(machine: Any) -> None:
    """`pc-q35` above its high_memory: mappings die there too; read(2) was EFAULT all along."""
    with machine("pc-q35") as running:
        agent = running.agent
        fd = agent.open()
        mapped = agent.map(fd, 0x1_4000_0000, 0x2000)
        assert agent("bytes", mapped, 0, 7) == b"NVDIMM0"
        running.claim("140000000-140000fff", "pmem")
        assert agent("load", mapped, 0, 1) == bus(0)
        assert agent("load", mapped, 0x1000, 1) == 0
        assert agent("pread", fd, 0x1_4000_0000, 4) == Refusal("EFAULT")
        assert "140000000-140000fff : pmem\n" in running.ctl("iomem").stdout


def test_what_is_taken_cannot_be_claimed(machine: Any) -> None:
    with machine(STRICT) as running:
        running.claim(PAGE, "first")
        done = running.ctl("claim", "0xd0000800+16", "--name", "second")
        assert done.returncode == 1
        assert "first" in done.stderr
        assert running.ctl("release", "0xd0000000+16").returncode == 1
        log = running.ctl("log").stdout
        assert "claim" in log
        assert "revoke" in log


def test_reset_reopens(machine: Any) -> None:
    with machine(STRICT) as running:
        agent = running.agent
        mapped = agent.map(agent.open(), BOARD, 0x2000)
        assert agent("store", mapped, 0x1008, 8, VALUE) == 0
        assert agent("load", mapped, 8, 8) == BOARD + 8
        running.claim(PAGE)
        assert running.ctl("reset").returncode == 0
        assert agent("load", mapped, 8, 8) == bus(8)
        assert agent("load", mapped, 0x1008, 8) == BOARD + 0x1008
        fresh = agent.map(agent.open(), BOARD, 0x1000)
        assert agent("load", fresh, 8, 8) == BOARD + 8


@both_ways
def test_a_write_does_not_heal_a_mapping(machine: Any, env: dict[str, str]) -> None:
    """After the release the old descriptor may write again; its dead mapping stays dead."""
    with machine(STRICT, env=env) as running:
        agent = running.agent
        fd = agent.open()
        mapped = agent.map(fd, BOARD, 0x2000)
        assert agent("load", mapped, 8, 8) == BOARD + 8
        running.claim(PAGE)
        running.release(PAGE)
        # A whole page: a page cache need not read it first. Through such a cache it may be refused.
        assert agent("pwrite", fd, BOARD, "5a" * 4096) in (4096, Refusal("EIO"))
        assert agent("load", mapped, 8, 8) == bus(8)
        assert agent("load", mapped, 0x1008, 8) == BOARD + 0x1008
