"""Does what it is told to its own ids and capabilities, one child for each list, and prints what it has then.

python credentials_program.py '[[[CALL, WORD...], ...], ...]' [exec]

With `exec` what cat(1) reads from /proc/self/status follows.
"""

import ctypes
import json
import os
import struct
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
X86_64 = {"setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114, "setgroups": 116,
          "setresuid": 117, "setresgid": 119, "setfsuid": 122, "setfsgid": 123, "capget": 125,
          "capset": 126, "prctl": 157}  # fmt: skip
GENERIC = {"setregid": 143, "setgid": 144, "setreuid": 145, "setuid": 146, "setresuid": 147,
           "setresgid": 149, "setfsuid": 151, "setfsgid": 152, "setgroups": 159, "capget": 90,
           "capset": 91, "prctl": 167}  # fmt: skip
NUMBERS = X86_64 if os.uname().machine == "x86_64" else GENERIC
HEADER = struct.pack("=Ii", 0x20080522, 0)


def call(name, *words):
    """A system call as it is: libc's own would tell other threads, and refuse some."""
    given = [ctypes.c_long(w) if isinstance(w, int) else w for w in words]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *given)
    return -ctypes.get_errno() if result < 0 else result


def do(name, *words):
    """One step."""
    if name == "setgroups":
        return call(name, len(words[0]), struct.pack(f"={len(words[0])}I", *words[0]))
    if name == "keepcaps":
        return call("prctl", 8, *words, 0, 0, 0)
    if name == "securebits":
        return call("prctl", 28, *words, 0, 0, 0)
    if name == "ambient":
        return call("prctl", 47, 2, *words, 0, 0)
    if name == "capset":
        halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in words]
        return call(name, HEADER, struct.pack("=6I", *halves))
    return call(name, *words)


def status():
    """The same by asking; `bounds` are sets that no call here changes without telling the kernel."""
    data = ctypes.create_string_buffer(24)
    assert call("capget", HEADER, data) == 0
    words = struct.unpack("=6I", data.raw)
    sets = [low | high << 32 for low, high in zip(words[:3], words[3:], strict=True)]
    return {
        "uids": [*os.getresuid(), call("setfsuid", 0xFFFFFFFF)],
        "gids": [*os.getresgid(), call("setfsgid", 0xFFFFFFFF)],
        "groups": sorted(os.getgroups()),
        "effective": sets[0],
        "permitted": sets[1],
        "bounds": parse(Path("/proc/self/status").read_text())["bounds"],
    }


def parse(text):
    """Everything that counts in a /proc/PID/status."""
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    sets = {name: int(fields[name], 16) for name in fields if name.startswith("Cap")}
    return {
        "uids": [int(word) for word in fields["Uid"].split()],
        "gids": [int(word) for word in fields["Gid"].split()],
        "groups": sorted(int(word) for word in fields["Groups"].split()),
        "effective": sets["CapEff"],
        "permitted": sets["CapPrm"],
        "bounds": [sets["CapInh"], sets["CapBnd"], sets["CapAmb"]],
    }


def main():
    """Each list of steps in a child of its own."""
    for steps in json.loads(sys.argv[1]):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            continue
        for step in steps:
            result = do(*step)
            print(json.dumps({**status(), "result": result}), flush=True)
        if sys.argv[2:] == ["exec"]:
            os.execvp("cat", ["cat", "/proc/self/status"])
        os._exit(0)


if __name__ == "__main__":
    main()
