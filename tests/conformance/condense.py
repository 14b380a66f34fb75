"""Makes the recordings that come with fakedev: `python tests/conformance/condense.py RECORDS.jsonl OUT.jsonl.xz`.

Every record is kept, without the fields that are never compared.
"""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

UNUSED = ("seq", "note", "kmsg", "memtype", "smaps")


def condensed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with what is compared, and its place."""
    fields = {**record, **(record.get("extra") or {})}
    kept = {name: value for name, value in fields.items() if name not in {*UNUSED, "extra"}}
    if "smaps" in record["case"] or record["op"] == "shell" or record["case"] == "mtree":
        kept["data"] = None
    return {name: value for name, value in kept.items() if value not in (None, {})}


def main(source: str, target: str) -> None:
    records = map(json.loads, Path(source).read_text().splitlines())
    lines = (json.dumps(condensed(one), separators=(",", ":")) + "\n" for one in records)
    Path(target).write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(*sys.argv[1:])
