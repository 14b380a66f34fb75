"""Chains of capabilities: names, options, places, and tables inside BARs."""

from __future__ import annotations

from typing import Any, NamedTuple

from fakedev.devices.pci.capabilities import NAMES, build_chain, capability
from fakedev.devices.pci.capability import Capability
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.plan import CapabilityPlan
from fakedev.profiles.compile_pci_pool import Share
from fakedev.profiles.context import Context, Path
from fakedev.profiles.fields import refuse, to_number, typed_scalar
from fakedev.profiles.merging import suggest
from fakedev.profiles.nodes import Scalar, kind
from fakedev.profiles.schema_pci_capabilities import option_kinds
from fakedev.profiles.schema_pci_functions import PciFunction

_MSIX_ENTRY = 16


class Chain(NamedTuple):
    """A checked chain: its bytes; the names in their order, and their options; any extended ones."""

    plan: tuple[CapabilityPlan, ...] = ()
    order: tuple[str, ...] = ()
    names: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - never changed
    extended: bool = False


class Chains:
    """Checks chains; functions with equal ones share the work."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.known: dict[str, Chain] = {}

    def of(self, entry: PciFunction, path: Path, shares: dict[int, Share]) -> Chain:
        """The chain of a function. What is wrong with it is reported, each time."""
        if not entry.capabilities:
            return Chain()
        where: Path = (*path, "capabilities")
        # `pm:` with nothing behind it leaves an empty member, which does not tell its name.
        key = "" if {} in entry.capabilities else repr(entry.capabilities)
        chain = self.known.get(key)
        if chain is None:
            before = len(self.context.problems)
            chain = self._made(entry.capabilities, where)
            if key and len(self.context.problems) == before:
                self.known[key] = chain
        if "msix" in chain.names:
            self._check_msix(entry.capabilities, chain, where, shares)
        return chain

    def _made(self, given: list[Any], where: Path) -> Chain:
        members = []
        for index, member in enumerate(given):
            made = self._member(member, (*where, index))
            if made is not None:
                members.append(made)
        if len(members) != len(given):
            return Chain()
        config = ConfigSpace(4096)
        try:
            built = build_chain(config, members)
        except PciError as error:
            self.context.report(str(error), *where)
            return Chain()
        extended = any(one.extended for one in built)
        names = dict(reversed(members))
        plan = tuple(_laid(config, one) for one in built)
        order = tuple(name for name, _ in members)
        return Chain(plan, order, names, extended or "pcie" in names)

    def _member(self, given: object, where: Path) -> tuple[str, dict[str, Any]] | None:
        """`pm`, `pm:`, `pm: {...}` or (the first option alone) `dsn: 11-22-...`."""
        if isinstance(given, str):
            given = {str(given): {}}
        names = list(self._names(given, where))
        if len(names) != 1:
            found = " and ".join(map(repr, names)) or kind(given)
            self.context.report(f"one capability is needed here, not {found}; write `- pm: {{}}`",
                                *where)  # fmt: skip
            return None
        name = names[0]
        if name not in NAMES:
            known = suggest(name, list(NAMES)) or f"; known are {', '.join(NAMES)}"
            self.context.report(f"unknown capability {name!r}{known}", *where, name, key=True)
            return None
        value = given.get(name) if isinstance(given, dict) else None
        return self._options(name, value, (*where, name))

    def _names(self, given: object, where: Path) -> list[str]:
        """The keys of a member. Those with null are not in its plain value: ask the node."""
        node = self.context.root.find(where)
        if isinstance(given, dict) and isinstance(node.value, dict):
            return list(node.value)
        return list(given) if isinstance(given, dict) else []

    def _options(self, name: str, given: Any, where: Path) -> tuple[str, dict[str, Any]] | None:
        kinds = option_kinds(name)
        if not isinstance(given, dict):
            given = {} if given is None else {next(iter(kinds)): given}
        made: dict[str, Any] = {}
        for option, value in given.items():
            path = (*where, option)
            if option not in kinds:
                known = suggest(option, list(kinds)) or f"; known here: {', '.join(kinds)}"
                self.context.report(f"{name} has no option {option!r}{known}", *path, key=True)
                return None
            try:
                made[option] = _value(value, kinds[option])
            except ValueError as error:
                self.context.report(f"{name}: {option}: {error}", *path)
                return None
        try:
            capability(name, made)
        except PciError as error:
            self.context.report(str(error), *where)
            return None
        return name, made

    def _check_msix(
        self, given: list[Any], chain: Chain, where: Path, shares: dict[int, Share]
    ) -> None:
        options = chain.names["msix"]
        vectors = options.get("vectors", 1)
        needs = {
            "table": (vectors * _MSIX_ENTRY, (0, 0)),
            "pba": (-(-vectors // 64) * 8, (0, 0x800)),
        }
        index = chain.order.index("msix")
        for what, (size, default) in needs.items():
            bar, offset = options.get(what, default)
            path: Path = (*where, index, "msix", what)
            share = shares.get(bar)
            if share is None or share.io:
                have = ", ".join(str(i) for i, one in shares.items() if not one.io and i < 6)
                self.context.report(f"msix: the {what} lies in BAR {bar}, which is no memory BAR of this "
                                    f"function (it has {have or 'none'})", *path)  # fmt: skip
            elif offset + size > share.size:
                self.context.report(
                    f"msix: the {what} of {vectors} vectors needs {size:#x} bytes at {offset:#x}, and "
                    f"BAR {bar} has {share.size:#x}",
                    *path,
                )


def _laid(config: ConfigSpace, one: Capability) -> CapabilityPlan:
    at = one.at or 0
    data = bytes(config.data[at : at + len(one.data)])
    return CapabilityPlan(at, data, one.writable, one.clear)


def _value(value: Any, form: str) -> Any:
    """An option by the type that its capability gives it. Raises ValueError."""
    if form == "int":
        return to_number(value)
    if form == "Sequence[int]":
        return [to_number(item) for item in (value if isinstance(value, list) else [value])]
    if form == "bool":
        made = typed_scalar(value) if isinstance(value, Scalar) else value
        if not isinstance(made, bool):
            refuse(f"true or false is needed here, not {kind(value)}")
        return made
    if not isinstance(value, str):
        refuse(f"a text is needed here, not {kind(value)}")
    if form == "str | int" and value.strip()[:2].lower() == "0x":
        return to_number(value)
    return str(value)
