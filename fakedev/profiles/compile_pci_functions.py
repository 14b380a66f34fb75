"""Functions: what each of them asks for, and what is wrong inside one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from fakedev.devices.pci.plan import ROM
from fakedev.profiles.compile_memory import sparse
from fakedev.profiles.compile_pci_buses import BusKey, Spot
from fakedev.profiles.compile_pci_pool import Share
from fakedev.profiles.context import Context, Path
from fakedev.profiles.plan import Placement
from fakedev.profiles.schema_pci_functions import Bar, Register, Rom


@dataclass(slots=True)
class Slice:
    """A BAR of a function with its share of addresses and the contents that land in it."""

    index: int
    entry: Bar | Rom
    share: Share
    contents: list[Placement] = field(default_factory=list)

    @property
    def memory(self) -> bool:
        """True where memory answers, not registers or ports."""
        registers = isinstance(self.entry, Bar) and self.entry.registers is not None
        return not registers and not self.share.io


@dataclass(slots=True)
class Draft:
    """A function and its BARs before they have addresses."""

    spot: Spot
    slices: list[Slice]

    @property
    def bus(self) -> BusKey:
        """The bus that it is on."""
        return self.spot.bdf.domain, self.spot.bdf.bus


def draft(spot: Spot, context: Context) -> Draft:
    """A function's BARs as shares, with the mistakes that one function can hold."""
    bars = spot.entry.bars
    if bars is None:
        return Draft(spot, [])
    given = bars.given()
    path: Path = (*spot.path, "bars")
    _check_indexes(spot, given, path, context)
    slices = [_bar(spot, index, bar, path, context) for index, bar in given]
    if bars.rom is not None:
        share = Share(f"{spot.bdf} ROM", (*path, "rom"), ("mem", "pref"),
                      bars.rom.size, bars.rom.size, 1 << 32, bars.rom.at)  # fmt: skip
        slices.append(_checked(Slice(ROM, bars.rom, share), context))
    return Draft(spot, slices)


def _bar(spot: Spot, index: int, bar: Bar, path: Path, context: Context) -> Slice:
    size = bar.mem32 or bar.mem64 or bar.io or 0
    inside = ("io",) if bar.io else ("pref", "mem") if bar.prefetch else ("mem",)
    limit = 1 << 16 if bar.io else 1 << 32 if bar.mem32 else 1 << 64
    where: Path = (*path, str(index))
    share = Share(f"{spot.bdf} BAR {index}", where, inside, size, size, limit, bar.at)
    made = Slice(index, bar, share)
    if bar.registers is not None:
        _check_registers(bar.registers, size, where, context)
    return _checked(made, context)


def _checked(made: Slice, context: Context) -> Slice:
    """The address is right by itself; the file fits."""
    share, path = made.share, made.share.path
    if share.start is not None and share.start % share.size:
        low = share.start // share.size * share.size
        context.report(f"{share.label} of {share.size:#x} bytes lies at a multiple of its size, and "
                       f"{share.start:#x} is none; {low:#x} or {low + share.size:#x} would be right",
                       *path, "at")  # fmt: skip
    elif share.start is not None and share.span.end > share.limit:
        context.report(f"{share.label} ({share.span}) leaves its {share.limit.bit_length() - 1} bits",
                       *path, "at")  # fmt: skip
        share.start = None
    if made.entry.file is not None:
        _load(made, context)
    return made


def _load(made: Slice, context: Context) -> None:
    name, size, path = made.entry.file or "", made.share.size, (*made.share.path, "file")
    if not made.memory:
        context.report("only memory is filled from a file; take 'file' out", *path)
        return
    blob = context.blob(name, *path, room=size)
    if blob is None or not blob.size:
        return
    if blob.size > size:
        context.report(f"file {name!r} has {blob.size:,} bytes, and {made.share.label} has room for "
                       f"{size:,}", *path)  # fmt: skip
        return
    source = "" if blob.data else blob.path
    made.contents.extend(sparse(Placement(0, blob.size, blob.data, source, blob.offset)))


def _check_indexes(spot: Spot, given: list[tuple[int, Bar]], path: Path, context: Context) -> None:
    last = 1 if spot.entry.bridge is not None else 5
    used: dict[int, int] = {}
    for index, bar in given:
        if index > last:
            context.report(f"a bridge has BARs 0 and 1, not {index}", *path, str(index), key=True)
        elif bar.mem64 is not None and index == last:
            context.report(f"a 64-bit BAR takes two registers, and BAR {last} is the last one; "
                           "use mem32, or a lower index", *path, str(index))  # fmt: skip
        if index in used:
            context.report(f"BAR {index} is the upper half of BAR {used[index]}, which has 64 bits; "
                           f"use {index + 1}, or mem32 there", *path, str(index), key=True)  # fmt: skip
        if bar.mem64 is not None:
            used[index + 1] = index


def _check_registers(registers: list[Register], size: int, path: Path, context: Context) -> None:
    ends: list[tuple[int, int, int]] = []
    for number, register in enumerate(registers):
        where = (*path, "registers", number)
        if register.at + register.width > size:
            context.report(f"the register at {register.at:#x} lies outside its BAR of {size:#x} bytes",
                           *where)  # fmt: skip
        ends.append((register.at, register.at + register.width, number))
    ends.sort()
    for (_, end, first), (start, _, second) in pairwise(ends):
        if start < end:
            at = context.place(*path, "registers", first)
            context.report(f"the register at {start:#x} overlaps the one of {at}; move one of them",
                           *path, "registers", second)  # fmt: skip
