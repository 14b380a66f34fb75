"""The exact layer seen by tools that nobody here wrote, and by programs without a C library."""

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Fault, Host, Refusal, compiled, need, need_sandbox

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRICT = str(HERE / "strict.yaml")
MACHINE = "pc-q35"
BOARD = 0xD000_0000
MAP_RAM = """
import mmap, os
fd = os.open("/dev/mem", os.O_RDONLY)
page = mmap.mmap(fd, 4096, prot=mmap.PROT_READ, offset=0x100000)
print("mapped", flush=True)
print(page[0])
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


def sh(host: Host, script: str, *options: str, **more: Any) -> str:
    """What a shell script prints inside; it must succeed, and say nothing on stderr."""
    done = host("run", "-q", *options, MACHINE, "--", "sh", "-ec", script, **more)
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    return str(done.stdout)


def test_mmap_is_refused_when_it_is_called(host: Host) -> None:
    done = host.run(MACHINE, "python3", "-c", MAP_RAM)
    assert done.stderr.endswith("PermissionError: [Errno 1] Operation not permitted\n")
    assert done.stdout == ""


def test_without_the_layer_the_first_touch_is_sigbus_and_the_run_says_so(host: Host) -> None:
    done = host("run", "--no-exact", MACHINE, "--", "python3", "-c", MAP_RAM)
    assert (done.returncode, done.stdout) == (-7, "mapped\n")
    assert "without the exact layer" in done.stderr
    assert "SIGBUS" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    quiet = host("run", "-q", "--no-exact", MACHINE, "--", "python3", "-c", MAP_RAM)
    assert (quiet.returncode, quiet.stderr) == (-7, "")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("stat -c '%F %t:%T %s' /dev/mem", "character special file 1:1 0"),
        ("ls -l /dev/mem | cut -c1-10", "crw-r-----"),
        ("ls -l /dev/mem | awk '{ print $5, $6 }'", "1, 1"),
        ("find /dev -maxdepth 1 -type c -name mem", "/dev/mem"),
        ("find /dev -maxdepth 1 -type f -name mem", ""),
        ("test -c /dev/mem && echo yes", "yes"),
        ("test -f /dev/mem || echo no", "no"),
        ("test -r /dev/mem && echo yes", "yes"),
        ("stat -c %F - < /dev/mem", "character special file"),
        ("stat -Lc %F link", "character special file"),
        ("python3 -c 'import os, stat; print(stat.filemode(os.stat(\"link\").st_mode))'", "crw-r-----"),
        ("ls -R /dev/ | grep -cx mem", "1"),
    ],
)  # fmt: skip
def test_it_looks_like_a_character_device(
    host: Host, tmp_path: Path, command: str, expected: str
) -> None:
    (tmp_path / "link").symlink_to("/dev/mem")
    assert sh(host, command, cwd=tmp_path).strip() == expected


@pytest.mark.parametrize(
    ("tool", "package", "command"),
    [
        ("dd", "coreutils", "dd if=/dev/mem bs=16 skip=61440 count=2 status=none | od -Ax -tx1"),
        ("memtool", "memtool", "memtool md 0xf0000+32"),
        ("busybox", "busybox-static", "busybox devmem 0xf0000; busybox devmem 0xf0010 8"),
        ("hexdump", "bsdextrautils", "hexdump -C -s 0xf0000 -n 64 /dev/mem"),
        ("dmidecode", "dmidecode", "dmidecode"),
    ],
)
def test_what_reads_works_as_without_the_layer(
    host: Host, tool: str, package: str, command: str
) -> None:
    need(tool, package)
    assert sh(host, command) == sh(host, command, "--no-exact") != ""


def raw_program(folder: Path, bits: int) -> Path:
    """`exact_raw.c` for one of the tables of x86."""
    if platform.machine() != "x86_64":
        pytest.skip("x86 has two tables of system calls, others one")
    binary = folder / f"exact_raw{bits}"
    free = "-ffreestanding -fno-stack-protector -fno-pie -no-pie -nostdlib -static -Wl,-e,start"
    command = [need("gcc", "gcc"), f"-m{bits}", "-O1", *free.split(), "-o", binary]
    subprocess.run([*command, HERE / "exact_raw.c"], check=True)
    return binary


@pytest.mark.parametrize("bits", [64, 32])
def test_a_program_without_a_c_library(host: Host, folder: Path, bits: int) -> None:
    program = raw_program(folder, bits)
    mode, rdev = 0o020640, os.makedev(1, 1)
    expected = f"fstat 0\nmode  {mode}\nrdev  {rdev}\nseek  -22\nram   -1\nrom   0\n"
    assert host.run(MACHINE, program).stdout == expected
    # Without the layer the same program sees a file that can be mapped.
    assert f"mode  {0o100640}\n" in host("run", "-q", "--no-exact", MACHINE, "--", program).stdout


def test_bad_calls_fail_as_on_a_device_of_the_host(host: Host, folder: Path) -> None:
    """Wild pointers, flags and descriptors, in the 64-bit table and by int $0x80."""
    program = compiled(HERE / "exact_calls.c", folder)
    outside = subprocess.run([program, "/dev/zero"], capture_output=True, text=True, check=True)
    inside = host.run(MACHINE, program, "/dev/mem")
    assert (inside.returncode, inside.stderr) == (0, "")
    assert inside.stdout.splitlines() == outside.stdout.splitlines()
    assert "EFAULT" in outside.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do outside what root may do inside")
def test_bad_calls_about_users_fail_as_outside(host: Host, folder: Path) -> None:
    program = compiled(HERE / "exact_users.c", folder)
    outside = subprocess.run([program], capture_output=True, text=True, check=True)
    inside = host.run(MACHINE, program)
    assert (inside.returncode, inside.stderr) == (0, "")
    assert inside.stdout.splitlines() == outside.stdout.splitlines()
    assert "EFAULT" in outside.stdout


def test_gdb_runs_a_program_that_maps(host: Host, folder: Path) -> None:
    need("gdb", "gdb")
    storm = compiled(HERE / "exact_storm.c", folder)
    script = [
        "gdb", "-nx", "-q", "-batch", "-ex", "set confirm off", "-ex", "set disable-randomization off",
        "-ex", "break main", "-ex", "run", "-ex", "catch syscall lseek", "-ex", "continue",
        "-ex", "continue", "-ex", "delete", "-ex", "continue", "--args", storm, "once", "1",
    ]  # fmt: skip
    done = host.run(MACHINE, *script)
    assert "call to syscall" in done.stdout, done.stderr
    assert "returned from syscall" in done.stdout
    assert "exited normally" in done.stdout


@pytest.mark.parametrize("options", ["", "--seccomp-bpf"], ids=["plain", "seccomp"])
def test_strace_shows_what_the_tool_gets(host: Host, folder: Path, options: str) -> None:
    need("strace", "strace")
    storm = compiled(HERE / "exact_storm.c", folder)
    trace = folder / "trace"
    command = f"strace -f {options} -e trace=%desc,%file,mmap -o {trace} {storm} once 1"
    done = host.run(MACHINE, "sh", "-c", command)
    assert (done.returncode, done.stderr) == (0, "")
    text = trace.read_text()
    assert 'openat(AT_FDCWD, "/dev/mem", O_RDWR)' in text
    if not options:
        # What a listener answers is not seen by a filter that asks to trace it.
        assert re.search(
            r"mmap\(NULL, 4096, PROT_READ, MAP_SHARED, \d+, 0x100000\) = -1 EPERM", text
        )
        assert "st_rdev=makedev(0x1, 0x1)" in text


HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
PROGRAMS = {
    "gcc": "gcc -O1 -o hello hello.c && ./hello && sha256sum hello",
    "numpy": f"{shlex.quote(sys.executable)} -c 'import numpy; print(numpy.arange(5).sum())'",
    "find": "find /usr -xdev 2>/dev/null | sha256sum",
    "find-ls": "find /usr/bin -xdev -ls | sha256sum",
    "git": (
        f"git init -q tree && cp -r {shlex.quote(str(ROOT))}/docs tree/ && cd tree && "
        "git add -A && git status --porcelain && git ls-files -s"
    ),
    "tar": "tar --sort=name --mtime=@0 -C / -cf - etc/init.d | sha256sum",
    "cp": "cp --sparse=always /bin/sh copy && cmp /bin/sh copy && sha256sum copy",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_other_programs_print_what_they_print_without_it(
    host: Host, name: str, tmp_path: Path
) -> None:
    if name in ("gcc", "git"):
        need(name, name)
    (tmp_path / "hello.c").write_text(HELLO)
    more = {"cwd": tmp_path, "timeout": 50}
    assert sh(host, PROGRAMS[name], **more) == sh(host, PROGRAMS[name], "--no-exact", **more) != ""


DESCRIPTORS = """
import array, ctypes, errno, mmap, os, socket, stat, sys, threading

def check(what, fd):
    shown = os.fstat(fd)
    assert stat.S_ISCHR(shown.st_mode), what
    assert shown.st_rdev == os.makedev(1, 1), what
    try:
        mmap.mmap(fd, 4096, prot=mmap.PROT_READ, offset=0x100000)
    except PermissionError:
        return
    raise AssertionError(what)

fd = os.open("/dev/mem", os.O_RDONLY)
check("open", fd)
check("dup", os.dup(fd))
check("dup2", os.dup2(fd, 200))
check("reopened", os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
name = os.open("/dev/mem", os.O_PATH)
assert stat.S_ISCHR(os.fstat(name).st_mode)
check("opened by name", os.open(f"/proc/self/fd/{name}", os.O_RDONLY))
directory = os.open("/dev", os.O_RDONLY)
check("openat", os.open("mem", os.O_RDONLY, dir_fd=directory))
check("/dev/fd", os.open(f"/dev/fd/{fd}", os.O_RDONLY))
if os.fork() == 0:
    check("fork", fd)
    os._exit(0)
assert os.wait()[1] == 0
thread = threading.Thread(target=check, args=("thread", fd))
thread.start()
thread.join()
here, there = socket.socketpair()
if os.fork() == 0:
    os.close(fd)
    _, (passed,), _, _ = socket.recv_fds(there, 1, 1)
    check("passed", passed)
    os._exit(0)
socket.send_fds(here, [b"x"], [fd])
assert os.wait()[1] == 0
if len(sys.argv) > 1:
    check("exec", int(sys.argv[1]))
    print("all")
else:
    os.set_inheritable(fd, True)
    os.execv(sys.executable, [sys.executable, __file__, str(fd)])
"""


def test_a_descriptor_is_known_however_it_came(host: Host, tmp_path: Path) -> None:
    program = tmp_path / "descriptors.py"
    program.write_text(DESCRIPTORS)
    done = host.run(MACHINE, "python3", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all\n", "")


@pytest.mark.parametrize(
    ("profile", "path", "kind"),
    [
        (MACHINE, "/dev/mem", "S_ISCHR"),
        (MACHINE, "/dev/port", "S_ISCHR"),
        (MACHINE, "/proc/iomem", "S_ISREG"),
        ("server-pmem-cxl", "/dev/pmem0", "S_ISBLK"),
    ],
)
def test_name_and_descriptor_show_the_same(host: Host, profile: str, path: str, kind: str) -> None:
    """One is answered by the file system, the other by the supervisor."""
    script = f"""
import os, stat
by_name = os.stat({path!r})
assert stat.{kind}(by_name.st_mode)
for _ in range(50):  # the kernel forgets it between
    fd = os.open({path!r}, os.O_RDONLY)
    by_descriptor = os.fstat(fd)
    os.close(fd)
    assert by_name == by_descriptor == os.stat({path!r}), (by_name, by_descriptor)
"""
    done = host.run(profile, "python3", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_not_dev_mem_is_left_alone(host: Host) -> None:
    """Calls on a descriptor of the host with the arguments that are refused on /dev/mem."""
    script = """
import mmap, os, tempfile
file = tempfile.TemporaryFile()
file.truncate(0x200000)
assert os.lseek(file.fileno(), 0, os.SEEK_END) == 0x200000
assert mmap.mmap(file.fileno(), 4096, offset=0x100000)[0] == 0
assert os.fstat(file.fileno()).st_size == 0x200000
os.fsync(file.fileno())
zero = os.open("/dev/zero", os.O_RDWR)
assert os.fstat(zero).st_rdev == os.makedev(1, 5)
assert os.sendfile(zero, file.fileno(), 0, 4096) == 4096
print("fine")
"""
    assert host.run(MACHINE, "python3", "-c", script).stdout == "fine\n"


def test_a_descriptor_from_before_a_claim_maps_again_after_the_release(machine: Any) -> None:
    """`supervisor._renew`; what was mapped before stays dead."""
    with machine(STRICT) as running:
        agent = running.agent
        fd = agent.open()
        old = agent.map(fd, BOARD, 0x1000)
        assert agent("load", old, 0x120, 8) >= 0
        dead = Fault(7, 2, 0x120)
        for turn in range(3):
            running.claim("d0000000-d0000fff")
            assert agent("map", fd, BOARD, 0x1000, 3, 1) == Refusal("EPERM")
            running.release("d0000000-d0000fff")
            new = agent.map(fd, BOARD, 0x1000)
            assert agent("load", new, 0x120, 8) >= 0, turn
            assert agent("load", old, 0x120, 8) == dead, turn
            old = new
            running.claim("d0000000-d0000fff")
            assert agent("load", new, 0x120, 8) == dead
            running.release("d0000000-d0000fff")
            assert agent("load", new, 0x120, 8) == dead


def test_every_answer_is_in_the_trace_with_its_rule(machine: Any) -> None:
    with machine(STRICT) as running:
        fd = running.agent.open()
        assert running.agent("map", fd, 0x10_0000, 0x1000, 1, 1) == Refusal("EPERM")
        done = running.ctl("log")
        lines = [line for line in done.stdout.splitlines() if "exact" in line and "mmap" in line]
        assert lines, done.stdout
        assert "agent[" in lines[-1]
        assert "EPERM" in lines[-1]


def test_the_setting_is_an_option_of_the_command(host: Host) -> None:
    text = host.check("run", "--help", env={"COLUMNS": "200"})
    assert "--no-exact" in text
