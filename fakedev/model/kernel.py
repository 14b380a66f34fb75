"""Which kernel the machine runs: version, architecture, configuration, command line.

Only the switches that change what a user program sees are here. Boundaries between versions are
those of kernel-semantics section 0; a version between two presets behaves as the older one.
"""

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from fakedev.model.errors import FakedevError

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?![\d])(?:[.\-+~_].*)?", re.ASCII)
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')

ARCHES = ("x86_64", "aarch64", "riscv64")
LOCKDOWN_LEVELS = ("none", "integrity", "confidentiality")
CLAIM_POLICIES = ("revoke", "deny-claim", "ignore")

_PHYS_BITS = {"x86_64": 46, "aarch64": 48, "riscv64": 56}
# Stable series that got the region_intersects fix of 6.12.
_BACKPORTED = ((5, 10), (6, 1))


def parse_version(text: str) -> tuple[int, int]:
    """Return (major, minor) of `6.1`, `v6.12-rc3`, `6.1.0-56-amd64`. Raises FakedevError."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise FakedevError(f"not a kernel version: {text!r}; write it as 6.1 or 6.12")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, slots=True)
class KernelRules:
    """The switches; values are checked, FakedevError names the wrong one.

    `devmem`, `strict_devmem`, `io_strict_devmem`: CONFIG_DEVMEM, CONFIG_STRICT_DEVMEM,
    CONFIG_IO_STRICT_DEVMEM. `phys_bits`: physical address width of the CPU, None is the usual one
    of the architecture. `claim_policy`: what a claim does to live mappings (`revoke` is mainline).
    `descend_region_intersects`: the back-port switch of `looks_below_top_level`, None by version.
    """

    version: str = "6.12"
    arch: str = "x86_64"
    devmem: bool = True
    strict_devmem: bool = True
    io_strict_devmem: bool = True
    cmdline: str = ""
    lockdown: str = "none"
    phys_bits: int | None = None
    pat: bool = True
    claim_policy: str = "revoke"
    descend_region_intersects: bool | None = None

    def __post_init__(self) -> None:
        parse_version(self.version)
        _one_of("arch", self.arch, ARCHES)
        _one_of("lockdown", self.lockdown, LOCKDOWN_LEVELS)
        _one_of("claim_policy", self.claim_policy, CLAIM_POLICIES)
        if self.phys_bits is not None and not 32 <= self.phys_bits <= 64:
            raise FakedevError(f"phys_bits: {self.phys_bits} is not between 32 and 64")
        if self.io_strict_devmem and not self.strict_devmem:
            # Kconfig: IO_STRICT_DEVMEM depends on STRICT_DEVMEM.
            object.__setattr__(self, "io_strict_devmem", False)

    @classmethod
    def preset(cls, version: str, **overrides: Any) -> Self:
        """Make the rules of a kernel version, with single fields replaced. Raises FakedevError."""
        known = {item.name for item in fields(cls)} - {"version"}
        if unknown := sorted(set(overrides) - known):
            raise FakedevError(
                f"no such kernel switch: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )
        return cls(version=version, **overrides)

    @property
    def release(self) -> tuple[int, int]:
        """The version as (major, minor)."""
        return parse_version(self.version)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The command line as (name, value), in order, up to `--`."""
        pairs = []
        for word in _WORD.findall(self.cmdline):
            if word == "--":
                break
            name, _, value = word.replace('"', "").partition("=")
            pairs.append((name, value))
        return pairs

    @property
    def strict_iomem_checks(self) -> bool:
        """The variable of this name: set by STRICT_DEVMEM, then by each `iomem=` in order.

        `iomem=` is a substring test: first `relaxed`, then `strict`, so both together are strict.
        """
        strict = self.strict_devmem
        for name, value in self.parameters:
            if name == "iomem":
                strict = strict and "relaxed" not in value
                strict = strict or "strict" in value
        return strict

    @property
    def lockdown_level(self) -> str:
        """The level in force: `lockdown=` on the command line can only raise it."""
        levels = [self.lockdown]
        levels += [v for name, v in self.parameters if name == "lockdown" and v in LOCKDOWN_LEVELS]
        return max(levels, key=LOCKDOWN_LEVELS.index)

    def locked_down(self, level: str) -> bool:
        """Whether the level in force is this one or above it."""
        return LOCKDOWN_LEVELS.index(self.lockdown_level) >= LOCKDOWN_LEVELS.index(level)

    @property
    def pat_enabled(self) -> bool:
        """x86 page attribute table; `nopat` turns it off."""
        return self.pat and all(name != "nopat" for name, _ in self.parameters)

    @property
    def has_exclusive_system_ram(self) -> bool:
        """Since 5.16 System RAM that is EXCLUSIVE is exclusive whatever `iomem=` says."""
        return self.release >= (5, 16)

    @property
    def revokes(self) -> bool:
        """A claim acts on live mappings: compiled in since 5.8, only with IO_STRICT_DEVMEM.

        `deny-claim` acts on them too, by refusing the claim; the same regions are protected.
        """
        if self.claim_policy == "ignore" or not self.io_strict_devmem:
            return False
        return self.claim_policy == "deny-claim" or self.release >= (5, 8)

    @property
    def revokes_pci(self) -> bool:
        """Since 5.12 PCI files share the revoked mapping; before that only `/dev/mem` does."""
        return self.revokes and self.release >= (5, 12)

    @property
    def looks_below_top_level(self) -> bool:
        """`region_intersects` finds matches below the top level (6.12, and stable back-ports)."""
        if self.descend_region_intersects is not None:
            return self.descend_region_intersects
        return self.release >= (6, 12) or self.release in _BACKPORTED

    @property
    def iomem_depth_cap(self) -> int:
        """How many levels `/proc/iomem` indents."""
        return 8 if self.release >= (7, 0) else 5

    @property
    def reparents_on_split(self) -> bool:
        """`release_mem_region_adjustable` moves children to the upper half."""
        return self.release >= (7, 2)

    @property
    def zaps_removed_files(self) -> bool:
        """Until 5.11 the mappings of a PCI file die when it is removed; since then they live on."""
        return self.release < (5, 12)

    @property
    def has_pci_llseek(self) -> bool:
        """Memory `resourceN` have an llseek that knows the size of the BAR (`pci_llseek_resource`)."""
        return self.release >= (6, 12)

    @property
    def has_reset_method(self) -> bool:
        """Functions have a file `reset_method` since 5.15."""
        return self.release >= (5, 15)

    @property
    def io_bar_mmap_errno(self) -> int:
        """What mmap of an I/O BAR gives on x86: ENODEV, and EINVAL from 7.2 on."""
        return errno.EINVAL if self.release >= (7, 2) else errno.ENODEV

    @property
    def lists_soft_reserved(self) -> bool:
        """`Soft Reserved` is in `/proc/iomem` from boot on; 7.2 keeps it in a tree of its own."""
        return self.release < (7, 2)

    @property
    def mmap_ram_einval(self) -> bool:
        """x86 with PAT and without STRICT_DEVMEM refuses mmap of RAM with EINVAL, until 6.16."""
        quirk = self.arch == "x86_64" and self.pat_enabled and self.release < (6, 16)
        return quirk and not self.strict_devmem

    @property
    def physical_address_bits(self) -> int:
        """`phys_bits`, or the usual width of the architecture."""
        return self.phys_bits if self.phys_bits is not None else _PHYS_BITS[self.arch]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise FakedevError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


PRESETS: Mapping[str, KernelRules] = {
    version: KernelRules(version=version)
    for version in ("5.4", "5.10", "5.12", "5.16", "6.1", "6.12", "7.2")
}
"""The kernels of the version table, as distributions configure them (both STRICT switches on)."""
