"""`fakedev explain --kernel all`: a column for each preset. And the commands about poison."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import BAR, HIGH, small_machine
from typer.testing import CliRunner, Result

import fakedev.cli.options
from fakedev.cli.app import app
from fakedev.control.explaining import explain_claim
from fakedev.control.server import ControlServer
from fakedev.control.verbs import Verbs
from fakedev.model.kernel import PRESETS
from fakedev.model.ranges import Range

ONE_BAR = """
fakedev: 1
kernel: {strict_devmem: true, io_strict_devmem: true}
firmware:
  e820:
    - {range: 100000-1fffffff, type: System RAM}
    - {range: 200000000-2ffffffff, type: System RAM}
memory:
  segments: [{range: c0000000-c000ffff, name: board, fill: zero}]
iomem: |
  c0000000-c000ffff : 0000:00:05.0
  100000000-13fffffff : Persistent Memory
    110000000-13fffffff : System RAM (kmem)
"""
RAM = ("0x100000", "--op", "mmap", "--set", "kernel.strict_devmem=false")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, args, catch_exceptions=True)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "one-bar.yaml"
    path.write_text(ONE_BAR)
    return str(path)


def cells(output: str, name: str) -> list[str]:
    """The cells of a row; they are two spaces apart at least."""
    line = next(line for line in output.splitlines() if line.strip().startswith(name))
    return [cell for cell in line.strip().removeprefix(name).split("  ") if cell.strip()]


def stripped(output: str, name: str) -> list[str]:
    return [cell.strip() for cell in cells(output, name)]


def test_a_claim_on_each_preset(profile: str) -> None:
    output = invoke("explain", profile, "0xc0000000+4K", "--kernel", "all").output
    head, versions = output.splitlines()[:2]
    assert head == f"c0000000-c0000fff on {profile}:"
    assert versions.split() == list(PRESETS)
    assert stripped(output, "claim") == ["spares", "mem only", *["revokes"] * 5]
    assert stripped(output, "mmap") == ["allowed"] * 7
    assert "  claim  5.10: revoke_devmem: mappings of /dev/mem die" in output
    assert "  mmap   all: devmem_is_allowed" in output


def test_verdicts_that_differ(profile: str) -> None:
    output = invoke("explain", profile, *RAM, "--kernel", "all").output
    assert stripped(output, "mmap") == ["EINVAL"] * 6 + ["allowed"]
    kmem = ("0x120000000", "--op", "read", "--set", "kernel.io_strict_devmem=false")
    output = invoke("explain", profile, *kmem, "--kernel", "all").output
    here = {"5.10", "6.1", "6.12", "7.2"}
    assert stripped(output, "read") == ["EPERM" if v in here else "allowed" for v in PRESETS]
    assert "read   5.10, 6.1, 6.12, 7.2: devmem_is_allowed: page 0x120000000 is" in output


def test_zeros_and_dropped_writes() -> None:
    output = invoke("explain", "pc-q35", "0x1000", "--kernel", "all").output
    assert stripped(output, "read") == ["zeros"] * 7
    assert stripped(output, "write") == ["dropped"] * 7
    assert stripped(output, "claim") == ["EBUSY"] * 7


def test_json(profile: str) -> None:
    output = invoke("explain", profile, "0xc0000000+4K", "--kernel", "all", "--json").output
    found: dict[str, Any] = json.loads(output)
    assert found["range"] == "c0000000-c0000fff"
    assert list(found["kernels"]) == list(PRESETS)
    kernel = found["kernels"]["5.10"]
    assert set(kernel["verdicts"]) == {"read", "write", "mmap"}
    assert kernel["verdicts"]["mmap"]["allowed"] is True
    assert kernel["claim"]["outcome"] == "mem only"


def test_a_command_line_counts_for_each(profile: str) -> None:
    options = ("--kernel", "all", "--cmdline", "iomem=relaxed")
    output = invoke("explain", profile, "0xc0000000+4K", *options).output
    assert stripped(output, "claim") == ["spares"] * 7
    assert "the pages are allowed still" in output


def test_a_resource_file_can_be_explained() -> None:
    path = "/sys/bus/pci/devices/0000:04:00.0/resource0"
    output = invoke("explain", "fd-9000", path, "--op", "read", "--kernel", "all").output
    assert stripped(output, "read") == ["EIO"] * 7


def test_a_preset_that_cannot_be_has_no_column(profile: str) -> None:
    """virtio-mem came with 5.8."""
    output = invoke("explain", "virtio-mem-guest", "0x100000", "--op", "read", "--kernel", "all")
    assert stripped(output.output, "read")[0] in {"-", "EPERM"}
    assert stripped(output.output, "read")[-1] == "EPERM"


def test_an_error_of_the_profile_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("fakedev: 1\nkernel: {arch: vax}\n")
    done = invoke("explain", str(path), "0", "--kernel", "all")
    assert done.exit_code != 0
    assert "vax" in str(done.exception) + done.output


@pytest.mark.parametrize(
    ("rules", "outcome", "words"),
    [
        ({"claim_policy": "deny-claim"}, "denied", "EBUSY while"),
        ({"claim_policy": "ignore"}, "spares", "ignore"),
        ({"io_strict_devmem": False}, "spares", "IO_STRICT_DEVMEM"),
    ],
)
def test_what_a_claim_does(rules: dict[str, Any], outcome: str, words: str) -> None:
    machine = small_machine("6.12", **rules)
    before = machine.iomem()
    found = explain_claim(machine, Range(BAR, 4096))
    assert found["outcome"] == outcome
    assert words in found["rule"]
    assert machine.iomem() == before


# -- fakedev ctl poison ---------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("FAKEDEV_CONTROL", raising=False)
    monkeypatch.setattr(fakedev.cli.options, "runtime_directory", lambda: tmp_path)
    server = ControlServer(tmp_path / "small.sock", Verbs(small_machine(), {"pid": 7}))
    yield server.path
    server.close()


@pytest.mark.usefixtures("running")
def test_poison_and_unpoison() -> None:
    done = invoke("ctl", "poison", f"{HIGH:#x}+8K")
    assert done.output == "2 pages of 100000000-100001fff poisoned\nHardwareCorrupted: 8 kB\n"
    assert "poison       100000000-100001fff hard" in invoke("ctl", "state").output
    found = json.loads(invoke("ctl", "unpoison", f"{HIGH:#x}", "--json").output)
    assert (found["range"], found["pages"]) == ("100000000-100000fff", 1)
    assert found["hardware_corrupted_kb"] == 4
    for words in (["poison", "0x100001000"], ["unpoison", "0"], ["poison", "x"]):
        assert invoke("ctl", *words).exit_code != 0
    assert invoke("ctl", "wait", "poison", "--since", "0").output.startswith("2 pages of")
