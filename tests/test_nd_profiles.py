"""`nvdimm:`, `dax:` and `cxl:` of a profile: what is wrong in it, the cache, and the bundled server."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hostneeds import needs_sandbox
from nd_machines import PROFILE, M, pmem_machine, text_at, tree
from support import BIN, need

from fakedev.devices.nd.region import metadata_size
from fakedev.model.errors import ProfileError
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.cache_nd import thaw_nd
from fakedev.profiles.loader import load_profile

STORY = Path(__file__).parent.parent / "docs" / "stories" / "server-pmem-cxl.md"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["nvdimm.regions.0.range=0x100000000+1000"], "not made of whole pages"),
        (["nvdimm.regions.0.range=0x140000000+16M"], "region1: .* overlaps 140000000-140ffffff of"),
        (["nvdimm.regions.0.range=0x100000+16M"], "region0: .* overlaps System RAM"),
        (
            ["nvdimm.regions.1.namespaces.0.size=600M"],
            r"namespace1\.0 does not fit: it has 629,145,600",
        ),
        (["nvdimm.regions.0.namespaces.0.metadata=512M"], "its metadata needs"),
        (["nvdimm.regions.0.namespaces.0.files.0.count=40000"], "does not fit"),
        (["nvdimm.regions.0.namespaces.0.files.0.name=a/b"], "a name of its own"),
        (["nvdimm.regions.0.namespaces.0.mode=fast"], "fsdax"),
        (["nvdimm.regions.0.namespaces.0.align=3M"], "align is 4K, 2M or 1G"),
        (["nvdimm.regions.0.mappings.0.dimm=nmem9"], "there is no module 'nmem9'; dimms: nmem0"),
        (["nvdimm.regions.1.target_node=-2"], "a node is a number"),
        (["dax.0.range=0x200000000+1M"], "whole 2 MiB"),
        (
            ["cxl.windows.0.range=0x300000000+1G", "cxl.windows.0.regions.0.range=0x200000000+1G"],
            "lies outside its window",
        ),
    ],
)
def test_what_is_wrong(settings: list[str], message: str, tmp_path: Path) -> None:
    profile = tmp_path / "wrong.yaml"
    lines = ["fakedev: 1", f"extends: [{PROFILE}]"]
    if settings[0].startswith("dax"):
        lines.append("dax: [{range: 0x200000000+2M}]")
    if settings[0].startswith("cxl"):
        lines.append(
            "cxl: {windows: [{range: 0x300000000+1G, regions: [{range: 0x300000000+1G}]}]}"
        )
    profile.write_text("\n".join(lines))
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(str(profile), overrides=settings)
    assert all(re.match(r"\S+:\d+:\d+: |\S*--set", line) for line in caught.value.problems)


BASE = """\
fakedev: 1
kernel: {version: "6.12", phys_bits: 40}
firmware: {e820: [{range: 0x40000000+1G, type: System RAM}]}
"""


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            (
                "virtio_mem: {vm0: {addr: 0x100000000, region_size: 1G}}\n"
                "nvdimm: {dimms: {nmem0: {}}, regions: [{range: 0x120000000+1G}]}"
            ),
            5,
            "region0: 120000000-15fffffff overlaps virtio-mem vm0 (100000000-13fffffff) of",
        ),
        (
            (
                "virtio_mem: {vm0: {addr: 0x100000000, region_size: 1G}}\n"
                "dax: [{range: 0x120000000+128M}]"
            ),
            5,
            "dax 0: 120000000-127ffffff overlaps virtio-mem vm0",
        ),
        (
            "nvdimm: {regions: [{range: 0x100000000+64M, namespaces: [{mode: kmem}]}]}",
            4,
            "namespace0.0: 100200000-103ffffff has no whole memory block of 128 MiB for mode kmem",
        ),
        (
            "memory_blocks: {size: 1G}\ndax: [{range: 0x120000000+1G, mode: kmem}]",
            5,
            "dax 0: 120000000-15fffffff has no whole memory block of 1024 MiB",
        ),
        (
            "dax: [{range: 0x110000000+256M, mode: kmem, target_node: -1}]",
            4,
            "dax 0: mode kmem needs a target_node from 0 on",
        ),
        (
            "nvdimm: {regions: [{range: 0x100000000+1G, target_node: -1, namespaces: [{mode: kmem}]}]}",
            4,
            "namespace0.0: mode kmem needs a target_node from 0 on",
        ),
        (
            "dax: [{range: 0x10000000000+256M}]",
            4,
            "dax 0: 10000000000-1000fffffff ends beyond the 40 address bits of this CPU",
        ),
        (
            "nvdimm: {regions: [{range: 0xffc0000000+2G}]}",
            4,
            "region0: ffc0000000-1003fffffff ends beyond the 40 address bits",
        ),
        (
            "cxl: {windows: [{range: 0x20000000000+1G}]}",
            4,
            "CXL Window 0: 20000000000-2003fffffff ends beyond the 40 address bits",
        ),
        (
            "cxl: {windows: [{range: 0x200000000+1G}, {range: 0x220000000+1G}]}",
            4,
            "CXL Window 1: 220000000-25fffffff overlaps 200000000-23fffffff of",
        ),
        (
            "cxl: {windows: [{range: 0x60000000+1G}]}",
            4,
            "CXL Window 0: 60000000-9fffffff straddles the edge of System RAM (40000000-7fffffff)",
        ),
        (
            "cxl: {windows: [{range: 0x60000000+256M}]}",
            4,
            "CXL Window 0: 60000000-6fffffff lies inside System RAM",
        ),
        (
            "cxl: {windows: [{range: 0x200000000+1G}]}\ndax: [{range: 0x1f0000000+1G}]",
            5,
            "dax 0: 1f0000000-22fffffff straddles the edge of 200000000-23fffffff of",
        ),
        (
            (
                "iomem: |\n  100000000-1ffffffff : PCI Bus 0000:00\n"
                "nvdimm: {regions: [{range: 0x1f0000000+1G}]}"
            ),
            6,
            "region0: 1f0000000-22fffffff straddles the edge of PCI Bus 0000:00",
        ),
        (
            "nvdimm: {regions: [{range: 0x100000000+1G, file: a.img}, {range: 0x200000000+1G, file: a.img}]}",
            4,
            "region1: 'a.img' is the medium of another region",
        ),
    ],
)
def test_what_cannot_be_there(text: str, line: int, message: str, tmp_path: Path) -> None:
    """One line each, with the place and the rule."""
    profile = tmp_path / "wrong.yaml"
    profile.write_text(BASE + text)
    with pytest.raises(ProfileError) as caught:
        load_profile(str(profile))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{profile}:{line}:")
    assert message in problem


def test_a_window_around_ram_is_fine(tmp_path: Path) -> None:
    profile = tmp_path / "around.yaml"
    profile.write_text(BASE + "cxl: {windows: [{range: 0x40000000+2G}]}")
    lines = build_machine(load_profile(str(profile))).iomem().splitlines()
    assert lines[:2] == ["40000000-bfffffff : CXL Window 0", "  40000000-7fffffff : System RAM"]


def test_a_file_behind_what_the_firmware_lists(tmp_path: Path) -> None:
    """Also where one entry of the map has two regions, and only one of them a file."""
    profile, medium = tmp_path / "listed.yaml", tmp_path / "medium.img"
    profile.write_text(
        BASE.replace("}]}", "}, {range: 0x100000000+3G, type: Persistent Memory}]}")
        + "nvdimm: {regions: [{range: 0x100000000+1G}, {range: 0x140000000+1G, file: medium.img}]}"
    )
    machine = build_machine(load_profile(str(profile)))
    assert tree(machine)[0] == "100000000-1bfffffff : Persistent Memory"
    for address in (0x13FFFF000, 0x140000000, 0x17FFFF000, 0x180000000, 0x1BFFFF000):
        machine.poke(address, f"{address:x}".encode())
        assert machine.peek(Range(address, 9)) == f"{address:x}".encode()
    assert medium.stat().st_size == 1 << 30
    with medium.open("rb") as file:
        assert file.read(9) == b"140000000"
    server = [f"nvdimm.regions.0.file={tmp_path / 'other.img'}"]
    machine = build_machine(load_profile("server-pmem-cxl", overrides=server))
    assert tree(machine) == tree(build_machine(load_profile("server-pmem-cxl")))


@pytest.mark.parametrize(
    ("version", "first"),
    [("6.12", "200000000-20fffffff : Soft Reserved"), ("7.2", "200000000-20fffffff : dax0.0")],
)
def test_soft_reserved_is_in_the_list_until_7_2(version: str, first: str, tmp_path: Path) -> None:
    profile = tmp_path / "soft.yaml"
    text = BASE.replace("6.12", version)
    profile.write_text(text + "dax: [{range: 0x200000000+256M, mode: kmem, target_node: 1}]")
    machine = build_machine(load_profile(str(profile)))
    lines = [line for line in machine.iomem().splitlines() if line.strip().startswith("2")]
    assert lines[0] == first
    assert [line.strip() for line in lines[-2:]] == [
        "200000000-20fffffff : dax0.0", "200000000-20fffffff : System RAM (kmem)",
    ]  # fmt: skip
    machine.reset()
    assert [line for line in machine.iomem().splitlines() if line.strip().startswith("2")] == lines


def test_the_plan_survives_the_cache() -> None:
    for name in (PROFILE, "fd-9000", "server-pmem-cxl"):
        plan = load_profile(name).nd
        assert thaw_nd(json.loads(json.dumps(plan))) == plan


def test_a_medium_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere/medium\.img"):
        pmem_machine(f"nvdimm.regions.0.file={tmp_path / 'nowhere' / 'medium.img'}")


def test_metadata_is_what_the_recording_shows() -> None:
    assert metadata_size(Range(0x150000000, 256 * M), 2 * M) == 6 * M


def test_the_server() -> None:
    machine = build_machine(load_profile("server-pmem-cxl"))
    assert tree(machine) == [
        "11000000000-117ffffffff : Persistent Memory",
        "  11000000000-113ffffffff : namespace0.0",
        "  11400000000-114101fffff : namespace1.0",
        "  11410200000-117ffffffff : dax1.0",
        "14000000000-14fffffffff : CXL Window 0",
        "  14000000000-14fffffffff : region2",
        "    14000000000-14fffffffff : dax2.0",
        "      14000000000-14fffffffff : System RAM (kmem)",
    ]
    assert {block.nid for block in machine.blocks.within(Range(0x14000000000, 64 << 30))} == {8}
    per_node = [block.nid for block in machine.blocks.within(Range(0, 0x10080000000))]
    assert [per_node.count(node) for node in range(8)] == [64] * 8  # 128 GiB each
    assert machine.blocks.block(512).nid == 7
    assert machine.high_memory == 0x15000000000
    assert text_at(machine, "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/cap_ram") == "1"
    assert sum(span.size for span in machine.blocks.ram_ranges()) > 1 << 40


def test_kmem_of_the_server_can_be_taken_back() -> None:
    machine = build_machine(load_profile("server-pmem-cxl"))
    span = Range(0x14000000000, 64 << 30)
    for block in machine.blocks.within(span):
        machine.blocks.offline(block.number)
    machine.nd.set_mode("dax2.0", "devdax")
    assert tree(machine, "region2") == [
        "  14000000000-14fffffffff : region2",
        "    14000000000-14fffffffff : dax2.0",
    ]


def test_soft_reserved_memory(tmp_path: Path) -> None:
    profile = tmp_path / "soft.yaml"
    profile.write_text(
        f"fakedev: 1\nextends: [{PROFILE}]\ndax: [{{range: 0x200000000+256M, mode: kmem}}]\n"
    )
    machine = build_machine(load_profile(str(profile)))
    assert tree(machine, "Soft Reserved") == [
        "200000000-20fffffff : Soft Reserved",
        "  200000000-20fffffff : dax2.0",
        "    200000000-20fffffff : System RAM (kmem)",
    ]


def test_plans_are_plain() -> None:
    profile = load_profile(PROFILE)
    assert profile._replace(nd=None).nd is None


def transcript() -> list[tuple[str, str]]:
    """Commands of the story with what they print."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", STORY.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@needs_sandbox
@pytest.mark.parametrize(("command", "output"), transcript(), ids=["list", "pull out", "pin"])
def test_the_story_is_real(command: str, output: str) -> None:
    need("xxd", "xxd")
    path = f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["sh", "-c", f"exec 2>&1; {command}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )
    assert done.stdout == output
