"""What ndctl writes to sysfs: seeds, info blocks, drivers of the nd bus, labels, modules."""

import errno
import random
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nd_machines import DEV, FS, M, listing, pmem_machine, refused, text_at, tree, until
from test_nd_chaos import check

from fakedev.devices.nd import infoblock
from fakedev.model.effects import Mapper
from fakedev.model.errors import FakedevError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

STAGES = Path(__file__).parent / "data" / "truth-nd"
BUS = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0"
DRIVERS = "/sys/bus/nd/drivers"
NAME = "2f1c9c1e-6d0f-4f06-9d3c-0d6c1f0e7a11"
NEAR = 0x150000000


@pytest.fixture
def q35() -> Machine:
    machine = build_machine(load_profile("pc-q35"))
    machine.nd.modprobe("nfit")
    return machine


@pytest.fixture
def pmem() -> Machine:
    return pmem_machine()


def write(machine: Machine, path: str, text: str) -> None:
    """What a write to a file of the catalogue does."""
    at = path if path.startswith("/") else f"{BUS}/{path}"
    machine.nd.catalog.entries[at].store(text)


def stack(machine: Machine, seed: str, *, mode: str = "pmem", name: str = NAME) -> None:
    """The writes of `ndctl create-namespace` to an idle namespace0.0, up to the bind."""
    for file, text in (("uuid", name), ("mode", mode), ("align", "2097152\n")):
        write(machine, f"region0/{seed}/{file}", text)
    write(machine, f"region0/{seed}/namespace", "namespace0.0")


def unbind(machine: Machine, name: str = "namespace0.0", driver: str = "nd_pmem") -> None:
    write(machine, f"{DRIVERS}/{driver}/unbind", name)


def bind(machine: Machine, name: str, driver: str = "nd_pmem") -> None:
    write(machine, f"{DRIVERS}/{driver}/bind", name)


# -- the info block ---------------------------------------------------------------------------


def test_a_block_as_the_kernel_writes_it() -> None:
    span = Range(NEAR, 256 * M)
    name = uuid.UUID(NAME)
    block = infoblock.new_block("dax", span, name, bytes(16), mode="pmem", align=2 * M)
    raw = block.encode()
    assert (len(raw), raw[:16], raw[16:32]) == (4096, b"NVDIMM_DAX_INFO\0", name.bytes)
    assert struct.unpack_from("<HHQQIIII", raw, 52) == (1, 4, 6 * M, 250 * M >> 12, 2, 0, 0, 2 * M)
    assert infoblock.decode(raw, "dax", bytes(16)) == block
    assert infoblock.decode(raw, "pfn", bytes(16)) is None
    assert infoblock.decode(raw, "dax", name.bytes) is None
    assert infoblock.decode(raw[:100] + b"x" + raw[101:], "dax", bytes(16)) is None
    assert block.data(span) == Range(NEAR + 6 * M, 250 * M)


def test_fletcher64_sums_both_halves() -> None:
    assert (
        infoblock.fletcher64(struct.pack("<2I", 1, 2).ljust(4096, b"\0"))
        == (1023 * 3 + 1) << 32 | 3
    )


@pytest.mark.parametrize(
    ("span", "align", "mode", "number"),
    [
        (Range(NEAR + M, 256 * M), 2 * M, "pmem", errno.EINVAL),
        (Range(NEAR, 256 * M), 2 * M, "none", errno.ENXIO),
        (Range(NEAR, 256 * M), 1 << 30, "pmem", errno.ENXIO),
    ],
)
def test_what_has_no_block(span: Range, align: int, mode: str, number: int) -> None:
    with refused(number):
        infoblock.new_block("pfn", span, uuid.UUID(NAME), bytes(16), mode=mode, align=align)


@pytest.mark.parametrize(
    ("change", "number"),
    [({"dataoff": 256 * M}, errno.EOPNOTSUPP),
     ({"align": 1 << 31}, errno.EOPNOTSUPP), ({"dataoff": 3 * M}, errno.EOPNOTSUPP),
     ({"page_struct_size": 32}, errno.EOPNOTSUPP), ({"end_trunc": 4096}, errno.EOPNOTSUPP)],
)  # fmt: skip
def test_a_broken_block_refuses_the_namespace(
    q35: Machine, change: dict[str, int], number: int
) -> None:
    """`nd_pfn_validate`: signature and checksum are right, what it says is not."""
    span = Range(NEAR, 256 * M)
    block = infoblock.new_block("dax", span, uuid.UUID(NAME), bytes(16), mode="pmem", align=2 * M)
    unbind(q35)
    q35.poke(NEAR + 4096, block._replace(**change).encode())
    with refused(number):
        bind(q35, "namespace0.0")
    assert not q35.nd.namespace("namespace0.0").enabled


def test_a_block_that_cannot_be_read_is_none(q35: Machine) -> None:
    """A namespace is raw then (`nd_pmem_probe`); a device that is to be stacked on it gets ENXIO."""
    block = infoblock.InfoBlock("dax", uuid.UUID(NAME).bytes, bytes(16), 6 * M, 64000, 7, 2 * M)
    unbind(q35)
    q35.poke(NEAR + 4096, block.encode())
    bind(q35, "namespace0.0")
    assert q35.nd.namespace("namespace0.0").mode == "raw"
    unbind(q35)
    stack(q35, "dax0.0")
    with refused(errno.ENXIO):
        bind(q35, "dax0.0", "dax_pmem")
    q35.nd.set_mode("namespace0.0", "devdax")
    assert q35.nd.dax_device("dax0.0").driver == "device_dax"


# -- seeds and drivers ------------------------------------------------------------------------


def test_devdax_by_hand(q35: Machine) -> None:
    """The recorded stages, by the writes of the recorded ndctl."""
    unbind(q35)
    stack(q35, "dax0.0")
    bind(q35, "dax0.0", "dax_pmem")
    assert text_at(q35, f"{BUS}/region0/dax_seed") == "dax0.1"
    assert q35.nd.dax_device("dax0.0").driver == ""
    q35.nd.modprobe("device_dax")
    assert listing(q35.iomem()) == listing((STAGES / "iomem-nd-2-devdax.txt").read_text())
    assert q35.peek(Range(NEAR + 4096, 15)) == b"NVDIMM_DAX_INFO"
    assert text_at(q35, f"{BUS}/region0/namespace0.0/mode") == "dax"
    assert text_at(q35, f"{BUS}/region0/dax0.0/size") == str(250 * M)


def test_the_medium_says_what_a_namespace_is(q35: Machine) -> None:
    """A namespace with an info block is refused by nd_pmem: a device of its own comes (ENXIO)."""
    unbind(q35)
    stack(q35, "pfn0.0", mode="ram")
    bind(q35, "pfn0.0")
    unbind(q35, "pfn0.0")
    write(q35, "region0/pfn0.0/namespace", "\n")
    assert f"{BUS}/region0/pfn0.0" not in q35.nd.catalog.entries
    with refused(errno.ENXIO):
        bind(q35, "namespace0.0")
    namespace = q35.nd.namespace("namespace0.0")
    assert (namespace.mode, namespace.claim.name, namespace.claim.driver) == (
        "fsdax",
        "pfn0.0",
        "nd_pmem",
    )
    assert text_at(q35, f"{BUS}/region0/pfn0.0/uuid") == NAME
    assert namespace.data == Range(NEAR + 2 * M, 254 * M)
    unbind(q35, "pfn0.0")
    write(q35, "region0/pfn0.0/namespace", "")
    write(q35, "region0/namespace0.0/force_raw", "1\n")
    bind(q35, "namespace0.0")
    assert namespace.mode == "raw"


def test_a_seed_that_is_let_go_is_as_new(q35: Machine) -> None:
    stack(q35, "pfn0.0")
    write(q35, "region0/pfn0.0/namespace", "")
    said = [text_at(q35, f"{BUS}/region0/pfn0.0/{file}") for file in ("uuid", "mode", "namespace")]
    assert said == ["", "none", ""]


@pytest.mark.parametrize(
    ("file", "text", "number"),
    [
        ("region0/dax0.0/uuid", "no uuid", errno.EINVAL),
        ("region0/dax0.0/uuid", NAME[:-1], errno.EINVAL),
        ("region0/dax0.0/mode", "fast", errno.EINVAL),
        ("region0/dax0.0/align", "3145728", errno.EINVAL),
        ("region0/dax0.0/align", "2M", errno.EINVAL),
        ("region0/dax0.0/namespace", "pmem0", errno.EINVAL),
        ("region0/dax0.0/namespace", "namespace1.0", errno.ENODEV),
        ("region0/btt0.0/sector_size", "1024", errno.EINVAL),
        ("region0/namespace0.0/holder_class", "pfn", errno.EBUSY),
        ("region0/namespace0.0/force_raw", "perhaps", errno.EINVAL),
        ("region0/read_only", "", errno.EINVAL),
        ("region0/align", "12288", errno.EINVAL),
        ("region0/deep_flush", "0", errno.EINVAL),
        (f"{DRIVERS}/nd_pmem/bind", "namespace0.0", errno.EBUSY),
        (f"{DRIVERS}/nd_pmem/bind", "pfn0.0", errno.ENODEV),
        (f"{DRIVERS}/nd_pmem/bind", "dax0.0", errno.ENODEV),
        (f"{DRIVERS}/dax_pmem/bind", "namespace0.0", errno.ENODEV),
        (f"{DRIVERS}/dax_pmem/bind", "nothing", errno.ENODEV),
        (f"{DRIVERS}/nd_pmem/unbind", "pfn0.0", errno.ENODEV),
        (f"{DRIVERS}/nd_region/unbind", "namespace0.0", errno.ENODEV),
        (f"{DRIVERS}/nd_region/bind", "region0", errno.EBUSY),
    ],
)
def test_what_is_refused(q35: Machine, file: str, text: str, number: int) -> None:
    before, paths = q35.iomem(), sorted(q35.nd.catalog.entries)
    with refused(number):
        write(q35, file, text)
    assert (q35.iomem(), sorted(q35.nd.catalog.entries)) == (before, paths)


def test_a_device_needs_its_namespace_to_be_idle(q35: Machine) -> None:
    stack(q35, "dax0.0")
    with refused(errno.EBUSY):
        bind(q35, "dax0.0", "dax_pmem")
    with refused(errno.EBUSY):
        write(q35, "region0/pfn0.0/namespace", "namespace0.0")
    unbind(q35)
    with refused(errno.ENXIO):
        bind(q35, "namespace0.0")
    bind(q35, "dax0.0", "dax_pmem")
    for file in ("uuid", "mode", "align", "namespace"):
        with refused(errno.EBUSY):
            write(q35, f"region0/dax0.0/{file}", "")


def test_settings_that_do_not_match_the_block(q35: Machine) -> None:
    unbind(q35)
    stack(q35, "dax0.0")
    bind(q35, "dax0.0", "dax_pmem")
    unbind(q35, "dax0.0", "dax_pmem")
    write(q35, "region0/dax0.0/align", "4096")
    with refused(errno.EINVAL):
        bind(q35, "dax0.0", "dax_pmem")
    write(q35, "region0/dax0.0/uuid", "".join(reversed(NAME.split("-", maxsplit=1)[0])) + NAME[8:])
    bind(q35, "dax0.0", "dax_pmem")
    assert q35.nd.dax_device("dax0.0").align == 4096


def test_without_a_mode_or_a_right_to_write(q35: Machine) -> None:
    unbind(q35)
    stack(q35, "pfn0.0", mode="none")
    with refused(errno.ENXIO):
        bind(q35, "pfn0.0")
    write(q35, "region0/pfn0.0/mode", "pmem")
    write(q35, "region0/read_only", "1")
    with refused(errno.ENXIO):
        bind(q35, "pfn0.0")
    assert q35.peek(Range(NEAR + 4096, 16)) == bytes(16)


def test_a_sector_device_is_set_up_and_never_bound(q35: Machine) -> None:
    unbind(q35)
    for file, text in (("uuid", NAME), ("sector_size", "4096"), ("namespace", "namespace0.0")):
        write(q35, f"region0/btt0.0/{file}", text)
    assert "[4096]" in text_at(q35, f"{BUS}/region0/btt0.0/sector_size")
    with refused(errno.ENXIO):
        bind(q35, "btt0.0")


# -- regions ----------------------------------------------------------------------------------


def test_a_region_without_its_driver(pmem: Machine) -> None:
    """Its children are unregistered; what they were is on the medium."""
    before, paths = pmem.iomem(), sorted(pmem.nd.catalog.entries)
    life = pmem.nd.namespace("namespace0.0").life
    unbind(pmem, "region0", "nd_region")
    assert not life.alive
    assert tree(pmem)[:2] == [
        "100000000-11fffffff : Persistent Memory",
        "140000000-15fffffff : Persistent Memory",
    ]
    assert f"{BUS}/region0/namespace0.0" not in pmem.nd.catalog.entries
    assert text_at(pmem, f"{BUS}/region0/pfn_seed") == ""
    with refused(errno.ENXIO):
        text_at(pmem, f"{BUS}/region0/init_namespaces")
    with refused(errno.ENODEV):
        bind(pmem, "namespace0.0")
    bind(pmem, "region0", "nd_region")
    assert (pmem.iomem(), sorted(pmem.nd.catalog.entries)) == (before, paths)
    assert pmem.nd.namespace("namespace0.0").files


def test_what_is_made_anew_has_no_files(pmem: Machine) -> None:
    unbind(pmem, "pfn0.0")
    write(pmem, "region0/pfn0.0/uuid", NAME)
    bind(pmem, "pfn0.0")
    namespace = pmem.nd.namespace("namespace0.0")
    assert (namespace.mode, namespace.files) == ("fsdax", ())


def test_ram_in_use_outlives_its_region(pmem: Machine) -> None:
    pmem.nd.set_mode("namespace1.0", "kmem")
    block = next(b for b in pmem.blocks.within(Range(DEV + 128 * M, 128 * M)))
    pmem.blocks.online(block.number, "online_movable")
    unbind(pmem, "region1", "nd_region")
    leaked = ["  148000000-14fffffff : dax1.0", "    148000000-14fffffff : System RAM (kmem)"]
    assert tree(pmem)[3:] == leaked
    bind(pmem, "region1", "nd_region")
    assert tree(pmem)[3:] == [*leaked, "  150000000-15fffffff : namespace1.1"]
    with refused(errno.EBUSY):
        pmem.nd.set_mode("namespace1.0", "raw")
    boot = pmem_machine().iomem()
    pmem.reset()
    assert pmem.iomem() == boot


@pytest.mark.parametrize("mode", ["raw", "fsdax", "devdax", "kmem"])
@pytest.mark.parametrize("why", ["claimed", "mapped"])
def test_a_mode_that_cannot_be_leaves_all_as_it_is(mode: str, why: str) -> None:
    """Also a device without a driver, in whose range somebody else may claim."""
    machine = pmem_machine("kernel.claim_policy=deny-claim")
    nd = machine.nd
    nd.unbind("device_dax", "dax1.0")
    if why == "claimed":
        machine.claim(Range(DEV + 192 * M, 4096), "driver")
    else:
        held = Mapper(42, "gdb", Range(DEV + 192 * M, 4096))
        machine.holders = lambda span: [held] if span.overlaps(held.span) else []
    before = tree(machine), nd.namespace("namespace1.0").mode, nd.dax_device("dax1.0").driver
    with refused(errno.EBUSY):
        nd.set_mode("namespace1.0", mode)
    assert (
        tree(machine),
        nd.namespace("namespace1.0").mode,
        nd.dax_device("dax1.0").driver,
    ) == before


def test_kmem_does_not_mind_a_claim_of_what_it_leaves(pmem: Machine) -> None:
    pmem.nd.unbind("device_dax", "dax1.0")
    pmem.claim(Range(DEV + 64 * M, 4096), "driver")
    pmem.nd.set_mode("namespace1.0", "kmem")
    assert pmem.nd.dax_device("dax1.0").driver == "kmem"


def test_a_pin_holds_who_takes_the_device_away(pmem: Machine) -> None:
    pin = pmem.nd.pin(Range(DEV + 16 * M, 4096), longterm=True)
    taking = threading.Thread(target=lambda: unbind(pmem, "dax1.0", "dax_pmem"))
    taking.start()
    until(lambda: any(e.kind == "wait" for e in pmem.events))
    for refuse in (
        lambda: unbind(pmem, "region1", "nd_region"),
        lambda: write(pmem, "region1/dax1.0/namespace", ""),
        lambda: pmem.nd.rmmod("dax_pmem"),
    ):
        with refused(errno.EBUSY):
            refuse()
    assert "  140600000-14fffffff : dax1.0" in tree(pmem)
    pmem.nd.unpin(pin.number)
    taking.join(5)
    assert not taking.is_alive()
    assert "  140600000-14fffffff : dax1.0" not in tree(pmem)
    bind(pmem, "dax1.0", "dax_pmem")
    assert pmem.nd.dax_device("dax1.0").driver == "device_dax"


# -- labels -----------------------------------------------------------------------------------


def test_a_label_gives_space_and_takes_it(pmem: Machine) -> None:
    at = "region1/namespace1.1"
    with refused(errno.EBUSY):
        write(pmem, f"{at}/size", "0")
    unbind(pmem, "namespace1.1")
    write(pmem, f"{at}/size", "0\n")
    assert text_at(pmem, f"{BUS}/region1/namespace_seed") == "namespace1.1"
    assert text_at(pmem, f"{BUS}/region1/available_size") == str(256 * M)
    with refused(errno.ENODEV):
        bind(pmem, "namespace1.1")
    with refused(errno.ENXIO):
        write(pmem, f"{at}/size", str(64 * M))
    write(pmem, f"{at}/uuid", NAME)
    with refused(errno.EINVAL):
        write(pmem, f"{at}/size", str(64 * M + 4096))
    with refused(errno.ENOSPC):
        write(pmem, f"{at}/size", str(512 * M))
    with refused(errno.EINVAL):
        write(pmem, f"{at}/alt_name", "n" * 64)
    write(pmem, f"{at}/alt_name", "mine\n")
    write(pmem, f"{at}/size", str(64 * M))
    bind(pmem, "namespace1.1")
    assert tree(pmem)[-1] == "  150000000-153ffffff : namespace1.1"
    unbind(pmem, "region1", "nd_region")
    bind(pmem, "region1", "nd_region")
    assert text_at(pmem, f"{BUS}/{at}/alt_name") == "mine"
    pmem.reset()
    assert tree(pmem)[-1] == "  150000000-15fffffff : namespace1.1"


def test_a_namespace_without_a_label_has_its_size(q35: Machine) -> None:
    entries = q35.nd.catalog.entries
    assert f"{BUS}/region0/namespace0.0/uuid" not in entries
    assert entries[f"{BUS}/region0/namespace0.0/size"].store is None


# -- modules ----------------------------------------------------------------------------------


def test_modules_come_and_go_as_the_kernel_allows(q35: Machine) -> None:
    nd = q35.nd
    for name, number in (("nfit", errno.EAGAIN), ("libnvdimm", errno.EAGAIN), ("nd_btt", errno.EAGAIN),
                         ("kmem", errno.ENOENT)):  # fmt: skip
        with refused(number):
            nd.rmmod(name)
    assert not nd.rmmod("e1000")
    nd.rmmod("nd_pmem")
    assert [line for line in tree(q35) if "namespace" in line] == []
    assert f"{DRIVERS}/nd_pmem" not in nd.catalog.entries
    nd.modprobe("nd_pmem")
    assert "  150000000-15fffffff : namespace0.0" in tree(q35)
    for number in (0, 1):
        unbind(q35, f"region{number}", "nd_region")
    nd.rmmod("nfit")
    assert "Persistent Memory" not in q35.iomem()
    assert "/sys/class/nd/ndctl0" not in nd.catalog.entries
    nd.modprobe("nfit")
    assert listing(q35.iomem()) == listing((STAGES / "iomem-nd-1-pmem.txt").read_text())


def test_drivers_of_dax_are_unloaded(pmem: Machine) -> None:
    pmem.nd.rmmod("device_dax")
    assert "  140600000-14fffffff : dax1.0" not in tree(pmem)
    with refused(errno.ENOENT):
        pmem.nd.rmmod("device_dax")
    pmem.nd.modprobe("device_dax")
    assert "  140600000-14fffffff : dax1.0" in tree(pmem)
    pmem.nd.rmmod("dax_pmem")
    assert pmem.nd.dax_devices() == []
    pmem.nd.modprobe("dax_pmem")
    assert pmem.nd.dax_device("dax1.0").driver == "device_dax"


# -- anything at any time ---------------------------------------------------------------------


def writes(machine: Machine, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Endless writes to files that take some."""
    words = [
        "",
        "0",
        "1",
        NAME,
        "pmem",
        "ram",
        "none",
        "2097152",
        "4096",
        str(128 * M),
        "pfn",
        "dax",
    ]
    words += ["region0", "region1", "namespace0.0", "namespace1.0", "namespace1.1"]
    words += [f"{kind}{r}.{n}" for kind in ("pfn", "dax", "btt") for r in (0, 1) for n in (0, 1)]
    while True:
        entries = machine.nd.catalog.entries
        files = sorted(path for path in entries if getattr(entries[path], "store", None))
        yield dice.choice(files), dice.choice(words)


def number_of(action: Callable[[], object]) -> int | None:
    """The errno of a refusal, 0 for one that has none; None where all is well."""
    try:
        action()
    except FakedevError as error:
        return int(getattr(error, "errno", 0))
    return None


@pytest.mark.parametrize("seed", range(6))
def test_random_writes(seed: int) -> None:
    dice = random.Random(seed)
    machine = pmem_machine()
    boot, paths = machine.iomem(), sorted(machine.nd.catalog.entries)
    for _, (path, word) in zip(range(250), writes(machine, dice), strict=False):
        assert number_of(lambda at=path, text=word: write(machine, at, text)) != 0, (path, word)
        check(machine.tree.root)
        for at, entry in machine.nd.catalog.walk():
            show = getattr(entry, "show", None)
            assert show is None or number_of(show) in {None, errno.ENXIO}, at
    machine.reset()
    assert machine.iomem() == boot
    assert sorted(machine.nd.catalog.entries) == paths
    assert not machine.claims
    assert machine.nd.namespace("namespace0.0").files
    assert FS in machine.nd.namespace("namespace0.0").span
