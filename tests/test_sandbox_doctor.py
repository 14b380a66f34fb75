import errno
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakedev.model.errors import HostError
from fakedev.sandbox import doctor, namespace, probes, refusals, runtime, syscalls
from fakedev.sandbox.doctor import Layer


def names(layers: list[Layer]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers}


def test_every_layer_is_examined() -> None:
    layers = doctor.examine()
    assert [layer.name for layer in layers] == ["plain mount", "run", "exact", "trap"]
    for layer in layers:
        assert layer.reason
        assert layer.ok or layer.remedy
        assert ("does not use it yet" in layer.reason) == (layer.name == "trap")


def test_json() -> None:
    layers = [Layer("run", ok=False, reason="because", remedy="do this")]
    assert json.loads(doctor.to_json(layers)) == [
        {"name": "run", "ok": False, "reason": "because", "remedy": "do this"}
    ]


def refuse(number: int) -> Callable[..., None]:
    def function(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return function


@pytest.mark.parametrize(
    ("module", "name", "number", "layer", "remedy"),
    [
        (namespace, "open_fuse", errno.ENOENT, "plain mount", "sudo modprobe fuse"),
        (namespace, "open_fuse", errno.EACCES, "run", "sudo chmod 0666 /dev/fuse"),
        (namespace, "open_fuse", errno.EPERM, "run", "docker run --device /dev/fuse"),
        (namespace, "enter", errno.ENOSPC, "run", "sudo sysctl user.max_user_namespaces=15000"),
        (namespace, "mount_fuse", errno.ENODEV, "run", "sudo modprobe fuse"),
        (syscalls, "prctl", errno.EINVAL, "exact", "Linux 5.0"),
    ],
)
def test_refusals_have_a_remedy(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int, layer: str, remedy: str
) -> None:
    monkeypatch.setattr(module, name, refuse(number))
    found = names(doctor.examine())[layer]
    assert not found.ok
    assert remedy in found.remedy


def test_no_fusermount3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    found = names(doctor.examine())["plain mount"]
    if "fuse" not in found.reason or "/dev/fuse" in found.reason:
        pytest.skip(found.reason)
    assert (found.ok, found.remedy) == (False, "sudo apt install fuse3")


@pytest.mark.parametrize(
    ("scope", "remedy"),
    [("2", "sudo sysctl kernel.yama.ptrace_scope=1"), ("3", "reboot"), (None, "dmesg")],
)
def test_ptrace_refused(monkeypatch: pytest.MonkeyPatch, scope: str | None, remedy: str) -> None:
    def trap_layer() -> str:
        raise probes.ProbeError("ptrace", errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(probes, "trap_layer", trap_layer)
    monkeypatch.setattr(syscalls, "sysctl", lambda _name: scope)
    monkeypatch.setattr(doctor, "is_filtered", lambda: False)
    assert remedy in names(doctor.examine())["trap"].remedy


def test_another_machine_has_no_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "x86_64 only" in names(doctor.examine())["trap"].reason


def test_an_old_kernel_runs_with_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"protocol": "7.31", "mappable": False})
    monkeypatch.setattr(probes, "run_layer", lambda _stage: answer)
    found = names(doctor.examine())["run"]
    assert found.ok
    assert "7.31" in found.reason
    assert "6.6" in found.remedy


# -- experiments


BAD_INTEGER = "ValueError: invalid literal for int() with base 2: 'x'"


def raise_os_error() -> str:
    raise PermissionError(errno.EACCES, "not you")


def raise_probe_error() -> str:
    raise probes.ProbeError("here", errno.EBUSY, "taken")


@pytest.mark.parametrize(
    ("probe", "outcome"),
    [
        (lambda: "fine", probes.Outcome(ok=True, detail="fine")),
        (raise_probe_error, probes.Outcome(False, "taken", "here", errno.EBUSY)),
        (raise_os_error, probes.Outcome(False, "not you", "probe", errno.EACCES)),
        (lambda: str(int("x", 2)), probes.Outcome(False, BAD_INTEGER, "probe")),
        (lambda: os._exit(1), probes.Outcome(False, "the trial process was killed", "killed")),
        (lambda: time.sleep(100), probes.Outcome(False, "no answer within 0.1 s", "deadline")),
    ],
)
def test_attempt(probe: Callable[[], str], outcome: probes.Outcome) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    deadline = 0.1 if outcome.step == "deadline" else 10
    assert probes.attempt(probe, deadline=deadline) == outcome
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- explanations


@pytest.mark.parametrize(
    ("switches", "number", "filtered", "expected"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, errno.EPERM, False, "userns_clone=1"),
        ({"user.max_user_namespaces": "0"}, errno.ENOSPC, False, "max_user_namespaces=15000"),
        (
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            errno.EACCES,
            False,
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user.max_user_namespaces": "9"}, errno.ENOSPC, False, "max_mnt_namespaces"),
        ({}, errno.EINVAL, False, "CONFIG_USER_NS"),
        ({}, errno.EPERM, True, "seccomp=unconfined"),
        ({}, errno.EPERM, False, "chroot"),
    ],
)
def test_why_there_are_no_namespaces(
    monkeypatch: pytest.MonkeyPatch,
    switches: dict[str, str],
    number: int,
    filtered: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(syscalls, "sysctl", switches.get)
    monkeypatch.setattr(refusals, "is_filtered", lambda: filtered)
    error = refusals.explain("namespace", number, "unshare()")
    assert expected in str(error)
    assert "unshare()" in str(error)


@pytest.mark.parametrize(
    ("step", "number", "filtered", "expected"),
    [
        ("fuse-open", errno.ENOENT, False, "modprobe fuse"),
        ("fuse-open", errno.EACCES, False, "chmod 0666 /dev/fuse"),
        ("fuse-open", errno.EPERM, False, "--device /dev/fuse"),
        ("fuse-open", errno.ENODEV, False, "no FUSE"),
        ("fuse-open", errno.EIO, False, "Input/output error"),
        ("fuse-mount", errno.ENODEV, False, "no FUSE"),
        ("fuse-mount", errno.EPERM, True, "seccomp=unconfined"),
        ("fuse-mount", errno.EPERM, False, "4.18"),
        ("fuse-mount", errno.EINVAL, False, "Invalid argument"),
        ("plan", errno.EINVAL, False, "step 'plan'"),
    ],
)
def test_why_there_is_no_mount(
    monkeypatch: pytest.MonkeyPatch, step: str, number: int, filtered: bool, expected: str
) -> None:
    monkeypatch.setattr(refusals, "is_filtered", lambda: filtered)
    assert expected in str(refusals.explain(step, number, "detail"))


# -- the runtime directory


def test_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = runtime.runtime_directory()
    assert found == tmp_path / "fakedev"
    assert found.stat().st_mode & 0o777 == 0o700
    found.chmod(0o755)
    assert runtime.runtime_directory().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("value", ["", "relative", "/no/such/directory"])
def test_runtime_directory_falls_back(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.delenv("FAKEDEV_CONTROL", raising=False)
    found = runtime.runtime_directory()
    # The plain name, unless another user of this host has taken it.
    assert found.parent == Path("/tmp")
    assert found.name.startswith("fakedev-")
    status = found.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o700)
    assert runtime.runtime_directory() == found


def test_a_machine_in_a_machine_uses_the_same_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_options: "0 1001 1\n")
    assert runtime._uid_outside(0) == 1001
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_options: "0 0 4294967295\n")
    assert runtime._uid_outside(1000) == 1000


def test_a_runtime_directory_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/tmp")
    with pytest.raises(HostError, match="is not a directory of this user"):
        runtime.private_directory(tmp_path / "link")
    with pytest.raises(HostError, match="cannot be made"):
        runtime.private_directory(tmp_path / "missing" / "deep")


# -- system calls


@pytest.mark.parametrize(
    ("call", "number", "text"),
    [
        (lambda: syscalls.mount("a", "/no/such"), errno.ENOENT, "mount('a', '/no/such'"),
        (lambda: syscalls.bind("/dev/null", "/no/such"), errno.ENOENT, "flags=0x5000"),
        (lambda: syscalls.umount("/no/such"), errno.ENOENT, "umount2('/no/such'"),
        (lambda: syscalls.unshare(1), errno.EINVAL, "unshare(0x1)"),
        (lambda: syscalls.prctl(-1), errno.EINVAL, "prctl(-1"),
    ],
)
def test_errors_say_what_was_tried(call: Callable[[], object], number: int, text: str) -> None:
    with pytest.raises(OSError, match=re.escape(text)) as caught:
        call()
    expected = {number} if number == errno.EINVAL else {number, errno.EPERM}
    assert caught.value.errno in expected


@pytest.mark.parametrize("has_close_range", [True, False])
def test_close_all_except(monkeypatch: pytest.MonkeyPatch, has_close_range: bool) -> None:
    if not has_close_range:
        monkeypatch.setattr(syscalls, "_libc", object())

    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        syscalls.close_all_except([writer])
        os.write(writer, " ".join(sorted(os.listdir("/proc/self/fd"))).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    left = os.read(reader, 100).decode().split()
    os.close(reader)
    os.close(writer)
    assert sorted(left) == sorted({"0", str(writer)})  # 0: the listing itself


def test_sysctl() -> None:
    assert syscalls.sysctl("kernel.ostype") == "Linux"
    assert syscalls.sysctl("kernel.no_such_thing") is None
