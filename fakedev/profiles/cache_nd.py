"""An `NdPlan` from the plain lists that JSON makes of it."""

from __future__ import annotations

from typing import Any

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


def thaw_nd(stored: list[Any] | None) -> NdPlan | None:
    """The plan from what `json` read; None for none."""
    if stored is None:
        return None
    plan = NdPlan(*stored)
    return plan._replace(
        dimms=tuple((name, _dimm(one)) for name, one in plan.dimms),
        regions=tuple(map(_region, plan.regions)),
        hmem=tuple(HmemPlan(*one) for one in plan.hmem),
        cxl=_cxl(plan.cxl),
    )


def _dimm(one: Any) -> DimmPlan:
    made = DimmPlan(*one)
    return made._replace(nfit=tuple((key, text) for key, text in made.nfit))


def _region(one: Any) -> RegionPlan:
    made = RegionPlan(*one)
    return made._replace(
        mappings=tuple(MappingPlan(*each) for each in made.mappings),
        namespaces=tuple(map(_namespace, made.namespaces)),
    )


def _namespace(one: Any) -> NamespacePlan:
    made = NamespacePlan(*one)
    files = tuple(FilePlan(*each) for each in made.files)
    return made._replace(sector_sizes=tuple(made.sector_sizes), files=files)


def _cxl(one: Any) -> CxlPlan | None:
    if one is None:
        return None
    made = CxlPlan(*one)
    return made._replace(
        windows=tuple(map(_window, made.windows)),
        memdevs=tuple(MemdevPlan(*each) for each in made.memdevs),
    )


def _window(one: Any) -> WindowPlan:
    made = WindowPlan(*one)
    return made._replace(
        targets=tuple(made.targets),
        capabilities=tuple(made.capabilities),
        regions=tuple(HmemPlan(*each) for each in made.regions),
    )
