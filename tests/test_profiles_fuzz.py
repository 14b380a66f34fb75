"""Mutations of the bundled profiles end in a profile or in a ProfileError, and never in anything else."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import SOAK

from fakedev.model.errors import ProfileError
from fakedev.profiles import bundled_profiles, load_profile
from fakedev.profiles.build import build_parts

SOURCES = {name: Path(path) for name, path, _ in bundled_profiles()}
BUNDLED = str(SOURCES["pc-q35"].parent)
TEXTS = {name: path.read_text() for name, path in SOURCES.items()}
TREES = {name: yaml.load(text, Loader=yaml.BaseLoader) for name, text in TEXTS.items()}
ODD: list[Any] = [
    None, "", "0", "-1", "1", "0x_", "1__0", "9" * 5000, "0xffffffffffffffff", "1P", "0-0", "1-0", "+",
    "0+0", "0+1", "0+16P", "ffffffffffffffff-ffffffffffffffff", "\0", "é" * 50, "true", "[", "²", "x" * 3000,
    "/proc/../x", "a.xz", ".", "/dev/zero", "fd-9000", [], {}, [[]], {"": {}}, [{}], [None], {"a": None},
]  # fmt: skip
FUZZ = settings(
    max_examples=60 * SOAK,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    for path in SOURCES.values():
        (tmp_path / path.stem).symlink_to(path.with_suffix(""))
    return tmp_path


def try_it(path: Path, text: str, overrides: list[str] | None = None) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        profile = load_profile(str(path), overrides=overrides or [])
    except ProfileError as error:
        # a line of the profile, of one that it extends, or an option
        places = (str(path.parent), BUNDLED, "--set", "... and ")
        if not error.problems or not all(line.startswith(places) for line in error.problems):
            pytest.fail(f"no place: {error.problems}")
        return
    build_parts(profile)


def spots(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in members:
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += spots(value)
    return found


def copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def mutate(tree: Any, chance: random.Random) -> None:
    container, key = chance.choice(spots(tree))
    action = chance.randrange(5)
    if action == 0:
        container[key] = copied(chance.choice(ODD))
    elif action == 1:
        del container[key]
    elif action == 2:
        other, source = chance.choice(spots(tree))
        container[key] = copied(other[source])
    elif action == 3 and isinstance(container, dict):
        container[str(chance.choice([key, "x", "", "range", "/proc/x", "raw", "file"])) + "y"] = (
            container.pop(key)
        )
    elif isinstance(container, list):
        container.insert(key, copied(container[key]))
    else:
        container[key] = str(container[key])[::-1]


@pytest.mark.parametrize("name", sorted(TREES))
@FUZZ
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 4))
def test_changed_trees(name: str, no_cache: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    tree = copied(TREES[name])
    for _ in range(count):
        mutate(tree, chance)
    try_it(no_cache / f"{name}.yaml", yaml.safe_dump(tree, default_style='"' if seed % 2 else None))


@pytest.mark.parametrize("name", sorted(TEXTS))
@FUZZ
@given(seed=st.integers(0, 1 << 32), insert=st.text(max_size=6))
def test_changed_texts(name: str, no_cache: Path, seed: int, insert: str) -> None:
    chance = random.Random(seed)
    text = TEXTS[name]
    start = chance.randrange(len(text))
    end = start + chance.choice([0, 1, 5, 200])
    try_it(no_cache / f"{name}.yaml", text[:start] + insert + text[end:])


@FUZZ
@given(
    key=st.lists(st.sampled_from(["kernel", "memory", "segments", "contents", "firmware", "e820", "smbios",
                                  "acpi", "tables", "structures", "iomem", "files", "0", "1", "99", "name",
                                  "range", "at", '"/proc/a.b"', "", "x"]), min_size=1, max_size=4),
    value=st.sampled_from([str(odd) for odd in ODD]) | st.text(max_size=8),
)  # fmt: skip
def test_overrides(no_cache: Path, key: list[str], value: str) -> None:
    try_it(no_cache / "pc-q35.yaml", TEXTS["pc-q35"], [f"{'.'.join(key)}={value}"])
