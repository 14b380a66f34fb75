"""What is wrong is said once, clearly, with the way out; nothing is started for it and nothing dies of it."""

import json
import os
import random
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import unprivileged
from machines import small_machine
from support import BIN, Host, Running, need, need_sandbox, wait_for

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.connection import Connection
from fakedev.views.tree import Tree

STRICT = str(Path(__file__).parent / "strict.yaml")
HEAD = "fakedev: 1\nname: bad\n"
SEGMENT = "memory:\n  segments: [{range: d0000000-d0000fff, name: a, fill: zero}]\n"
BOMB = HEAD + "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)  # fmt: skip

BAD_PROFILES: dict[str, tuple[dict[str, bytes], str]] = {
    "unknown key": (
        {"bad.yaml": (HEAD + "memmory: {undecoded: 0}\n").encode()},
        "bad.yaml:3:1: unknown key 'memmory' (did you mean 'memory'?)",
    ),
    "overlapping RAM": (
        {
            "bad.yaml": (
                HEAD + "firmware:\n  e820:\n    - {range: 0-9fbff, type: System RAM}\n"
                "    - {range: 9f000-fffff, type: System RAM}\n"
            ).encode()
        },
        "bad.yaml:6:15: e820 entry 0009f000-000fffff (System RAM) overlaps 00000000-0009fbff",
    ),
    "misaligned range": (
        {"bad.yaml": (HEAD + SEGMENT.replace("d0000fff", "d0000ffe")).encode()},
        "bad.yaml:4:22: the range d0000000-d0000ffe is misaligned",
    ),
    "missing blob": (
        {
            "bad.yaml": (
                HEAD + SEGMENT + "  contents: [{at: 0xd0000000, file: gone.bin}]\n"
            ).encode()
        },
        "bad.yaml:5:37: file 'gone.bin' (looked for in .): there is no such file",
    ),
    "blob longer than its place": (
        {
            "bad.yaml": (
                HEAD + SEGMENT + "  contents: [{at: 0xd0000000, file: big.bin}]\n"
            ).encode(),
            "big.bin": bytes(4097),
        },
        "bad.yaml:5:14: d0000000-d0001000 is 4,097 bytes long, and there is memory for 4,096",
    ),
    "cycle of extends": (
        {
            "bad.yaml": (HEAD + "extends: other.yaml\n").encode(),
            "other.yaml": (HEAD + "extends: bad.yaml\n").encode(),
        },
        "other.yaml:3:10: extends goes in a circle: bad.yaml -> other.yaml -> bad.yaml",
    ),
    "YAML bomb": ({"bad.yaml": BOMB.encode()}, "the document grows too large here"),
    "not UTF-8": (
        {"bad.yaml": b'fakedev: 1\nname: "\xff\xfe"\n'},
        "bad.yaml:2:8: byte 0xff at offset 18 is not UTF-8",
    ),
}


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_bad_profile(host: Host, tmp_path: Path, name: str) -> None:
    files, message = BAD_PROFILES[name]
    for path, data in files.items():
        (tmp_path / path).write_bytes(data)
    (tmp_path / "place").mkdir()
    for words in (["run", "bad.yaml", "--", "touch", "here"], ["mount", "bad.yaml", "place"]):
        done = host(*words, cwd=tmp_path, timeout=20)
        assert done.returncode == 2
        assert done.stdout == ""
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "here").exists()
    assert not (tmp_path / "place").is_mount()
    assert host.sockets() == []


# -- a host that lacks something --------------------------------------------------------------


def elsewhere(host: Host, change: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `fakedev WORDS...` in a namespace where `change` (shell) was made to the host before."""
    need_sandbox()
    need("unshare", "util-linux")
    need("mount", "mount")
    command = f'{change}\nexec "$@"'
    inner = ["unshare", "-rm", "sh", "-ec", command, "sh", str(BIN / "fakedev"), *words]
    return subprocess.run(
        unprivileged.command(*inner),
        env=host.env,
        cwd=host.runtime,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


WITHOUT_DEV_FUSE = """
    mkdir -p dev; mount --rbind /dev dev; mount -t tmpfs none /dev
    for node in null zero urandom tty; do : > /dev/$node; mount --bind dev/$node /dev/$node; done"""


@pytest.mark.parametrize(
    ("change", "cause", "way_out"),
    [
        (WITHOUT_DEV_FUSE, "/dev/fuse does not exist", "sudo modprobe fuse"),
        ("mount --bind /dev/null /dev/fuse", "/dev/fuse is not the FUSE device", "--device"),
        (": > empty; mount --bind empty /dev/fuse", "/dev/fuse is not the FUSE device", "--device"),
        (
            "echo 0 > /proc/sys/user/max_user_namespaces",
            "user namespaces are switched off here: user.max_user_namespaces = 0",
            "sudo sysctl user.max_user_namespaces=15000",
        ),
        (
            "echo 0 > /proc/sys/user/max_mnt_namespaces",
            "the limit of user or mount namespaces is reached",
            "sudo sysctl",
        ),
    ],
    ids=["no /dev/fuse", "null", "empty file", "no user namespaces", "no mount namespaces"],
)
def test_no_sandbox(host: Host, change: str, cause: str, way_out: str) -> None:
    done = elsewhere(host, change, "run", "-q", STRICT, "--", "echo", "never")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fakedev: ")
    assert cause in done.stderr
    assert way_out in done.stderr.split("way out:")[1]
    assert len(done.stderr.splitlines()) == 1
    assert host.sockets() == []


def mount(host: Host, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        host.mounter(*words),
        env={**host.env, **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_no_fusermount(host: Host, tmp_path: Path) -> None:
    done = mount(host, "mount", STRICT, str(tmp_path), PATH=str(BIN))
    assert (done.returncode, done.stdout) == (1, "")
    assert "fusermount3 is not installed: install the package fuse3" in done.stderr


@pytest.fixture
def mounted(host: Host) -> Any:
    """A plain mount and its server."""
    need("fusermount3", "fuse3")
    place = host.runtime / "place"
    place.mkdir(exist_ok=True)
    words = host.mounter("mount", "-q", STRICT, place)
    server = subprocess.Popen(words, env=host.env, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: place.is_mount() or server.poll() is not None, "it is mounted")
    if server.poll() is not None:
        assert server.stderr is not None
        pytest.skip(f"a plain mount is refused here: {server.stderr.read().strip()}")
    yield place, server
    server.kill()
    server.communicate()
    helper = ["fusermount3", "-uzq", str(place)]
    subprocess.run(helper, check=False, capture_output=True)
    for path in (host.runtime / "fakedev").glob("strict*.sock"):
        path.unlink()


def test_mountpoint_taken_and_busy(host: Host, mounted: Any) -> None:
    place, _ = mounted
    done = mount(host, "mount", STRICT, str(place))
    assert done.returncode == 1
    assert f"is a mount point already: unmount it with `fakedev umount {place}`" in done.stderr
    with (place / "proc/iomem").open():
        done = mount(host, "umount", str(place))
    assert done.returncode == 1
    assert "busy" in done.stderr
    assert "close what uses it, or add --lazy" in done.stderr


def test_mountpoint_whose_server_died(host: Host, mounted: Any) -> None:
    place, server = mounted
    server.kill()
    server.wait()
    done = mount(host, "mount", STRICT, str(place))
    assert done.returncode == 1
    assert "is a mount whose server died (ENOTCONN)" in done.stderr
    assert f"fakedev umount {place}" in done.stderr
    assert mount(host, "umount", str(place)).returncode == 0
    assert not place.is_mount()


# -- garbage ------------------------------------------------------------------------------------

REQUESTS = [
    b"\n",
    b"nonsense\n",
    b"\xff\xfe\x00\n",
    b"[]\n",
    b"{}\n",
    b'{"verb": 1}\n',
    b'{"verb": "nope"}\n',
    b'{"verb": "__init__"}\n',
    b'{"verb": "claim"}\n',
    b'{"verb": "claim", "args": []}\n',
    b'{"verb": "claim", "args": {"range": 1, "name": "x"}}\n',
    b'{"verb": "claim", "args": {"range": "0xd0000000+0", "name": "x"}}\n',
    b'{"verb": "claim", "args": {"range": "d0000fff-d0000000", "name": "x"}}\n',
    b'{"verb": "claim", "args": {"range": "0xd0000000+1", "name": ""}}\n',
    b'{"verb": "peek", "args": {"range": "0+0xffffffffffffffff"}}\n',
    b'{"verb": "poke", "args": {"address": "-1", "base64": "AA=="}}\n',
    b'{"verb": "poke", "args": {"address": "0xffffffffffffffff", "base64": "AAAA"}}\n',
    b'{"verb": "poke", "args": {"address": "0", "base64": "%"}}\n',
    b'{"verb": "state", "more": 1}\n',
    b'{"verb": "log", "args": {"since": true}}\n',
    b'{"verb": "wait", "args": {"event": "x", "timeout": 0.01}}\n',
    b'{"id": {"a": [1]}, "verb": "explain", "args": {"range": "0+1", "op": "x"}}\n',
    b"[" * 100_000 + b"\n",
    b'{"verb": "' + b"x" * 100_000 + b'"}\n',
]


def test_malformed_control_messages(host: Host) -> None:
    need_sandbox()
    with Running(host, STRICT, "cat") as running:
        before = running.client.call("state")
        with socket.socket(socket.AF_UNIX) as raw, raw.makefile("rb") as stream:
            raw.settimeout(20)
            raw.connect(str(running.socket))
            for request in REQUESTS:
                raw.sendall(request)
                answer = json.loads(stream.readline())
                assert answer["ok"] is False, request[:80]
                assert answer["error"]["message"], request[:80]
                assert "internal" not in answer["error"]["message"], request[:80]
            raw.sendall(b'{"id": "still", "verb": "peek", "args": {"range": "0xd0000008+8"}}\n')
            answer = json.loads(stream.readline())
            assert (answer["id"], answer["ok"]) == ("still", True)
        for half in (b"", b'{"verb": "state"', b'{"verb": "wait", "args": {"event": "never"}}\n'):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(running.socket))
                raw.sendall(half)
        assert running.client.call("state")["claims"] == before["claims"] == []
        running.send("alive\n")
        assert running.receive() == "alive\n"


def served(exchange: Callable[[socket.socket], None]) -> Connection:
    """Let `exchange` play the kernel at the other end of a connection; returns it when it has ended."""
    machine = small_machine()
    coherence = Coherence(machine)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = Connection(theirs.detach(), Tree(machine), coherence)
    with ours:
        ours.settimeout(10)
        try:
            exchange(ours)
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            assert connection.wait_closed(10)
            coherence.close()
    return connection


def message(opcode: int, unique: int, body: bytes, *, length: int | None = None) -> bytes:
    size = 40 + len(body) if length is None else length
    return struct.pack("<IIQQIIIHH", size, opcode, unique, 1, 0, 0, 1, 0, 0) + body


INIT = message(26, 1, struct.pack("<4I", 7, 45, 1 << 17, 0xFFFFFFFF) + bytes(48))


def answer_of(ours: socket.socket, unique: int) -> int:
    """The errno that answers a request; others' answers are passed over."""
    while True:
        reply = ours.recv(1 << 21)
        _, error, number = struct.unpack_from("<IiQ", reply)
        if number == unique:
            return -int(error)


def assert_alive(ours: socket.socket) -> None:
    """A GETATTR of the root gets its answer."""
    ours.send(message(3, 1 << 60, bytes(16)))
    assert answer_of(ours, 1 << 60) == 0


def test_truncated_wire_messages() -> None:
    """Every opcode with a body of every small length, each with a header that tells the truth."""

    def exchange(ours: socket.socket) -> None:
        ours.send(INIT)
        assert answer_of(ours, 1) == 0
        unique = 2
        for opcode in (*wire.Opcode, 0, 99, 4096, 0xFFFFFFFF):
            if opcode == wire.Opcode.INIT:
                continue
            for size in (0, 1, 7, 8, 15, 16, 24, 39, 40, 64):
                ours.send(message(opcode, unique, b"\xff" * size))
                unique += 2
            assert_alive(ours)

    served(exchange)


def test_garbage_wire_messages() -> None:
    dice = random.Random(3)

    def exchange(ours: socket.socket) -> None:
        ours.send(INIT)
        assert answer_of(ours, 1) == 0
        for size in range(1, 40):
            ours.send(dice.randbytes(size))
        for _ in range(20):
            for _ in range(50):
                size = dice.choice((0, 8, 16, 40, 100, 4096))
                length = dice.choice((None, 0, 1, 39, 41, 1 << 31))
                opcode = dice.choice((*wire.Opcode, dice.randrange(1 << 32)))
                if opcode in (wire.Opcode.INIT, wire.Opcode.DESTROY):
                    continue
                unique = dice.randrange(2, 1 << 59)
                ours.send(message(opcode, unique, dice.randbytes(size), length=length))
            assert_alive(ours)

    served(exchange)


def test_a_kernel_that_is_too_old() -> None:
    def exchange(ours: socket.socket) -> None:
        ours.send(message(26, 1, struct.pack("<4I", 6, 1, 0, 0)))
        assert answer_of(ours, 1) != 0
        ours.send(INIT)
        assert answer_of(ours, 1) == 0
        assert_alive(ours)

    served(exchange)


def test_descriptors_are_closed_when_the_mount_ends() -> None:
    def exchange(ours: socket.socket) -> None:
        ours.send(INIT)
        assert_alive(ours)

    before = len(os.listdir("/proc/self/fd"))
    served(exchange)
    assert len(os.listdir("/proc/self/fd")) == before
