"""A server in a process of its own: `python -m benchmarks.serve FD SPEC`.

SPEC is JSON: `kind` is `window` (memory with data in every page), `resources` (a machine with
`count` of them), or `profile` (`path`). Questions come as lines of JSON on stdin, answers go to stdout;
the end of stdin is the end of the process.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from fakedev.control.host import Host
from fakedev.model.flags import IORESOURCE_MEM
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree
from fakedev.profiles.build import build_machine
from fakedev.profiles.garbage import collect_from_now_on
from fakedev.profiles.loader import load_profile

BASE = 1 << 32
HIGH_MEMORY = 1 << 40


def window(length: int) -> Machine:
    """Device memory of `length` bytes at BASE, with data in every page, in a strict kernel."""
    memory = PhysicalMemory()
    memory.add(BASE, length, name="window")
    for address in range(BASE, BASE + length, PAGE_SIZE):
        memory.write(address, address.to_bytes(8, "little"))
    tree = ResourceTree()
    tree.request_resource(tree.root, resource(BASE, length, "bench window"))
    return Machine(KernelRules(), memory, tree, name="bench", high_memory=HIGH_MEMORY)


def resources(count: int, pages: int) -> Machine:
    """`pages` pages at BASE; `count` of those with an even number are claimed, spread over all."""
    memory = PhysicalMemory()
    memory.add(BASE, pages * PAGE_SIZE)
    tree = ResourceTree()
    step = pages // count * PAGE_SIZE
    for number in range(count):
        tree.request_region(BASE + number * step, PAGE_SIZE, f"device {number}")
    return Machine(KernelRules(), memory, tree, name="bench", high_memory=HIGH_MEMORY)


def resource(start: int, size: int, name: str) -> Resource:
    """A resource as a device has it, not claimed by a driver."""
    return Resource(start, start + size - 1, name, IORESOURCE_MEM)


def build(spec: dict[str, Any]) -> Machine:
    """The machine that a spec describes."""
    if spec["kind"] == "window":
        return window(spec["length"])
    if spec["kind"] == "resources":
        return resources(spec["count"], spec["pages"])
    return build_machine(load_profile(spec["path"]))


def claim_times(machine: Machine, start: int, step: int, count: int) -> list[int]:
    """Nanoseconds of `count` claims of one page, each in another place and released again."""
    times = []
    for number in range(count):
        span = Range(start + number * step, PAGE_SIZE)
        before = time.perf_counter_ns()
        machine.claim(span, "bench")
        times.append(time.perf_counter_ns() - before)
        machine.release(span)
    return times


def memory_use() -> dict[str, int]:
    """`VmRSS` and `VmHWM` of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {k: int(v.split()[0]) << 10 for k, v in pairs if k in {"VmRSS", "VmHWM"}}


def answer(machine: Machine, question: dict[str, Any]) -> Any:
    """One answer."""
    if question["do"] == "claims":
        return claim_times(machine, question["start"], question["step"], question["count"])
    return memory_use()


def main() -> None:
    """Build, serve, answer."""
    descriptor, spec = int(sys.argv[1]), json.loads(sys.argv[2])
    before = time.perf_counter()
    machine = build(spec)
    ready: dict[str, Any] = {"built": time.perf_counter() - before}
    collect_from_now_on()  # as `fakedev run` does
    host = Host(machine, directory=Path(spec["directory"]))
    host.service.attach(descriptor, as_root=True, uid=0, gid=0)
    ready["socket"] = str(host.socket)
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(machine, json.loads(line))), flush=True)
    os._exit(0)  # the mount goes with us


if __name__ == "__main__":
    main()
