"""The story of the bundled profile virtio-mem-guest is real."""

import re
from pathlib import Path

import pytest
import yaml
from hostneeds import needs_sandbox
from support import Host

from fakedev.profiles.loader import load_profile
from fakedev.profiles.schema import json_schema

DOCS = Path(__file__).parent.parent.parent / "docs"
STORY = (DOCS / "stories" / "virtio-mem-guest.md").read_text()
PAGE = (DOCS / "virtio-mem.md").read_text()


def transcript() -> list[tuple[str, str]]:
    """Commands, with what they print."""
    (block,) = re.findall(r"```console\n(.*?)```", STORY, re.DOTALL)
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


@needs_sandbox
@pytest.mark.parametrize(("command", "output"), transcript())
def test_the_story_is_real(host: Host, command: str, output: str) -> None:
    import subprocess

    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=host.env, check=False, timeout=30
    )
    assert done.stdout + done.stderr == output


def test_the_page_names_every_key() -> None:
    keys = json_schema()["$defs"]["VirtioMemEntry"]["properties"]
    assert [key for key in keys if not re.search(rf"\b{key}\b", PAGE)] == []


def test_the_profile_of_the_page_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "m.yaml"
    path.write_text("fakedev: 1\nextends: [virtio-mem-guest]\n" + block)
    assert load_profile(str(path)).virtio_mem == load_profile("virtio-mem-guest").virtio_mem
    assert list(yaml.safe_load(block)) == ["virtio_mem"]
