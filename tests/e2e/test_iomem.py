"""`/proc/iomem` of the recorded machine, for root and for an ordinary user."""

import re
import subprocess

import unprivileged
from support import BIN, DATA, TIMEOUT, Host, need_sandbox

# KASLR moves the kernel's own image with every boot.
KERNEL = re.compile(r"^  \S+ : Kernel (code|rodata|data|bss)$")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not KERNEL.match(line)]


def test_root_sees_the_recorded_map(host: Host) -> None:
    need_sandbox()
    done = host.run("pc-q35", "cat", "/proc/iomem")
    recorded = (DATA / "iomem-root-boot.txt").read_text()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == lines(recorded)
    assert len(done.stdout.splitlines()) == len(recorded.splitlines())


def test_a_user_sees_zeros(host: Host) -> None:
    need_sandbox()
    done = host.run("pc-q35", "cat", "/proc/iomem", role="user")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (DATA / "iomem-user-boot.txt").read_text()


def test_a_user_cannot_open_memory(host: Host) -> None:
    need_sandbox()
    done = host.run("pc-q35", "head", "-c1", "/dev/mem", role="user", env={"LC_ALL": "C"})
    message = "head: cannot open '/dev/mem' for reading: Permission denied\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_root_reads_what_strict_devmem_allows(host: Host) -> None:
    need_sandbox()
    script = (
        "head -c4 /dev/mem | od -A n -t x1; dd if=/dev/mem bs=4096 skip=256 count=1 status=none"
    )
    done = host.run("pc-q35", "sh", "-c", script, env={"LC_ALL": "C"})
    assert done.stdout == " 53 ff 00 f0\n"
    assert done.stderr == "dd: error reading '/dev/mem': Operation not permitted\n"


def test_the_tool_s_locale_is_the_caller_s(host: Host) -> None:
    """Python sets a LC_CTYPE of its own in the C locale, and GNU tools would print other quotes."""
    need_sandbox()
    bare = ["env", "-u", "LANG", "-u", "LC_ALL", "-u", "LC_CTYPE", BIN / "fakedev"]
    tool = ["run", "-q", "pc-q35", "--", "sh", "-c", "echo ${LC_CTYPE-none}"]
    command = unprivileged.command(*bare, *tool)
    done = subprocess.run(
        command, env=host.env, check=True, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.stdout, done.stderr) == ("none\n", "")
