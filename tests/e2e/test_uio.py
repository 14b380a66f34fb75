"""`/dev/uioN` as programs find it: mappings, reads that wait, modules that are in use."""

import signal
import textwrap

import pytest
from support import Host, need_sandbox

MACHINE = "pc-q35"
EDU, E1000E = "0000:00:05.0", "0000:01:00.0"
PRELUDE = """
import errno, mmap, os, select, signal, subprocess, sys, threading
UIO = "/sys/bus/pci/drivers/uio_pci_generic"

def ctl(*words):
    return subprocess.run(["fakedev", "ctl", *words], capture_output=True, text=True)

def bind(ids):
    assert ctl("modprobe", "uio_pci_generic").returncode == 0
    with open(f"{UIO}/new_id", "w") as file:
        file.write(ids)

def said(action, *words):
    try:
        return action(*words)
    except OSError as error:
        return errno.errorcode[error.errno]

def mapped(fd, offset, size=4096):
    return mmap.mmap(fd, size, offset=offset)

def death(action):
    "The signal that ends a child which does it."
    pid = os.fork()
    if not pid:
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


def python(host: Host, script: str, *options: str) -> list[str]:
    """What a script prints inside, line by line; it must succeed, and say nothing on stderr."""
    program = PRELUDE + textwrap.dedent(script)
    done = host("run", "-q", *options, MACHINE, "--", "python3", "-c", program, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    return str(done.stdout).splitlines()


def test_it_is_there_while_it_is_bound(host: Host) -> None:
    """Two listings of one directory, whose names change between them."""
    script = f"""
        def there():
            listed = [name for name in os.listdir("/dev") if name.startswith("uio")]
            return listed, os.path.exists("/dev/uio0"), os.listdir("/sys/class/uio")
        print(there())
        bind("1234 11e8")
        print(there(), os.path.realpath("/sys/class/uio/uio0/device"))
        with open(f"{{UIO}}/unbind", "w") as file:
            file.write("{EDU}")
        print(there(), os.path.exists("/sys/bus/pci/devices/{EDU}/uio"))
    """
    gone = "([], False, [])"
    assert python(host, script) == [
        gone,
        f"(['uio0'], True, ['uio0']) /sys/devices/pci0000:00/{EDU}",
        f"{gone} False",
    ]


def test_a_mapping_shows_the_bar_and_outlives_claims_and_drivers(host: Host) -> None:
    script = f"""
        bind("1234 11e8")
        fd = os.open("/dev/uio0", os.O_RDWR)
        print(said(mapped, fd, 4096), said(mapped, fd, 0, (1 << 20) + 1))
        mine, other = mapped(fd, 0), mapped(os.open("/sys/bus/pci/devices/{EDU}/resource0", os.O_RDWR), 0)
        mine[64:68] = b"mine"
        print(other[64:68])
        other[68:74] = b"theirs"
        print(mine[64:74])
        assert ctl("claim", "fea00000-feafffff", "--name", "somebody").returncode == 0
        print(death(lambda: other[64]), mine[64:68])
        assert ctl("unbind", "{EDU}").returncode == 0
        print(mine[64:68], said(mapped, fd, 0), said(os.open, "/dev/uio0", os.O_RDWR))
    """
    assert python(host, script) == [
        "EINVAL EINVAL",
        "b'mine'",
        "b'minetheirs'",
        f"{-signal.SIGBUS} b'mine'",
        "b'mine' EINVAL ENOENT",
    ]


def test_maps_of_one_device_are_apart(host: Host) -> None:
    """Offset 4096 is the second page of the first map, and the first page of the second."""
    script = f"""
        bind("8086 10d3")
        fd = os.open("/dev/uio0", os.O_RDWR)
        for bar in 0, 1, 3:
            file = os.open(f"/sys/bus/pci/devices/{E1000E}/resource{{bar}}", os.O_RDWR)
            bytes_ = mapped(file, 0, 8192)
            bytes_[0], bytes_[4096] = 0x10 + bar, 0x20 + bar
        maps = [mapped(fd, 4096 * index, 8192) for index in (2, 0, 1, 0)]
        print([f"{{one[0]:x}} {{one[4096]:x}}" for one in maps])
        print(said(mapped, fd, 3 * 4096), said(mapped, fd, 2 * 4096, 16384 + 1))
        print(os.fstat(fd).st_rdev == os.stat("/dev/uio0").st_rdev, os.listdir("/dev").count("uio0:1"))
        print(ctl("rmmod", "uio_pci_generic").returncode)
        os.close(fd)
        print(ctl("rmmod", "uio_pci_generic").returncode)
        maps.clear()
        print(ctl("rmmod", "uio_pci_generic").returncode)
    """
    assert python(host, script) == [
        "['13 23', '10 20', '11 21', '10 20']",
        "EINVAL EINVAL",
        "True 0",
        "1",
        "1",
        "0",
    ]


def test_without_the_exact_layer_the_first_map_is_there(host: Host) -> None:
    script = """
        bind("8086 10d3")
        fd = os.open("/dev/uio0", os.O_RDWR)
        mine = mapped(fd, 0, 8192)
        mine[4096] = 7
        print(mine[4096], said(os.read, fd, 8), os.fstat(fd).st_size == 128 << 10)
        print(ctl("rmmod", "uio_pci_generic").returncode)
    """
    assert python(host, script, "--no-exact") == ["7 EINVAL True", "1"]


def test_read_waits_until_a_signal_or_the_end(host: Host) -> None:
    script = f"""
        bind("1234 11e8")
        fd = os.open("/dev/uio0", os.O_RDWR)
        print(said(os.read, fd, 3), said(os.write, fd, b"four"))
        def stop(*_):
            raise InterruptedError(errno.EINTR, "a signal")
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        print(said(os.read, fd, 4))
        os.set_blocking(fd, False)
        print(said(os.read, fd, 4))
        os.set_blocking(fd, True)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        print(poll.poll(50))
        ready, ended = [], []
        readers = [threading.Thread(target=lambda: ended.append(said(os.read, fd, 4))) for _ in range(5)]
        poller = threading.Thread(target=lambda: ready.extend(poll.poll()))
        for one in *readers, poller:
            one.start()
        assert ctl("unbind", "{EDU}").returncode == 0
        for one in *readers, poller:
            one.join()
        print(ended, [bool(events & select.POLLIN) for _, events in ready])
        print(said(os.read, fd, 4), said(os.write, fd, b"four"))
    """
    assert python(host, script) == [
        "EINVAL ENOSYS",
        "EINTR",
        "EAGAIN",
        "[]",
        "['EIO', 'EIO', 'EIO', 'EIO', 'EIO'] [True]",
        "EIO EINVAL",
    ]


def test_a_reader_that_is_killed_goes_and_lets_go_of_the_module(host: Host) -> None:
    script = """
        bind("1234 11e8")
        children = []
        for _ in range(20):
            begun, begin = os.pipe()
            pid = os.fork()
            if not pid:
                fd = os.open("/dev/uio0", os.O_RDWR)
                os.write(begin, b"x")
                os.read(fd, 4)
                os._exit(1)
            os.read(begun, 1)
            children.append(pid)
        print(ctl("rmmod", "uio_pci_generic").returncode)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        print({os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children})
        print(ctl("rmmod", "uio_pci_generic").returncode)
    """
    assert python(host, script) == ["1", f"{{{-signal.SIGKILL}}}", "0"]


def test_a_run_that_ends_while_somebody_reads_leaves_nothing(host: Host) -> None:
    """`host` looks for what is left at the end."""
    script = """
        bind("1234 11e8")
        fd = os.open("/dev/uio0", os.O_RDWR)
        threading.Thread(target=os.read, args=(fd, 4), daemon=True).start()
        if not os.fork():
            os.read(fd, 4)
        print("over", flush=True)
        os._exit(0)
    """
    assert python(host, script) == ["over"]


def test_close_then_rmmod_at_once(host: Host) -> None:
    """The server hears of a close after the call has returned."""
    script = """
        import json, socket
        machine = socket.socket(socket.AF_UNIX)
        machine.connect(os.environ["FAKEDEV_CONTROL"])
        answers = machine.makefile()
        def verb(name):
            request = {"verb": name, "args": {"name": "uio_pci_generic"}}
            machine.sendall(json.dumps(request).encode() + b"\\n")
            return json.loads(answers.readline()).get("ok")
        bind("1234 11e8")
        for _ in range(60):
            fd = os.open("/dev/uio0", os.O_RDWR)
            kept = mapped(fd, 0)
            kept[0]
            kept.close()
            os.close(fd)
            assert verb("rmmod")
            assert verb("modprobe")
            with open(f"{UIO}/new_id", "w") as file:
                file.write("1234 11e8")
        print("every time")
    """
    assert python(host, script) == ["every time"]


def test_a_card_that_is_pulled_takes_mappings_with_it(host: Host) -> None:
    script = f"""
        bind("1234 11e8")
        fd = os.open("/dev/uio0", os.O_RDWR)
        mine = mapped(fd, 0)
        mine[0]
        assert ctl("unplug", "{EDU}").returncode == 0
        print(death(lambda: mine[0]), said(os.read, fd, 4))
    """
    assert python(host, script) == [f"{-signal.SIGBUS} EIO"]
