"""What a real kernel answered, record by record: the recording that the conformance suite compares with."""

from functools import cache

from fakedev.conformance.places import recording
from fakedev.conformance.records import Record, read_recording


@cache
def _numbered() -> list[Record]:
    found = read_recording(recording("default"))
    assert not found.problems
    return [{**record, "seq": number} for number, record in enumerate(found.records, 1)]


def records(phase: str) -> list[Record]:
    """The records of a phase, in order; `seq` is their number in the recording."""
    return [record for record in _numbered() if record["phase"] == phase]
