"""One configuration: a recording, and the machine that has to answer as it does."""

import json
from pathlib import Path
from typing import NamedTuple

from fakedev.conformance import places, q35
from fakedev.conformance.conditions import Conditions
from fakedev.conformance.records import Recording, read_recording
from fakedev.model.errors import HostError
from fakedev.model.machine import Machine
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

#: Kernel arguments of configurations by name, for recordings that do not tell theirs.
ARGUMENTS = {
    "default": "",
    "relaxed": "iomem=relaxed",
    "strict": "iomem=strict",
    "lockdown-integrity": "lockdown=integrity",
    "lockdown-confidentiality": "lockdown=confidentiality",
}


class Configuration(NamedTuple):
    """What is compared with what. `settings` of the profile make its machine boot as the recorded one did."""

    name: str
    recording: Recording
    cmdline: str
    memory: int
    settings: list[str]

    def machine(self) -> Machine:
        """A machine as the recorded one was when it had booted."""
        return build_machine(load_profile("pc-q35", overrides=self.settings))


def configuration(
    name_or_path: str, *, cmdline: str | None = None, memory: int | None = None
) -> Configuration:
    """A configuration by its name or its recording. Raises HostError.

    Kernel arguments and RAM are those of the recording, unless they are given.
    """
    if name_or_path in places.RECORDED:
        path = places.recording(name_or_path)
    else:
        path = Path(name_or_path)
        if not path.is_file():
            known = ", ".join(places.RECORDED)
            raise HostError(f"{name_or_path}: no such recording; recorded are {known}, or a file")
    recording = read_recording(path)
    name = recording.config or path.name.partition(".")[0]
    boot = Conditions(recording)
    if cmdline is None:
        cmdline = _cmdline(boot.cmdline, name)
    if memory is None:
        memory = boot.memory or q35.RECORDED
    return Configuration(name, recording, cmdline, memory, _settings(boot, cmdline, memory))


def _cmdline(told: str | None, name: str) -> str:
    if told is not None:
        return told
    if name not in ARGUMENTS:
        raise HostError(
            f"configuration {name!r}: its recording does not tell /proc/cmdline; say --kernel-cmdline"
        )
    return ARGUMENTS[name]


def _settings(boot: Conditions, cmdline: str, memory: int) -> list[str]:
    """The conditions as settings of the profile."""
    settings = [f"kernel.cmdline={_quoted(cmdline)}", *q35.overrides(memory, boot.kernel)]
    if boot.kept is not None:
        settings.append(f"virtio_mem.vm0.unmovable={boot.kept}")
    size = boot.block_size
    spans = [f"{n * size:x}-{(n + 1) * size - 1:x}" for n in boot.unmovable_blocks]
    return [*settings, f"memory_blocks.unmovable={json.dumps(spans)}"]


def _quoted(text: str) -> str:
    """A YAML string."""
    return "'" + text.replace("'", "''") + "'"
