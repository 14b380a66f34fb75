"""Calls on mappings of device memory: VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP.

There are no pages behind such a mapping that `mm/` could lock, discard, pin or copy.
"""

import errno
import stat
from typing import NamedTuple

from fakedev.model.ranges import PAGE_MASK, PAGE_SIZE, Range
from fakedev.views.calls import Answer
from fakedev.views.kinds import whole_pages
from fakedev.views.node import Node
from fakedev.views.physical import PhysicalFile

MADV_REMOVE = 9
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
MCL_CURRENT = 1
MAX_NON_LFS = (1 << 31) - 1

_EINVAL = {
    11: "madvise_vma_behavior: MADV_DOFORK of VM_IO",
    17: "madvise_vma_behavior: MADV_DODUMP of VM_SPECIAL",
    20: "madvise_cold: VM_PFNMAP has no pages to age",
    21: "madvise_pageout: VM_PFNMAP has no pages to reclaim",
    22: "madvise_populate: check_vma_flags refuses VM_IO | VM_PFNMAP",
    23: "madvise_populate: check_vma_flags refuses VM_IO | VM_PFNMAP",
    24: "madvise_dontneed_free: MADV_DONTNEED_LOCKED of VM_PFNMAP",
}
#: What `madvise` judges here. The host's answer to other advice is that of a real machine, but for
#: MADV_DONTNEED: allocators rely on it, and take no notice of an EINTR, which a filter can cause.
ADVICE = (*_EINVAL, MADV_REMOVE)

UNLOCKED = Answer(0, "mlock_fixup: VM_SPECIAL is not locked, __mm_populate skips VM_IO | VM_PFNMAP")
NOT_ALL_MAPPED = Answer(-errno.ENOMEM, "apply_vma_lock_flags: a part of the range is not mapped")
NO_PAGES_CACHED = Answer(0, "mincore_unmapped_range: VM_PFNMAP is not walked, nothing is cached")
NO_PAGES_TO_PIN = Answer(-errno.EFAULT, "check_vma_flags: VM_IO | VM_PFNMAP cannot be pinned")


class Mapping(NamedTuple):
    """A mapping of `node`, or a part of one: `offset` in the file; VM_MAYSHARE, VM_WRITE."""

    node: Node
    offset: int
    size: int
    shared: bool
    writable: bool


class Remap(NamedTuple):
    """mremap(2) as it was called."""

    address: int
    old_size: int
    new_size: int
    flags: int
    target: int


def madvise(advice: int, mapping: Mapping) -> Answer | None:
    """`madvise_vma_behavior`."""
    if advice == MADV_REMOVE:
        return _madvise_remove(mapping)
    rule = _EINVAL.get(advice)
    return None if rule is None else Answer(-errno.EINVAL, rule)


def _madvise_remove(mapping: Mapping) -> Answer:
    """A hole in the file, at `vm_pgoff`: the physical page, whatever file it is."""
    node, span = mapping.node, Range(mapping.offset, mapping.size)
    if isinstance(node, PhysicalFile):
        span = Range(node.base + mapping.offset, mapping.size)
    if not (mapping.shared and mapping.writable):
        return Answer(-errno.EACCES, "madvise_remove: not shared and writable", span)
    if not stat.S_ISREG((node.look() or node.attr()).mode):
        return Answer(-errno.ENODEV, "vfs_fallocate: not a regular file", span)
    if span.end > MAX_NON_LFS:
        return Answer(-errno.EFBIG, "vfs_fallocate: behind s_maxbytes of sysfs", span)
    return Answer(-errno.EOPNOTSUPP, "vfs_fallocate: there is no fallocate operation", span)


def mremap(call: Remap, *, shared: bool) -> Answer | None:
    """`vma_to_resize`; None where the kernel moves, shrinks, or refuses before it."""
    old, new = whole_pages(call.old_size), whole_pages(call.new_size)
    if not _reaches_the_mapping(call, old, new):
        return None
    if not old and not shared:
        return Answer(-errno.EINVAL, "vma_to_resize: a second mapping of a private one")
    if call.flags & MREMAP_DONTUNMAP:
        return Answer(-errno.EINVAL, "vma_to_resize: MREMAP_DONTUNMAP of VM_DONTEXPAND | VM_PFNMAP")
    if new > old:
        return Answer(-errno.EFAULT, "vma_to_resize: VM_DONTEXPAND | VM_PFNMAP cannot grow")
    return None


def _reaches_the_mapping(call: Remap, old: int, new: int) -> bool:
    """`mremap`, `mremap_to`: what is EINVAL whatever the mapping is."""
    flags = call.flags
    moved = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or not new:
        return False
    if (moved and not flags & MREMAP_MAYMOVE) or (flags & MREMAP_DONTUNMAP and old != new):
        return False
    if call.address & PAGE_MASK or (moved and call.target & PAGE_MASK):
        return False
    apart = call.target >= call.address + old or call.address >= call.target + new
    return apart or not moved


def pages(size: int) -> int:
    """How many bytes mincore(2) writes."""
    return whole_pages(size) // PAGE_SIZE
