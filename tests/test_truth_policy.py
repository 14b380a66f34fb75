"""The policy against what a real Debian 6.1 kernel answered (512 MiB q35 machine in QEMU)."""

import errno
from pathlib import Path

import pytest
from recordings import records

from fakedev.model.iomem_text import build_tree, parse_iomem
from fakedev.model.kernel import KernelRules
from fakedev.model.policy import Policy

DATA = Path(__file__).parent / "data"
DEBIAN_6_1 = KernelRules.preset("6.1", phys_bits=40)
END_OF_RAM = 0x1FFD_6000
# Memory was hot-added by then: dax/kmem ends here, and the direct map with it.
END_OF_PMEM = 0x1_6000_0000


def compare(iomem: str, phase: str, high_memory: int) -> tuple[int, list[str]]:
    tree = build_tree(parse_iomem((DATA / iomem).read_text()))
    policy = Policy(tree, DEBIAN_6_1, high_memory=high_memory)
    judge = {"pread": policy.read, "pwrite": policy.write, "mmap+touch": policy.mmap}
    count, wrong = 0, []
    for record in records(phase):
        count += 1
        address, size = (int(record["args"][key], 16) for key in ("off", "len"))
        verdict = judge[record["op"]](address, size)
        expected = getattr(errno, record["errno"]) if record["errno"] else 0
        if verdict.errno != expected or verdict.allowed != (expected == 0):
            wrong.append(f"{record['case']} {record['op']}: {record['errno']}, not {verdict.rule}")
    return count, wrong


@pytest.mark.parametrize(
    ("iomem", "phase", "high_memory", "count"),
    [
        ("iomem-root-boot.txt", "matrix-boot", END_OF_RAM, 769),
        ("iomem-vmem-loaded.txt", "matrix-vmem-loaded", END_OF_PMEM, 275),
        ("iomem-all-drivers.txt", "matrix-all-drivers", END_OF_PMEM, 275),
    ],
)
def test_every_recorded_errno(iomem: str, phase: str, high_memory: int, count: int) -> None:
    assert compare(iomem, phase, high_memory) == (count, [])


@pytest.mark.parametrize(
    "name", ["iomem-root-boot.txt", "iomem-vmem-loaded.txt", "iomem-all-drivers.txt"]
)
def test_iomem_text_comes_back(name: str) -> None:
    text = (DATA / name).read_text()
    assert build_tree(parse_iomem(text)).iomem_text(privileged=True) == text


def test_iomem_for_a_user_has_the_shape_but_no_address() -> None:
    tree = build_tree(parse_iomem((DATA / "iomem-root-boot.txt").read_text()))
    expected = (DATA / "iomem-user-boot.txt").read_text()
    assert tree.iomem_text(privileged=False) == expected
