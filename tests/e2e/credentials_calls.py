"""Runs inside the machine: drops capabilities and users in children, and prints what opens then.

Only the standard library. Each line is `[case, [answer, ...]]` as JSON.
"""

import ctypes
import errno
import json
import os
import struct
import sys
import threading
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
CAP_SYS_RAWIO, CAP_SYS_ADMIN = 17, 21
HEADER = struct.pack("=Ii", 0x20080522, 0)
PR_SET_KEEPCAPS, PR_SET_DUMPABLE, CLONE_NEWUSER = 8, 4, 0x10000000
DEVMEM = Path("/dev/mem")
DEVICE = "/sys/bus/pci/devices/0000:00:05.0"


def capset(effective, permitted):
    """Raw, with nothing inheritable."""
    words = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in (effective, permitted, 0)]
    return libc.capset(HEADER, struct.pack("=6I", *words))


def without(capability):
    """A root that has dropped one capability."""
    data = ctypes.create_string_buffer(24)
    assert libc.capget(HEADER, data) == 0
    words = struct.unpack("=6I", data.raw)
    mask = (words[0] | words[3] << 32) & ~(1 << capability)
    assert capset(mask, mask) == 0


def user(*groups, keep=0):
    """As `drop_user` of the recorded program, and `drop_user` with CAP_SYS_RAWIO alone."""
    libc.prctl(PR_SET_KEEPCAPS, 1 if keep else 0, 0, 0, 0)
    os.setgroups(groups)
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    assert libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    if keep:
        assert capset(keep, keep) == 0


def outside():
    """A root of a user namespace of its own."""
    assert libc.unshare(CLONE_NEWUSER) == 0


def tried(path, flags=os.O_RDONLY):
    """0, or the name of the errno."""
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return errno.errorcode[error.errno]
    return 0


def iomem():
    """Whether /proc/iomem shows addresses."""
    lines = Path("/proc/iomem").read_text().splitlines()
    return any(not line.lstrip().startswith("00000000-00000000") for line in lines)


def visible():
    """How much of a configuration space there is to read."""
    return len(Path(f"{DEVICE}/config").read_bytes())


def enable():
    """A store that asks for CAP_SYS_ADMIN."""
    try:
        fd = os.open(f"{DEVICE}/enable", os.O_WRONLY)
        os.write(fd, b"1")
    except OSError as error:
        return errno.errorcode[error.errno]
    return 0


def case(name, before, *questions):
    """Ask in a child, after `before`."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, name
        return
    before()
    print(json.dumps([name, [question() for question in questions]]), flush=True)
    os._exit(0)


def mem(flags=os.O_RDONLY):
    """Opens /dev/mem."""
    return lambda: tried("/dev/mem", flags)


def everything():
    """What depends on single capabilities."""
    questions = (mem(), iomem, visible, enable, lambda: tried(f"{DEVICE}/resource0", os.O_RDWR))
    case("root", lambda: None, *questions)
    case("no rawio", lambda: without(CAP_SYS_RAWIO), *questions)
    case("no admin", lambda: without(CAP_SYS_ADMIN), *questions)
    case("namespace", outside, *questions)
    held = os.open(f"{DEVICE}/config", os.O_RDONLY)
    case("held", lambda: without(CAP_SYS_ADMIN), lambda: len(os.read(held, 4096)))


def recorded():
    """The recorded phase `open`, as far as it is about users."""
    rawio = 1 << CAP_SYS_RAWIO
    DEVMEM.chmod(0o600)
    os.chown("/dev/mem", 0, 0)
    case("open-devmem-user-mode0600", user, mem(), mem(os.O_RDWR))
    case("open-devmem-user-O_PATH", user, mem(os.O_PATH))
    DEVMEM.chmod(0o640)
    os.chown("/dev/mem", 0, 15)
    case("open-devmem-user-in-kmem-group-0640", lambda: user(15), mem())
    DEVMEM.chmod(0o666)
    case("open-devmem-user-mode0666", user, mem())
    case("open-devmem-root-without-CAP_SYS_ADMIN", lambda: without(CAP_SYS_ADMIN), mem())
    with_rawio = "open-devmem-user-with-CAP_SYS_RAWIO-mode"
    case(with_rawio + "0666", lambda: user(keep=rawio), mem(os.O_RDWR))
    case("open-devmem-root-in-child-userns", outside, mem())
    DEVMEM.chmod(0o600)
    os.chown("/dev/mem", 0, 0)
    case(with_rawio + "0600", lambda: user(keep=rawio), mem(os.O_RDWR))
    held = os.open("/dev/mem", os.O_RDWR)
    case("reopen-proc-self-fd-user", user, lambda: tried(f"/proc/self/fd/{held}"))


def inheritance():
    """Who has what after a fork, an exec, the end of a parent, and in other threads."""

    def orphan():
        user()
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == parent:
            os.sched_yield()
        script = "import os; print(os.getresuid(), os.path.exists('/dev/mem'), flush=True);open('/dev/mem')"
        os.execvp(sys.executable, [sys.executable, "-Sc", script])

    def threads():
        go, done, found = threading.Event(), threading.Event(), []

        def other():
            go.wait()
            found.append([os.getuid(), tried("/dev/mem")])
            done.set()

        threading.Thread(target=other).start()
        user()
        go.set()
        done.wait()
        return found

    def parent():
        """The child was there before, and stays what it was."""
        ends = os.pipe()
        child = os.fork()
        if not child:
            os.read(ends[0], 1)
            os._exit(tried("/dev/mem") or 7)
        user()
        os.write(ends[1], b"x")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def slack():
        """PR_SET_TIMERSLACK: for root, and for a user, whose mark it is."""
        libc.prctl(29, 7, 0, 0, 0)
        found = [libc.prctl(30, 0, 0, 0, 0)]
        user()
        return [*found, libc.prctl(29, 7, 0, 0, 0), os.getuid(), tried("/dev/mem")]

    case("slack", lambda: None, slack)
    case("threads", lambda: None, threads)
    case("parent", lambda: None, parent)
    orphan()


def pointers():
    """Calls that hand over memory."""
    user()
    wild = ctypes.c_void_p(8)
    numbers = [
        libc.setgroups(1, wild),
        libc.getresuid(wild, wild, wild),
        libc.getgroups(-1, None),
        libc.capget(HEADER, wild),
        libc.capset(wild, wild),
        libc.chown(wild, 5, 5),
    ]
    print(numbers, ctypes.get_errno())


globals()[sys.argv[1]]()
