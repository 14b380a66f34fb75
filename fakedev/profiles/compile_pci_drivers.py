"""`pci.drivers:` to plain values, and what they and the functions say of each other."""

from __future__ import annotations

from fakedev.devices.pci.plan import DriverPlan, FunctionPlan, IdPlan
from fakedev.profiles.compile_pci_functions import Draft
from fakedev.profiles.context import Context, Path
from fakedev.profiles.fields_pci import ANY
from fakedev.profiles.merging import suggest
from fakedev.profiles.schema_pci_drivers import PciDriver

DRIVERS: Path = ("pci", "drivers")
# They look at a device and leave it as it is.
_PASSIVE = frozenset({"pci-stub", "vfio-pci"})
_OVERRIDE_ONLY = frozenset({"vfio-pci"})
_UIO = frozenset({"uio_pci_generic"})


def drivers(given: dict[str, PciDriver], context: Context) -> tuple[DriverPlan, ...]:
    """The drivers in the order of the profile."""
    found = []
    for name, entry in given.items():
        if not name or "/" in name or name != name.strip() or name in {".", "..", "none"}:
            context.report(f"not a name of a driver: {name!r}; it becomes a directory of "
                           "/sys/bus/pci/drivers", *DRIVERS, name, key=True)  # fmt: skip
        found.append(
            DriverPlan(
                name,
                tuple(entry.ids),
                entry.claims,
                entry.claim_name or name,
                entry.exclusive,
                "" if entry.builtin else entry.module or name,
                entry.loaded,
                entry.builtin,
                entry.msi.replace("none", ""),
                entry.vectors,
                entry.probe_error,
                name not in _PASSIVE if entry.enables is None else entry.enables,
                entry.bus_master,
                name in _OVERRIDE_ONLY if entry.override_only is None else entry.override_only,
                entry.dma_mask_bits,
                name in _UIO if entry.uio is None else entry.uio,
            )
        )
        if entry.builtin and not entry.loaded:
            context.report("a driver that is built in is always there; take 'loaded' out",
                           *DRIVERS, name, "loaded")  # fmt: skip
    return tuple(found)


def check_drivers(
    plans: tuple[DriverPlan, ...], drafts: list[Draft], functions: list[FunctionPlan],
    context: Context,
) -> None:  # fmt: skip
    """Drivers that functions name exist; BARs that drivers claim do."""
    known = {plan.name: plan for plan in plans}
    for one, function in zip(drafts, functions, strict=True):
        if function.driver and function.driver not in known:
            context.report(f"there is no driver {function.driver!r}{suggest(function.driver, list(known))}; "
                           "describe it under pci.drivers", *one.spot.path, "driver")  # fmt: skip
    for plan in plans:
        if plan.claims:
            _check_claims(plan, plan.claims, drafts, functions, context)


def _check_claims(
    plan: DriverPlan, claims: tuple[int, ...], drafts: list[Draft],
    functions: list[FunctionPlan], context: Context,
) -> None:  # fmt: skip
    for one, function in zip(drafts, functions, strict=True):
        bound = function.driver == plan.name
        if not bound and (function.driver is not None or not matches(plan, function)):
            continue
        have = {each.index for each in one.slices}
        missing = next((index for index in claims if index not in have), None)
        if missing is not None:
            bars = ", ".join(str(index) for index in sorted(have) if index < 6)
            context.report(f"{plan.name} claims BAR {missing}, which {one.spot.bdf} does not have "
                           f"({context.place(*one.spot.path)}; it has {bars or 'none'})",
                           *DRIVERS, plan.name, "claims")  # fmt: skip
            return


def matches(plan: DriverPlan, function: FunctionPlan) -> bool:
    """`pci_match_one_device` for each id of the table."""
    return not plan.override_only and any(_match(entry, function) for entry in plan.ids)


def _match(entry: IdPlan, function: FunctionPlan) -> bool:
    return (
        entry.vendor in {ANY, function.vendor}
        and entry.device in {ANY, function.device_id}
        and entry.subvendor in {ANY, function.subvendor}
        and entry.subdevice in {ANY, function.subdevice}
        and not (entry.class_ ^ function.class_code) & entry.mask
    )
