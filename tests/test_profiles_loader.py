"""Names, `extends`, `--set`, and the folders that file names are relative to."""

import lzma
from pathlib import Path

import pytest
from profile_files import RAM, Folder

from fakedev.model.errors import ProfileError
from fakedev.model.files import StaticFile
from fakedev.profiles import bundled_profiles, check_file, load_profile
from fakedev.profiles.build import build_memory

BUNDLED = [
    "arm64-server",
    "fd-9000",
    "pc-q35",
    "server-pmem-cxl",
    "virtio-mem-guest",
    "workstation",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    return Folder(tmp_path)


def test_bundled_profiles_have_a_description(folder: Folder) -> None:
    found = bundled_profiles()
    assert [name for name, _, _ in found] == BUNDLED
    for name, path, description in found:
        assert load_profile(name) == load_profile(path)
        assert description == load_profile(name).description


def test_a_bare_word_is_a_bundled_name_first(folder: Folder) -> None:
    folder.write("name: mine\n", "fd-9000")
    assert load_profile("fd-9000").name == "fd-9000"
    assert load_profile("./fd-9000").name == "mine"
    folder.write("name: other\n", "plain")
    assert load_profile("plain").name == "other"


def test_the_name_of_the_file_is_the_default_name(folder: Folder) -> None:
    folder.write("", "box.yaml")
    assert load_profile("box.yaml").name == "box"


def test_scalars_keep_their_text(folder: Folder) -> None:
    profile = folder.load(
        "name: no\nkernel: {version: 6.10, strict_devmem: off}\n"
        "files: {/proc/a: {hex: 00112233}, /proc/b: {text: 0x10, mode: 0400}, /proc/c: 1e3}\n"
    )
    assert profile.name == "no"
    assert profile.rules == {"version": "6.10", "strict_devmem": False}
    assert profile.files == {
        "/proc/a": StaticFile.regular(b"\x00\x11\x22\x33"),
        "/proc/b": StaticFile.regular(b"0x10", 0o400),
        "/proc/c": StaticFile.regular(b"1e3"),
    }


def test_extends_merges_mappings_and_replaces_the_rest(folder: Folder) -> None:
    folder.write(
        "kernel: {version: 5.10, cmdline: quiet}\n"
        "memory: {segments: [{range: 0+4K}]}\n"
        "files: {/proc/a: {text: a, mode: 0o600}, /proc/b: b, /proc/c: c}\n",
        "base.yaml",
    )
    folder.write("kernel: {cmdline: nopat}\n", "more.yaml")
    profile = folder.load(
        "extends: [base.yaml, more.yaml]\nkernel: {arch: riscv64}\n"
        "memory: {segments: [{range: 4K+4K, name: x}]}\n"
        "files: {/proc/a: {text: n}, /proc/b: null}\n"
    )
    assert profile.rules == {"version": "5.10", "cmdline": "nopat", "arch": "riscv64"}
    assert [(s.start, s.name) for s in profile.segments] == [(4096, "x")]
    assert profile.files == {
        "/proc/a": StaticFile.regular(b"n"),
        "/proc/c": StaticFile.regular(b"c"),
    }


def test_extends_a_bundled_profile(folder: Folder) -> None:
    profile = folder.load("name: child\nextends: pc-q35\nkernel: {cmdline: iomem=relaxed}\n")
    assert profile.name == "child"
    assert profile.rules["cmdline"] == "iomem=relaxed"
    assert profile.resources == load_profile("pc-q35").resources


def test_files_are_relative_to_the_profile_that_names_them(folder: Folder) -> None:
    inner = folder.path / "parts"
    inner.mkdir()
    (inner / "blob").write_bytes(b"inner")
    (folder.path / "blob").write_bytes(b"outer")
    (folder.path / "rom.xz").write_bytes(lzma.compress(b"packed"))
    Folder(inner).write(
        "memory: {segments: [{range: 0+4K}], contents: [{at: 0, file: blob}]}\n"
        "files: {/proc/a: {file: blob}}\n",
        "base.yaml",
    )
    profile = folder.load("extends: parts/base.yaml\nfiles: {/proc/b: {file: blob}}\n")
    assert build_memory(profile).read(0, 6) == b"inner\0"
    assert profile.files["/proc/a"].data == b"inner"
    assert profile.files["/proc/b"].data == b"outer"
    profile = load_profile("m.yaml", overrides=["memory.contents.0.file=rom.xz"])
    assert build_memory(profile).read(0, 7) == b"packed\0"


CYCLES = {
    "itself": (
        {"m.yaml": "extends: m.yaml\n"},
        "m.yaml:2:10: extends goes in a circle: m.yaml -> m.yaml; take one of them out",
    ),
    "through others": (
        {"m.yaml": "extends: a.yaml\n", "a.yaml": "extends: b.yaml\n", "b.yaml": "extends: [a.yaml]\n"},
        ("b.yaml:2:11: extends goes in a circle: m.yaml -> a.yaml -> b.yaml -> a.yaml; take one of "
        "them out"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("texts", "problem"), CYCLES.values(), ids=CYCLES.keys())
def test_circles(folder: Folder, texts: dict[str, str], problem: str) -> None:
    for name, text in texts.items():
        folder.write(text, name)
    assert check_file("m.yaml") == [problem]


def test_a_diamond_is_no_circle_and_an_explosion_is_refused(folder: Folder) -> None:
    folder.write("name: top\n", "p0.yaml")
    for i in range(1, 30):
        folder.write(f"extends: [p{i - 1}.yaml, p{i - 1}.yaml]\n", f"p{i}.yaml")
    assert load_profile("p2.yaml").name == "top"
    problems = check_file("p29.yaml")
    assert "more than 64 profiles extend each other" in problems[0]
    assert len(problems) < 70


def test_problems_of_extended_profiles_are_theirs(folder: Folder) -> None:
    folder.write("kernel: {arch: arm}\n", "base.yaml")
    assert folder.refused("extends: [base.yaml, none.yaml, nothing, {}]\n") == [
        "m.yaml:2:42: extends: a bundled name or a path is needed here, not a mapping",
        "m.yaml:2:22: extends none.yaml: there is no such file",
        (
            f"m.yaml:2:33: extends: there is no profile 'nothing'; bundled are {', '.join(BUNDLED)}; "
            "or give a path"
        ),
        "base.yaml:2:16: kernel.arch: 'arm' is not one of 'x86_64', 'aarch64' or 'riscv64'",
    ]


SETTINGS = {
    "boolean": ("kernel.strict_devmem=true", lambda p: p.rules["strict_devmem"], True),
    "text": ("name=a=b", lambda p: p.name, "a=b"),
    "quoted": ('name="x: y"', lambda p: p.name, "x: y"),
    "member": ("iomem.0.name=Flash", lambda p: p.resources[-1].name, "Flash"),
    "short form member": ("iomem.1.flags=[busy]", lambda p: p.resources[0].flags, 0x80000200),
    "append": ("memory.segments.0={range: 1G+4K}", lambda p: p.segments[-1].start, 1 << 30),
    "take away": ("kernel.cmdline=", lambda p: p.rules.get("cmdline"), None),
    "path with dots": ('files."/proc/a.b"=hi', lambda p: p.files["/proc/a.b"].data, b"hi"),
    "new mapping": ("memory.undecoded=0", lambda p: p.undecoded, 0),
}


@pytest.mark.parametrize(("option", "value", "expected"), SETTINGS.values(), ids=SETTINGS.keys())
def test_set(folder: Folder, option: str, value: object, expected: object) -> None:
    assert callable(value)
    profile = folder.load(
        "kernel: {cmdline: quiet}\n"
        + RAM
        + "iomem: |\n  ff000000-ffffffff : X\n  000e0000-000effff : Y\n",
        [option],
    )
    if option.startswith("iomem.1"):
        assert [r.flags for r in profile.resources if r.name == "Y"] == [expected]
    else:
        assert value(profile) == expected


BAD_SETTINGS = {
    "kernel": "--set kernel: not an override; write KEY.PATH=VALUE, for example kernel.strict_devmem=true",
    "kernel..x=1": "--set kernel..x=1: not an override; write KEY.PATH=VALUE, for example "
    "kernel.strict_devmem=true",
    "kernle.x=1": "--set kernle.x=1: unknown key 'kernle' (did you mean 'kernel'?)",
    "kernel.strict_devmem=x": "--set kernel.strict_devmem=x: kernel.strict_devmem: true or false is "
    "needed here, not 'x'",
    "name.x=1": "--set name.x=1: 'x' cannot be set: what is above it (m.yaml:2:7) is a single value",
    "iomem.x=1": "--set iomem.x=1: 'x' is not an index; the list at m.yaml:3:8 has 1 members, counted "
    "from 0",
    "iomem.7.name=1": "--set iomem.7.name=1: there is no member 7; the list at m.yaml:3:8 has 1 "
    "members, counted from 0",
    "name=[": "--set name=[: the value is not YAML: did not find expected node content (while parsing "
    "a flow node)",
    "fakedev=2": "--set fakedev=2: only `fakedev: 1` can be read",
    "iomem.0.range=1": "--set iomem.0.range=1: iomem.0.range: not a range: '1'; write ADDR+LEN "
    "(0xd8100000+64K) or START-END (d8100000-d810ffff)",
}


@pytest.mark.parametrize(("option", "problem"), BAD_SETTINGS.items())
def test_bad_set(folder: Folder, option: str, problem: str) -> None:
    assert folder.refused("name: x\niomem: ['1000-1fff : A']\n", [option]) == [problem]


def test_all_bad_settings_at_once(folder: Folder) -> None:
    assert len(folder.refused("", ["a", "b.c=1", "kernel.arch=q"])) == 3


def test_overlay(folder: Folder) -> None:
    tree = folder.path / "tree"
    (tree / "proc" / "sys").mkdir(parents=True)
    (tree / "proc" / "version").write_text("v\n")
    (tree / "proc" / "version").chmod(0o440)
    (tree / "proc" / "self").symlink_to("1")
    profile = folder.load("files: {overlay: tree, /proc/version: mine}\n")
    assert profile.files["/proc/self"] == StaticFile.symlink("1")
    assert profile.files["/proc/version"].data == b"mine"
    assert profile.files["/proc/sys"].mode & 0o170000 == 0o040000
    (tree / "etc").mkdir()
    with pytest.raises(ProfileError, match="only proc, sys and dev are served"):
        folder.load("files: {overlay: tree}\n")
