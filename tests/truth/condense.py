"""Makes the data of these tests from the recording: `python tests/truth/condense.py default.jsonl OUT.jsonl.xz`.

Kept are the phases that are replayed, and of each record what is compared or shown.
"""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

PHASES = (
    "sysfs",
    "sysfs-ops",
    "bind-errors",
    "revoke-",
    "remove-",
    "cross-write",
    "sysfs-bound",
    "dimm",
)
ARGS = ("path", "value", "flags", "off", "len", "prot", "bdf", "vendor", "device", "class")
EXTRA = (
    *("iomem", "enable", "pci_command", "resources", "readback", "last_u32", "pos_after", "old"),
    *("new", "size", "mode", "termsig", "buf_modified_bytes", "st"),
)


def condensed(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what nobody looks at."""
    kept = {name: record[name] for name in ("phase", "seq", "case", "op", "result", "errno")}
    kept["args"] = {name: record["args"][name] for name in ARGS if name in record["args"]}
    extra = record.get("extra") or {}
    kept["extra"] = {name: extra[name] for name in EXTRA if name in extra}
    if record["signal"]:
        kept["signal"] = {
            name: record["signal"][name]
            for name in ("signo", "si_code", "si_addr_minus_base")
            if name in record["signal"]
        }
    if record["data"] is not None and record["op"] not in {"shell", "qemu_monitor", "pwrite"}:
        kept["data"] = record["data"]
    if "smaps" in record["case"]:
        kept.pop("data", None)
    return kept


def main(source: str, target: str) -> None:
    records = map(json.loads, Path(source).read_text().splitlines())
    kept = [condensed(one) for one in records if one["phase"].startswith(PHASES)]
    text = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in kept)
    Path(target).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(*sys.argv[1:])
