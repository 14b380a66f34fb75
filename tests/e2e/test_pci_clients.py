"""lspci, setpci, memtool, devmem, lstopo, lshw and friends on the machines' PCI: what they print, and what of each other they see."""

import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support import DATA, Host, need, need_sandbox

from fakedev.profiles.bundled import bundled_names

PACKAGES = {
    "busybox": "busybox-static",
    "memtool": "memtool",
    "lspci": "pciutils",
    "setpci": "pciutils",
    "lstopo-no-graphics": "hwloc-nox",
    "lshw": "lshw",
    "tree": "tree",
}
TRANSCRIPTS = {
    "O1-busybox-devmem": ["busybox"],
    "O2-memtool": ["memtool"],
    "O4-lspci-setpci": ["lspci", "setpci"],
}
# Which names the transcript of lspci was made with.
PCI_IDS = Path("/usr/share/misc/pci.ids")
RECORDED_IDS = b"Version: 2023.04.10"
#: lspci looks for module aliases of the kernel that runs; a container often has none.
NO_MODULES = re.compile(r"lspci: Unable to load libkmod resources: error -\d+\n")
#: What reading every attribute gives on a real kernel: files without a reader, BARs, a ROM that is off.
UNREADABLE = re.compile(r": (Permission denied|Input/output error|Invalid argument)$")
FPGA = "/sys/bus/pci/devices/0000:04:00.0"
every_profile = pytest.mark.parametrize("profile", bundled_names())


def tools(*names: str) -> None:
    need_sandbox()
    for name in names:
        need(name, PACKAGES[name])


def run(host: Host, profile: str, *command: str, **options: Any) -> tuple[str, str]:
    """stdout and stderr of a command that ends well within its time."""
    done = host.run(profile, *command, timeout=50, **options)
    assert done.returncode == 0, (command, done.returncode, done.stderr)
    return done.stdout, _words(done.stderr)


def _words(stderr: str) -> str:
    """What a tool said, without what this host makes lspci say of any machine."""
    if Path("/lib/modules", os.uname().release).is_dir():
        return stderr
    return NO_MODULES.sub("", stderr)


def _need_ids() -> None:
    if not PCI_IDS.exists() or RECORDED_IDS not in PCI_IDS.read_bytes()[:2000]:
        pytest.skip(f"{PCI_IDS} is of another day (package pci.ids; the text has 2023.04.10)")


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(host: Host, name: str) -> None:
    tools(*TRANSCRIPTS[name])
    if "lspci" in TRANSCRIPTS[name]:
        _need_ids()
    first, _, expected = (DATA / "clients" / f"{name}.txt").read_text().partition("\n")
    stdout, stderr = run(host, "fd-9000", "sh", "-c", first.removeprefix("$ "))
    assert stdout == expected
    assert stderr == ""


@every_profile
def test_lspci_warns_of_nothing(host: Host, profile: str) -> None:
    tools("lspci")
    stdout, stderr = run(host, profile, "lspci", "-vvvxxxx")
    assert stderr == ""
    assert "pcilib" not in stdout
    assert "!!!" not in stdout  # `!!! Unknown header type`, `!!! Invalid class`
    assert "<access denied>" not in stdout


@every_profile
def test_lspci_as_an_ordinary_user(host: Host, profile: str) -> None:
    tools("lspci")
    stdout, stderr = run(host, profile, "lspci", "-vvv", role="user")
    assert stderr == ""
    assert "<access denied>" in stdout


@every_profile
@pytest.mark.parametrize(
    "command",
    [
        "lspci -t",
        "lspci -tvnn",
        "lspci -k",
        "lspci -nn",
        "lspci -mmnnvD",
        "lspci -A linux-proc -nn",
        "lstopo-no-graphics",
        "lshw -businfo -quiet",
        "tree /sys/bus/pci /sys/devices/pci0000:00",
        "find /sys/bus/pci /sys/devices/pci0000:00 /proc/bus/pci -ls",
    ],
)
def test_tools_end(host: Host, profile: str, command: str) -> None:
    words = command.split()
    if words[0] in PACKAGES:
        tools(words[0])
    stdout, stderr = run(host, profile, *words)
    assert stdout
    assert "pcilib" not in stderr
    assert words[0] == "lshw" or stderr == ""


@every_profile
def test_every_attribute_can_be_asked(host: Host, profile: str) -> None:
    """As on a real kernel, grep ends with 2: some files have no reader."""
    need_sandbox()
    done = host.run(profile, "sh", "-c", "grep -r . /sys/bus/pci/devices/*/", timeout=50)
    assert done.returncode in {0, 2}
    strange = [line for line in done.stderr.splitlines() if not UNREADABLE.search(line)]
    strange = [line for line in strange if not line.endswith("binary file matches")]
    assert strange == []
    assert "/vendor:0x" in done.stdout


def test_functions_of_lspci_and_sysfs_are_the_same(host: Host) -> None:
    tools("lspci")
    for profile in bundled_names():
        listed, _ = run(host, profile, "lspci", "-D")
        names, _ = run(host, profile, "ls", "/sys/bus/pci/devices")
        assert [line.split()[0] for line in listed.splitlines()] == names.split()


def test_setpci_is_seen_in_ecam_and_back(host: Host) -> None:
    tools("setpci", "busybox")
    script = """
        set -e
        setpci -s 04:00.0 COMMAND=0x0006
        busybox devmem 0xe0400004 16
        busybox devmem 0xe0400004 16 0x0002
        setpci -s 04:00.0 COMMAND
        busybox devmem 0xe040003c 8 0x5a
        setpci -s 04:00.0 INTERRUPT_LINE
        setpci -s 04:00.0 BASE_ADDRESS_0=ffffffff
        busybox devmem 0xe0400010
        setpci -s 04:00.0 BASE_ADDRESS_0=d8100000
        busybox devmem 0xd8100000
        """
    stdout, stderr = run(host, "fd-9000", "sh", "-c", textwrap.dedent(script))
    assert stderr == ""
    assert stdout.split() == ["0x0006", "0002", "5a", "0xFFFF0000", "0x010000ED"]


def test_devmem_and_memtool_under_a_third_that_maps_both(host: Host) -> None:
    """Two mappings stay, are loaded from after each tool and stored through before the next."""
    tools("busybox", "memtool")
    script = f"""
        import mmap, os, subprocess
        address, path = 0xd8100000, "{FPGA}/resource0"
        def tool(*words):
            return subprocess.run(words, check=True, capture_output=True, text=True).stdout
        def memtool(offset):
            return tool("memtool", "md", "-s", path, "-l", f"{{offset}}+4").split()[1]
        maps = [
            mmap.mmap(os.open("/dev/mem", os.O_RDWR | os.O_SYNC), 4096, offset=address),
            mmap.mmap(os.open(path, os.O_RDWR), 4096),
        ]
        word = lambda view, at: int.from_bytes(view[at : at + 4], "little")
        for turn in range(20):
            at = 0x40 + 4 * turn
            tool("busybox", "devmem", hex(address + at), "32", hex(0xA0000000 + turn))
            assert memtool(at) == f"{{0xA0000000 + turn:08x}}"
            assert [word(view, at) for view in maps] == [0xA0000000 + turn] * 2
            tool("memtool", "mw", "-d", path, "-l", str(at), hex(0xB0000000 + turn))
            assert int(tool("busybox", "devmem", hex(address + at)), 16) == 0xB0000000 + turn
            assert [word(view, at) for view in maps] == [0xB0000000 + turn] * 2
            maps[turn % 2][at : at + 4] = (0xC0000000 + turn).to_bytes(4, "little")
            assert word(maps[1 - turn % 2], at) == 0xC0000000 + turn
            assert memtool(at) == f"{{0xC0000000 + turn:08x}}"
            assert int(tool("busybox", "devmem", hex(address + at)), 16) == 0xC0000000 + turn
        print("good")
        """
    stdout, stderr = run(host, "fd-9000", sys.executable, "-c", textwrap.dedent(script))
    assert (stdout, stderr) == ("good\n", "")
