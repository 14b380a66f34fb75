"""A dumper of physical memory as people write them: what /proc/iomem calls System RAM, through /dev/mem.

For each such line it reads a page at each step and prints the runs of pages that it got, and those that it
did not, with the errno.  `dumper.py [STEP]`
"""

import errno
import os
import re
import sys
from pathlib import Path

LINE = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : (System RAM.*|virtio\d+)$")


def main() -> None:
    step = int(sys.argv[1], 0) if len(sys.argv) > 1 else 1 << 20
    memory = os.open("/dev/mem", os.O_RDONLY)
    lines = Path("/proc/iomem").read_text().splitlines()
    found = [m for m in map(LINE.match, lines) if m]
    for start, end, name in (m.groups() for m in found):
        runs: list[list[object]] = []
        for at in range(int(start, 16), int(end, 16), step):
            try:
                os.pread(memory, 4096, at)
                got = "ok"
            except OSError as error:
                got = errno.errorcode[error.errno or 0]
            if not runs or runs[-1][2] != got:
                runs.append([at, at, got])
            runs[-1][1] = at
        print(f"{name}:", *(f"{first:x}-{last:x}:{got}" for first, last, got in runs))


main()
