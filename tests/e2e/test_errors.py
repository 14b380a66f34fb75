"""What is wrong with a profile or a host is said once, with the way out; nothing is started for it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import unprivileged
from support import BIN, Host, need, need_sandbox, wait_for

STRICT = str(Path(__file__).parent / "strict.yaml")
HEAD = "fakedev: 1\nname: bad\n"
SEGMENT = "memory:\n  segments: [{range: d0000000-d0000fff, name: a, fill: zero}]\n"
BOMB = HEAD + "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)  # fmt: skip

BAD_PROFILES: dict[str, tuple[dict[str, bytes], str]] = {
    "unknown key": (
        {"bad.yaml": (HEAD + "memmory: {undecoded: 0}\n").encode()},
        "bad.yaml:3:1: unknown key 'memmory' (did you mean 'memory'?)",
    ),
    "overlapping RAM": (
        {
            "bad.yaml": (
                HEAD + "firmware:\n  e820:\n    - {range: 0-9fbff, type: System RAM}\n"
                "    - {range: 9f000-fffff, type: System RAM}\n"
            ).encode()
        },
        "bad.yaml:6:15: e820 entry 0009f000-000fffff (System RAM) overlaps 00000000-0009fbff",
    ),
    "misaligned range": (
        {"bad.yaml": (HEAD + SEGMENT.replace("d0000fff", "d0000ffe")).encode()},
        "bad.yaml:4:22: the range d0000000-d0000ffe is misaligned",
    ),
    "missing blob": (
        {
            "bad.yaml": (
                HEAD + SEGMENT + "  contents: [{at: 0xd0000000, file: gone.bin}]\n"
            ).encode()
        },
        "bad.yaml:5:37: file 'gone.bin' (looked for in .): there is no such file",
    ),
    "blob longer than its place": (
        {
            "bad.yaml": (
                HEAD + SEGMENT + "  contents: [{at: 0xd0000000, file: big.bin}]\n"
            ).encode(),
            "big.bin": bytes(4097),
        },
        "bad.yaml:5:14: d0000000-d0001000 is 4,097 bytes long, and there is memory for 4,096",
    ),
    "cycle of extends": (
        {
            "bad.yaml": (HEAD + "extends: other.yaml\n").encode(),
            "other.yaml": (HEAD + "extends: bad.yaml\n").encode(),
        },
        "other.yaml:3:10: extends goes in a circle: bad.yaml -> other.yaml -> bad.yaml",
    ),
    "YAML bomb": ({"bad.yaml": BOMB.encode()}, "the document grows too large here"),
    "not UTF-8": (
        {"bad.yaml": b'fakedev: 1\nname: "\xff\xfe"\n'},
        "bad.yaml:2:8: byte 0xff at offset 18 is not UTF-8",
    ),
}


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_bad_profile(host: Host, tmp_path: Path, name: str) -> None:
    files, message = BAD_PROFILES[name]
    for path, data in files.items():
        (tmp_path / path).write_bytes(data)
    (tmp_path / "place").mkdir()
    for words in (["run", "bad.yaml", "--", "touch", "here"], ["mount", "bad.yaml", "place"]):
        done = host(*words, cwd=tmp_path, timeout=20)
        assert done.returncode == 2
        assert done.stdout == ""
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "here").exists()
    assert not (tmp_path / "place").is_mount()
    assert host.sockets() == []


# -- a host that lacks something --------------------------------------------------------------


def elsewhere(host: Host, change: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `fakedev WORDS...` in a namespace where `change` (shell) was made to the host before."""
    need_sandbox()
    need("unshare", "util-linux")
    need("mount", "mount")
    command = f'{change}\nexec "$@"'
    inner = ["unshare", "-rm", "sh", "-ec", command, "sh", str(BIN / "fakedev"), *words]
    return subprocess.run(
        unprivileged.command(*inner),
        env=host.env,
        cwd=host.runtime,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


WITHOUT_DEV_FUSE = """
    mkdir -p dev; mount --rbind /dev dev; mount -t tmpfs none /dev
    for node in null zero urandom tty; do : > /dev/$node; mount --bind dev/$node /dev/$node; done"""


@pytest.mark.parametrize(
    ("change", "cause", "way_out"),
    [
        (WITHOUT_DEV_FUSE, "/dev/fuse does not exist", "sudo modprobe fuse"),
        ("mount --bind /dev/null /dev/fuse", "/dev/fuse is not the FUSE device", "--device"),
        (": > empty; mount --bind empty /dev/fuse", "/dev/fuse is not the FUSE device", "--device"),
        (
            "echo 0 > /proc/sys/user/max_user_namespaces",
            "user namespaces are switched off here: user.max_user_namespaces = 0",
            "sudo sysctl user.max_user_namespaces=15000",
        ),
        (
            "echo 0 > /proc/sys/user/max_mnt_namespaces",
            "the limit of user or mount namespaces is reached",
            "sudo sysctl",
        ),
    ],
    ids=["no /dev/fuse", "null", "empty file", "no user namespaces", "no mount namespaces"],
)
def test_no_sandbox(host: Host, change: str, cause: str, way_out: str) -> None:
    done = elsewhere(host, change, "run", "-q", STRICT, "--", "echo", "never")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fakedev: ")
    assert cause in done.stderr
    assert way_out in done.stderr.split("way out:")[1]
    assert len(done.stderr.splitlines()) == 1
    assert host.sockets() == []


def mount(host: Host, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        host.mounter(*words),
        env={**host.env, **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_no_fusermount(host: Host, tmp_path: Path) -> None:
    done = mount(host, "mount", STRICT, str(tmp_path), PATH=str(BIN))
    assert (done.returncode, done.stdout) == (1, "")
    assert "fusermount3 is not installed: install the package fuse3" in done.stderr


@pytest.fixture
def mounted(host: Host) -> Any:
    """A plain mount and its server."""
    need("fusermount3", "fuse3")
    place = host.runtime / "place"
    place.mkdir(exist_ok=True)
    words = host.mounter("mount", "-q", STRICT, place)
    server = subprocess.Popen(words, env=host.env, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: place.is_mount() or server.poll() is not None, "it is mounted")
    if server.poll() is not None:
        assert server.stderr is not None
        pytest.skip(f"a plain mount is refused here: {server.stderr.read().strip()}")
    yield place, server
    server.kill()
    server.communicate()
    helper = ["fusermount3", "-uzq", str(place)]
    subprocess.run(helper, check=False, capture_output=True)
    for path in (host.runtime / "fakedev").glob("strict*.sock"):
        path.unlink()


def test_mountpoint_taken_and_busy(host: Host, mounted: Any) -> None:
    place, _ = mounted
    done = mount(host, "mount", STRICT, str(place))
    assert done.returncode == 1
    assert f"is a mount point already: unmount it with `fakedev umount {place}`" in done.stderr
    with (place / "proc/iomem").open():
        done = mount(host, "umount", str(place))
    assert done.returncode == 1
    assert "busy" in done.stderr
    assert "close what uses it, or add --lazy" in done.stderr


def test_mountpoint_whose_server_died(host: Host, mounted: Any) -> None:
    place, server = mounted
    server.kill()
    server.wait()
    done = mount(host, "mount", STRICT, str(place))
    assert done.returncode == 1
    assert "is a mount whose server died (ENOTCONN)" in done.stderr
    assert f"fakedev umount {place}" in done.stderr
    assert mount(host, "umount", str(place)).returncode == 0
    assert not place.is_mount()
