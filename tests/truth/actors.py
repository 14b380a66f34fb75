"""Who does the calls: root of the machine, its ordinary user, and a root without capabilities."""

import struct
from collections.abc import Callable
from typing import NamedTuple

from truth.caller import STRUCTURES, Caller
from truth.probe import Probe, Record

_VERSION_3 = 0x20080522
CAP_SYS_RAWIO, CAP_SYS_ADMIN = 17, 21


class Actors(NamedTuple):
    """`user` lives in a second machine of the same profile, in which nothing is ever removed."""

    root: Caller
    user: Caller
    module: Callable[[str, str], None]  #: modprobe or rmmod of a name, in both machines
    unplug: Callable[[str, str], None]  #: unplug or plug of an address, in the machine of root

    def probes(self, records: list[Record], phase: str) -> tuple[Probe, Probe]:
        """Root's probe and the user's, with one list of records."""
        return Probe(self.root, records, phase), Probe(self.user, records, phase)


def without(caller: Caller, *capabilities: int) -> None:
    """capset: drop them for this process."""
    header = caller.put(STRUCTURES, struct.pack("<Ii", _VERSION_3, 0))
    sets = f"@{STRUCTURES + 16}"
    assert caller.call("capget", header, sets).errno is None
    values = list(struct.unpack("<6I", caller.show(STRUCTURES + 16, 24)))
    for number in capabilities:
        for field in range(3):
            values[3 * (number // 32) + field] &= ~(1 << number % 32)
    caller.put(STRUCTURES + 16, struct.pack("<6I", *values))
    assert caller.call("capset", header, sets).errno is None


def page(address: int) -> int:
    """The start of its page."""
    return address & -4096
