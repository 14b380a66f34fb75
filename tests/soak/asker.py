"""Runs in the machine: what files say. A list a line (function and arguments), answered in a line (value or errno)."""

import errno
import json
import os
import sys
from pathlib import Path


def read(path: str) -> str:
    return Path(path).read_text(encoding="latin-1")


def write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


ANSWERS = {
    "read": read,
    "write": write,
    "names": os.listdir,
    "exists": os.path.lexists,
    "link": os.readlink,
}

for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = [ANSWERS[name](*arguments), None]
    except OSError as error:
        answer = [None, errno.errorcode[error.errno or 0]]
    print(json.dumps(answer), flush=True)
