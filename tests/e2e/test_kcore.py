"""`/dev/kcore` under unmodified tools and an ordinary user."""

import os
import struct
from typing import Any

import pytest
from support import DATA, Host, need, need_sandbox

CACHED = {"FAKEDEV_CACHED": "1"}
both_ways = pytest.mark.parametrize("env", [{}, CACHED], ids=["direct", "cached"])
READ = """
import os, struct, sys
core = os.open("/dev/kcore", os.O_RDONLY)
start, size, count = 64, 56, struct.unpack_from("<H", os.pread(core, 64, 0), 56)[0]
data = os.pread(core, count * size, start)
for address in (int(word, 0) for word in sys.argv[1:]):
    for n in range(count):
        _, _, offset, virtual, paddr, length, _, _ = struct.unpack_from("<IIQQQQQQ", data, n * size)
        if virtual < 0xffffffff80000000 and paddr <= address < paddr + length:
            print(hex(address), os.pread(core, 8, offset + address - paddr).hex())
"""


def test_gdb_reads_the_direct_map(host: Host) -> None:
    need_sandbox()
    need("gdb", "gdb")
    need("readelf", "binutils")
    command, *_, number, text = (DATA / "clients" / "O11-gdb-readelf.txt").read_text().splitlines()
    done = host.run("fd-9000", "sh", "-c", command.partition("; ")[2])
    assert done.stdout.splitlines() == [number, text]
    loads = host.check("run", "fd-9000", "--", "readelf", "-lW", "/dev/kcore").splitlines()
    found = [line.split()[2:6] for line in loads if line.split()[:1] == ["LOAD"]]
    assert len(found) == 9
    assert ["0xffff888000100000", "0x0000000000100000", "0x7fee0000", "0x7fee0000"] in found


@both_ways
def test_what_the_kernel_does_not_touch_reads_as_zeros(host: Host, env: dict[str, str]) -> None:
    need_sandbox()
    script = f"""
        cat > "$XDG_RUNTIME_DIR/read.py" <<'END'
{READ}
END
        see() {{ python3 "$XDG_RUNTIME_DIR/read.py" 0x10000000 0x100000000; }}
        see
        fakedev ctl poison 0x10000000 > /dev/null
        echo offline > /sys/devices/system/memory/memory32/state
        see
        rm "$XDG_RUNTIME_DIR/read.py"
        stat -c %a /dev/kcore
    """
    done = host.run("fd-9000", "sh", "-c", script, env=env)
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        [
            "0x10000000 8877665544332211",
            f"0x100000000 {b'HIGHMEM-'.hex()}",
            "0x10000000 0000000000000000",
            "0x100000000 0000000000000000",
            "400",
        ],
    )


@both_ways
def test_a_store_through_a_mapping_is_seen(machine: Any, env: dict[str, str]) -> None:
    with machine("fd-9000", env=env) as running:
        agent = running.agent
        mapped = agent.map(agent.open(), 0x10000000, 0x1000)
        core = agent.open("/dev/kcore", os.O_RDONLY)
        head = agent("pread", core, 0, 4096)
        count = struct.unpack_from("<H", head, 56)[0]
        parts = [struct.unpack_from("<QQQQ", head, 64 + 56 * n + 8) for n in range(count)]
        offset = next(p[0] + 0x10000000 - p[2] for p in parts if p[2] == 0x100000)
        for value in (0x1234, 0x5678):
            assert agent("store", mapped, 0x10, 8, value) == 0
            assert agent("pread", core, offset + 0x10, 8) == value.to_bytes(8, "little")
            assert agent("load", mapped, 0x10, 8) == value
        # beyond the size that stat shows, too
        assert agent("pread", core, (1 << 47) + 0x100000, 16) == bytes(16)


def test_who_may_not_open_it(host: Host) -> None:
    need_sandbox()
    done = host("run", "--as", "user", "fd-9000", "--", "head", "-c", "1", "/dev/kcore")
    assert "Permission denied" in done.stderr
    locked = ("--set", "kernel.lockdown=confidentiality")
    done = host("run", *locked, "fd-9000", "--", "head", "-c", "1", "/dev/kcore")
    assert "Operation not permitted" in done.stderr
