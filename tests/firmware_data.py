"""What the tests of the firmware builders share: descriptions of the bundled profiles, and blobs."""

import lzma
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

DATA = Path(__file__).parent / "data"
PROFILES = Path(__file__).parent.parent / "machine-profiles"


def firmware_of(name: str) -> dict[str, Any]:
    """The `firmware:` part of a bundled profile."""
    text = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["firmware"]
    return found


def blob(name: str) -> bytes:
    """A file beside the bundled profiles."""
    data = (PROFILES / name).read_bytes()
    return lzma.decompress(data) if name.endswith(".xz") else data


def tool(name: str, package: str) -> str:
    """The path of a tool; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (package {package})")
    return found
