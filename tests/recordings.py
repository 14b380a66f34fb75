"""What a real kernel answered, record by record: the recordings that the conformance suite compares with."""

from functools import cache
from pathlib import Path

from fakedev.conformance.places import recording
from fakedev.conformance.records import Record, read_recording


@cache
def _numbered(config: str) -> list[Record]:
    found = read_recording(recording(config))
    assert not found.problems
    return [{**record, "seq": number} for number, record in enumerate(found.records, 1)]


def records(*phases: str, config: str = "default") -> list[Record]:
    """The records of phases (`revoke-*`: all such), in order; `seq` is their number in the recording."""
    return [
        record
        for record in _numbered(config)
        if any(Path(record["phase"]).match(phase) for phase in phases)
    ]
