"""What the revocation phases do to mappings that died: mremap, msync, mprotect and system calls through them.

What only says something of the host's memory management (madvise, mlock, mincore, ptrace, ...) is not done.
"""

import os

from truth.caller import STRUCTURES, Outcome
from truth.probe import ANONYMOUS, FLAGS, PROT, Mapping, Probe
from truth.tree import PAGE

MAYMOVE, MREMAP_FIXED = 1, 2
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4
AF_UNIX, SOCK_STREAM, MSG_DONTWAIT = 1, 1, 0x40


def _reserve(probe: Probe, length: int) -> int:
    """Addresses that nobody uses."""
    return probe.raw_map(-1, 0, length, 0, ANONYMOUS | FLAGS["PRIVATE"]).value


def _mremap(probe: Probe, case: str, *args: int) -> Outcome:
    done = probe.caller.call("mremap", *args)
    probe.record(f"revoked-mremap-{case}", "mremap", done if done.errno else 0)
    return done


def mremap(probe: Probe, mapping: Mapping) -> None:
    """Move and shrink it. Growing and copying are the host's affair: its files can, /dev/mem cannot."""
    address, length, physical = mapping
    moved = _mremap(
        probe,
        "move-fixed",
        address,
        length,
        length,
        MAYMOVE | MREMAP_FIXED,
        _reserve(probe, length),
    )
    here = Mapping(moved.value, length, physical)
    probe.touch("revoked-read-after-move", here)
    probe.touch("revoked-read-at-old-addr", mapping)
    apart = _reserve(probe, PAGE)
    page = _mremap(
        probe, "move-one-page-of-it", here.address, PAGE, PAGE, MAYMOVE | MREMAP_FIXED, apart
    )
    probe.touch("revoked-read-moved-page", Mapping(page.value, PAGE, physical))
    probe.touch("revoked-read-rest", here, PAGE)
    probe.unmap(Mapping(page.value, PAGE))
    rest = Mapping(here.address + PAGE, length - PAGE, physical + PAGE)
    _mremap(probe, "shrink", rest.address, rest.length, rest.length - PAGE, 0, 0)
    probe.touch("revoked-read-after-shrink", rest)
    probe.touch("revoked-read-in-shrunk-part", rest, rest.length - PAGE)
    done = probe.caller.call("munmap", rest.address, rest.length - PAGE)
    probe.record("revoked-munmap", "munmap", done)


def operations(probe: Probe, mapping: Mapping) -> None:
    """msync, mprotect, write(2) and send(2) from it, /proc/self/mem, munmap by halves."""
    caller, (address, length, _) = probe.caller, mapping
    for case, flags in (
        ("SYNC", MS_SYNC),
        ("ASYNC", MS_ASYNC),
        ("INVALIDATE", MS_SYNC | MS_INVALIDATE),
    ):
        done = caller.call("msync", address, length, flags)
        probe.record(f"revoked-msync-{case}", "msync", done)
    _protect(probe, "revoked-mprotect-R", address, "R")
    probe.store("revoked-write-after-mprotect-R", mapping, 0x80, 0)
    _protect(probe, "revoked-mprotect-RW", address, "RW")
    probe.touch("revoked-read-after-mprotect-RW", mapping)
    pipe_write(probe, "revoked-write(pipe, map, 16)", address)
    file_write(probe, "revoked-write(tmpfs, map, 4096)", address, PAGE)
    _send(probe, "revoked-send(unix, map, 16)", address)
    self_read(probe, "revoked-pread(/proc/self/mem)", address)
    self_read(probe, "revoked-pread(/proc/self/mem)-len4", address, 4)
    probe.fork("revoked-fork")
    done = caller.call("munmap", address, PAGE)
    probe.record("revoked-munmap-first-page", "munmap", done)
    probe.touch("revoked-touch-unmapped", mapping)
    if length > PAGE:
        probe.touch("revoked-touch-remaining", mapping, PAGE)
    probe.record("revoked-munmap-rest", "munmap", caller.call("munmap", address, length))


def _protect(probe: Probe, case: str, address: int, prot: str) -> None:
    probe.record(case, "mprotect", probe.caller.call("mprotect", address, PAGE, PROT[prot]))


def _two(probe: Probe) -> tuple[int, int]:
    """The two descriptors that a call has left in the room."""
    data = probe.caller.show(STRUCTURES, 8)
    return int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")


def pipe_write(probe: Probe, case: str, address: int) -> None:
    """write(2) of 16 bytes from a mapping to a pipe."""
    probe.caller.call("pipe2", f"@{STRUCTURES}", 0)
    reader, writer = _two(probe)
    probe.record(case, "write", probe.caller.call("write", writer, address, 16))
    probe.close(reader, writer)


def file_write(probe: Probe, case: str, address: int, size: int) -> None:
    """write(2) from a mapping to a file of tmpfs."""
    fd = probe.caller.call("memfd_create", "target", 0).value
    probe.record(case, "write", probe.caller.call("write", fd, address, size))
    probe.close(fd)


def _send(probe: Probe, case: str, address: int) -> None:
    probe.caller.call("socketpair", AF_UNIX, SOCK_STREAM, 0, f"@{STRUCTURES}")
    one, two = _two(probe)
    done = probe.caller.call("sendto", one, address, 16, MSG_DONTWAIT, 0, 0)
    probe.record(case, "send", done)
    probe.close(one, two)


def self_read(probe: Probe, case: str, address: int, size: int = 16) -> None:
    """pread(2) of the mapping through /proc/self/mem."""
    fd = probe.fd("/proc/self/mem", os.O_RDONLY)
    probe.read(case, "pread", fd, size, address, shown=size)
    probe.close(fd)
