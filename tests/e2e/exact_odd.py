"""Odd tools, run inside a machine: `exact_odd.py NAME`. Each checks its own answers and prints "done"."""

import ctypes
import errno
import os
import platform
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

RAM, ROM, LOW = 0x10_0000, 0xF_0000, 0x1_0000
ON_X86 = platform.machine() == "x86_64"
FSTAT, LSEEK, NEWFSTATAT, SECCOMP, EXIT = (5, 8, 262, 317, 60) if ON_X86 else (80, 62, 79, 277, 93)
AT_EMPTY_PATH = 0x1000
CLONE_FILES, CLONE_NEWUSER, CLONE_NEWPID = 0x400, 0x1000_0000, 0x2000_0000
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
RET_ALLOW, RET_ERRNO, RET_NOTIFY = 0x7FFF_0000, 0x5_0000, 0x7FC0_0000
UPPER = -(1 << 63) + 4096  # of the address space, as lseek returns it
MAP_FAILED = ctypes.c_void_p(-1).value

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.syscall.restype = ctypes.c_long


def call(number: int, *words: int | bytes) -> int:
    """A system call: its result, or -errno."""
    given = [word if isinstance(word, bytes) else ctypes.c_long(word) for word in words]
    found = int(libc.syscall(ctypes.c_long(number), *given))
    return found if found >= 0 else -ctypes.get_errno()


def page(fd: int, offset: int, prot: int = 3) -> int:
    """A shared mapping of one page: its address, or -errno."""
    found = libc.mmap(None, 4096, prot, 1, fd, offset)
    return int(found) if found != MAP_FAILED else -ctypes.get_errno()


def check(fd: int) -> None:
    """What every tool sees of /dev/mem with the exact layer."""
    shown = os.fstat(fd)
    assert stat.S_ISCHR(shown.st_mode), oct(shown.st_mode)
    assert page(fd, RAM, 1) == -errno.EPERM
    assert call(LSEEK, fd, 0, os.SEEK_END) == -errno.EINVAL


def device() -> int:
    return os.open("/dev/mem", os.O_RDWR)


def own_mapping() -> None:
    """Buffers and paths of a call lie in a mapping of /dev/mem itself."""
    fd = device()
    for fresh in range(8):
        at = page(fd, LOW + 4096 * fresh)
        assert at > 0
        assert call(FSTAT, fd, at) == 0  # a page that nobody has touched yet
        shown = ctypes.string_at(at, 144)
        assert struct.pack("=Q", os.makedev(1, 1)) in shown
    ctypes.memset(at, 0, 4096)
    assert call(NEWFSTATAT, fd, at + 4000, at, AT_EMPTY_PATH) == 0
    ctypes.memset(at + 4000, ord("x"), 4)
    assert call(NEWFSTATAT, fd, at + 4000, at, AT_EMPTY_PATH) == -errno.ENOTDIR
    assert call(FSTAT, fd, page(fd, ROM, 1)) == -errno.EFAULT
    threads = [threading.Thread(target=_into_own, args=(fd,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _into_own(fd: int) -> None:
    for turn in range(20):
        at = page(fd, LOW + 4096 * (turn + 8))
        assert call(FSTAT, fd, at) == 0
        libc.munmap(ctypes.c_void_p(at), 4096)


def dead_mapping() -> None:
    """The buffer lies in a page that a driver has claimed meanwhile."""
    fd = device()
    at = page(fd, 0xD000_0000)
    assert call(FSTAT, fd, at) == 0
    print("mapped", flush=True)
    sys.stdin.readline()
    assert call(FSTAT, fd, at) == -errno.EFAULT
    assert call(NEWFSTATAT, fd, at, at, AT_EMPTY_PATH) == -errno.EFAULT


def own_filter() -> None:
    """Another filter, stricter for one call: its verdict counts, the others go on as before."""
    fd = device()
    assert _filter(FSTAT, RET_ERRNO | errno.EXDEV, listener=False) == 0
    room = ctypes.create_string_buffer(256)
    assert call(FSTAT, fd, ctypes.addressof(room)) == -errno.EXDEV
    assert call(NEWFSTATAT, fd, b"", ctypes.addressof(room), AT_EMPTY_PATH) == 0  # type: ignore[arg-type]
    assert page(fd, RAM, 1) == -errno.EPERM


def own_listener() -> None:
    """A process can have one listener (`has_duplicate_listener`)."""
    assert _filter(FSTAT, RET_NOTIFY, listener=True) == -errno.EBUSY
    check(device())


def _filter(number: int, action: int, *, listener: bool) -> int:
    code = struct.pack("=HBBI", 0x20, 0, 0, 0)
    code += struct.pack("=HBBI", 0x15, 0, 1, number)
    code += struct.pack("=HBBI", 0x06, 0, 0, action) + struct.pack("=HBBI", 0x06, 0, 0, RET_ALLOW)
    program = ctypes.create_string_buffer(code, len(code))
    packed = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(program)))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    return call(SECCOMP, 1, 8 if listener else 0, ctypes.addressof(packed))


def few_descriptors() -> None:
    """No room for another descriptor."""
    fd = device()
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, fd + 1))
    check(fd)
    at = page(fd, ROM, 1)
    assert at > 0
    assert ctypes.string_at(at, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    check(fd)


def closes_all() -> None:
    """As daemons do."""
    for fd in range(3, 65536):
        try:
            os.close(fd)
        except OSError:
            continue
    check(device())


def not_dumpable() -> None:
    """/proc/PID belongs to root now."""
    assert libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    check(device())


def table_of_its_own() -> None:
    """A thread that shares no descriptors with the others."""
    seen: list[int] = []

    def run() -> None:
        assert libc.unshare(CLONE_FILES) == 0
        fd = device()
        check(fd)
        assert os.lseek(fd, 5, os.SEEK_SET) == 5
        seen.append(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen
    try:
        os.fstat(seen[0])
    except OSError:
        return
    raise AssertionError("it is shared")


def first_thread_ends() -> None:
    """The leader of the process is a zombie, and the others go on."""
    fd = device()

    def run() -> None:
        status = f"/proc/{os.getpid()}/stat"
        while True:
            with open(status) as file:  # noqa: PTH123
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
            os.sched_yield()
        check(fd)
        assert libc.syscall(ctypes.c_long(LSEEK), fd, ctypes.c_long(UPPER), 0) == UPPER
        print("done", flush=True)
        os._exit(0)

    threading.Thread(target=run).start()
    call(EXIT, 0)  # of this thread


def other_namespaces() -> None:
    """Processes have other numbers inside, then users too."""
    assert libc.unshare(CLONE_NEWPID) == 0
    if os.fork() == 0:
        assert os.getpid() == 1
        assert Path("/dev/mem").is_char_device()
        fd = device()
        check(fd)
        assert libc.unshare(CLONE_NEWUSER) == 0
        check(fd)
        os._exit(0)
    assert os.wait()[1] == 0


def stopped() -> None:
    """Stopped and continued again and again while it calls."""
    fd = device()
    child = os.fork()
    if child == 0:
        for _ in range(400):
            check(fd)
        os._exit(0)
    while True:
        os.kill(child, signal.SIGSTOP)
        pid, status = os.waitpid(child, os.WUNTRACED)
        if pid and not os.WIFSTOPPED(status):
            break
        os.kill(child, signal.SIGCONT)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
    assert status == 0, status


def many_programs() -> None:
    """What a shell script does all the time."""
    for _ in range(20):
        jobs = [subprocess.Popen(["stat", "-c%t", "/dev/mem"], stdout=-1) for _ in range(10)]
        assert [job.communicate()[0] for job in jobs] == [b"1\n"] * 10


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
