"""`/proc/bus/pci/BB/dd.f`: the configuration space, and a way to its BARs (`drivers/pci/proc.c`)."""

import errno
import stat

from fakedev.devices.pci.device import BARS, PciDevice, PciResource
from fakedev.model.flags import IORESOURCE_PREFETCH
from fakedev.model.lockdown import LOCKDOWN_PCI_ACCESS
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_MASK, Range
from fakedev.model.verdict import exclusive_rule
from fakedev.views.calls import Answer, IoctlCall, MapCall, SeekCall
from fakedev.views.kinds import NO_SPLICE, SEQ_FILE, fixed_size_llseek, mapped_size, whole_pages
from fakedev.views.live import kernel_errors
from fakedev.views.lockdown import check_lockdown
from fakedev.views.node import (
    CAP_SYS_RAWIO,
    Attr,
    Buffers,
    Handle,
    Node,
    Opener,
    Refused,
)
from fakedev.views.pci.binary import guarded, visible_size

_PCIIOC_BASE = ord("P") << 24 | ord("C") << 16 | ord("I") << 8
PCIIOC_CONTROLLER, PCIIOC_MMAP_IS_IO, PCIIOC_MMAP_IS_MEM, PCIIOC_WRITE_COMBINE = range(
    _PCIIOC_BASE, _PCIIOC_BASE + 4
)
# In `state`, as in struct pci_filp_private: what mmap is for (I/O unless an ioctl said memory).
_MEMORY, _COMBINE = "pci_mmap_mem", "write_combine"
_INVALID = -errno.EINVAL


class ProcConfigFile(Node):
    """`/proc/bus/pci/BB/dd.f`: the same space by the rules of procfs (`proc_bus_pci_read`, `_write`)."""

    __slots__ = ("device", "machine")
    pfnmap = True
    kind = SEQ_FILE._replace(calls={**SEQ_FILE.calls, **NO_SPLICE})

    def __init__(self, machine: Machine, device: PciDevice) -> None:
        self.mode = 0o644
        self.machine = machine
        self.device = device

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.device.function.config.size)

    def open(self, opener: Opener) -> Handle:
        self.permit(opener)
        return ProcConfigHandle(self, opener)

    def seek(self, call: SeekCall) -> Answer | None:
        """`proc_bus_pci_lseek`."""
        if self.device.gone:
            return self._removed("proc_reg_llseek", errno.EINVAL)
        return fixed_size_llseek(call, self.device.function.config.size)

    def ioctl(self, call: IoctlCall) -> Answer | None:
        """`proc_bus_pci_ioctl`."""
        if call.command & ~0xFF != _PCIIOC_BASE:
            return None
        if self.device.gone:
            return self._removed("proc_reg_unlocked_ioctl", errno.ENOTTY)
        if refusal := self._locked_down("proc_bus_pci_ioctl"):
            return refusal
        if call.command == PCIIOC_CONTROLLER:
            return Answer(self.device.bdf.domain, "proc_bus_pci_ioctl: the PCI domain")
        return self._prepare_mmap(call)

    def _prepare_mmap(self, call: IoctlCall) -> Answer:
        if call.command == PCIIOC_MMAP_IS_MEM:
            call.state[_MEMORY] = 1
        elif call.command == PCIIOC_WRITE_COMBINE and self._combines:
            call.state[_COMBINE] = int(call.argument != 0)
        elif call.command == PCIIOC_MMAP_IS_IO:
            return Answer(_INVALID, "proc_bus_pci_ioctl: this architecture maps no I/O ports")
        else:
            return Answer(_INVALID, "proc_bus_pci_ioctl: no such command")
        return Answer(0, "proc_bus_pci_ioctl: for the next mmap of this descriptor")

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """`proc_bus_pci_mmap`: the offset is the address of a BAR."""
        if self.device.gone:
            return self._removed("proc_reg_mmap", errno.EIO)
        if not call.capable(CAP_SYS_RAWIO):
            return Answer(-errno.EPERM, "proc_bus_pci_mmap: without CAP_SYS_RAWIO")
        if refusal := self._locked_down("proc_bus_pci_mmap"):
            return refusal
        if not call.state.get(_MEMORY):
            return Answer(_INVALID, "proc_bus_pci_mmap: this architecture maps no I/O ports")
        return self._map_bar(call, Range(call.offset, mapped_size(call)))

    def _map_bar(self, call: MapCall, span: Range) -> Answer | None:
        resource = next((r for r in self._memory_bars() if _fits(r, span)), None)
        if resource is None:
            rule = f"pci_mmap_fits: no memory BAR of {self.device.name} holds {span}"
            return Answer(-errno.ENODEV, rule, span)
        if call.state.get(_COMBINE) and not resource.flags & IORESOURCE_PREFETCH:
            return Answer(_INVALID, "proc_bus_pci_mmap: the BAR is not prefetchable", span)
        owner = self.machine.policy.iomem_is_exclusive(resource.start)
        if owner is None:
            return None
        rule = exclusive_rule(resource.start & ~PAGE_MASK, owner, self.machine.rules)
        return Answer(_INVALID, f"proc_bus_pci_mmap: {rule}", span)

    def _memory_bars(self) -> list[PciResource]:
        return [r for index in BARS if (r := self.device.resources[index]).is_memory]

    @property
    def _combines(self) -> bool:
        """`arch_can_pci_mmap_wc`."""
        rules = self.machine.rules
        return rules.pat_enabled if rules.arch == "x86_64" else rules.arch == "aarch64"

    def _removed(self, function: str, number: int) -> Answer:
        return Answer(-number, f"{function}: {self.device.name} was removed")

    def _locked_down(self, function: str) -> Answer | None:
        if not self.machine.rules.locked_down(LOCKDOWN_PCI_ACCESS.level):
            return None
        return Answer(-errno.EPERM, f"{function}: security_locked_down(LOCKDOWN_PCI_ACCESS)")


def _fits(resource: PciResource, span: Range) -> bool:
    """`pci_mmap_fits` for an offset that is an address."""
    start = resource.start & ~PAGE_MASK
    end = start + whole_pages(resource.size)
    return start <= span.start < span.end <= end


class ProcConfigHandle:
    """An open file of `/proc/bus/pci`: no limit of a page a call, and EIO once the function is removed."""

    __slots__ = ("_node", "_pid", "_visible")
    slow = settles = True
    mappable = False

    def __init__(self, node: ProcConfigFile, opener: Opener) -> None:
        self._node = node
        self._visible = visible_size(node.device, opener)
        self._pid = opener.pid

    def read(self, offset: int, size: int) -> Buffers:
        self._check()
        node = self._node
        size = min(size, self._visible - offset)
        if size <= 0:
            return []
        node.machine.pci.settle_config(node.device)
        with kernel_errors(), guarded(node.machine, node.device), node.machine.lock:
            return [memoryview(node.machine.pci.config_read(node.device, offset, size))]

    def write(self, offset: int, data: memoryview) -> int:
        self._check()
        node = self._node
        check_lockdown(node.machine, LOCKDOWN_PCI_ACCESS, self._pid)
        data = data[: max(node.device.function.config.size - offset, 0)]
        if data:
            with kernel_errors(), guarded(node.machine, node.device):
                node.machine.pci.config_write(node.device, offset, bytes(data))
        return len(data)

    def _check(self) -> None:
        if self._node.device.gone:
            raise Refused(errno.EIO)
