"""`resourceN` and `resourceN_wc` of a memory BAR: to be mapped, not read (`pci_mmap_resource`)."""

import errno
import stat

from fakedev.devices.pci.device import PciDevice
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_MASK, PAGE_SIZE, Range, page_round
from fakedev.model.verdict import Verdict
from fakedev.views.calls import Answer, MapCall, SeekCall
from fakedev.views.kinds import (
    SYSFS,
    fixed_size_llseek,
    generic_file_llseek,
    mapped_size,
    whole_pages,
)
from fakedev.views.node import Attr, Buffers, Opener, Refused
from fakedev.views.physical import PhysicalFile

MODE = 0o600


class ResourceFile(PhysicalFile):
    """Page 0 of the file is the page that the BAR starts in; stat shows the length of the BAR."""

    __slots__ = ("bar", "device")
    kind = SYSFS

    def __init__(
        self, machine: Machine, device: PciDevice, index: int, *, wc: bool = False
    ) -> None:
        resource = device.resources[index]
        name = f"/{device.name}/resource{index}{'_wc' if wc else ''}"
        super().__init__(machine, name, mode=MODE, base=resource.start & ~PAGE_MASK)
        self.bar = Range(resource.start, resource.end + 1 - resource.start)
        self.device = device

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | self.mode, self.bar.size)

    def open(self, opener: Opener) -> "ResourceHandle":
        """EACCES by mode; no capability is asked for."""
        self.permit(opener)
        if self.device.gone:
            raise Refused(errno.ENODEV)
        return ResourceHandle(self, self.machine.now)

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """`kernfs_fop_mmap`, `pci_mmap_resource`."""
        if self.device.gone:
            return removed("kernfs_fop_mmap", self.device)
        verdict = self.machine.policy.mmap_bar(self.bar)
        span = Range(self.base + call.offset, mapped_size(call))
        if not verdict.allowed:
            return Answer(-verdict.errno, verdict.rule, span)
        if call.offset + mapped_size(call) > whole_pages(self.bar.size):
            return Answer(-errno.EINVAL, f"pci_mmap_fits: the BAR is {self.bar}", span)
        return None

    def seek(self, call: SeekCall) -> Answer | None:
        """From 5.12 on the file has the inode of `/dev/mem`, of size 0; later a way of its own round that."""
        rules, size = self.machine.rules, self.bar.size
        if rules.has_pci_llseek:
            if self.device.gone:
                return removed("kernfs_fop_llseek", self.device)
            return fixed_size_llseek(call, size)
        return generic_file_llseek(call, size if rules.zaps_removed_files else 0)

    def revocable(self) -> bool:
        """Before 5.12 a claim revokes mappings of `/dev/mem` only."""
        return self.machine.rules.revokes_pci or not self.machine.rules.revokes

    def mappable(self, span: Range) -> bool:
        """Whether a new mapping would be allowed."""
        return self.machine.policy.mmap_bar(self.bar).allowed


def removed(function: str, device: PciDevice) -> Answer:
    """ENODEV of sysfs files that lost their device (`kernfs_get_active`)."""
    return Answer(-errno.ENODEV, f"{function}: {device.name} was removed")


class ResourceHandle:
    """An open `resourceN`; `opened` is the event it was opened after.

    From 5.12 on a mapping outlives the removal of its function, so faults are served as long as the
    handle lives. That `mmap` itself would be ENODEV then is for the exact layer to say.
    """

    __slots__ = ("_node", "opened")

    def __init__(self, node: ResourceFile, opened: int) -> None:
        self._node = node
        self.opened = opened

    def read(self, offset: int, size: int) -> Buffers:
        """There is no read of a memory BAR: EIO, nothing past its end, ENODEV after removal."""
        self._no_data(offset, size, past_end=0)
        return []

    def write(self, offset: int, data: memoryview) -> int:
        """There is no write either: EIO, EFBIG past the end, ENODEV after removal."""
        self._no_data(offset, len(data), past_end=errno.EFBIG)
        return 0

    def _no_data(self, offset: int, size: int, *, past_end: int) -> None:
        if self._node.device.gone:
            raise Refused(errno.ENODEV)
        if offset >= self._node.bar.size:
            if past_end:
                raise Refused(past_end)
        elif size:
            raise Refused(errno.EIO)

    def fault(self, offset: int, size: int) -> Buffers:
        """Pages for a mapping, or Refused: the toucher gets SIGBUS."""
        node = self._node
        if node.device.gone and node.machine.rules.zaps_removed_files:
            raise Refused(errno.ENODEV)
        pages = page_round(node.bar).end - node.base - offset
        size = min(size, max(pages, PAGE_SIZE))
        address = node.base + offset
        verdict, data = node.machine.fault_bar(node.bar, address, size, opened=self.opened)
        if not data:
            raise Refused(verdict.errno, verdict)
        return data

    def span(self, offset: int, size: int) -> Range:
        """The physical range behind file offsets."""
        return Range(self._node.base + offset, size)

    def explain(self, offset: int, size: int) -> Verdict:
        """The verdict on mapping the BAR."""
        node = self._node
        verdict = node.machine.touch(node.base + offset, size)
        if verdict.errno == errno.EIO:
            return verdict
        return node.machine.mapped_bar(node.bar, opened=self.opened)
