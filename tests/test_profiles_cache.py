"""The cache of compiled profiles: valid only while every file that went into it is the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from profile_files import RAM, Folder

from fakedev.profiles import cache, load_profile, reading
from fakedev.profiles.plan import Profile

TEXT = RAM + (
    "extends: base.yaml\n"
    "memory: {segments: [{range: 4G+1M, name: rom, readonly: true, fill: {bytes: ff 00}}], "
    "contents: [{at: 4G, file: blob}, {range: 0x100001000+64K, fill: random, seed: 3}]}\n"
    "files: {/proc/a: {hex: 00ff80}, /proc/b: {symlink: a}, /proc/c: {text: x, size: 4096}}\n"
    'iomem: ["100000000-1000fffff : rom"]\n'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAKEDEV_NO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "blob").write_bytes(b"\x80\x00blob")
    folder = Folder(tmp_path)
    folder.write("kernel: {version: 5.10, phys_bits: 40}\n", "base.yaml")
    folder.write(TEXT)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The profiles that were really read."""
    seen: list[str] = []
    real = reading.read_profile

    def counted(path: str, overrides: tuple[str, ...]) -> Profile:
        seen.append(path)
        return real(path, overrides)

    monkeypatch.setattr(reading, "read_profile", counted)
    return seen


def entries(folder: Folder) -> list[Path]:
    return sorted((folder.path / "cache" / "fakedev" / "profiles").iterdir())


def test_what_comes_back_is_equal(folder: Folder, reads: list[str]) -> None:
    first = load_profile("m.yaml")
    assert load_profile("m.yaml") == first
    assert reads == ["m.yaml"]
    assert entries(folder)[0].stat().st_mode & 0o777 == 0o600
    assert entries(folder)[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["arm64-server", "fd-9000", "pc-q35", "workstation"])
def test_bundled_profiles_come_back_equal(folder: Folder, reads: list[str], name: str) -> None:
    first = load_profile(name)
    again = load_profile(name)
    assert again == first
    assert again.files == first.files
    assert len(reads) == 1


@pytest.mark.parametrize("changed", ["m.yaml", "base.yaml", "blob"])
def test_a_change_of_any_file_counts(folder: Folder, reads: list[str], changed: str) -> None:
    load_profile("m.yaml")
    path = folder.path / changed
    path.write_bytes(path.read_bytes() + b"\n")
    load_profile("m.yaml")
    assert len(reads) == 2


def test_a_file_that_is_gone_is_an_error_again(folder: Folder, reads: list[str]) -> None:
    load_profile("m.yaml")
    (folder.path / "blob").unlink()
    assert folder.refused(TEXT)[0].endswith("there is no such file")


def test_overrides_have_their_own_entry(folder: Folder, reads: list[str]) -> None:
    for _ in range(2):
        assert load_profile("m.yaml", overrides=["kernel.version=6.1"]).rules["version"] == "6.1"
        assert load_profile("m.yaml").rules["version"] == "5.10"
    assert len(reads) == 2


def test_the_code_counts(folder: Folder, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    load_profile("m.yaml")
    monkeypatch.setattr(cache, "_fingerprint", lambda: "newer")
    load_profile("m.yaml")
    assert len(reads) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b'{"code": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_entry_is_a_miss(folder: Folder, reads: list[str], damage: bytes) -> None:
    first = load_profile("m.yaml")
    entries(folder)[0].write_bytes(damage)
    assert load_profile("m.yaml") == first
    assert len(reads) == 2


def test_an_entry_with_a_changed_byte_is_a_miss(folder: Folder, reads: list[str]) -> None:
    first = load_profile("m.yaml")
    entry = entries(folder)[0]
    data = entry.read_bytes()
    for position in range(0, len(data), len(data) // 20):
        entry.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert load_profile("m.yaml") == first
    assert len(reads) > 20


def test_an_entry_that_others_may_write_is_a_miss(folder: Folder, reads: list[str]) -> None:
    load_profile("m.yaml")
    entries(folder)[0].chmod(0o666)
    load_profile("m.yaml")
    assert len(reads) == 2


def test_no_cache(folder: Folder, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    load_profile("m.yaml")
    load_profile("m.yaml")
    assert len(reads) == 2
    assert not (folder.path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    folder: Folder, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.path / "blob"))
    load_profile("m.yaml")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    load_profile("m.yaml")
    assert len(reads) == 2


def test_overlays_are_not_kept(folder: Folder, reads: list[str]) -> None:
    (folder.path / "tree").mkdir()
    folder.write("files: {overlay: tree}\n", "o.yaml")
    load_profile("o.yaml")
    load_profile("o.yaml")
    assert len(reads) == 2


def test_old_entries_go(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRY_LIMIT", 3)
    for number in range(8):
        load_profile("m.yaml", overrides=[f"name=n{number}"])
    assert len(entries(folder)) <= 4


def test_a_cached_profile_needs_neither_pydantic_nor_yaml(folder: Folder) -> None:
    load_profile("fd-9000")
    program = (
        "import sys\n"
        "from fakedev.profiles import load_profile\n"
        "from fakedev.profiles.build import build_machine\n"
        "build_machine(load_profile('fd-9000'))\n"
        "print([name for name in ('pydantic', 'yaml', 'numpy', 'difflib') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=True,
    )
    assert done.stdout == "[]\n"
