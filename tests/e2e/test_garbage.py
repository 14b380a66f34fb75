"""Malformed messages, from a control client or from /dev/fuse: an error at most, and everything lives on."""

import json
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from machines import small_machine
from support import Host, Running, need_sandbox

from fakedev.fuse import wire
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.connection import Connection
from fakedev.views.tree import Tree

STRICT = str(Path(__file__).parent / "strict.yaml")
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
