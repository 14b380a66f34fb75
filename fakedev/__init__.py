"""A physical machine made of files, without root: the public API."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakedev.model.effects import Event
    from fakedev.model.errors import FakedevError
    from fakedev.model.machine import Machine
    from fakedev.model.verdict import Verdict
    from fakedev.profiles.build import build_machine
    from fakedev.profiles.loader import load_profile
    from fakedev.sandbox.launcher import Sandbox

__all__ = [
    "Event",
    "FakedevError",
    "Machine",
    "Sandbox",
    "Verdict",
    "build_machine",
    "load_profile",
]

# Imported when first used: `fakedev run` needs few of them, and starts in milliseconds.
_HOMES = {
    "Event": "fakedev.model.effects",
    "FakedevError": "fakedev.model.errors",
    "Machine": "fakedev.model.machine",
    "Sandbox": "fakedev.sandbox.launcher",
    "Verdict": "fakedev.model.verdict",
    "build_machine": "fakedev.profiles.build",
    "load_profile": "fakedev.profiles.loader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fakedev' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
