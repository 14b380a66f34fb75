"""Runs the probe in a machine: the machine is served and controlled from here, the probe is its only tool."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fakedev.conformance.build import Programs
from fakedev.conformance.monitor import Monitor
from fakedev.conformance.records import Recording, parse
from fakedev.control.host import Host
from fakedev.control.verbs import Verbs
from fakedev.model.errors import HostError
from fakedev.model.machine import Machine
from fakedev.sandbox.launcher import Sandbox

#: Commands of the guest, which stand before the host's.
GUEST_COMMANDS = ("modprobe", "rmmod", "sleep")
TIMEOUT = 300.0


def run_probe(
    machine: Machine,
    programs: Programs,
    config: str,
    *,
    exact: bool | None = None,
    keep: Path | None = None,
) -> Recording:
    """The records of the probe in `machine`. Raises HostError where it does not come to its end.

    `exact` is that of `Sandbox`. What the probe keeps is put into `keep`.
    """
    folder = Path(tempfile.mkdtemp(prefix="fakedev-probe-"))
    try:
        found = _run(machine, programs, config, folder, exact=exact)
        if keep is not None:
            _copy(folder / "out", keep)
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    machine: Machine, programs: Programs, config: str, folder: Path, *, exact: bool | None
) -> Recording:
    output, records, log = folder / "out", folder / "records.jsonl", folder / "log"
    for name in ("bin", "out", "tmp"):
        (folder / name).mkdir()
    for name in GUEST_COMMANDS:
        (folder / "bin" / name).symlink_to(programs.guest)
    records.touch()
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "LC_ALL": "C",
        "TMPDIR": str(folder / "tmp"),
        "PROBE_SLEEP": "0",
    }
    with Host(machine) as host, Monitor(Verbs(machine)) as monitor, log.open("wb") as errors:
        sandbox = Sandbox(host.service, control=host.socket, exact=exact)
        command = [programs.probe, config, output, records, monitor.path]
        try:
            done = sandbox.run(
                [str(word) for word in command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"the probe did not end in {TIMEOUT:.0f} s{_last(records)}") from None
    if done.returncode:
        said = log.read_text(errors="replace").strip()
        raise HostError(f"the probe ended with {done.returncode}{_last(records)}: {said[-500:]}")
    return parse(records.read_bytes().splitlines(), "the probe's records")


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise HostError(f"{target}: the probe's files cannot be kept there: {error}") from error


def _last(records: Path) -> str:
    lines = records.read_bytes().splitlines()
    if not lines:
        return " before its first record"
    found = parse(lines[-1:], "").records
    return f" after {found[0]['phase']}: {found[0]['case']}" if found else ""
