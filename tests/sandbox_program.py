"""A launcher of its own, for tests that kill it or look at it from a shell.

    python sandbox_program.py [--control PATH] [--user] COMMAND ARG...

Runs the command in the foreground and ends as it does.
"""

import argparse
import os
from pathlib import Path

from tinyfuse import TinyService

from fakedev.sandbox.foreground import exit_like
from fakedev.sandbox.launcher import Sandbox

FILES = {
    "/dev/mem": b"\x42" * 4096,
    "/proc/iomem": "00000000-00000fff : Reserved\n",
    "/sys/firmware/dmi/tables/DMI": b"dmi",
    "/sys/bus/cxl/devices/mem0": ("link", "../../../devices/mem0"),
    "/proc/not-on-any-host": "",
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control")
    parser.add_argument("--user", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.control:
        Path(options.control).touch()
    sandbox = Sandbox(TinyService(FILES), as_root=not options.user, control=options.control)
    status = sandbox.run_foreground(options.command)
    if options.control:
        Path(options.control).unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    os.environ.pop("FAKEDEV_CONTROL", None)
    exit_like(main())
