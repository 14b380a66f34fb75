"""Examples in the documentation run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from support import BIN, need

from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import check_file, load_profile
from fakedev.profiles.schema import json_schema

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PCI_PARTS = (
    "Pci",
    "PciFunction",
    "PciDriver",
    "Bar",
    "Rom",
    "Bridge",
    "Register",
    "Header",
    "Link",
)
PCI = (ROOT / "docs" / "pci.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def transcript() -> list[tuple[str, str]]:
    """Commands of the documents with what they print."""
    found = []
    for block in blocks(README, "console") + blocks(PCI, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@needs_sandbox
@pytest.mark.parametrize(("command", "output"), transcript(), ids=[c for c, _ in transcript()])
def test_the_transcripts_are_real(command: str, output: str) -> None:
    tools = {"busybox": "busybox-static", "dmidecode": "dmidecode", "lspci": "pciutils"}
    for word in shlex.split(command):
        if word in tools:
            need(word, tools[word])
    env = {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}
    env |= {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=env, check=False
    )
    assert done.stdout + done.stderr == output


@needs_sandbox
def test_the_python_example_runs() -> None:
    (code,) = blocks(README, "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "claimed by fpga" in done.stdout


def test_the_profile_of_the_readme_is_good(tmp_path: Path) -> None:
    (text,) = blocks(README, "yaml")
    profile = tmp_path / "board.yaml"
    profile.write_text(text)
    assert check_file(str(profile)) == []


def test_the_profile_of_the_docs_builds(tmp_path: Path) -> None:
    (text,) = blocks((ROOT / "docs" / "profiles.md").read_text(), "yaml")
    profile = tmp_path / "board.yaml"
    profile.write_text(text)
    machine = build_machine(load_profile(str(profile)))
    assert machine.peek("0xd8100004+4") == b"\xef\xbe\xad\xde"
    assert machine.peek("0xd8102008+8") == (0xD8102008).to_bytes(8, "little")
    assert "d8100000-d810ffff : 0000:04:00.0" in machine.iomem()


def test_the_pci_profile_of_the_docs_builds(tmp_path: Path) -> None:
    text, _ = blocks(PCI, "yaml")
    profile = tmp_path / "board.yaml"
    profile.write_text(text)
    machine = build_machine(load_profile(str(profile)))
    assert list(machine.pci.devices) == ["0000:00:00.0", "0000:00:01.0", "0000:01:00.0"]
    assert "30000000-3000ffff : 0000:01:00.0" in machine.iomem()
    assert machine.peek("0xe0100000+4") == bytes.fromhex("ee102470")


def test_the_pci_example_in_python_runs() -> None:
    (code,) = blocks(PCI, "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0000:01:00.0 bound to nvme" in done.stdout


def test_the_capabilities_of_the_docs_are_good(tmp_path: Path) -> None:
    profile, capabilities = blocks(PCI, "yaml")
    bars = "      bars: {0: {mem32: 64K}}\n      capabilities:\n"
    lines = [f"        {line}\n" for line in capabilities.splitlines()]
    head, _, _ = profile.partition('    "01:00.0":')
    function = '    "01:00.0":\n      id: "10ee:7024"\n      class: "058000"\n'
    path = tmp_path / "board.yaml"
    path.write_text(head + function + bars + "".join(lines))
    assert check_file(str(path)) == []


def test_every_pci_key_is_in_the_docs() -> None:
    definitions = json_schema()["$defs"]
    keys = {key for name in PCI_PARTS for key in definitions[name]["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in PCI and f"{key}:" not in PCI] == []


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_first_screen_of_the_readme_has_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:30])
    assert "make demo" in first
    assert "make test" in first
    assert "fakedev run" in first
