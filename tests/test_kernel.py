"""Versions, configuration and command line."""

from typing import Any

import pytest

from fakedev.model.errors import FakedevError
from fakedev.model.kernel import PRESETS, KernelRules, parse_version


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.1", (6, 1)),
        ("v6.12-rc3", (6, 12)),
        ("6.1.0-56-amd64", (6, 1)),
        (" 5.10.262 ", (5, 10)),
        ("7.2+", (7, 2)),
    ],
)
def test_versions(text: str, release: tuple[int, int]) -> None:
    assert parse_version(text) == release


@pytest.mark.parametrize("text", ["", "six", "6", "6.", "6.1x", ".1", "6,1", "-5.4"])
def test_nonsense_is_one_clear_error(text: str) -> None:
    with pytest.raises(FakedevError, match="not a kernel version"):
        KernelRules(version=text)


@pytest.mark.parametrize(
    ("version", "revokes", "pci", "exclusive_ram", "below", "cap", "reparents"),
    [
        ("5.4", False, False, False, False, 5, False),
        ("5.8", True, False, False, False, 5, False),
        ("5.10", True, False, False, True, 5, False),
        ("5.12", True, True, False, False, 5, False),
        ("5.15", True, True, False, False, 5, False),
        ("5.16", True, True, True, False, 5, False),
        ("6.1", True, True, True, True, 5, False),
        ("6.6", True, True, True, False, 5, False),
        ("6.12", True, True, True, True, 5, False),
        ("7.0", True, True, True, True, 8, False),
        ("7.2", True, True, True, True, 8, True),
        ("10.0", True, True, True, True, 8, True),
    ],
)
def test_what_changes_between_versions(
    version: str,
    revokes: bool,
    pci: bool,
    exclusive_ram: bool,
    below: bool,
    cap: int,
    reparents: bool,
) -> None:
    rules = KernelRules(version=version)
    assert rules.revokes is revokes
    assert rules.revokes_pci is pci
    assert rules.has_exclusive_system_ram is exclusive_ram
    assert rules.looks_below_top_level is below
    assert rules.iomem_depth_cap == cap
    assert rules.reparents_on_split is reparents


@pytest.mark.parametrize(
    ("cmdline", "strict_devmem", "checks"),
    [
        ("", True, True),
        ("", False, False),
        ("quiet iomem=relaxed", True, False),
        ("iomem=strict", False, True),
        ("iomem=relaxed,strict", True, True),
        ("iomem=strict,relaxed", False, True),
        ("iomem=xrelaxedx", True, False),
        ("iomem=relaxed iomem=strict", True, True),
        ("iomem=strict iomem=relaxed", True, False),
        ('iomem="relaxed"', True, False),
        ("xiomem=relaxed", True, True),
        ("init=/bin/sh -- iomem=relaxed", True, True),
        ("iomem", True, True),
    ],
)
def test_iomem_on_the_command_line(cmdline: str, strict_devmem: bool, checks: bool) -> None:
    rules = KernelRules(cmdline=cmdline, strict_devmem=strict_devmem)
    assert rules.strict_iomem_checks is checks


@pytest.mark.parametrize(
    ("version", "strict_devmem", "pat", "cmdline", "arch", "einval"),
    [
        ("6.12", False, True, "", "x86_64", True),
        ("6.15", False, True, "", "x86_64", True),
        ("6.16", False, True, "", "x86_64", False),
        ("6.12", True, True, "", "x86_64", False),
        ("6.12", False, False, "", "x86_64", False),
        ("6.12", False, True, "nopat", "x86_64", False),
        ("6.12", False, True, "", "aarch64", False),
    ],
)
def test_mmap_einval_quirk(
    version: str, strict_devmem: bool, pat: bool, cmdline: str, arch: str, einval: bool
) -> None:
    rules = KernelRules(
        version=version, strict_devmem=strict_devmem, pat=pat, cmdline=cmdline, arch=arch
    )
    assert rules.mmap_ram_einval is einval


@pytest.mark.parametrize(
    ("fields", "revokes"),
    [
        ({"io_strict_devmem": False}, False),
        ({"strict_devmem": False}, False),
        ({"claim_policy": "ignore"}, False),
        ({"claim_policy": "deny-claim", "version": "5.4"}, True),
        ({"cmdline": "iomem=relaxed"}, True),  # compiled in; policy finds nothing to revoke
    ],
)
def test_when_claims_act_on_mappings(fields: dict[str, Any], revokes: bool) -> None:
    version = str(fields.pop("version", "6.12"))
    assert KernelRules.preset(version, **fields).revokes is revokes


def test_io_strict_depends_on_strict() -> None:
    assert KernelRules(strict_devmem=False, io_strict_devmem=True).io_strict_devmem is False


@pytest.mark.parametrize(
    ("lockdown", "cmdline", "level"),
    [
        ("none", "", "none"),
        ("none", "lockdown=integrity", "integrity"),
        ("confidentiality", "lockdown=integrity", "confidentiality"),
        ("integrity", "lockdown=rubbish", "integrity"),
    ],
)
def test_lockdown(lockdown: str, cmdline: str, level: str) -> None:
    assert KernelRules(lockdown=lockdown, cmdline=cmdline).lockdown_level == level


@pytest.mark.parametrize(("arch", "bits"), [("x86_64", 46), ("aarch64", 48), ("riscv64", 56)])
def test_usual_address_width(arch: str, bits: int) -> None:
    assert KernelRules(arch=arch).physical_address_bits == bits
    assert KernelRules(arch=arch, phys_bits=40).physical_address_bits == 40


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("arch", "vax"),
        ("lockdown", "total"),
        ("claim_policy", "maybe"),
        ("phys_bits", 8),
        ("phys_bits", 65),
    ],
)
def test_wrong_values_are_named(field: str, value: object) -> None:
    with pytest.raises(FakedevError, match=field):
        KernelRules.preset("6.12", **{field: value})


def test_presets() -> None:
    assert list(PRESETS) == ["5.4", "5.10", "5.12", "5.16", "6.1", "6.12", "7.2"]
    assert PRESETS["6.1"] == KernelRules.preset("6.1")
    assert KernelRules.preset("6.1", descend_region_intersects=False).looks_below_top_level is False
    with pytest.raises(FakedevError, match="no such kernel switch: colour, depth"):
        KernelRules.preset("6.1", depth=1, colour=2)
