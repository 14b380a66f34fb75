"""Examples in the documentation run."""

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

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def transcript() -> list[tuple[str, str]]:
    """Commands of the README with what they print."""
    found = []
    for block in blocks(README, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@needs_sandbox
@pytest.mark.parametrize(("command", "output"), transcript(), ids=[c for c, _ in transcript()])
def test_the_transcript_of_the_readme_is_real(command: str, output: str) -> None:
    tools = {"busybox": "busybox-static", "dmidecode": "dmidecode"}
    for word in shlex.split(command):
        if word in tools:
            need(word, tools[word])
    path = f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={"PATH": path}, check=False
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


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_first_screen_of_the_readme_has_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:30])
    assert "make demo" in first
    assert "make test" in first
    assert "fakedev run" in first
