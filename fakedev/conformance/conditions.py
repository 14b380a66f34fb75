"""What a recording tells of the boot that it was made in: the machine is to boot in the same way.

That is its kernel arguments and its RAM, where KASLR put the kernel, and which memory its kernel had put
something unmovable into by the time that it was asked to let it go.
"""

import re
from collections.abc import Iterable, Iterator

from fakedev.conformance.records import Record, Recording

_RAM = re.compile(r"^([0-9a-f]{8,16})-([0-9a-f]{8,16}) : System RAM$", re.MULTILINE)
_KERNEL = re.compile(r"^ *([0-9a-f]+-[0-9a-f]+ : Kernel \w+)$", re.MULTILINE)
_PLUGGED = re.compile(r"^  requested-size: 0\n  size: (\d+)$", re.MULTILINE)
_OFFLINE = re.compile(r"offline-memory(\d{1,6})")
_BLOCK = 128 << 20
_4G = 4 << 30


class Conditions:
    """The conditions of one recording; what it does not tell is None or empty."""

    def __init__(self, recording: Recording) -> None:
        self._records = recording.records

    @property
    def cmdline(self) -> str | None:
        """/proc/cmdline."""
        told = next(self._texts("env", "cmdline"), None)
        return None if told is None else told.rstrip("\n")

    @property
    def memory(self) -> int | None:
        """Bytes of RAM at boot: a block at the end of the low part is the firmware's, too."""
        text = next(self._texts("env", "iomem-root"), "")
        spans = [(int(start, 16), int(end, 16) + 1) for start, end in _RAM.findall(text)]
        low = max((end for start, end in spans if start < _4G), default=0)
        high = sum(end - start for start, end in spans if start >= _4G)
        return -(-low // _BLOCK) * _BLOCK + high or None

    @property
    def kernel(self) -> list[str]:
        """The lines of /proc/iomem that say where the kernel is."""
        return _KERNEL.findall(next(self._texts("env", "iomem-root"), ""))

    @property
    def kept(self) -> int | None:
        """What virtio-mem still had when nothing was requested: somebody's pages were in it."""
        for text in self._texts("vmem", "memory-devices"):
            match = _PLUGGED.search(text)
            if match is not None:
                return int(match[1])
        return None

    @property
    def unmovable_blocks(self) -> list[int]:
        """Memory blocks of the boot memory that were busy when they should have gone offline."""
        return [
            int(match[1])
            for record in self._records
            if record["errno"] == "EBUSY" and (match := _OFFLINE.fullmatch(record["case"]))
        ]

    @property
    def block_size(self) -> int:
        """Of memory blocks."""
        told = next(self._texts("vmem", "block_size_bytes"), "").strip()
        return int(told, 16) if re.fullmatch("[1-9a-f][0-9a-f]{1,15}", told) else _BLOCK

    def _texts(self, phase: str, case: str) -> Iterator[str]:
        found: Iterable[Record] = self._records
        for record in found:
            if record["phase"] == phase and record["case"] == case and record["data"] is not None:
                yield record["data"]
