"""Verdicts as people and scripts ask for them: about a range of `/dev/mem`, or about a `resourceN`."""

import errno
import re
from typing import Any

from fakedev.control.pci_functions import device_at
from fakedev.model.denying import POLICY as DENY
from fakedev.model.denying import protects
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range, parse_span
from fakedev.model.verdict import Access, Verdict

OPERATIONS = ("read", "write", "mmap")
_RESOURCE = re.compile(r"/sys/(?:[^/]+/)*([0-9a-fA-F:]+\.[0-7])/resource([0-5])(?:_wc)?")


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as `explain` shows it."""
    owner = verdict.resource
    return {
        "allowed": verdict.allowed,
        "errno": errno.errorcode.get(verdict.errno),
        "access": verdict.access.name.lower(),
        "rule": verdict.rule,
        "resource": None if owner is None else f"{owner.start:08x}-{owner.end:08x} : {owner.name}",
    }


def where(machine: Machine, text: str) -> Range:
    """The physical range of `ADDR`, `ADDR+LEN`, `START-END` or the path of a `resourceN`."""
    return _bar(machine, text)[0] if text.startswith("/") else parse_span(text)


def explain(machine: Machine, operation: str, text: str) -> Verdict:
    """The verdict on an operation on a range of `/dev/mem`, or on the file that `text` names."""
    if not text.startswith("/"):
        return machine.explain(operation, parse_span(text))
    if operation not in OPERATIONS:
        raise ControlError(f"unknown operation {operation!r}: {', '.join(OPERATIONS)}")
    span, is_io = _bar(machine, text)
    if operation == "mmap" and not is_io:
        with machine.lock:
            return machine.policy.mmap_bar(span)
    return _ports(operation, span, machine.rules) if is_io else _no_data(operation, span)


def _bar(machine: Machine, path: str) -> tuple[Range, bool]:
    """The range of the BAR that a path names, and whether it is one of I/O ports."""
    match = _RESOURCE.fullmatch(path)
    if match is None:
        raise ControlError(
            f"{path}: not a file that can be explained; give an address, or the path of a resourceN"
            " such as /sys/bus/pci/devices/0000:01:00.0/resource0",
            errno=errno.EINVAL,
        )
    if machine.pci is None:
        raise ControlError(f"{path}: {machine.name} has no PCI", errno=errno.ENOENT)
    device, index = device_at(machine.pci, match[1]), int(match[2])
    resource = device.resources[index]
    if not resource.flags:
        raise ControlError(f"{device.name} has no BAR {index}", errno=errno.ENOENT)
    return resource.span, resource.is_io


def _no_data(operation: str, span: Range) -> Verdict:
    rule = f"sysfs_kf_bin_{operation}: a memory BAR can be mapped, there is no {operation}"
    return Verdict(False, errno.EIO, rule, None, Access.DENY, *_ends(span))


def _ports(operation: str, span: Range, rules: KernelRules) -> Verdict:
    if operation == "mmap":
        rule = "pci_mmap_resource: I/O ports cannot be mapped on this architecture"
        return Verdict(False, rules.io_bar_mmap_errno, rule, None, Access.DENY, *_ends(span))
    if operation == "write" and rules.lockdown_level != "none":
        rule = "pci_write_resource_io: security_locked_down(LOCKDOWN_PCI_ACCESS)"
        return Verdict(False, errno.EPERM, rule, None, Access.DENY, *_ends(span))
    rule = f"pci_{operation}_resource_io: 1, 2 or 4 bytes at a time, whoever claimed the ports"
    return Verdict(True, 0, rule, None, Access.ALLOW, *_ends(span))


def _ends(span: Range) -> tuple[int, int]:
    return span.start, span.end


def explain_claim(machine: Machine, span: Range) -> dict[str, Any]:
    """What a driver's claim of a range would do to mappings of it that exist: `outcome` and `rule`."""
    rules, policy = machine.rules, machine.rules.claim_policy
    try:
        with machine.verb():
            protected = protects(machine, span, "driver")
    except ResourceConflictError as error:
        return {"outcome": "EBUSY", "rule": f"__request_region: {error}"}
    if not protected:
        return {"outcome": "spares", "rule": _why_spared(machine)}
    if policy == DENY:
        return {"outcome": "denied", "rule": "deny-claim: EBUSY while somebody maps it"}
    if rules.revokes_pci:
        return {"outcome": "revokes", "rule": "revoke_iomem: every mapping of it dies"}
    rule = "revoke_devmem: mappings of /dev/mem die, those of PCI files live on"
    return {"outcome": "mem only", "rule": rule}


def _why_spared(machine: Machine) -> str:
    rules = machine.rules
    if rules.claim_policy == "ignore":
        return "claim_policy: ignore: mappings live on"
    if not rules.io_strict_devmem:
        return "without CONFIG_IO_STRICT_DEVMEM mappings live on"
    if not rules.revokes:
        return "before 5.8 nothing is revoked: mappings live on, new accesses are refused"
    return "revoke_iomem: the pages are allowed still, nothing is revoked"
