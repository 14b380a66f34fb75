"""The command line: what it prints, and how it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import BAR, small_machine
from typer.testing import CliRunner, Result

import fakedev.cli.options
from fakedev.cli.app import app
from fakedev.cli.text import hex_dump, parse_bytes
from fakedev.control.server import ControlServer
from fakedev.control.verbs import Verbs
from fakedev.model.errors import FakedevError, RangeError


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, args, catch_exceptions=True)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("FAKEDEV_CONTROL", raising=False)
    monkeypatch.setattr(fakedev.cli.options, "runtime_directory", lambda: tmp_path)
    server = ControlServer(tmp_path / "small.sock", Verbs(small_machine(), {"pid": 7}))
    yield server.path
    server.close()


@pytest.mark.parametrize(
    "command", [[], ["run"], ["ctl"], ["ctl", "claim"], ["explain"], ["mount"]]
)
def test_every_command_has_help(command: list[str]) -> None:
    assert "Usage" in invoke(*command, "--help").output


def test_bytes_are_read_as_people_write_them() -> None:
    assert parse_bytes(["de", "ad"]) == parse_bytes(["dead"]) == b"\xde\xad"
    assert parse_bytes(["u32:0x12345678", "text:ab"]) == b"\x78\x56\x34\x12ab"
    for bad in ("xyz", "u8:256", "u64:"):
        with pytest.raises(RangeError):
            parse_bytes([bad])


def test_a_hex_dump_looks_like_hexdump() -> None:
    lines = hex_dump(0xF0010, b"_SM_" + bytes(15)).splitlines()
    assert lines[0].startswith("000f0010  5f 53 4d 5f 00 00 00 00  00")
    assert lines[0].endswith("|_SM_............|")
    assert lines[1].startswith("000f0020  00")


def test_ps_and_state(running: Path) -> None:
    assert "small" in invoke("ps").output
    assert json.loads(invoke("ps", "--json").output)[0]["name"] == "small"
    assert "version=6.1" in invoke("ctl", "state").output


def test_claim_peek_poke_log_release(running: Path) -> None:
    span = f"{BAR:#x}+4K"
    assert (
        invoke("ctl", "claim", span, "--name", "fpga").output
        == f"{BAR:08x}-{BAR + 0xFFF:08x} : fpga\n"
    )
    assert "4 bytes" in invoke("ctl", "poke", f"{BAR:#x}", "u32:0xdeadbeef").output
    assert "ef be ad de" in invoke("ctl", "--machine", "small", "peek", f"{BAR:#x}+16").output
    assert invoke("ctl", "peek", f"{BAR:#x}+2", "--raw").stdout_bytes == b"\xef\xbe"
    log = invoke("ctl", "log").output
    assert "claimed by fpga" in log
    assert [e["kind"] for e in json.loads(invoke("ctl", "log", "--json").output)][:2] == [
        "claim",
        "revoke",
    ]
    assert "EPERM" in invoke("ctl", "explain", f"{BAR:#x}+1").output
    assert "released" in invoke("ctl", "release", span).output
    assert "reset" in invoke("ctl", "reset").output
    assert "System RAM" in invoke("ctl", "iomem").output
    assert invoke("ctl", "wait", "claim", "--since", "0", "--timeout", "1").exit_code == 0


def test_a_refused_verb_is_an_error(running: Path) -> None:
    result = invoke("ctl", "release", "0x1000+4K")
    assert isinstance(result.exception, FakedevError)
    assert "nonexistent" in str(result.exception)


def test_explain_shows_rule_errno_and_who_is_in_the_way() -> None:
    text = invoke("explain", "pc-q35", "0x100000", "--op", "read").output
    assert "refused, EPERM (Operation not permitted)" in text
    assert "devmem_is_allowed: page 0x100000 is System RAM" in text
    assert "in the way: 00100000-1ffd5fff : System RAM" in text
    assert "gives zeros" in invoke("explain", "pc-q35", "0x1000").output


def test_explain_for_another_kernel() -> None:
    def errno_of(*options: str) -> str | None:
        out = invoke("explain", "pc-q35", "0xfec00000", "--op", "mmap", "--json", *options).output
        verdict = json.loads(out)["verdicts"]["mmap"]
        return verdict["errno"]

    assert errno_of() == "EPERM"
    assert errno_of("--cmdline", "iomem=relaxed") is None
    assert errno_of("--kernel", "5.10") == "EPERM"
    assert errno_of("--set", "kernel.io_strict_devmem=false") is None


def test_profiles_check_and_schema(tmp_path: Path) -> None:
    assert "fd-9000" in invoke("profiles").output
    good = invoke("check", "fd-9000", "pc-q35")
    assert good.exit_code == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("fakedev: 1\nname: bad\nkernle: {}\n")
    result = invoke("check", str(bad))
    assert result.exit_code == 2
    assert "bad.yaml:3:1: " in result.output
    assert "kernel" in result.output
    schema = json.loads(invoke("schema").output)
    assert "memory" in json.dumps(schema)
