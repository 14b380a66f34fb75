"""Records of the probe: one JSON object a line."""

import json
import lzma
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fakedev.model.errors import HostError

Record = dict[str, Any]

_NAME = re.compile(r"\w[\w.+=,-]{,99}", re.ASCII)
_MAIN = ("config", "phase", "case", "op", "args", "result", "errno", "signal", "data", "note")


class Recording(NamedTuple):
    """The records of a file, in order, and what is wrong with its lines."""

    records: list[Record]
    problems: list[str]

    @property
    def config(self) -> str:
        """The configuration that the records name, if it can be the name of a folder."""
        name = self.records[0]["config"] or "" if self.records else ""
        return name if _NAME.fullmatch(name) else ""


def read_recording(path: Path) -> Recording:
    """A recording, xz or not. A line that is no record is told and left out; HostError if none is one."""
    try:
        data = path.read_bytes()
        text = lzma.decompress(data) if data[:6] == b"\xfd7zXZ\0" else data
    except (OSError, lzma.LZMAError) as error:
        raise HostError(f"{path}: cannot be read: {error}") from error
    found = parse(text.splitlines(), str(path))
    if not found.records:
        why = found.problems[0] if found.problems else f"{path}: is empty"
        raise HostError(f"{path}: is no recording of the probe ({why})")
    return found


def parse(lines: Iterable[bytes], name: str) -> Recording:
    """The records of some lines; `name` is what problems call them."""
    records: list[Record] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = record_of(json.loads(line))
            json.dumps(record, ensure_ascii=False).encode()  # half a character is none
            records.append(record)
        except (ValueError, TypeError, RecursionError) as error:
            problems.append(f"{name}:{number}: not a record: {error}")
    return Recording(records, problems)


def record_of(value: Any) -> Record:
    """A record with every field: what the probe adds to the common ones is in `extra`."""
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    for field in ("phase", "case", "op"):
        if not isinstance(value.get(field), str):
            raise TypeError(f"{field!r} is missing, or no text")
    for field in ("args", "extra"):
        if not isinstance(value.get(field) or {}, dict):
            raise TypeError(f"{field!r} is no object")
    if not isinstance(value.get("signal"), dict | None):
        raise TypeError("'signal' is no object")
    for field in ("config", "errno", "data"):
        if not isinstance(value.get(field), str | None):
            raise TypeError(f"{field!r} is no text")
    record = {field: value.get(field) for field in _MAIN}
    record["args"] = value.get("args") or {}
    others = {k: v for k, v in value.items() if k not in {*_MAIN, "seq", "extra"}}
    record["extra"] = {**others, **(value.get("extra") or {})}
    return record
