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
