"""The control socket: verbs, errors, and peers that send nonsense."""

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import BAR, small_machine

from fakedev.control import protocol
from fakedev.control.client import Client, find, new_name, sockets, states
from fakedev.control.server import ControlServer
from fakedev.control.verbs import Verbs
from fakedev.model.errors import ControlError, HostError
from fakedev.model.machine import Machine


@pytest.fixture
def machine() -> Machine:
    return small_machine()


@pytest.fixture
def server(machine: Machine, tmp_path: Path) -> Iterator[ControlServer]:
    server = ControlServer(tmp_path / "small.sock", Verbs(machine, {"pid": 7, "command": ["true"]}))
    yield server
    server.close()


@pytest.fixture
def client(server: ControlServer) -> Iterator[Client]:
    with Client(server.path, timeout=10) as client:
        yield client


def raw(server: ControlServer, *lines: bytes) -> list[dict[str, object]]:
    """Send lines as they are; the answers, one a line."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(server.path))
        stream = peer.makefile("rb")
        answers = []
        for line in lines:
            peer.sendall(line)
            answers.append(json.loads(stream.readline()))
        return answers


def test_the_socket_is_the_users_own(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


def test_state_says_what_is_claimed(client: Client) -> None:
    client.call("claim", range=f"{BAR:#x}+4K", name="fpga")
    state = client.call("state")
    assert (state["machine"], state["pid"], state["events"]) == ("small", 7, 2)
    assert state["claims"] == [
        {"range": f"{BAR:08x}-{BAR + 0xFFF:08x}", "name": "fpga", "event": 1}
    ]


def test_claim_and_release(client: Client, machine: Machine) -> None:
    claimed = client.call(
        "claim", range=f"{BAR:08x}-{BAR + 0xFFF:08x}", name="fpga", exclusive=True
    )
    assert claimed["exclusive"]
    assert "fpga" in client.call("iomem")["text"]
    assert client.call("iomem", privileged=False)["text"].startswith("00000000-00000000")
    with pytest.raises(ControlError, match="fpga"):
        client.call("claim", range=f"{BAR:#x}+16", name="other")
    client.call("release", range=f"{BAR:#x}+4K")
    assert machine.claims == ()


def test_errors_carry_the_errno(server: ControlServer) -> None:
    request = {"verb": "claim", "args": {"range": f"{BAR:#x}+4K", "name": "fpga"}}
    line = json.dumps(request).encode() + b"\n"
    first, second = raw(server, line, line)
    assert first["ok"]
    assert second["error"]["errno"] == "EBUSY"  # type: ignore[index]


def test_peek_sees_what_was_poked(client: Client) -> None:
    client.call("poke", address=f"{BAR:#x}", base64="3q2+7w==")
    assert client.call("peek", range=f"{BAR:#x}+4")["base64"] == "3q2+7w=="
    with pytest.raises(ControlError, match="16 MiB"):
        client.call("peek", range="0x100000+17M")
    with pytest.raises(ControlError, match="base64"):
        client.call("poke", address="0", base64="!")
    with pytest.raises(ControlError, match="do not fit"):
        client.call("poke", address="0xc0000000", base64="3q2+7w==")


def test_the_log_can_be_read_from_a_number_on(client: Client) -> None:
    client.call("claim", range=f"{BAR:#x}+4K", name="fpga")
    events = client.call("log")["events"]
    assert [event["kind"] for event in events] == ["claim", "revoke"]
    assert client.call("log", since=1)["events"] == events[1:]


def test_explain_is_about_the_machine_as_it_is(client: Client) -> None:
    assert client.call("explain", range=f"{BAR:#x}+4", op="read")["allowed"]
    client.call("claim", range=f"{BAR:#x}+4K", name="fpga")
    verdict = client.call("explain", range=f"{BAR:#x}+4", op="mmap")
    assert verdict["errno"] == "EPERM"
    assert verdict["resource"].endswith("fpga")


def test_reset(client: Client, machine: Machine) -> None:
    client.call("claim", range=f"{BAR:#x}+4K", name="fpga")
    client.call("reset")
    assert machine.claims == ()


def test_wait_ends_with_the_event_or_the_time(client: Client, machine: Machine) -> None:
    with pytest.raises(ControlError, match="no 'claim' event"):
        client.call("wait", event="claim", timeout=0.05)
    threading.Timer(0.05, machine.claim, (f"{BAR:#x}+4K", "fpga")).start()
    assert client.call("wait", event="revoke", timeout=10)["kind"] == "revoke"
    assert client.call("wait", event="claim", since=0, timeout=1)["number"] == 1


def test_who_waits_and_hangs_up_leaves_no_watcher(server: ControlServer, machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(server.path))
        peer.sendall(b'{"verb":"wait","args":{"event":"reset"}}\n')
        deadline = threading.Event()
        while not machine.watchers and not deadline.wait(0.01):
            pass
    while machine.watchers and not deadline.wait(0.01):
        pass


BAD = [
    b"\n",
    b"hello\n",
    b"[]\n",
    b"{}\n",
    b'{"verb": 1}\n',
    b'{"verb": "fly"}\n',
    b'{"verb": "__class__"}\n',
    b'{"verb": "state", "args": []}\n',
    b'{"verb": "state", "args": {"x": 1}}\n',
    b'{"verb": "state", "more": 1}\n',
    b'{"verb": "claim"}\n',
    b'{"verb": "claim", "args": {"range": 5, "name": "x"}}\n',
    b'{"verb": "claim", "args": {"range": "5", "name": "x"}}\n',
    b'{"verb": "claim", "args": {"range": "0x0+4K", "name": ""}}\n',
    b'{"verb": "claim", "args": {"range": "0x0+4K", "name": "x", "exclusive": 1}}\n',
    b'{"verb": "wait", "args": {"event": "claim", "timeout": true}}\n',
    b'{"verb": "wait", "args": {"event": "claim", "timeout": "a"}}\n',
    b'{"verb": "wait", "args": {"event": "nonsense"}}\n',
    b"\xff\xfe\n",
    b"[" * 5000 + b"\n",
]


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:40]))
def test_nonsense_gets_an_error_and_the_connection_lives(
    server: ControlServer, line: bytes
) -> None:
    bad, good = raw(server, line, b'{"verb":"state","id":9}\n')
    assert bad["ok"] is False
    assert bad["error"]["message"]  # type: ignore[index]
    assert good["ok"] is True
    assert good["id"] == 9


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200).map(lambda data: data.replace(b"\n", b"")))
def test_garbage_is_answered(server: ControlServer, data: bytes) -> None:
    (answer,) = raw(server, data + b"\n")
    assert answer["ok"] is False


def test_a_line_without_end_is_cut_off(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINE_LIMIT", 1000)
    (answer,) = raw(server, b"x" * 1000)
    assert "longer than the limit" in answer["error"]["message"]  # type: ignore[index]
    assert raw(server, b'{"verb":"state"}\n')[0]["ok"]


def test_machines_are_found_by_name_or_when_alone(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKEDEV_CONTROL", raising=False)
    assert find(tmp_path, None) == server.path
    assert find(tmp_path, "small") == server.path
    assert new_name(tmp_path, "small") == "small-2"
    assert [state["name"] for state in states(tmp_path)] == ["small"]
    with pytest.raises(HostError, match="running: small"):
        find(tmp_path, "other")
    monkeypatch.setenv("FAKEDEV_CONTROL", "/elsewhere.sock")
    assert find(tmp_path, None) == Path("/elsewhere.sock")


def test_sockets_of_dead_machines_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKEDEV_CONTROL", raising=False)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    assert sockets(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HostError, match="none is running"):
        find(tmp_path, None)


def test_closing_hangs_up_and_removes_the_socket(machine: Machine, tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "short.sock", Verbs(machine))
    with Client(server.path, timeout=10) as client:
        client.call("state")
        server.close()
        assert not server.path.exists()
        with pytest.raises(HostError):
            client.call("state")


def test_two_machines_of_one_name(server: ControlServer, machine: Machine) -> None:
    with pytest.raises(HostError, match="--name"):
        ControlServer(server.path, Verbs(machine))


def test_a_socket_is_seen_once_it_answers(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that refuses would be taken for that of a dead machine, and removed."""
    path, seen = tmp_path / "early.sock", []
    listen = socket.socket.listen

    def spied(self: socket.socket, backlog: int) -> None:
        seen.append(path.exists())
        listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", spied)
    ControlServer(path, Verbs(machine)).close()
    assert seen == [False]
    assert list(tmp_path.iterdir()) == []


def test_the_socket_of_a_dead_machine_is_taken_over(machine: Machine, tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    server = ControlServer(tmp_path / "dead.sock", Verbs(machine))
    assert raw(server, b'{"verb":"state"}\n')[0]["ok"]
    server.close()
