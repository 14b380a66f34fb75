"""`claim_policy: deny-claim` and `ignore`: what a claim does to mappings that exist, and they to it."""

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from machines import BAR, small_machine
from pci_machines import effects_of

from fakedev.control.verbs import Verbs
from fakedev.devices.pci.errors import PciError
from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.mappers import Mapped, look
from fakedev.fuse.owners import Alias
from fakedev.fuse.witness import Witness
from fakedev.model.effects import Changed, Mapper
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.flags import IORESOURCE_EXCLUSIVE, IORESOURCE_SYSTEM_RAM
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.devmem import DevMem
from fakedev.views.node import Opener, Refused

PAGE = 4096
GDB = Mapper(42, "gdb", Range(BAR + PAGE, PAGE))


def denying(version: str = "6.1", **rules: Any) -> Machine:
    """A machine whose BAR gdb has a page of mapped."""
    machine = small_machine(version, claim_policy="deny-claim", **rules)
    machine.holders = lambda span: [GDB] if span.overlaps(GDB.span) else []
    return machine


# -- what is denied -------------------------------------------------------------------------------


def test_the_claim_fails_and_names_who_holds_it() -> None:
    machine = denying()
    before, policy = machine.iomem(), machine.policy
    with pytest.raises(ResourceConflictError) as caught:
        machine.claim(Range(BAR, 0x10000), "fpga")
    assert caught.value.errno == errno.EBUSY
    assert "gdb[42] maps d8101000-d8101fff" in str(caught.value)
    assert machine.iomem() == before
    assert machine.policy is policy
    assert machine.claims == ()
    (event,) = machine.events
    assert (event.kind, event.mappers) == ("denied", (GDB,))


def test_the_same_claim_succeeds_when_nobody_maps_it() -> None:
    machine = denying()
    machine.claim(Range(BAR + 2 * PAGE, PAGE), "fpga")  # beside the mapped page
    machine.holders = lambda _: []
    machine.claim(Range(BAR, 2 * PAGE), "fpga")
    assert [str(claim.span) for claim in machine.claims] == [
        "d8102000-d8102fff",
        "d8100000-d8101fff",
    ]


def test_nothing_is_revoked() -> None:
    machine = denying()
    machine.holders = lambda _: []
    effects = effects_of(machine)
    machine.claim(Range(BAR, PAGE), "fpga")
    machine.add_ram(Range(0x120000000, 128 << 20), "System RAM")
    spans = [Range(BAR, PAGE), Range(0x120000000, 128 << 20)]
    assert effects == [Changed(span) for span in spans]
    assert [event.kind for event in machine.events] == ["claim", "hotplug"]


def test_the_range_is_rounded_to_pages() -> None:
    machine = denying()
    with pytest.raises(ResourceConflictError):
        machine.claim(Range(BAR + PAGE + 0x800, 16), "fpga")
    # a claim that straddles a page has its last page counted, which revocation can miss
    with pytest.raises(ResourceConflictError):
        machine.claim(Range(BAR + 0x800, PAGE), "fpga")


def test_a_conflict_comes_before_the_look() -> None:
    machine = denying()
    machine.holders = lambda _: []
    machine.claim(Range(BAR, PAGE), "first")
    machine.holders = lambda _: pytest.fail("nobody has to look")
    with pytest.raises(ResourceConflictError, match="first"):
        machine.claim(Range(BAR, 2 * PAGE), "second")


@pytest.mark.parametrize(
    ("rules", "span"),
    [
        ({"cmdline": "iomem=relaxed"}, Range(BAR, 0x10000)),
        ({"io_strict_devmem": False}, Range(BAR, 0x10000)),
        ({"strict_devmem": False}, Range(BAR, 0x10000)),
        ({}, Range(0xA0000, 0x1000)),  # below 1 MiB
    ],
)
def test_a_claim_that_protects_nothing_is_not_denied(rules: dict[str, Any], span: Range) -> None:
    machine = denying(**rules)
    machine.holders = lambda _: [GDB]
    assert machine.claim(span, "fpga").busy


def test_relaxed_does_not_spare_exclusive_system_ram() -> None:
    machine = denying(cmdline="iomem=relaxed")
    with pytest.raises(ResourceConflictError, match="gdb"):
        machine._claim(Range(BAR, 0x10000), "virtio0", IORESOURCE_SYSTEM_RAM | IORESOURCE_EXCLUSIVE)


def test_hot_added_memory_is_denied_as_well() -> None:
    machine = denying()
    machine.holders = lambda _: [GDB]
    before = machine.iomem(), machine.high_memory
    with pytest.raises(ResourceConflictError, match="gdb"):
        machine.add_ram(Range(0x120000000, 128 << 20), "System RAM")
    assert (machine.iomem(), machine.high_memory) == before


@pytest.mark.parametrize("version", ["5.4", "5.10", "6.12", "7.2"])
def test_any_version_can_deny(version: str) -> None:
    with pytest.raises(ResourceConflictError):
        denying(version).claim(Range(BAR, 0x10000), "fpga")


@pytest.mark.parametrize("policy", ["revoke", "ignore"])
def test_other_policies_never_look(policy: str) -> None:
    machine = small_machine(claim_policy=policy)
    machine.holders = lambda _: pytest.fail("nobody has to look")
    machine.claim(Range(BAR, 0x10000), "fpga")


# -- drivers --------------------------------------------------------------------------------------


def test_a_probe_releases_the_bars_before_and_binds_later() -> None:
    machine = build_machine(
        load_profile("workstation", overrides=["kernel.claim_policy=deny-claim"])
    )
    bus = machine.pci
    driver, device = next(
        (bus.drivers[d.driver.name], d)
        for d in bus.devices.values()
        if d.driver is not None and [c.kind for c in d.claims].count("mem") > 1
    )
    last = [claim.span for claim in device.claims if claim.kind == "mem"][-1]
    bus.unbind(driver.name, device.name)
    before = machine.iomem()
    machine.holders = lambda span: [GDB] if span.overlaps(last) else []
    with pytest.raises(PciError, match=r"gdb\[42\]") as caught:
        bus.bind(driver.name, device.name)
    assert caught.value.errno == errno.EBUSY
    assert (machine.iomem(), device.driver) == (before, None)
    machine.holders = lambda _: []
    bus.bind(driver.name, device.name)
    assert device.driver is driver


def nvme(**rules: str) -> Machine:
    """The workstation whose nvme driver waits, under `deny-claim` unless told."""
    given = {"claim_policy": "deny-claim", **rules}
    overrides = [f"kernel.{name}={value}" for name, value in given.items()]
    machine = build_machine(load_profile("workstation", overrides=overrides))
    machine.pci.rmmod("nvme")
    return machine


@pytest.mark.parametrize("call", ["python", "control"])
def test_a_module_whose_driver_gets_nothing_is_not_loaded(call: str) -> None:
    machine = nvme()
    load = {
        "python": lambda: machine.pci.modprobe("nvme"),
        "control": lambda: Verbs(machine)("modprobe", {"name": "nvme"}, lambda: False),
    }[call]
    before = machine.iomem()
    machine.holders = lambda _: [GDB]
    for _ in range(2):  # the second time as the first: it is not loaded
        with pytest.raises(ControlError, match=r"gdb\[42\] maps") as caught:
            load()
        assert (caught.value.errno, "nvme" in machine.pci.drivers) == (errno.EBUSY, False)
    assert machine.iomem() == before
    machine.holders = lambda _: []
    load()
    assert [
        d.driver.name for d in machine.pci.devices.values() if d.driver and d.driver.name == "nvme"
    ]


def test_a_module_whose_driver_gets_something_is_loaded() -> None:
    overrides = ["kernel.claim_policy=deny-claim"]
    machine = build_machine(load_profile("workstation", overrides=overrides))
    bus = machine.pci
    having = [
        d.driver for d in bus.devices.values() if d.driver and not d.driver.builtin and d.claims
    ]
    driver = next(one for one in having if having.count(one) > 1)
    bus.rmmod(driver.name)
    first: list[Range] = []

    def holders(span: Range) -> list[Mapper]:
        first.append(span)
        return [GDB] if span == first[0] else []

    machine.holders = holders
    bus.modprobe(driver.name)
    bound = [d for d in bus.devices.values() if d.driver is driver]
    assert (bus.drivers[driver.name], len(bound)) == (driver, having.count(driver) - 1)


def test_another_conflict_leaves_the_module_loaded() -> None:
    """As a kernel does: that a probe fails is no error of the module's init."""
    for policy in ("revoke", "deny-claim", "ignore"):
        machine = nvme(claim_policy=policy)
        device = next(d for d in machine.pci.devices.values() if d.class_ == 0x010802)
        machine.holders = lambda _: []
        machine.claim(next(r.span for r in device.resources if r.flags), "squatter")
        machine.pci.modprobe("nvme")
        assert ("nvme" in machine.pci.drivers, device.driver) == (True, None)


def pmem(*, loaded: bool) -> Machine:
    """A bound fsdax region and a devdax one; with `loaded` false nothing is known of them yet."""
    path = str(Path(__file__).parent / "pmem.yaml")
    overrides = ["kernel.claim_policy=deny-claim", f"nvdimm.loaded={str(loaded).lower()}"]
    return build_machine(load_profile(path, overrides=overrides))


def test_nfit_is_not_loaded_while_nothing_gets_a_driver() -> None:
    machine = pmem(loaded=False)
    nd, before = machine.nd, machine.iomem()
    machine.holders = lambda _: [GDB]
    with pytest.raises(ControlError, match=r"gdb\[42\]") as caught:
        nd.modprobe("nfit")
    assert caught.value.errno == errno.EBUSY
    assert (machine.iomem(), nd.modules & {"nfit", "nd_pmem", "dax_pmem"}) == (before, set())
    assert not [region for region in nd.regions if region.known]
    machine.holders = lambda _: []
    assert nd.modprobe("nfit")
    assert [namespace.mode for namespace in nd.namespaces()][:1] == ["fsdax"]  # as the profile says
    machine.reset()
    assert machine.iomem() == before


def test_nd_pmem_is_not_loaded_while_its_namespace_is_mapped() -> None:
    machine = pmem(loaded=True)
    boot, nd = machine.iomem(), machine.nd
    nd.rmmod("nd_pmem")
    without = machine.iomem()
    machine.holders = lambda _: [GDB]
    with pytest.raises(ControlError, match=r"nd_pmem is not loaded: .*gdb\[42\]"):
        nd.modprobe("nd_pmem")
    assert (machine.iomem(), "nd_pmem" in nd.modules) == (without, False)
    machine.holders = lambda _: []
    assert nd.modprobe("nd_pmem")
    assert machine.iomem() == boot


# -- what a claim says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "revoked", "spared"),
    [
        ({"claim_policy": "revoke"}, True, False),
        ({"claim_policy": "deny-claim"}, False, False),  # nobody mapped it
        ({"claim_policy": "deny-claim", "cmdline": "iomem=relaxed"}, False, True),
        ({"claim_policy": "ignore"}, False, True),
    ],
)
def test_only_a_claim_that_spares_mappings_says_so(
    rules: dict[str, Any], revoked: bool, spared: bool
) -> None:
    machine = small_machine(**rules)
    found = Verbs(machine)("claim", {"range": str(Range(BAR, PAGE)), "name": "x"}, lambda: False)
    assert (found["revoked"], found["spared"]) == (revoked, spared)


# -- ignore ---------------------------------------------------------------------------------------


def test_ignored_mappings_live_on_and_new_ones_are_refused() -> None:
    machine = small_machine(claim_policy="ignore")
    effects: list[object] = []
    machine.subscribers.append(effects.append)
    opened = machine.now
    machine.claim(Range(BAR, 0x10000), "fpga")
    assert effects == []
    assert machine.fault(BAR, PAGE, opened=opened)[1]
    assert machine.fault_bar(Range(BAR, 0x10000), BAR, PAGE, opened=opened)[1]
    verdict, data = machine.fault(BAR, PAGE, opened=machine.now)
    assert (verdict.errno, data) == (errno.EPERM, [])


# -- who maps -------------------------------------------------------------------------------------


@contextmanager
def mapped(path: Path, pages: int = 4) -> Iterator[mmap.mmap]:
    """A file that this process maps; it stands for `/dev/mem` from BAR on."""
    path.write_bytes(bytes(pages * PAGE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE, offset=PAGE) as shown:
        yield shown


def alias_of(path: Path, **facts: Any) -> Alias:
    alias = Alias(invalidate=lambda _: None, expire=lambda: None)
    alias.file = Mapped(path.stat().st_ino, f"/{path.name}", BAR, 4 * PAGE)
    for name, value in facts.items():
        setattr(alias, name, value)
    return alias


def test_mappings_count_not_descriptors(tmp_path: Path) -> None:
    machine, path = small_machine(), tmp_path / "mem"
    with mapped(path):
        alias = alias_of(path)
        witness = Witness(machine, tuple, lambda: [alias])
        (found,) = machine.holders(Range(BAR, 8 * PAGE))
        assert (found.pid, found.span) == (os.getpid(), Range(BAR + PAGE, 2 * PAGE))
        assert machine.holders(Range(BAR, PAGE)) == []
        assert machine.holders(Range(BAR + 3 * PAGE, PAGE)) == []
        alias.shared = False
        assert machine.holders(Range(BAR, 8 * PAGE)) == []
        alias.shared = True
    with path.open("rb"):
        assert machine.holders(Range(BAR, 8 * PAGE)) == []
    witness.close()
    assert machine.holders(Range(BAR, 8 * PAGE)) == []


def test_who_cannot_be_looked_at_counts_when_pages_were_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, path = small_machine(), tmp_path / "mem"
    path.write_bytes(b"")
    alias = alias_of(path, filled=True)
    alias.openers[1] = (os.getpid(), "hidden")
    Witness(machine, tuple, lambda: [alias])
    assert machine.holders(Range(BAR, PAGE)) == []
    monkeypatch.setattr("fakedev.fuse.mappers._maps", lambda _: None)
    assert machine.holders(Range(BAR, PAGE)) == [Mapper(os.getpid(), "hidden", Range(BAR, PAGE))]
    alias.filled = False
    assert machine.holders(Range(BAR, PAGE)) == []


def test_look_names_who_was_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mem"
    path.write_bytes(b"")
    file = Mapped(path.stat().st_ino, "/mem", BAR, PAGE)
    assert os.getpid() not in look([file], Range(BAR, PAGE))[1]
    monkeypatch.setattr("fakedev.fuse.mappers._maps", lambda _: None)
    assert os.getpid() in look([file], Range(BAR, PAGE))[1]


# -- nobody begins to map meanwhile ---------------------------------------------------------------


def gated(machine: Machine) -> tuple[Coherence, Callable[[], Any]]:
    """A served machine, and a fault of the first page of the BAR."""
    coherence = Coherence(machine)
    alias = Alias(invalidate=lambda _: None, expire=lambda: None)
    handle = DevMem(machine).open(Opener(1, 0, os.O_RDWR))
    coherence.opened(alias)
    assert coherence.open_files() == (alias,)
    return coherence, lambda: coherence.fault(alias, handle, BAR, PAGE)


def outcome(fault: Callable[[], Any]) -> Any:
    try:
        return fault()
    except Deferred as deferred:
        return deferred


@pytest.mark.parametrize("touched", [False, True])
def test_a_fault_waits_for_the_decision(touched: bool) -> None:
    machine = small_machine(claim_policy="deny-claim")
    coherence, fault = gated(machine)
    if touched:
        assert fault()
    waiting: list[Any] = []

    def look(_: Range) -> list[Mapper]:
        waiting.append(outcome(fault))
        return []

    machine.holders = look
    machine.claim(Range(BAR, PAGE), "fpga")
    with pytest.raises(Refused):
        waiting[0].wait()
    coherence.close()


def test_after_a_denial_the_fault_is_served() -> None:
    machine = small_machine(claim_policy="deny-claim")
    coherence, fault = gated(machine)
    waiting: list[Any] = []

    def look(span: Range) -> list[Mapper]:
        waiting.append(outcome(fault))
        return [GDB]

    machine.holders = look
    with pytest.raises(ResourceConflictError):
        machine.claim(Range(BAR, PAGE), "fpga")
    assert b"".join(waiting[0].wait()) == bytes(PAGE)
    assert outcome(fault)  # and at once from now on
    coherence.close()


def test_two_claims_and_many_faults() -> None:
    """Whatever the order: a claim that succeeded leaves nobody with a page."""
    machine = small_machine(claim_policy="deny-claim")
    coherence, fault = gated(machine)
    machine.holders = lambda _: []
    stop = threading.Event()
    served: list[bool] = []

    def toucher() -> None:

        while not stop.is_set():
            try:
                found = outcome(fault)
                served.append(bool(found.wait() if isinstance(found, Deferred) else found))
            except Refused:
                served.append(False)

    thread = threading.Thread(target=toucher)
    thread.start()
    for _ in range(50):
        machine.claim(Range(BAR, PAGE), "fpga")
        machine.release(Range(BAR, PAGE))
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert served
    coherence.close()
