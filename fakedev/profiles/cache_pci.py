"""A `PciPlan` as plain values for JSON, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fakedev.devices.pci.plan import (
    BarPlan,
    BridgePlan,
    CapabilityPlan,
    DriverPlan,
    EcamPlan,
    FunctionPlan,
    IdPlan,
    LinkPlan,
    PciPlan,
    PortPlan,
    RegisterPlan,
)

Convert = Callable[[Any], Any]
_BARS = FunctionPlan._fields.index("bars")
_FILL = BarPlan._fields.index("fill")


def freeze_pci(plan: PciPlan, *, fill: Convert, placement: Convert, pack: Convert) -> list[Any]:
    """The plan as lists; `fill`, `placement` and `pack` make plain values of what BARs hold."""

    def bar(one: BarPlan) -> list[Any]:
        return [*one[:_FILL], fill(one.fill), [placement(item) for item in one.contents]]

    def function(one: FunctionPlan) -> list[Any]:
        changed = one._replace(
            bars=tuple(bar(each) for each in one.bars),  # type: ignore[misc] # plain values now
            capabilities=tuple((at, *map(pack, parts)) for at, *parts in one.capabilities),  # type: ignore[misc]
            config=tuple((at, pack(data)) for at, data in one.config),
        )
        return list(changed)

    return list(plan._replace(functions=tuple(function(one) for one in plan.functions)))  # type: ignore[misc]


def thaw_pci(stored: list[Any], *, fill: Convert, placement: Convert, unpack: Convert) -> PciPlan:
    """The plan from what `freeze_pci` made, through JSON."""

    def bar(one: Any) -> BarPlan:
        made = BarPlan(*one)
        return made._replace(
            registers=tuple(RegisterPlan(*each) for each in made.registers),
            fill=fill(made.fill),
            contents=tuple(map(placement, made.contents)),
        )

    def function(one: Any) -> FunctionPlan:
        made = FunctionPlan(*one)
        return made._replace(
            bars=tuple(map(bar, made.bars)),
            bridge=made.bridge and BridgePlan(*map(_pair, made.bridge)),
            capabilities=tuple(
                CapabilityPlan(at, *map(unpack, parts)) for at, *parts in made.capabilities
            ),
            config=tuple((at, unpack(data)) for at, data in made.config),
            reset=tuple(made.reset),
            msi_irqs=tuple(made.msi_irqs),
            link=made.link and LinkPlan(*made.link),
            links=tuple((path, target) for path, target in made.links),
        )

    plan = PciPlan(*stored)
    return plan._replace(
        ecam=tuple(EcamPlan(*one) for one in plan.ecam),
        ports=tuple(PortPlan(*one) for one in plan.ports),
        functions=tuple(map(function, plan.functions)),
        drivers=tuple(map(_driver, plan.drivers)),
    )


def _driver(one: Any) -> DriverPlan:
    made = DriverPlan(*one)
    claims = None if made.claims is None else tuple(made.claims)
    return made._replace(ids=tuple(IdPlan(*each) for each in made.ids), claims=claims)


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
