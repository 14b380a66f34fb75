"""Processes that map files of an fsdax file system while its device is replaced. Arguments: processes, files."""

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = "/dev/pmem-fs/pmem0"


def ctl(*words: str) -> None:
    """A control command about this machine, which must succeed."""
    subprocess.run(["fakedev", "ctl", *words], check=True, stdout=subprocess.DEVNULL)


def toucher(files: int, ready: int, go: int) -> None:
    """Map and store, wait, touch each mapping: the first touch ends the process."""
    maps = []
    for number in range(files):
        fd = os.open(f"{FOLDER}/data{number}", os.O_RDWR)
        maps.append(mmap.mmap(fd, 16384))
        os.close(fd)
        maps[-1][:4] = b"mine"
    os.write(ready, b".")
    os.read(go, 1)
    for one in maps:
        one[0]
    os._exit(1)


def main() -> None:
    """Print how the processes ended, and what the file says after it, as JSON."""
    processes, files = map(int, sys.argv[1:3])
    crowd = []
    for _ in range(processes):
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            toucher(files, ready[1], go[0])
        crowd.append((pid, ready[0], go[1]))
    for _, ready_fd, _ in crowd:
        os.read(ready_fd, 1)
    began = time.monotonic()
    ctl("unplug-pmem", "region0")
    took = time.monotonic() - began
    there = (Path(FOLDER) / "data0").exists()
    ctl("plug-pmem", "region0", "--replace")
    for _, _, go_fd in crowd:
        os.write(go_fd, b".")
    ends = [os.waitpid(pid, 0)[1] for pid, _, _ in crowd]
    head = os.pread(os.open(f"{FOLDER}/data0", os.O_RDONLY), 4, 0)
    print(json.dumps({
        "bus errors": sum(os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGBUS for end in ends),
        "processes": processes, "there while out": there, "head": head.hex(), "seconds": took,
    }))  # fmt: skip


main()
