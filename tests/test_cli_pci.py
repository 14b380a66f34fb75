"""`fakedev ctl` about PCI: what it prints, and how it refuses."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import small_machine
from typer.testing import CliRunner, Result

import fakedev.cli.options
from fakedev.cli import ctl_pci
from fakedev.cli.app import app
from fakedev.control.server import ControlServer
from fakedev.control.verbs import Verbs
from fakedev.model.effects import Mapper
from fakedev.model.errors import FakedevError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

DOCS = Path(__file__).parent.parent / "docs" / "pci.md"
CARD = "0000:01:00.0"
COMMANDS = [c.__name__.replace("_", "-") for c in ctl_pci.COMMANDS]


def ctl(*args: str) -> Result:
    return CliRunner().invoke(app, ["ctl", *args], catch_exceptions=True)


def serve(machine: Machine, directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Machine]:
    patch.delenv("FAKEDEV_CONTROL", raising=False)
    patch.setattr(fakedev.cli.options, "runtime_directory", lambda: directory)
    server = ControlServer(directory / "board.sock", Verbs(machine))
    yield machine
    server.close()


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "board.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)[0])
    return str(path)


@pytest.fixture
def board(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield from serve(build_machine(load_profile(profile)), tmp_path, monkeypatch)


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield from serve(small_machine(), tmp_path, monkeypatch)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    help_text = ctl(command, "--help").output
    assert "Usage" in help_text
    assert "--json" in help_text


def test_the_table(board: Machine) -> None:
    lines = ctl("pci").output.splitlines()
    assert lines[0].split() == ["FUNCTION", "ID", "CLASS", "DRIVER", "STATE", "BARS"]
    card = next(line for line in lines if line.startswith(CARD))
    assert card.split() == [
        CARD,
        "10ee:7024",
        "058000",
        "-",
        "present",
        "0:",
        "30000000-3000ffff",
        "mem32",
    ]
    below = lines[lines.index(card) + 1]
    assert below.strip().startswith("1: ")
    assert below.index("1: ") == card.index("0: 3")
    assert [row["bdf"] for row in json.loads(ctl("pci", "--json").output)][-1] == CARD


def test_load_unbind_bind_unload(board: Machine) -> None:
    assert ctl("modprobe", "fpga").output == f"fpga loaded\n{CARD} bound to fpga\n"
    assert ctl("unbind", "01:00.0").output == f"{CARD} unbound from fpga\n"
    assert ctl("bind", "fpga", "01:00.0").output == f"{CARD} bound to fpga\n"
    assert ctl("unbind", "fpga", "01:00.0").output == f"{CARD} unbound from fpga\n"
    assert ctl("rmmod", "fpga").output == "fpga unloaded\n"


def test_remove_and_rescan(board: Machine) -> None:
    assert ctl("remove", "01:00.0").output == f"{CARD} removed\n"
    assert "removed" in next(x for x in ctl("pci").output.splitlines() if x.startswith(CARD))
    assert ctl("rescan").output == f"{CARD} found\n"
    assert ctl("rescan", "00:01.0").output == "nothing changed\n"


def test_unplug_and_plug(board: Machine) -> None:
    assert ctl("unplug", "01:00.0").output == f"{CARD} unplugged\n"
    assert ctl("plug", "01:00.0").output == f"{CARD} plugged\n{CARD} found\n"


def test_slot_link_and_reset(board: Machine) -> None:
    assert ctl("slot-power", "1", "off").output == f"slot 1 is off\n{CARD} removed\n"
    assert ctl("slot-power", "1", "on").output == f"slot 1 is on\n{CARD} found\n"
    assert ctl("link-down", "00:01.0").output == "link below 0000:00:01.0 is down\n"
    assert ctl("link-up", "00:01.0").output == "link below 0000:00:01.0 is up\n"
    assert ctl("reset-function", "01:00.0").output == f"{CARD} reset\n"
    assert json.loads(ctl("reset-function", "01:00.0", "--json").output)["device"] == CARD


def test_a_probe_that_fails_is_noted(board: Machine) -> None:
    board.claim("30000000-30000fff", "squatter")
    result = ctl("modprobe", "fpga")
    assert result.stdout == "fpga loaded\n"
    assert "BAR 0" in result.stderr


def test_refusals_say_what_to_do(board: Machine) -> None:
    for args, message in (
        (("remove", "05:00.0"), "fakedev ctl pci lists them"),
        (("bind", "fpga", "01:00.0"), "fakedev ctl modprobe fpga"),
        (("reset-function", "00:00.0"), "ENOTTY"),
        (("slot-power", "9", "on"), "slots: 1"),
    ):
        result = ctl(*args)
        assert isinstance(result.exception, FakedevError), result.output
        assert message in str(result.exception)
    assert ctl("unbind", "a", "b", "c").exit_code == 2
    assert ctl("slot-power", "1", "maybe").exit_code == 2


def test_a_machine_without_pci(plain: Machine) -> None:
    assert "has no PCI" in str(ctl("pci").exception)


def test_the_log_names_who_lost_a_mapping(board: Machine) -> None:
    mapper = Mapper(123, "gdb", Range(0x30000000, 4096))
    board.record("lost", "mappings lost", mapper.span, mappers=(mapper,))
    assert "mapped by gdb[123]: 30000000-30000fff" in ctl("log").output
    lost = next(e for e in json.loads(ctl("log", "--json").output) if e["kind"] == "lost")
    assert lost["mappers"] == [{"pid": 123, "comm": "gdb", "range": "30000000-30000fff"}]


def test_explain_takes_the_path_of_a_bar(board: Machine, profile: str) -> None:
    path = f"/sys/bus/pci/devices/{CARD}/resource0"
    assert "mmap: allowed" in ctl("explain", path, "--op", "mmap").output
    text = CliRunner().invoke(app, ["explain", profile, path]).output
    assert f"{path} (30000000-3000ffff) on pci-board" in text
    assert "refused, EIO" in text
    assert "mmap   allowed" in text
