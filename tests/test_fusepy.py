"""The mfusepy adapter: the same answers as the wire server where a page cache allows it.

Whoever touches the mounted files here is another process: this one serves them, and a page fault
of its own would wait for itself.
"""

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import support
from machines import BAR, HIGH, TOP, small_machine
from pci_recorded import recorded_machine
from support import Agent, Fault, Refusal

from fakedev.control.client import SUFFIX, Client
from fakedev.fuse import fusepy_adapter, fusepy_library
from fakedev.fuse import mount as plain
from fakedev.fuse.service import FORCE_CACHED, Service
from fakedev.model.errors import HostError
from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.views.devmem import DevMem
from fakedev.views.tree import Tree

PAGE = 4096
SIGBUS = Fault(signal.SIGBUS, 2, 0)
FILES = {
    "/sys/firmware/dmi/tables/DMI": StaticFile.regular(b"table", 0o400),
    "/proc/cpuinfo": StaticFile.regular(b"processor : 0\n" * 1000, size=0),
    "/sys/class/fpga/fpga0": StaticFile.symlink("../../devices/fpga0"),
    "/sys/devices/fpga0/empty": StaticFile.directory(0o700),
}
PROFILE = """
fakedev: 1
name: tiny
kernel: {version: "6.12"}
memory:
  segments: [{range: d8100000-d810ffff, name: bar, fill: zero}]
  contents: [{at: 0xd8100000, text: "first bytes"}]
iomem: ["d8100000-d810ffff : 0000:04:00.0"]
"""


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    if find_library("fuse3") is None:
        pytest.skip("libfuse3 is not installed (package fuse3)")
    try:
        fusepy_library.load()
    except HostError as error:
        pytest.skip(str(error))
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened")
    support.need("fusermount3", "fuse3")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.compiled(support.AGENT_SOURCE, tmp_path_factory.mktemp("agent"))


@contextlib.contextmanager
def agent_of(binary: Path) -> Iterator[Agent]:
    """A process that touches what it is told."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([binary], text=True, bufsize=1, **pipes) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        stdin = tool.stdin

        def send(line: str) -> None:
            stdin.write(line)

        yield Agent(send, tool.stdout.readline)
        stdin.close()


def is_mounted(directory: Path) -> bool:
    return str(directory) in Path("/proc/self/mountinfo").read_text()


def strict(**rules: Any) -> Machine:
    """A machine of a distribution's kernel."""
    machine = small_machine("6.12", **rules)
    machine.files.update(FILES)
    for at in (0x2000, 0x200000, BAR, BAR + PAGE, HIGH):
        machine.memory.write(at, b"at %x" % at)
    return machine


class Mounted(NamedTuple):
    machine: Machine
    root: Path
    agent: Agent
    fd: int

    def map(self, offset: int, length: int) -> int:
        return self.agent.map(self.fd, offset, length)


@pytest.fixture
def mounted(tmp_path: Path, binary: Path) -> Iterator[Mounted]:
    """A strict machine through mfusepy, with `/dev/mem` open in an agent."""
    machine = strict()
    with fusepy_adapter.Mount(machine, str(tmp_path)), agent_of(binary) as agent:
        yield Mounted(machine, tmp_path, agent, agent.open(str(tmp_path / "dev/mem")))
    assert not is_mounted(tmp_path)


# -- the same answers as the wire server ------------------------------------------------------

READS = [
    (0x2000, 16), (0x3000, 4), (0x9F000, PAGE), (0xA0000, 8), (0xFFFFC, 8), (0x100000, 8),
    (0x200000, 8), (0x20000000, 8), (BAR, 16), (BAR + 0xFFF, 2), (BAR + 0xFFFC, 8),
    (HIGH, 8), (TOP - 4, 8), (TOP, 8),
]  # fmt: skip
# (BAR + 0x8010) is on a page that no cache has.
WRITES = [0x2000, 0xA0000, 0x200000, BAR, BAR + 0x8010, HIGH, TOP - 2, TOP]
KERNELS: dict[str, dict[str, Any]] = {
    "strict": {},
    "open": {"strict_devmem": False, "io_strict_devmem": False},
    "io": {"strict_devmem": True, "io_strict_devmem": False},
}
#: What a page cache answers instead of the kernel's own answer, on a strict machine.
DIFFERING: dict[Any, tuple[Any, Any]] = {
    ("read", 0x2000, 16): (bytes(16), b"at 2000".ljust(16, b"\0")),  # mmap shows what read hides
    ("read", 0xFFFFC, 8): (Refusal("EPERM"), b"\xff" * 4),  # the bytes before the refused page
    ("read", TOP - 4, 8): (
        Refusal("EFAULT"),
        Refusal("EPERM"),
    ),  # the page is refused before its end is met
    ("read", TOP, 8): (Refusal("EFAULT"), b""),  # the end of the file
    ("write", TOP - 2): (Refusal("EFAULT"), Refusal("EPERM")),  # it is judged page by page
}


def answers(agent: Agent, path: Path) -> dict[Any, Any]:
    """What a tool that opens `path/dev/mem` gets for every read and every write."""
    fd = agent.open(str(path / "dev/mem"))
    found: dict[Any, Any] = {("write", at): agent("pwrite", fd, at, b"word".hex()) for at in WRITES}
    found.update({("read", *read): agent("pread", fd, *read) for read in READS})
    agent("close", fd)
    return found


def through_mfusepy(path: Path, binary: Path, rules: dict[str, Any]) -> dict[Any, Any]:
    machine = strict(**rules)
    with fusepy_adapter.Mount(machine, str(path)), agent_of(binary) as agent:
        found = answers(agent, path)
    return {**found, **{("memory", at): machine.memory.read(at, 4) for at in WRITES}}


def through_the_wire(
    path: Path, binary: Path, rules: dict[str, Any]
) -> tuple[dict[Any, Any], bool]:
    machine = strict(**rules)
    service = Service(machine)
    connection = service.attach_plain(plain.mount(str(path)))
    try:
        with agent_of(binary) as agent:
            found = answers(agent, path)
    finally:
        plain.unmount(str(path), lazy=True)
        service.close()
    memory = {("memory", at): machine.memory.read(at, 4) for at in WRITES}
    return {**found, **memory}, connection.session.direct


def _without_errnos(found: dict[Any, Any]) -> dict[Any, Any]:
    """A refused read has one of several errnos there: it depends on how far the kernel reads ahead."""
    return {
        key: "refused" if key[0] == "read" and isinstance(value, Refusal) else value
        for key, value in found.items()
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_answers_equal_the_wire_server_that_has_to_cache(
    kernel: str, tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = KERNELS[kernel]
    monkeypatch.setenv(FORCE_CACHED, "1")
    cached, direct = through_the_wire(tmp_path, binary, rules)
    assert not direct
    assert _without_errnos(through_mfusepy(tmp_path, binary, rules)) == _without_errnos(cached)


def test_answers_equal_the_kernels_but_for_what_a_page_cache_changes(
    tmp_path: Path, binary: Path
) -> None:
    wire, direct = through_the_wire(tmp_path, binary, {})
    if not direct:
        pytest.skip("mappable direct I/O: needs Linux 6.6")
    ours = through_mfusepy(tmp_path, binary, {})
    assert {key: (wire[key], ours[key]) for key in wire if wire[key] != ours[key]} == DIFFERING


# -- the tree ---------------------------------------------------------------------------------


def test_the_tree_is_the_machines_tree(mounted: Mounted) -> None:
    found = {}
    for here, folders, files in os.walk(mounted.root):
        for name in folders + files:
            path = Path(here, name)
            status = path.lstat()
            size = 0 if path.is_dir() and not path.is_symlink() else status.st_size
            found[f"/{path.relative_to(mounted.root)}"] = (status.st_mode, size)
            assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert found == {path: node.attr()[:2] for path, node in Tree(mounted.machine).walk()}


def test_directories_are_sorted_and_typed(mounted: Mounted) -> None:
    with os.scandir(mounted.root) as entries:
        assert [(e.name, e.is_dir(follow_symlinks=False)) for e in entries] == [
            ("dev", True), ("proc", True), ("sys", True)
        ]  # fmt: skip


def test_files_read_as_they_are(mounted: Mounted) -> None:
    root = mounted.root
    assert (root / "proc/iomem").read_text() == mounted.machine.iomem()
    assert (root / "proc/cpuinfo").read_bytes() == FILES["/proc/cpuinfo"].data  # with size 0
    assert (root / "sys/class/fpga/fpga0").readlink() == Path("../../devices/fpga0")
    mounted.machine.claim(f"{BAR:#x}+4K", "driver")
    assert "driver" in (root / "proc/iomem").read_text()


REFUSED: dict[str, tuple[Callable[[Path], Any], int]] = {
    "missing": (lambda root: (root / "dev/none").stat(), errno.ENOENT),
    "below a file": (lambda root: (root / "proc/iomem/x").stat(), errno.ENOTDIR),
    "create": (lambda root: (root / "dev/new").touch(), errno.ENOSYS),
    "remove": (lambda root: (root / "dev/mem").unlink(), errno.ENOSYS),
    "truncate": (lambda root: os.truncate(root / "dev/mem", 0), errno.EINVAL),
    "read-only": (lambda root: (root / "proc/iomem").write_text("x"), errno.EIO),
    "readlink": (lambda root: (root / "proc/iomem").readlink(), errno.EINVAL),
    "execute": (lambda root: _access(root / "proc/iomem", os.X_OK), errno.EACCES),
    "sync": (lambda root: _synced(root / "dev/mem"), errno.EINVAL),
}


def _access(path: Path, mask: int) -> None:
    if not os.access(path, mask):
        raise PermissionError(errno.EACCES, "access")


def _synced(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str, mounted: Mounted) -> None:
    action, number = REFUSED[what]
    with pytest.raises(OSError) as caught:
        action(mounted.root)
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def test_modes_and_times_stay(mounted: Mounted) -> None:
    path = mounted.root / "dev/mem"
    before = path.stat()
    path.chmod(0o777)
    os.utime(path, (1, 1))
    assert (path.stat().st_mode, path.stat().st_mtime) == (before.st_mode, before.st_mtime)
    assert stat.S_IMODE(before.st_mode) == 0o640


def test_as_a_user(tmp_path: Path) -> None:
    machine = strict()
    with fusepy_adapter.Mount(machine, str(tmp_path), as_root=False):
        assert (tmp_path / "proc/iomem").read_text() == machine.iomem(privileged=False)
        with pytest.raises(PermissionError):
            (tmp_path / "dev/mem").open("rb")


def test_functions_go_and_come_back(tmp_path: Path) -> None:
    machine = recorded_machine()
    with fusepy_adapter.Mount(machine, str(tmp_path)):
        device = tmp_path / "sys/bus/pci/devices/0000:00:05.0"
        for _ in range(2):
            assert (device / "vendor").read_text() == "0x1234\n"
            (device / "remove").write_text("1")
            assert not device.is_symlink()
            (tmp_path / "sys/bus/pci/rescan").write_text("1")
    assert machine.subscribers == []


# -- mappings ---------------------------------------------------------------------------------


def test_a_claim_revokes_its_pages_only_and_loses_no_store(mounted: Mounted) -> None:
    agent, machine = mounted.agent, mounted.machine
    mapping = mounted.map(BAR, 4 * PAGE)
    assert agent("bytes", mapping, 0, 11) == b"at d8100000"
    agent("store", mapping, 8, 8, 0x1122334455667788)
    agent("store", mapping, PAGE + 8, 8, 0x99)
    machine.claim(f"{BAR:#x}+4K", "driver")
    assert machine.memory.read(BAR + 8, 8) == 0x1122334455667788.to_bytes(8, "little")
    assert agent("load", mapping, 12, 4) == SIGBUS._replace(offset=12)
    assert agent("store", mapping, 16, 4, 1) == SIGBUS._replace(offset=16)
    assert agent("load", mapping, PAGE + 8, 8) == 0x99
    assert agent("pread", mounted.fd, BAR, 4) == Refusal("EPERM")
    assert agent("pwrite", mounted.fd, BAR, "00") == Refusal("EPERM")
    assert machine.memory.read(BAR + 16, 4) == bytes(4)


def test_a_release_allows_access_again_even_to_the_old_mapping(mounted: Mounted) -> None:
    agent, machine = mounted.agent, mounted.machine
    mapping = mounted.map(BAR, PAGE)
    span = f"{BAR:#x}+4K"
    for value in range(50):
        assert agent("store", mapping, 0, 4, value) == 0
        machine.claim(span, "driver")
        assert machine.memory.read(BAR, 4) == value.to_bytes(4, "little")
        assert agent("load", mapping, 0, 4) == SIGBUS
        machine.release(span)
        assert agent("load", mapping, 0, 4) == value  # healed: a limit of libfuse
        assert agent("pread", mounted.fd, BAR, 4) == value.to_bytes(4, "little")


def test_mappings_of_several_processes_die_together(mounted: Mounted, binary: Path) -> None:
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(agent_of(binary)) for _ in range(6)]
        path = str(mounted.root / "dev/mem")
        mappings = [agent.map(agent.open(path), BAR, PAGE) for agent in agents]
        for agent, mapping in zip(agents, mappings, strict=True):
            assert agent("load", mapping, 0, 1) == ord("a")
        mounted.machine.claim(f"{BAR:#x}+4K", "driver")
        for agent, mapping in zip(agents, mappings, strict=True):
            assert agent("load", mapping, 0, 1) == SIGBUS


def test_memory_and_mappings_see_each_other(mounted: Mounted) -> None:
    agent, machine = mounted.agent, mounted.machine
    mapping = mounted.map(BAR, PAGE)
    agent("store", mapping, 0, 4, 0x41424344)
    assert machine.peek(f"{BAR:#x}+4") == b"DCBA"
    machine.poke(BAR, b"poke")
    assert agent("load", mapping, 0, 4) == int.from_bytes(b"poke", "little")
    assert agent("pread", mounted.fd, BAR, 4) == b"poke"
    assert agent("pwrite", mounted.fd, BAR, b"pwrite".hex()) == 6
    assert agent("bytes", mapping, 0, 6) == machine.peek(f"{BAR:#x}+6") == b"pwrite"


class TwoWindows(Tree):
    """The machine's tree with a second file of memory."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.directory("/dev").add("bar", DevMem(machine, base=BAR))


def test_mappings_of_two_files_see_each_other(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusepy_adapter, "Tree", TwoWindows)
    machine = strict()
    with fusepy_adapter.Mount(machine, str(tmp_path)), agent_of(binary) as agent:
        whole = agent.map(agent.open(str(tmp_path / "dev/mem")), BAR, PAGE)
        window = agent.map(agent.open(str(tmp_path / "dev/bar")), 0, PAGE)
        for value in range(20):
            writer, reader = (whole, window) if value % 2 else (window, whole)
            agent("store", writer, 0, 4, value)
            assert agent("load", reader, 0, 4) == value
        machine.claim(f"{BAR:#x}+4K", "driver")
        assert [agent("load", mapping, 0, 4) for mapping in (whole, window)] == [SIGBUS] * 2


def test_writing_beside_a_mapping_needs_no_cached_page(mounted: Mounted) -> None:
    """The kernel keeps a page locked while a write to it is under way: no recall may wait for it."""
    mapping = mounted.map(BAR, PAGE)
    mounted.agent("load", mapping, 0, 1)
    assert mounted.agent("pwrite", mounted.fd, HIGH - PAGE + 16, b"far".hex()) == 3
    assert mounted.agent("pread", mounted.fd, BAR + 0x8000, 4) == bytes(4)


def test_a_page_that_was_only_written_is_not_stale(mounted: Mounted) -> None:
    at = BAR + 2 * PAGE
    assert mounted.agent("pwrite", mounted.fd, at, (b"old!" * 512).hex()) == 2048
    assert mounted.agent("pwrite", mounted.fd, at, (b"old!" * 1024).hex()) == PAGE
    mounted.machine.poke(at, b"new!")
    assert mounted.agent("pread", mounted.fd, at, 8) == b"new!old!"


def test_a_swallowed_write_is_forgotten(mounted: Mounted) -> None:
    assert mounted.agent("pwrite", mounted.fd, 0xB0000, (b"gone" * 1024).hex()) == PAGE
    support.wait_for(
        lambda: mounted.agent("pread", mounted.fd, 0xB0000, 4) == b"\xff" * 4,
        "memory that nothing decodes reads as ff",
    )


def test_refusals_are_logged_once(mounted: Mounted) -> None:
    mounted.agent("pread", mounted.fd, 0x200000, 4)
    mounted.agent("pwrite", mounted.fd, 0x200000, "00")
    denied = [event for event in mounted.machine.events if event.kind == "denied"]
    assert [event.message.split(" of ")[0].split(": ")[1] for event in denied] == ["read", "write"]
    assert all("System RAM" in event.message for event in denied)
    assert all(event.message.startswith("agent[") for event in denied)


# -- begin and end ----------------------------------------------------------------------------


def test_nothing_of_the_process_changes(tmp_path: Path) -> None:
    def state() -> tuple[int, Path, str]:
        caught = Path("/proc/self/status").read_text().partition("SigCgt:")[2].split()[0]
        return len(list(Path("/proc/self/fd").iterdir())), Path.cwd(), caught

    with fusepy_adapter.Mount(small_machine(), str(tmp_path)):
        _, here, caught = state()
    before = state()
    assert before[1:] == (here, caught)
    for _ in range(3):
        with fusepy_adapter.Mount(small_machine(), str(tmp_path)) as mount:
            assert state()[1:] == (here, caught)
        assert mount.wait_closed(0)
    assert state() == before


def test_an_unmount_from_outside_ends_it(tmp_path: Path) -> None:
    machine = small_machine()
    with fusepy_adapter.Mount(machine, str(tmp_path)) as mount:
        plain.unmount(str(tmp_path))
        assert mount.wait_closed(10)
        machine.claim(f"{BAR:#x}+4K", "driver")  # nobody to tell
    assert machine.subscribers == []


def test_open_files_do_not_hold_the_end_up(tmp_path: Path, binary: Path) -> None:
    with agent_of(binary) as agent:
        with fusepy_adapter.Mount(strict(), str(tmp_path)):
            fd = agent.open(str(tmp_path / "dev/mem"))
            mapping = agent.map(fd, BAR, 2 * PAGE)
            agent("store", mapping, 0, 4, 1)
        assert not is_mounted(tmp_path)
        assert agent("pread", fd, 0xC0000000, 4) == Refusal("ENOTCONN")
        assert agent("load", mapping, 0, 4) in {1, SIGBUS}  # what is cached stays


def test_a_mount_point_must_be_a_free_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, message in (("none", "mkdir"), ("file", "not a directory")):
        with pytest.raises(HostError, match=message):
            fusepy_adapter.Mount(small_machine(), str(tmp_path / name))
    with (
        fusepy_adapter.Mount(small_machine(), str(tmp_path)),
        pytest.raises(HostError, match="mount point already"),
    ):
        fusepy_adapter.Mount(small_machine(), str(tmp_path))


def test_without_mfusepy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(HostError, match=r"pip install 'fakedev\[fusepy\]'"):
        fusepy_adapter.Mount(small_machine(), str(tmp_path))


# -- the command ------------------------------------------------------------------------------


class Command(NamedTuple):
    tool: "subprocess.Popen[str]"
    folder: Path
    runtime: Path

    @property
    def socket(self) -> Path:
        return self.runtime / "fakedev" / ("tiny" + SUFFIX)

    def finish(self) -> tuple[int, str]:
        _, err = self.tool.communicate(timeout=20)
        return self.tool.returncode, err


def environment(runtime: Path) -> dict[str, str]:
    return {
        **os.environ, "XDG_RUNTIME_DIR": str(runtime), "XDG_CACHE_HOME": str(runtime / "cache")
    }  # fmt: skip


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """`fakedev mount --backend fusepy` of a small profile, with its files there."""
    runtime = Path("/tmp", f"fdfp-{os.getpid()}")  # a socket's path is limited to 107 bytes
    runtime.mkdir(mode=0o700)
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    tool = subprocess.Popen(
        [support.BIN / "fakedev", "mount", "--backend", "fusepy", tmp_path / "tiny.yaml", folder],
        env=environment(runtime),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        running = Command(tool, folder, runtime)
        support.wait_for(
            lambda: tool.poll() is not None or running.socket.exists(), "the machine listens"
        )
        yield running
    finally:
        tool.kill()
        tool.communicate()
        if is_mounted(folder):
            plain.unmount(str(folder), lazy=True)
        shutil.rmtree(runtime)


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP", "umount"])
def test_the_command_ends_cleanly(end: str, command: Command) -> None:
    fakedev: list[str | Path] = [support.BIN / "fakedev"]
    assert (command.folder / "proc/iomem").read_text() == "d8100000-d810ffff : 0000:04:00.0\n"
    if end == "umount":
        subprocess.run([*fakedev, "umount", command.folder], check=True)
    else:
        command.tool.send_signal(getattr(signal, end))
    status, note = command.finish()
    assert status == 0
    assert note == (
        f"fakedev: tiny is at {command.folder};"
        f" end with Ctrl-C or: fakedev umount {command.folder}\n"
    )
    assert not is_mounted(command.folder)
    assert not command.socket.exists()


def test_the_command_has_a_control_socket(command: Command, binary: Path) -> None:
    with Client(command.socket) as client, agent_of(binary) as agent:
        assert client.call("state")["mounts"] == 1
        fd = agent.open(str(command.folder / "dev/mem"))
        mapping = agent.map(fd, BAR, PAGE)
        assert agent("bytes", mapping, 0, 11) == b"first bytes"
        client.call("claim", range=f"{BAR:#x}+4K", name="driver")
        assert agent("load", mapping, 0, 4) == SIGBUS
        assert "driver" in (command.folder / "proc/iomem").read_text()
    done = subprocess.run(
        [support.BIN / "fakedev", "ctl", "peek", "0xd8100000+11", "--raw"],
        env=environment(command.runtime),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"first bytes"


def test_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    done = subprocess.run(
        [support.BIN / "fakedev", "mount", "--backend", "fusepy", tmp_path / "tiny.yaml", tmp_path],
        env={**os.environ, "FUSE_LIBRARY_PATH": str(tmp_path / "libfuse3.so")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the package fuse3 (Debian" in done.stderr
    assert len(done.stderr.splitlines()) == 1
