"""Drivers: what they match, what they claim, and how a probe fails."""

import errno

import pytest
from pci_machines import effects_of, function, machine_of, outcome, q35_machine

from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.device import PciDevice
from fakedev.devices.pci.driver import ANY_ID, PciDriver, PciId
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.settings import Facts
from fakedev.model.effects import Reopened, Revoke
from fakedev.model.errors import ControlError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

K = 1 << 10
FIRST, SECOND, PORTS = 0xE0000000, 0xE0100000, 0xD000


def card_machine(*known: PciDriver, facts: Facts | None = None) -> Machine:
    """One function with two memory BARs and one of I/O between them."""
    bars = [(0, "mem32", 4 * K, FIRST), (1, "io", 64, PORTS), (2, "mem32", 8 * K, SECOND)]
    card = function("00:04.0", "10ee:7024", 0x058000, *bars, command=0)  # type: ignore[arg-type]
    other = function("00:05.0", "10ee:7025", 0x058000)
    return machine_of([card, other], list(known), facts={"00:04.0": facts} if facts else None)


def bus_of(machine: Machine) -> PciBus:
    bus: PciBus = machine.pci
    return bus


def card_of(machine: Machine) -> PciDevice:
    return bus_of(machine).devices["0000:00:04.0"]


def driver(**options: object) -> PciDriver:
    return PciDriver("card", [PciId(0x10EE, 0x7024)], **{"loaded": False, **options})  # type: ignore[arg-type]


def kinds(machine: Machine) -> list[str]:
    return [event.kind for event in machine.events]


def test_a_probe_claims_bar_by_bar_and_each_memory_bar_revokes() -> None:
    machine = card_machine(driver(claim_name="xdma"))
    effects = effects_of(machine)
    bus_of(machine).modprobe("card")
    revoked = [effect for effect in effects if isinstance(effect, Revoke)]
    assert revoked == [
        Revoke(Range(FIRST, 4 * K), "claimed by xdma"),
        Revoke(Range(SECOND, 8 * K), "claimed by xdma"),
    ]
    assert "e0000000-e0000fff : 0000:00:04.0\n    e0000000-e0000fff : xdma\n" in machine.iomem()
    ports = machine.ports.iomem_text(privileged=True, depth_cap=5)
    assert "    d000-d03f : xdma\n" in ports
    order = ["module", "config", "claim", "revoke", "claim", "revoke", "bind"]
    assert kinds(machine) == order
    assert machine.read(FIRST, 4)[0].errno


def test_only_the_named_bars_are_claimed_and_those_that_do_not_exist_are_skipped() -> None:
    machine = card_machine(driver(claims=(2, 3, 5), exclusive=True))
    bus_of(machine).modprobe("card")
    (claim,) = card_of(machine).claims
    assert claim.span == Range(SECOND, 8 * K)
    assert claim.node.flags & 0x8000000
    assert [c.name for c in machine.claims] == ["card"]


def test_a_conflict_releases_the_earlier_bars_and_the_revocations_stay_done() -> None:
    machine = card_machine(driver())
    bus, card = bus_of(machine), card_of(machine)
    machine.claim(Range(SECOND + 4 * K, 16), "mine")
    effects = effects_of(machine)
    bus.modprobe("card")
    assert card.driver is None
    assert (card.claims, card.enable_count) == ((), 0)
    assert outcome(lambda: bus.bind("card", card.name)) == "EBUSY"
    assert Revoke(Range(FIRST, 4 * K), "claimed by card") in effects
    assert Reopened(Range(FIRST, 4 * K)) in effects
    assert "card" not in machine.iomem().replace("0000:00:04.0", "")
    assert "card" not in machine.ports.iomem_text(privileged=True, depth_cap=5)
    probe = next(event for event in machine.events if event.kind == "probe")
    assert "BAR 2: can't reserve [mem 0xe0100000-0xe0101fff]" in probe.message
    assert "mine" in probe.message
    machine.release(Range(SECOND + 4 * K, 16))
    bus.bind("card", card.name)
    assert card.driver is bus.drivers["card"]


def test_a_conflict_of_ports_is_one_as_well() -> None:
    machine = card_machine(driver())
    machine.claim_port(Range(PORTS + 8, 8), "serial")
    assert outcome(lambda: bus_of(machine).modprobe("card")) is None
    assert card_of(machine).driver is None
    assert "can't reserve [io  0xd000-0xd03f]" in next(
        event.message for event in machine.events if event.kind == "probe"
    )
    assert machine.claims == ()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL, errno.EIO, errno.EBUSY])
def test_a_probe_that_fails_leaves_nothing_behind(code: int) -> None:
    machine = card_machine(driver(probe_error=code))
    bus, card = bus_of(machine), card_of(machine)
    before = machine.iomem()
    bus.modprobe("card")
    with pytest.raises(PciError, match=f"failed with error -{code}") as caught:
        bus.bind("card", card.name)
    assert caught.value.errno == code
    assert (card.driver, card.claims, card.enable_count) == (None, (), 0)
    assert machine.iomem() == before
    assert machine.claims == ()


def test_the_next_driver_tries_when_one_fails() -> None:
    first = PciDriver("first", [PciId(0x10EE, 0x7024)], probe_error=errno.EIO, loaded=False)
    machine = card_machine(first, driver())
    bus = bus_of(machine)
    bus.set_autoprobe("0")
    bus.modprobe("first")
    bus.modprobe("card")
    assert card_of(machine).driver is None
    bus.drivers_probe("0000:00:04.0")
    assert card_of(machine).driver is bus.drivers["card"]


def test_autoprobe_off_means_nothing_is_bound_by_itself() -> None:
    machine = card_machine(driver())
    bus = bus_of(machine)
    bus.set_autoprobe("0")
    bus.modprobe("card")
    assert card_of(machine).driver is None
    bus.remove(card_of(machine), "1")
    bus.rescan("1")
    assert card_of(machine).driver is None
    bus.set_autoprobe("1")
    assert card_of(machine).driver is None


def test_modules_have_the_names_of_drivers_and_of_files() -> None:
    machine = q35_machine()
    bus = bus_of(machine)
    bus.modprobe("pci_stub")
    bus.modprobe("pci-stub")
    assert "pci-stub" in bus.drivers
    bus.modprobe("bochs")
    assert bus.devices["0000:00:07.0"].driver is bus.drivers["bochs-drm"]
    bus.rmmod("bochs")
    assert bus.devices["0000:00:07.0"].driver is None
    with pytest.raises(ControlError, match="did you mean nvme"):
        bus.modprobe("nvmee")
    with pytest.raises(ControlError, match="not loaded"):
        bus.rmmod("nvme")
    with pytest.raises(ControlError, match="builtin"):
        bus.rmmod("pcieport")
    assert outcome(lambda: bus.bind("nvme", "0000:00:04.0")) == "ENODEV"


def test_rmmod_unbinds_every_function_and_forgets_ids() -> None:
    machine = q35_machine()
    bus = bus_of(machine)
    bus.modprobe("e1000")
    bus.new_id("e1000", "8086 10d3")
    bound = [d.name for d in bus.devices.values() if d.driver is bus.drivers["e1000"]]
    assert bound == ["0000:00:03.0", "0000:01:00.0"]
    bus.rmmod("e1000")
    assert all(d.driver is None or d.driver.name == "pcieport" for d in bus.devices.values())
    assert machine.claims == ()
    bus.modprobe("e1000")
    assert bus.devices["0000:01:00.0"].driver is None


# -- ids ------------------------------------------------------------------------------------


def test_matching_by_class_subsystem_and_wildcards() -> None:
    machine = card_machine(driver())
    card = card_of(machine)
    for entry, fits in (
        (PciId(0x10EE, 0x7024), True),
        (PciId(0x10EE, ANY_ID), True),
        (PciId(ANY_ID, ANY_ID, class_=0x058000, mask=0xFFFF00), True),
        (PciId(ANY_ID, ANY_ID, class_=0x010802, mask=0xFFFFFF), False),
        (PciId(0x10EE, 0x7024, 0x1AF4, 0x1100), True),
        (PciId(0x10EE, 0x7024, 0x1AF4, 0x1101), False),
    ):
        assert PciDriver("any", [entry]).match(card) is fits


def test_new_id_and_remove_id_by_the_kernels_rules() -> None:
    machine = card_machine(driver(), PciDriver("stub", claims=(), enables=False))
    bus, card = bus_of(machine), card_of(machine)
    bus.modprobe("card")
    bus.unbind("card", card.name)
    assert outcome(lambda: bus.new_id("card", "10ee 7024")) == "EEXIST"
    assert outcome(lambda: bus.new_id("card", "10ee 7024 ffffffff ffffffff 0 0 1")) == "EINVAL"
    bus.new_id("card", "10ee 7024 ffffffff ffffffff 0 0 0")
    assert card.driver is bus.drivers["card"]
    bus.unbind("card", card.name)
    bus.new_id("stub", "10ee 7024 1af4 1100")
    assert card.driver is bus.drivers["stub"]
    bus.new_id("stub", "10ee 7025\n")
    assert bus.devices["0000:00:05.0"].driver is bus.drivers["stub"]
    assert outcome(lambda: bus.remove_id("stub", "10ee 7024 1af4 1101")) == "ENODEV"
    bus.remove_id("stub", "10ee 7024")
    assert card.driver is bus.drivers["stub"]
    assert outcome(lambda: bus.remove_id("stub", "10ee")) == "EINVAL"
    assert len(bus.drivers["stub"].dynamic_ids) == 1


def test_a_table_for_overrides_only_counts_with_an_override_only() -> None:
    vfio = PciDriver("vfio-pci", [PciId(ANY_ID, ANY_ID)], claims=(), override_only=True)
    machine = card_machine(vfio)
    bus, card = bus_of(machine), card_of(machine)
    assert card.driver is None
    assert outcome(lambda: bus.bind("vfio-pci", card.name)) == "ENODEV"
    bus.set_driver_override(card, "vfio-pci")
    bus.bind("vfio-pci", card.name)
    assert card.driver is vfio


# -- interrupts -----------------------------------------------------------------------------


def test_message_interrupts_come_and_go_with_the_driver() -> None:
    machine = q35_machine()
    bus = bus_of(machine)
    bus.modprobe("nvme")
    nvme = bus.devices["0000:00:04.0"]
    at = nvme.function.capability(0x11)
    assert at is not None
    assert (nvme.msi, nvme.msi_irqs) == ("msix", [25, 26, 27])
    assert nvme.function.config.get(at + 2, 2) & 0x8000
    bus.unbind("nvme", nvme.name)
    assert (nvme.msi, nvme.msi_irqs) == ("", [])
    assert not nvme.function.config.get(at + 2, 2) & 0x8000
    bus.set_msi_bus(nvme, "0")
    bus.bind("nvme", nvme.name)
    assert (nvme.msi, nvme.msi_irqs) == ("", [])


def test_msi_x_falls_back_to_msi_and_vectors_to_a_power_of_two() -> None:
    capabilities = [("msi", {"vectors": 4})]
    card = function("00:04.0", "10ee:7024", 0, capabilities=capabilities)
    machine = machine_of([card], [driver(msi="msix", vectors=3)])
    bus_of(machine).modprobe("card")
    assert (card_of(machine).msi, card_of(machine).msi_irqs) == ("msi", [24, 25])


def test_what_the_profile_says_of_a_bound_function_counts() -> None:
    facts = Facts(
        driver="card", msi_irqs=(40, 41), enabled=3, power_state="D3hot", dma_mask_bits=44
    )
    card = function("00:04.0", "10ee:7024", 0, capabilities=[("msi", {"vectors": 4})])
    machine = machine_of([card], [driver(msi="msi")], facts={"00:04.0": facts})
    shown = card_of(machine)
    assert (shown.msi_irqs, shown.enable_count, shown.power_state) == ([40, 41], 3, "D3hot")
    assert (shown.dma_mask_bits, shown.consistent_dma_mask_bits) == (44, 44)
    bus = bus_of(machine)
    for _ in range(5):
        bus.unbind("card", shown.name)
        bus.bind("card", shown.name)
    assert shown.msi_irqs == [40]
    assert bus._freed == [41]
    nobody = machine_of(
        [function("00:04.0", "10ee:7024", 0)],
        [driver(loaded=True)],
        facts={"00:04.0": Facts(driver="")},
    )
    assert card_of(nobody).driver is None


# -- odd orders -----------------------------------------------------------------------------


def test_unbinding_tolerates_that_somebody_released_the_claim() -> None:
    machine = card_machine(driver())
    bus, card = bus_of(machine), card_of(machine)
    bus.modprobe("card")
    machine.release(Range(FIRST, 4 * K))
    machine.claim(Range(FIRST, 4 * K), "mine")
    bus.unbind("card", card.name)
    assert [claim.name for claim in machine.claims] == ["mine"]
    assert card.driver is None


def test_a_driver_that_is_unknown_or_a_text_that_is_none() -> None:
    machine = q35_machine()
    bus = bus_of(machine)
    bus.modprobe("pci-stub")
    for text in (
        "",
        "\n",
        " 0000:00:05.0",
        "0000:00:05.0 ",
        "0000:00:05.0\n\n",
        "00:05.0",
        "x" * 4096,
    ):
        assert outcome(lambda text=text: bus.bind("pci-stub", text)) == "ENODEV"
        assert outcome(lambda text=text: bus.unbind("pci-stub", text)) == "ENODEV"
        assert outcome(lambda text=text: bus.drivers_probe(text)) == "ENODEV"
    assert next(iter(bus.drivers)) == "pcieport"
