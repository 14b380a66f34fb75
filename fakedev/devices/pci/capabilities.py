"""Capabilities by name, and the chains they are linked in.

`capability("pcie", {"type": "root-port", "slot": 1})` makes one; each name's options are the fields
of its class in NAMES. `build_chain` lays a list of them into a configuration space.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, Protocol

from fakedev.devices.pci import capabilities_extended as extended
from fakedev.devices.pci import capabilities_standard as standard
from fakedev.devices.pci import header
from fakedev.devices.pci.capabilities_pcie import Pcie
from fakedev.devices.pci.capability import EXTENDED_HEADER, STANDARD_HEADER, Capability
from fakedev.devices.pci.config import CONVENTIONAL, EXTENDED, ConfigSpace
from fakedev.devices.pci.errors import PciError
from fakedev.model.words import closest

NAMES: dict[str, type[Any]] = {
    "pm": standard.Pm,
    "msi": standard.Msi,
    "msix": standard.Msix,
    "pcie": Pcie,
    "vendor": standard.Vendor,
    "ssvid": standard.Ssvid,
    "ht": standard.Ht,
    "af": standard.Af,
    "raw": standard.Raw,
    "aer": extended.Aer,
    "dsn": extended.Dsn,
    "acs": extended.Acs,
    "ats": extended.Ats,
    "ari": extended.Ari,
    "sriov": extended.Sriov,
    "ltr": extended.Ltr,
    "l1ss": extended.L1ss,
    "secpcie": extended.SecPcie,
    "vsec": extended.Vsec,
    "raw_extended": extended.RawExtended,
}
# what people write where Python has no such name
_SPELLINGS = {"64bit": "wide"}
# A machine of thousands of functions has few different capabilities: each is made once.
_made: dict[tuple[str, str], Capability] = {}
_KEPT = 1024


class Options(Protocol):
    """A class of NAMES with its values."""

    def build(self) -> Capability:
        """Make the bytes. Raises PciError for values that do not fit."""


@lru_cache
def options(name: str) -> tuple[str, ...]:
    """Return the names of a capability's options, without `at`. PciError when nothing has that name."""
    if name not in NAMES:
        raise PciError(f"unknown capability {name!r}{_guess(name, NAMES)}")
    spelled = {field: people for people, field in _SPELLINGS.items()}
    return tuple(spelled.get(field.name, field.name) for field in fields(NAMES[name]))


def capability(name: str, given: object = None) -> Capability:
    """Make one capability; `given` is a mapping of options, or the first option alone.

    An option `at` says where it has to lie. PciError for an unknown name or option (with what may
    be meant), and for values that do not fit.
    """
    key = name, repr(given)
    if key not in _made:
        if len(_made) >= _KEPT:
            _made.clear()
        _made[key] = _make(name, given)
    return _made[key]


def _make(name: str, given: object) -> Capability:
    known = options(name)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        given = {known[0]: given}
    values: dict[str, Any] = {str(key): value for key, value in given.items()}
    at = values.pop("at", None)
    for key in values:
        if key not in known and key not in _SPELLINGS.values():
            raise PciError(f"{name} has no option {key!r}{_guess(key, known)}")
    chosen: Options = NAMES[name](**{_SPELLINGS.get(key, key): v for key, v in values.items()})
    try:
        return replace(chosen.build(), at=at)
    except (TypeError, AttributeError) as error:
        raise PciError(f"{name}: a value of the wrong kind: {error}") from None


def build_chain(
    config: ConfigSpace, capabilities: Iterable[Capability | tuple[str, object]]
) -> list[Capability]:
    """Lay capabilities into a configuration space, in their order; return them with their places.

    Standard ones start at 0x40, extended ones at 0x100, aligned to 4; one without `at` follows the
    one before it. Sets pointers, masks, and the capabilities bit of the status register. PciError
    for overlaps, for chains that are too long, and for extended ones in 256 bytes.
    """
    made = [c if isinstance(c, Capability) else capability(*c) for c in capabilities]
    low = _lay([c for c in made if not c.extended], header.SIZE, CONVENTIONAL)
    high = _lay([c for c in made if c.extended], CONVENTIONAL, config.size)
    _link_standard(config, low)
    _link_extended(config, high)
    return low + high


def _lay(chain: list[Capability], start: int, end: int) -> list[Capability]:
    if chain and end <= start:
        raise PciError(f"{chain[0].name}: extended capabilities need {EXTENDED} bytes of space")
    placed: list[Capability] = []
    taken = [c for c in chain if c.at is not None]
    cursor = start
    for member in chain:
        at = _free(member, cursor, taken) if member.at is None else member.at
        laid = replace(member, at=at)
        _check_place(laid, start, end, placed)
        placed.append(laid)
        cursor = at + len(member.data)
    return placed


def _free(member: Capability, cursor: int, taken: list[Capability]) -> int:
    """The first place from `cursor` on that no capability with a fixed place needs."""
    at = cursor + 3 & ~3
    for other in sorted(taken, key=lambda c: c.at or 0):
        first = other.at or 0
        if at < first + len(other.data) and first < at + len(member.data):
            at = first + len(other.data) + 3 & ~3
    return at


def _check_place(laid: Capability, start: int, end: int, placed: list[Capability]) -> None:
    at = laid.at or 0
    stop = at + len(laid.data)
    if at % 4:
        raise PciError(f"{laid.name}: {at:#x} is not aligned to 4")
    if at < start or stop > end:
        raise PciError(
            f"{laid.name} at {at:#x}, {len(laid.data)} bytes, leaves {start:#x}-{end:#x}"
        )
    for other in placed:
        first = other.at or 0
        if at < first + len(other.data) and first < stop:
            raise PciError(f"{laid.name} at {at:#x} overlaps {other.name} at {first:#x}")


def _link_standard(config: ConfigSpace, chain: list[Capability]) -> None:
    if not chain:
        return
    status = config.get(header.STATUS, 2)
    config.put(header.STATUS, 2, status | header.STATUS_CAPABILITIES)
    config.put(header.CAPABILITIES, 1, chain[0].at or 0)
    for member, follower in _pairs(chain):
        _store(config, member, bytes([member.number, follower]), STANDARD_HEADER)


def _link_extended(config: ConfigSpace, chain: list[Capability]) -> None:
    if not chain:
        return
    if chain[0].at != CONVENTIONAL:
        raise PciError(f"{chain[0].name}: the first extended capability lies at {CONVENTIONAL:#x}")
    for member, follower in _pairs(chain):
        word = member.number | member.version << 16 | follower << 20
        _store(config, member, word.to_bytes(4, "little"), EXTENDED_HEADER)


def _pairs(chain: list[Capability]) -> Iterable[tuple[Capability, int]]:
    return zip(chain, [*((c.at or 0) for c in chain[1:]), 0], strict=True)


def _store(config: ConfigSpace, member: Capability, head: bytes, size: int) -> None:
    at, end = member.at or 0, (member.at or 0) + len(member.data)
    config.set(at, head + member.data[size:])
    config.writable[at:end] = member.writable
    config.clear[at:end] = member.clear


def _guess(word: str, known: Iterable[str]) -> str:
    near = closest(word, known)
    return f"; did you mean {near!r}?" if near else f"; known: {', '.join(known)}"
