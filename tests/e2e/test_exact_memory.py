"""Calls on addresses that are mapped device memory, of an unprivileged tool."""

from pathlib import Path

import pytest
from support import Host, compiled, need_sandbox

HERE = Path(__file__).parent
STRICT = str(HERE / "strict.yaml")
BOARD = "d0000000"
#: A hang is what these tests are for: the host's kernel may ask for a refused page for ever.
SOON = 60.0


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


def answers(text: str) -> dict[str, str]:
    """Call to outcome."""
    return dict(line.rsplit(" ", 1) for line in text.splitlines())


LOCKS = {
    "mlock": "ok", "mlock2": "ok", "mlock to the end": "ok", "mlock2 flags": "EINVAL", "mlock hole": "ENOMEM",
    "munlock": "ok", "mlockall": "ok", "mlockall flags": "EINVAL", "munlockall": "ok",
    "mlock other": "ok",
    "madvise NORMAL": "ok", "madvise RANDOM": "ok", "madvise WILLNEED": "ok",
    "madvise FREE": "EINVAL", "madvise REMOVE": "ENODEV", "madvise DONTFORK": "ok",
    "madvise DOFORK": "EINVAL", "madvise DONTDUMP": "ok", "madvise DODUMP": "EINVAL",
    "madvise WIPEONFORK": "EINVAL", "madvise COLD": "EINVAL", "madvise PAGEOUT": "EINVAL",
    "madvise POPULATE_READ": "EINVAL", "madvise POPULATE_WRITE": "EINVAL",
    "madvise DONTNEED_LOCKED": "EINVAL", "madvise unaligned": "EINVAL",
    "madvise nothing": "ok", "madvise other": "ok",
}  # fmt: skip
EXPECTED = {
    "before": "ok",
    **{f"before {name}": outcome for name, outcome in LOCKS.items()},
    "mremap grow": "EFAULT", "mremap grow in place": "EFAULT", "mremap copy": "EFAULT",
    "mremap dontunmap": "EINVAL", "mremap flags": "EINVAL", "mremap copy of private": "EINVAL",
    "mremap move": "ok", "moved": "ok", "mremap shrink": "ok", "mremap other": "ok",
    "mincore": "ok", "mincore pages": "0000", "mincore wild": "EFAULT",
    "remap_file_pages refused": "EPERM", "remap_file_pages": "ok", "remapped": "1",
    "process_vm_readv": "EFAULT", "process_vm_writev": "EFAULT", "process_vm_readv own": "ok",
    "process_vm_readv into": "ok",
    "vmsplice": "EFAULT", "vmsplice own": "ok", "vmsplice from": "ok",
    "pread nothing": "EFAULT", "pread nothing low": "ok", "pread nothing ram": "ok",
    "pread nothing far": "EFAULT", "pread nothing negative": "EINVAL", "pwrite nothing": "EFAULT",
    "pwrite nothing reading": "EBADF", "pread nothing closed": "EBADF", "pread nothing other": "ok",
    "after": "SIGBUS", "after beside": "ok",
    **{f"after {name}": outcome for name, outcome in LOCKS.items()},
    "in the end": "SIGBUS", "mmap populate": "ok", "populated": "ok",
}  # fmt: skip
COMPAT = {"i386 madvise": "EINVAL", "i386 mlock": "ok"}


def test_every_call_answers_as_for_device_memory(host: Host, folder: Path) -> None:
    program = compiled(HERE / "exact_memory.c", folder)
    done = host.run(STRICT, program, BOARD, timeout=SOON)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = answers(done.stdout)
    compat = {name: found.pop(name) for name in COMPAT if name in found}
    assert found == EXPECTED
    assert compat in (COMPAT, {})


POPULATES = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDONLY)
offset, how = int(sys.argv[2], 16), sys.argv[3]
extra = {"populate": 0x8000, "locked": 0x2000}.get(how, 0)
at = libc.mmap(None, 8192, mmap.PROT_READ, mmap.MAP_SHARED | extra, fd, offset)
assert at != ctypes.c_void_p(-1).value
if how == "mlock":
    assert libc.mlock(ctypes.c_void_p(at), 8192) == 0
print("went on", flush=True)
while True:  # zeros for a moment
    ctypes.string_at(at, 1)
"""


@pytest.mark.parametrize("how", ["populate", "locked", "mlock"])
@pytest.mark.parametrize(
    ("path", "offset", "cached"),
    [("/dev/mem", "0x1000000", ""), ("/dev/mem", "0x1000000", "1"), ("/dev/kcore", "0x0", "")],
)
def test_without_the_layer_a_refused_page_holds_nobody_up(
    host: Host, path: str, offset: str, cached: str, how: str
) -> None:
    """The host's `__mm_populate` would ask for it for ever."""
    command = ("python3", "-c", POPULATES, path, offset, how)
    done = host(
        "run", "-q", "--no-exact", STRICT, "--", *command,
        timeout=SOON, env={"FAKEDEV_CACHED": cached},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-7, "went on\n", "")


STORM = """
import ctypes, os, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
failed, done, over = set(), [0, 0], threading.Event()

def populate(number, extra):
    while not over.is_set():
        fd = os.open("/dev/mem", os.O_RDWR)
        at = libc.mmap(None, 1 << 20, 3, 1 | extra, fd, 0xd0000000)
        if at == ctypes.c_void_p(-1).value:
            failed.add(ctypes.get_errno())
        else:
            assert libc.mlock(at, 1 << 20) == 0
            libc.munmap(at, 1 << 20)
        os.close(fd)
        done[number] += 1

threads = [threading.Thread(target=populate, args=one) for one in enumerate((0x2000, 0x8000))]
for thread in threads:
    thread.start()
for _ in range(5):
    subprocess.run(["fakedev", "ctl", "claim", "d0040000-d004ffff", "--name", "driver"], check=True)
    subprocess.run(["fakedev", "ctl", "release", "d0040000-d004ffff"], check=True)
over.set()
for thread in threads:
    thread.join()
assert all(done)
print(sorted(failed))
"""


@pytest.mark.parametrize(("option", "failed"), [("--exact", "[1]"), ("--no-exact", "[]")])
def test_claims_while_mappings_are_populated(host: Host, option: str, failed: str) -> None:
    done = host("run", "-q", option, STRICT, "--", "python3", "-c", STORM, timeout=SOON)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(failed + "\n")
