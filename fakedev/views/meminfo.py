"""`/proc/meminfo` of a profile: its text, with `HardwareCorrupted` as it is now."""

import re
import stat

from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.views.kinds import SEQ_FILE
from fakedev.views.node import TextFile

PATH = "/proc/meminfo"
_LINE = re.compile(rb"^HardwareCorrupted:.*\n", re.MULTILINE)


def meminfo(machine: Machine, file: StaticFile) -> TextFile:
    """The file; a text without the line gets it at its end, once a page has failed."""

    def text() -> bytes:
        corrupted = 0 if machine.poison is None else machine.poison.corrupted >> 10
        line = b"HardwareCorrupted: %5d kB\n" % corrupted
        if _LINE.search(file.data):
            return _LINE.sub(line, file.data)
        return file.data + line if corrupted else file.data

    mode, size = stat.S_IMODE(file.mode), file.size or 0
    return TextFile(lambda _: text(), mode=mode, size=size, kind=SEQ_FILE)
