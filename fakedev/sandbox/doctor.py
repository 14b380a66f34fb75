"""Which layers this host allows, why not the others, and which command would enable them."""

import json
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fakedev.model.errors import HostError
from fakedev.sandbox import probes, syscalls
from fakedev.sandbox.refusals import (
    explain_exact,
    explain_fuse_mount,
    explain_fuse_open,
    explain_namespace,
    is_filtered,
)
from fakedev.sandbox.runtime import private_directory, runtime_directory

_NOT_USED = "this version of fakedev does not use it yet"
_WITHOUT_EXACT = (
    "without it mmap of a refused range succeeds and its first touch is SIGBUS, "
    "and /dev/mem is a regular file"
)
_EXPLAIN = {
    "namespace": explain_namespace,
    "fuse-open": explain_fuse_open,
    "fuse-mount": explain_fuse_mount,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One way to show a machine; `remedy` is the command that would enable it, if it is not ok."""

    name: str
    ok: bool
    reason: str
    remedy: str = ""


def examine() -> list[Layer]:
    """Try every layer; each experiment runs in a child of its own with a deadline."""
    return [_mount(), _run(), _exact(), _trap()]


def to_json(layers: Sequence[Layer]) -> str:
    """Return the layers as a JSON list of objects with name, ok, reason and remedy."""
    values: list[dict[str, Any]] = [asdict(layer) for layer in layers]
    return json.dumps(values, indent=2)


def _mount() -> Layer:
    name = "plain mount"
    opened = probes.attempt(probes.open_fuse)
    if not opened.ok:
        return _refused(name, opened)
    helper = shutil.which("fusermount3")
    if helper is None:
        return Layer(
            name, ok=False, reason="fusermount3 is not installed", remedy=_install("fuse3")
        )
    with tempfile.TemporaryDirectory(
        prefix="fakedev-doctor-", ignore_cleanup_errors=True
    ) as directory:
        mounted = probes.attempt(lambda: probes.plain_mount(helper, directory))
    if mounted.ok:
        return Layer(name, ok=True, reason=f"{helper} mounts FUSE for this user")
    if os.geteuid() and not Path(helper).stat().st_mode & stat.S_ISUID:
        return Layer(
            name,
            ok=False,
            reason=f"{helper} is not setuid root ({mounted.detail})",
            remedy=f"sudo chmod u+s {helper}",
        )
    return Layer(
        name,
        ok=False,
        reason=f"fusermount3 failed: {mounted.detail}",
        remedy="use `fakedev run` instead, or allow setuid programs (no_new_privs, nosuid, user "
        "namespaces and containers disable them)",
    )


def _install(package: str) -> str:
    return f"sudo apt install {package}"


def _run() -> Layer:
    try:
        stage = private_directory(runtime_directory() / "stage")
    except HostError as error:
        return Layer(
            "run", ok=False, reason=str(error), remedy="export XDG_RUNTIME_DIR=$(mktemp -d)"
        )
    tried = probes.attempt(lambda: probes.run_layer(str(stage)))
    if not tried.ok:
        return _refused("run", tried)
    found = json.loads(tried.detail)
    protocol = f"user namespace and FUSE {found['protocol']} work"
    if found["mappable"]:
        return Layer("run", ok=True, reason=f"{protocol}, direct I/O can be mapped")
    return Layer(
        "run",
        ok=True,
        reason=f"{protocol}; kernel {platform.release()} cannot map direct I/O (needs 6.6), "
        "so files that can be mapped are cached",
        remedy="for exact read and write sizes beside mmap, use Linux 6.6 or later",
    )


def _refused(name: str, outcome: probes.Outcome) -> Layer:
    explain = _EXPLAIN.get(outcome.step)
    if explain is None:
        return Layer(name, ok=False, reason=outcome.detail, remedy="look into: sudo dmesg")
    refusal = explain(outcome.errno)
    return Layer(
        name, ok=False, reason=f"{refusal.reason} ({outcome.detail})", remedy=refusal.remedy
    )


def _exact() -> Layer:
    tried = probes.attempt(probes.exact_layer)
    if tried.ok:
        return Layer("exact", ok=True, reason="seccomp user notification works")
    refusal = explain_exact(tried.errno, tried.detail)
    return Layer(
        "exact", ok=False, reason=f"{refusal.reason}; {_WITHOUT_EXACT}", remedy=refusal.remedy
    )


def _trap() -> Layer:
    if platform.machine() != "x86_64":
        return Layer(
            "trap",
            ok=False,
            reason=f"instructions are emulated on x86_64 only, this is {platform.machine()}; "
            f"{_NOT_USED}",
            remedy="use an x86_64 host",
        )
    scope = syscalls.sysctl("kernel.yama.ptrace_scope")
    tried = probes.attempt(probes.trap_layer)
    if tried.ok:
        yama = "no Yama" if scope is None else f"kernel.yama.ptrace_scope = {scope}"
        return Layer("trap", ok=True, reason=f"PTRACE_SEIZE works ({yama}); {_NOT_USED}")
    reason, remedy = f"PTRACE_SEIZE is refused: {tried.detail}", "look into: sudo dmesg"
    if scope in ("2", "3"):
        reason = f"tracing is switched off here: kernel.yama.ptrace_scope = {scope}"
        remedy = "sudo sysctl kernel.yama.ptrace_scope=1"
        if scope == "3":
            remedy = "set kernel.yama.ptrace_scope=1 in /etc/sysctl.d and reboot (3 cannot be left)"
    elif is_filtered():
        remedy = "start the container with: docker run --cap-add SYS_PTRACE"
    return Layer("trap", ok=False, reason=f"{reason}; {_NOT_USED}", remedy=remedy)
