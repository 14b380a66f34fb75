"""`nvdimm:`, `dax:` and `cxl:` to their plan, and the memory that they bring."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fakedev.devices.nd.plan import (
    CxlPlan,
    DimmPlan,
    FilePlan,
    HmemPlan,
    MappingPlan,
    MemdevPlan,
    NamespacePlan,
    NdPlan,
    RegionPlan,
    WindowPlan,
)
from fakedev.devices.nd.region import metadata_size
from fakedev.model.ranges import PAGE_MASK, PAGE_SIZE, Range
from fakedev.profiles.compile_nd_places import NdMemory, Places, Surroundings
from fakedev.profiles.context import Context, Path
from fakedev.profiles.plan import SegmentPlan

if TYPE_CHECKING:
    from fakedev.profiles.schema import Document
    from fakedev.profiles.schema_nd import (
        Cxl,
        CxlWindow,
        DaxMemory,
        Dimm,
        NdFile,
        NdNamespace,
        NdRegion,
        Nvdimm,
    )

_ALIGN = 2 << 20


@dataclass(slots=True)
class NdParts(NdMemory):
    """The plan, and the memory that it brings."""

    plan: NdPlan

    def with_files(self, segments: tuple[SegmentPlan, ...]) -> tuple[SegmentPlan, ...]:
        """Segments with the files that are the medium of their region."""
        return tuple(s._replace(file=self.files.get(s.start, "")) for s in segments)


def compile_nd(document: Document, around: Surroundings, context: Context) -> NdParts | None:
    """None for a machine without; `around` is what the profile brings otherwise."""
    nvdimm, dax, cxl = document.nvdimm, document.dax, document.cxl
    if nvdimm is None and not dax and cxl is None:
        return None
    compiler = _Compiler(around, context)
    for number, window in enumerate(cxl.windows if cxl else ()):
        if window.listed:
            compiler.places.window(window.span, f"CXL Window {number}", ("cxl", "windows", number))
    plan = NdPlan()
    if nvdimm is not None:
        plan = NdPlan(
            nvdimm.path,
            nvdimm.provider,
            nvdimm.loaded,
            tuple((name, _dimm(dimm)) for name, dimm in nvdimm.dimms.items()),
            tuple(compiler.regions(nvdimm)),
        )
    parent = "Soft Reserved" if around.lists_soft_reserved else ""
    hmem = [
        compiler.hmem(one, f"dax {number}", ("dax", number), parent,
                      f"/sys/devices/platform/hmem.{number}")
        for number, one in enumerate(dax)
    ]  # fmt: skip
    compiler.count(len(hmem))
    plan = plan._replace(hmem=tuple(hmem), cxl=compiler.cxl(cxl) if cxl else None)
    return NdParts(compiler.places.areas, compiler.places.files, plan)


def _dimm(dimm: Dimm) -> DimmPlan:
    nfit = {
        "id": dimm.id,
        "handle": f"{dimm.handle:#x}",
        "phys_id": f"{dimm.phys_id:#x}",
        "serial": f"{dimm.serial:#010x}",
        "vendor": f"{dimm.vendor:#06x}",
        "device": f"{dimm.device:#06x}",
        "rev_id": f"{dimm.rev_id:#06x}",
        "subsystem_vendor": f"{dimm.subsystem_vendor:#06x}",
        "subsystem_device": f"{dimm.subsystem_device:#06x}",
        "subsystem_rev_id": f"{dimm.subsystem_rev_id:#06x}",
        "formats": "1",
        "format": f"{dimm.format:#06x}",
        "family": f"{dimm.family}",
        "dsm_mask": f"{dimm.dsm_mask:#x}",
        "flags": dimm.nfit_flags,
        "dirty_shutdown": "0",
    }
    texts = tuple((key, text) for key, text in nfit.items() if text is not None)
    return DimmPlan(dimm.commands, dimm.flags, dimm.state, dimm.available_slots, texts)


class _Compiler:
    """Checks each part against the others, and collects the memory."""

    def __init__(self, around: Surroundings, context: Context) -> None:
        self.context = context
        self.places = Places(around, context)
        self._numbers = 0

    # -- persistent memory ----------------------------------------------------------------------

    def regions(self, nvdimm: Nvdimm) -> Iterator[RegionPlan]:
        """Each region with its namespaces."""
        for number, region in enumerate(nvdimm.regions):
            path: Path = ("nvdimm", "regions", number)
            self.places.take(
                region.span, f"region{number}", path, listed=region.listed, file=region.file
            )
            self._numbers += region.listed
            yield RegionPlan(
                region.span.start, region.span.size, tuple(self._mappings(region, nvdimm, path)),
                tuple(self._namespaces(region, number, path)), region.set_cookie, region.align,
                region.persistence_domain, region.numa_node, region.target_node, region.read_only,
                region.deep_flush, region.range_index, region.listed, region.on_unplug,
            )  # fmt: skip

    def _mappings(self, region: NdRegion, nvdimm: Nvdimm, path: Path) -> Iterator[MappingPlan]:
        given = region.mappings or []
        share = region.span.size // max(len(given), 1)
        for index, one in enumerate(given):
            if one.dimm not in nvdimm.dimms:
                known = ", ".join(nvdimm.dimms) or "none"
                self.context.report(f"there is no module {one.dimm!r}; dimms: {known}",
                                    *path, "mappings", index, "dimm")  # fmt: skip
            yield MappingPlan(one.dimm, one.offset, one.size or share, one.position)

    def _namespaces(self, region: NdRegion, number: int, path: Path) -> Iterator[NamespacePlan]:
        at = region.span.start
        for index, one in enumerate(region.namespaces):
            where = (*path, "namespaces", index)
            size = region.span.end - at if one.size is None else one.size
            if size <= 0 or at + size > region.span.end:
                left = region.span.end - at
                self.context.report(
                    f"namespace{number}.{index} does not fit: it has {size:,} bytes, and region{number} "
                    f"({region.span}) has {left:,} left", *where,
                )  # fmt: skip
                return
            made = self._namespace(one, Range(at, size), f"{number}.{index}", where)
            if made.mode == "kmem":
                data = Range(at + made.metadata, size - made.metadata)
                self.places.kmem(
                    data, region.target_node, f"namespace{number}.{index}", where, path
                )
            yield made
            at += size

    def _namespace(self, one: NdNamespace, span: Range, name: str, path: Path) -> NamespacePlan:
        if span.start & PAGE_MASK or span.size & PAGE_MASK:
            self.context.report(f"namespace{name} is not made of whole pages", *path)
        if one.align not in {4096, 2 << 20, 1 << 30}:
            self.context.report("align is 4K, 2M or 1G", *path, "align")
        align = max(one.align, PAGE_SIZE)
        metadata = one.metadata if one.metadata is not None else metadata_size(span, align)
        if one.mode != "raw" and metadata >= span.size:
            self.context.report(f"namespace{name} has {span.size:,} bytes, and its metadata needs "
                                f"{metadata:,}", *path)  # fmt: skip
            return NamespacePlan(span.start, span.size, "raw", "")
        files = tuple(self._files(one.files, span.size - metadata, path))
        return NamespacePlan(
            span.start, span.size, one.mode, one.uuid or _uuid(name, span), one.alt_name,
            one.sector_size, tuple(one.sector_sizes), one.align, metadata, not one.label, files,
        )  # fmt: skip

    def _files(self, given: list[NdFile], room: int, path: Path) -> Iterator[FilePlan]:
        at, names = 0, set()
        for index, one in enumerate(given):
            where = (*path, "files", index)
            at = at if one.at is None else one.at
            if at & PAGE_MASK:
                self.context.report("a file begins with a page", *where, "at")
            for number in range(one.count):
                name = one.name.replace("%d", str(number))
                pages = -(-one.size // PAGE_SIZE) * PAGE_SIZE
                if name in names or "/" in name or name in {".", ".."}:
                    self.context.report(
                        f"{name!r}: a name of its own without `/` is needed", *where
                    )
                    return
                if at + pages > room:
                    self.context.report(f"{name} does not fit: {room:,} bytes of data", *where)
                    return
                names.add(name)
                yield FilePlan(name, at, one.size, one.mode)
                at += pages

    # -- soft-reserved memory and CXL -----------------------------------------------------------

    def hmem(self, one: DaxMemory, name: str, path: Path, parent: str, at: str) -> HmemPlan:
        """A dax device without a namespace, in `parent` if that is in `/proc/iomem`."""
        self.places.take(one.span, name, path, listed=one.listed, file=None)
        if one.span.start % _ALIGN or one.span.size % _ALIGN:
            self.context.report(f"{one.span} is not made of whole 2 MiB", *path, "range")
        if one.mode == "kmem":
            self.places.kmem(one.span, one.target_node, name, (*path, "range"), path)
        return HmemPlan(one.span.start, one.span.size, one.mode, one.align, one.numa_node,
                        one.target_node, parent, one.path or at, one.listed)  # fmt: skip

    def count(self, number: int) -> None:
        """So many regions more: persistent memory, soft-reserved memory and CXL share one counter."""
        self._numbers += number

    def cxl(self, cxl: Cxl) -> CxlPlan:
        """Windows with their regions, and memory devices."""
        windows, count = [], self._numbers
        for number, window in enumerate(cxl.windows):
            windows.append(self._window(cxl, window, number, count))
            count += len(window.regions)
        memdevs = tuple(
            MemdevPlan(m.path, m.ram_size, m.pmem_size, m.serial, m.numa_node, m.payload_max,
                       m.label_storage_size, m.firmware_version, m.port)
            for m in cxl.memdevs
        )  # fmt: skip
        return CxlPlan(cxl.path, tuple(windows), memdevs)

    def _window(self, cxl: Cxl, window: CxlWindow, number: int, first: int) -> WindowPlan:
        path: Path = ("cxl", "windows", number)
        regions = []
        for index, one in enumerate(window.regions):
            where = (*path, "regions", index)
            if one.span.start < window.span.start or one.span.end > window.span.end:
                self.context.report(f"region {one.span} lies outside its window {window.span}",
                                    *where, "range")  # fmt: skip
            name = f"region{first + index}"
            at = f"{cxl.path}/root0/decoder0.{number}/{name}/dax_region{first + index}"
            regions.append(self.hmem(one, name, where, name, at))
        return WindowPlan(
            window.span.start, window.span.size, tuple(window.targets), window.granularity,
            tuple(window.capabilities), window.qos_class, tuple(regions), window.listed,
        )  # fmt: skip


def _uuid(name: str, span: Range) -> str:
    """An identity that is the same in every run."""
    digits = hashlib.sha256(f"{name} {span}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"
