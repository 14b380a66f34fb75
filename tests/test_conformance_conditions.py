"""What a recording tells of its boot, and what of that is taken: other configurations, and broken ones."""

import json
from pathlib import Path

import pytest

from fakedev.conformance.compare import Kind, compare
from fakedev.conformance.conditions import Conditions
from fakedev.conformance.configuration import Configuration, configuration
from fakedev.conformance.reasons import REASONS
from fakedev.conformance.records import Recording, record_of
from fakedev.model.errors import HostError


def told(tmp_path: Path, **texts: str) -> Configuration:
    """The configuration of a recording of these cases, `env` but for those of memory blocks."""
    lines = [
        {
            "config": "default",
            "phase": "vmem" if "block" in case else "env",
            "case": case.replace("_root", "-root"),
            "op": "open+read",
            "data": text,
        }
        for case, text in texts.items()
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return configuration(str(path))


@pytest.mark.parametrize(
    ("iomem", "megabytes"),
    [
        ("00100000-7ffd5fff : System RAM\n100000000-1bfffffff : System RAM\n", 5 << 10),
        ("00100000-7ffd5fff : System RAM\n200000000-20fffffff : Persistent Memory\n", 2 << 10),
        ("00900000-1e8ecfff : System RAM\n1ebff000-1fffffff : System RAM\n", 512),
        ("nonsense", 512),
    ],
)
def test_ram_is_found_in_the_recording(tmp_path: Path, iomem: str, megabytes: int) -> None:
    assert told(tmp_path, iomem_root=iomem).memory == megabytes << 20


@pytest.mark.parametrize(
    "kernel", ["1eb00000-1ffeafff", "110200000-111001d31", "fffffffffffffffff-0"]
)
def test_a_kernel_where_the_machine_has_no_ram_stays(tmp_path: Path, kernel: str) -> None:
    text = f"00900000-1fffffff : System RAM\n  {kernel} : Kernel code\n"
    assert "  10200000-11001d31 : Kernel code\n" in told(tmp_path, iomem_root=text).machine().iomem(
        privileged=True
    )


@pytest.mark.parametrize("size", ["xyz", "0", "", "-8000000"])
def test_a_block_size_that_is_none_is_not_taken(tmp_path: Path, size: str) -> None:
    made = told(tmp_path, block_size_bytes=size)
    assert made.settings[-1] == "memory_blocks.unmovable=[]"
    assert Conditions(made.recording).block_size == 128 << 20


@pytest.mark.parametrize("memory", ["100000000-100000fff", "100000000-ffffffffffffffff"])
def test_ram_that_no_machine_has_is_told(tmp_path: Path, memory: str) -> None:
    with pytest.raises(HostError, match="of RAM: --memory is a multiple of 128M"):
        told(tmp_path, iomem_root=f"{memory} : System RAM\n")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", "-c", "", "x" * 200])
def test_a_name_that_is_no_folder_is_not_taken(name: str) -> None:
    assert (
        Recording(
            [record_of({"config": name, "phase": "fd", "case": "a", "op": "read"})], []
        ).config
        == ""
    )


def test_contents_that_a_driver_left_are_not_compared_where_relaxed_shows_them() -> None:
    shown = (
        ("remove-e1000-bound", "rescanned devmem-mmap", "mmap+touch"),
        ("matrix-vmem-online", "virtio-mem-bar4 drv=virtio-pci", "pread"),
        ("cross-write", "pread-cross-into-claimed", "pread"),
    )
    for phase, case, op in shown:
        one = record_of(
            {"phase": phase, "case": case, "op": op, "data": "49565348ff0f000000000000"}
        )
        left = {**one, "data": "49565348ff0f000011111111"}
        assert compare([one], [left], REASONS)[0].kind is Kind.EQUAL
        assert compare([one], [{**left, "errno": "EPERM"}], REASONS)[0].kind is Kind.DIFFERENT
