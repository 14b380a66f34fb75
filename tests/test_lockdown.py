"""Lockdown that is raised while descriptors are held and mapped: what the recorded kernel answered."""

import errno
import os
from itertools import pairwise

import pytest
from machines import BAR, small_machine
from memory_machines import machine_of
from pci_recorded import recorded_machine
from pci_tree import E1000, EDU, NVME, PORT, ROOT, USER, Setup, node_at, read, refused, write

from fakedev.control.verbs import Verbs
from fakedev.model.errors import ControlError
from fakedev.model.kernel import LOCKDOWN_LEVELS
from fakedev.model.lockdown import lock_kernel_down
from fakedev.model.machine import Machine
from fakedev.model.policy import Policy
from fakedev.model.ranges import PAGE_SIZE
from fakedev.views.devmem import DevMem
from fakedev.views.lockdown import PATH, LockdownFile
from fakedev.views.node import Opener, Refused
from fakedev.views.pci.resource import ResourceFile, ResourceHandle
from fakedev.views.tree import Tree, listing

RAISED = LOCKDOWN_LEVELS[1:]
READ_WRITE = Opener(1, 0, os.O_RDWR)


def raise_to(machine: Machine, level: str) -> None:
    assert write(node_at(Tree(machine), PATH), level) == len(level)


def denied(machine: Machine) -> list[str]:
    return [event.message for event in machine.events if event.kind == "denied"]


# -- the file -------------------------------------------------------------------------------


def test_the_file_shows_each_level() -> None:
    machine = small_machine()
    node = node_at(Tree(machine), PATH)
    shown = [read(node)]
    for level in RAISED:
        raise_to(machine, level)
        shown.append(read(node))
    assert shown == [
        b"[none] integrity confidentiality\n",
        b"none [integrity] confidentiality\n",
        b"none integrity [confidentiality]\n",
    ]
    assert read(node, offset=5, size=9) == b"integrity"
    assert PATH in listing(machine)


def test_an_open_file_follows() -> None:
    machine = small_machine()
    held = node_at(Tree(machine), PATH).open(ROOT)
    assert bytes(held.read(0, 6)[0]) == b"[none]"
    raise_to(machine, "integrity")
    assert bytes(held.read(5, 11)[0]) == b"[integrity]"


@pytest.mark.parametrize(
    ("level", "text", "answer"),
    [
        ("none", "integrity", None),
        ("none", "integrity\n", None),
        ("none", "confidentiality\0rest", None),
        ("none", "none", "EPERM"),
        ("integrity", "integrity", "EPERM"),
        ("integrity", "none", "EPERM"),
        ("integrity", "confidentiality", None),
        ("confidentiality", "integrity", "EPERM"),
        ("confidentiality", "zzz", "EINVAL"),
        ("none", "Integrity", "EINVAL"),
        ("none", " integrity", "EINVAL"),
        ("none", "integrity\n\n", "EINVAL"),
        ("none", "", "EINVAL"),
        ("none", b"\xff\xfe", "EINVAL"),
    ],
)
def test_what_may_be_written(level: str, text: str | bytes, answer: str | None) -> None:
    machine = small_machine(lockdown=level)
    node = LockdownFile(machine)
    if answer is None:
        assert write(node, text) == len(text)
        assert machine.rules.lockdown_level != level
    else:
        assert refused(write, node, text) == answer
        assert machine.rules.lockdown_level == level
        assert not machine.events


def test_its_mode_follows_the_kernel() -> None:
    modes = {v: LockdownFile(small_machine(v)).attr().mode & 0o777 for v in ("5.4", "5.8", "6.12")}
    assert modes == {"5.4": 0o600, "5.8": 0o644, "6.12": 0o644}
    node = LockdownFile(small_machine())
    assert node.attr().size == 0
    assert read(node, USER).startswith(b"[none]")
    assert refused(node.open, Opener(1, 1000, os.O_WRONLY)) == "EACCES"


def test_the_command_line_counts() -> None:
    machine = small_machine(cmdline="quiet lockdown=integrity")
    node = LockdownFile(machine)
    assert read(node) == b"none [integrity] confidentiality\n"
    assert refused(write, node, "integrity") == "EPERM"
    assert write(node, "confidentiality") == 15


def test_who_raised_it_is_logged() -> None:
    machine = small_machine()
    machine.comm_of = {1: "probe"}.__getitem__
    raise_to(machine, "integrity")
    event = machine.events[-1]
    line = "Kernel is locked down from securityfs; see man kernel_lockdown.7"
    assert (event.kind, event.message) == ("lockdown", f"{line} (probe[1]: none to integrity)")


# -- what is held ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", RAISED)
def test_dev_mem(level: str) -> None:
    machine = small_machine()
    machine.poke(BAR, b"BAR!")
    node = DevMem(machine)
    held = node.open(READ_WRITE)
    raise_to(machine, level)
    assert b"".join(held.read(BAR, 4)) == b"BAR!"
    assert held.write(BAR, memoryview(b"more")) == 4
    assert bytes(held.fault(BAR, PAGE_SIZE)[0][:4]) == b"more"
    assert refused(held.fault, 0x200000, PAGE_SIZE) == "EPERM"
    assert refused(node.open, ROOT) == "EPERM"
    assert refused(node.open, Opener(1, 0, os.O_RDWR | os.O_DIRECT)) == "EPERM"


@pytest.mark.parametrize("level", RAISED)
def test_pci(level: str) -> None:
    boot = Setup(recorded_machine(port=True))
    config, ports = boot.attribute(EDU, "config"), boot.attribute(E1000, "resource1")
    proc = node_at(boot.tree, "/proc/bus/pci/00/05.0")
    held = [node.open(READ_WRITE) for node in (config, proc, ports)]
    port = node_at(boot.tree, "/dev/port").open(READ_WRITE)
    raise_to(boot.machine, level)
    for handle in held:
        assert b"".join(handle.read(0, 4))
        assert refused(handle.write, 4, memoryview(b"\3\1\0\0")) == "EPERM"
    assert port.read(0x70, 1)
    assert port.write(0x80, memoryview(b"x")) == 1
    assert refused(node_at(boot.tree, "/dev/port").open, ROOT) == "EPERM"
    assert refused(write, config, b"x", 4096) == "EFBIG", "sysfs looks at the size first"
    assert write(boot.attribute(NVME, "enable"), "1") == 1
    assert write(boot.attribute(PORT, "remove"), "1") == 1


def bar_of(machine: Machine) -> ResourceFile:
    node = Setup(machine).attribute(EDU, "resource0")
    assert isinstance(node, ResourceFile)
    return node


def shows_pages(handle: ResourceHandle) -> bool:
    try:
        return bool(handle.fault(0, PAGE_SIZE))
    except Refused as error:
        if error.errno != errno.EPERM:
            raise
        return False


def test_mappings_of_a_bar_live_on() -> None:
    machine = recorded_machine()
    node = bar_of(machine)
    before = node.open(READ_WRITE)
    judged = [machine.policy.mmap_bar(node.bar).errno]
    for level in RAISED:
        raise_to(machine, level)
        assert shows_pages(before)
        assert not shows_pages(node.open(READ_WRITE))
        judged.append(machine.policy.mmap_bar(node.bar).errno)
    assert judged == [0, errno.EPERM, errno.EPERM]
    assert machine.policy.mmap_bar(node.bar).rule == (
        "pci_mmap_resource: security_locked_down(LOCKDOWN_PCI_ACCESS), level confidentiality"
    )


def test_a_bar_of_a_kernel_that_was_locked_down_at_boot() -> None:
    machine = recorded_machine()
    machine.rules = machine.rules.preset("6.1", phys_bits=40, lockdown="integrity")
    machine.policy = machine.policy.under(machine.rules)
    node = bar_of(machine)
    held = node.open(READ_WRITE)
    assert not shows_pages(held)
    raise_to(machine, "confidentiality")
    assert not shows_pages(held)


def test_a_claim_ends_an_older_mapping_all_the_same() -> None:
    machine = recorded_machine()
    node = bar_of(machine)
    held = node.open(READ_WRITE)
    raise_to(machine, "integrity")
    machine.claim(node.bar, "driver")
    assert refused(held.fault, 0, PAGE_SIZE) == "EINVAL"
    assert "driver" in str(held.explain(0, PAGE_SIZE).resource)


def test_kcore() -> None:
    machine = machine_of()
    node = node_at(Tree(machine), "/dev/kcore")
    held = node.open(ROOT)
    raise_to(machine, "integrity")
    assert node.open(ROOT)
    raise_to(machine, "confidentiality")
    assert b"".join(held.read(0, 4)) == b"\x7fELF"
    assert refused(node.open, ROOT) == "EPERM"


def test_the_log_has_the_kernels_lines() -> None:
    boot = Setup(recorded_machine())
    machine = boot.machine
    machine.comm_of = {1: "probe"}.__getitem__
    raise_to(machine, "integrity")
    config = boot.attribute(EDU, "config")
    for _ in range(3):
        assert refused(DevMem(machine).open, ROOT) == "EPERM"
    assert refused(write, config, b"\3") == "EPERM"
    assert denied(machine) == [
        "Lockdown: probe: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7",
        "Lockdown: probe: direct PCI access is restricted; see man kernel_lockdown.7",
    ]


def test_who_has_no_capability_is_not_logged() -> None:
    machine = small_machine(lockdown="integrity")
    node = DevMem(machine)
    node.mode = 0o666
    assert refused(node.open, USER) == "EPERM"
    assert denied(machine) == []


# -- the machine -----------------------------------------------------------------------------


def test_reset_is_a_boot() -> None:
    machine = recorded_machine()
    raise_to(machine, "confidentiality")
    machine.reset()
    assert read(LockdownFile(machine)) == b"[none] integrity confidentiality\n"
    node = bar_of(machine)
    assert shows_pages(node.open(READ_WRITE))
    assert DevMem(machine).open(ROOT)
    raise_to(machine, "integrity")
    assert not shows_pages(node.open(READ_WRITE))


def test_nothing_else_of_the_rules_changes() -> None:
    machine = small_machine("5.10", cmdline="iomem=relaxed", claim_policy="ignore")
    before, policy = machine.rules, machine.policy
    lock_kernel_down(machine, "integrity", "a test", "test")
    assert machine.rules == before.preset(
        "5.10", cmdline="iomem=relaxed", claim_policy="ignore", phys_bits=40, lockdown="integrity"
    )
    after: Policy = machine.policy
    assert after.read(BAR, 4) is policy.read(BAR, 4), "the compiled rules are the same ones"
    machine.claim(f"{BAR:#x}+4K", "driver")
    assert machine.policy.rules is machine.rules


def test_the_verb() -> None:
    machine = small_machine()
    verbs = Verbs(machine)

    def call(name: str, **arguments: str) -> dict[str, object]:
        found: dict[str, object] = verbs(name, arguments, lambda: False)
        return found

    assert call("lockdown") == {
        "level": "none", "text": "[none] integrity confidentiality", "event": 0,
    }  # fmt: skip
    for old, level in pairwise(LOCKDOWN_LEVELS):
        assert call("explain", range=f"{BAR:#x}+4K")["lockdown"] == old
        assert call("lockdown", level=level)["level"] == level
        kernel = call("state")["kernel"]
        assert isinstance(kernel, dict)
        assert kernel["lockdown"] == level
    for level, message in (("integrity", "can only be raised"), ("high", "is not one of none")):
        with pytest.raises(ControlError, match=message):
            call("lockdown", level=level)
    assert call("wait", event="lockdown", since=0)["kind"] == "lockdown"  # type: ignore[arg-type]
