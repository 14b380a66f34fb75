"""The profiles that come with fakedev."""

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DESCRIPTION = re.compile(r"^description:[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)


def profile_folder() -> Path:
    """Where they lie: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / "machine-profiles"
    return inside if inside.is_dir() else _PACKAGE.parent / "machine-profiles"


def bundled_path(name: str) -> str | None:
    """The file of a bundled profile, or None."""
    if not _NAME.fullmatch(name):
        return None
    path = profile_folder() / f"{name}.yaml"
    return str(path) if path.is_file() else None


def bundled_names() -> list[str]:
    """Their names, sorted."""
    return sorted(path.stem for path in profile_folder().glob("*.yaml"))


def bundled_profiles() -> list[tuple[str, str, str]]:
    """(name, path, description) of each, by name."""
    found = []
    for name in bundled_names():
        path = profile_folder() / f"{name}.yaml"
        found.append((name, str(path), _description(path)))
    return found


def _description(path: Path) -> str:
    """The `description:` of a file without reading it as YAML: a listing must be quick."""
    match = _DESCRIPTION.search(path.read_text(encoding="utf-8"))
    if match is None:
        return ""
    text = " ".join(match[1].split())
    return re.sub(r"^(?:[>|][-+]?\s*|[\"'])|[\"']$", "", text).strip()
