"""Calls of control verbs: which machine `fakedev ctl` talks to."""

from typing import Any

from fakedev.cli import options
from fakedev.control.client import Client, find

_chosen: dict[str, str | None] = {"machine": None}


def choose(machine: str | None) -> None:
    """Talk to the machine of this name from now on; None: the one we run in, or the only one."""
    _chosen["machine"] = machine


def connect() -> Client:
    """A connection to the chosen machine. Raises HostError."""
    return Client(find(options.directory(), _chosen["machine"]))


def call(verb: str, **args: Any) -> Any:
    """The result of a verb. Raises ControlError with the machine's own words."""
    with connect() as client:
        return client.call(verb, **args)
