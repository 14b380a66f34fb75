"""Removal, rescans, unplugging, slots, links, and the way back to boot."""

import errno

import pytest
from pci_machines import (
    effects_of,
    function,
    machine_of,
    outcome,
    port,
    q35_machine,
)

from fakedev.devices.pci import header
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.device import WINDOWS, PciDevice
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.errors import PciError
from fakedev.model.effects import NodesChanged, Reopened, Revoke
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

K, M = 1 << 10, 1 << 20
NIC, PORT = "0000:01:00.0", "0000:00:0b.0"


def bus_of(machine: Machine) -> PciBus:
    bus: PciBus = machine.pci
    return bus


def device(machine: Machine, name: str) -> PciDevice:
    return bus_of(machine).devices[name]


def ports_text(machine: Machine) -> str:
    return machine.ports.iomem_text(privileged=True, depth_cap=8)


def kinds(machine: Machine) -> list[str]:
    return [event.kind for event in machine.events]


@pytest.fixture
def machine() -> Machine:
    return q35_machine()


def switch_machine(on_unplug: str = "sigbus") -> Machine:
    """A root port, a switch of three ports behind it, two cards behind that; all are bound."""
    functions = [
        port("00:01.0", 1, 4, memory=(0xE0000000, 0xE03FFFFF), slot="7"),
        port("01:00.0", 2, 4, memory=(0xE0000000, 0xE03FFFFF), kind="upstream"),
        port("02:00.0", 3, 3, memory=(0xE0000000, 0xE00FFFFF), kind="downstream"),
        port("02:01.0", 4, 4, memory=(0xE0100000, 0xE02FFFFF), kind="downstream"),
        function("03:00.0", "1111:2222", 0x020000, (0, "mem32", 64 * K, 0xE0000000), on_unplug=on_unplug),
        function("04:00.0", "1111:2222", 0x020000, (0, "mem32", M, 0xE0100000), on_unplug=on_unplug),
    ]  # fmt: skip
    known = [PciDriver("card", [PciId(0x1111, 0x2222)])]
    return machine_of(functions, known)


# -- remove and rescan ----------------------------------------------------------------------


def test_remove_takes_nodes_away_and_says_what_changed(machine: Machine) -> None:
    bus, nic = bus_of(machine), device(machine, NIC)
    effects = effects_of(machine)
    for text, answer in (("x", "EINVAL"), ("", "EINVAL"), ("0", None), ("0x0\n", None)):
        assert outcome(lambda text=text: bus.remove(nic, text)) == answer
    assert not nic.gone
    assert not effects
    bus.remove(nic, "1")
    assert nic.gone
    assert NIC not in bus.devices
    assert device(machine, PORT).children == {}
    assert NIC not in machine.iomem()
    assert NIC not in ports_text(machine)
    assert "fe800000-fe9fffff : PCI Bus 0000:01" in machine.iomem()
    assert effects == [
        NodesChanged(f"/sys/devices/pci0000:00/{PORT}", (NIC,)),
        NodesChanged("/sys/bus/pci/devices", (NIC,)),
        NodesChanged("/proc/bus/pci/01", ("00.0",)),
    ]
    assert kinds(machine) == ["remove"]
    for verb in (bus.remove, bus.set_enable, bus.reset, bus.rescan_device):
        assert outcome(lambda verb=verb: verb(nic, "1")) == "ENODEV"
    assert outcome(lambda: bus.config_write(nic, 0, b"\0")) == "ENODEV"
    with pytest.raises(PciError):
        bus.config_read(nic, 0, 4)
    assert machine.memory.read(0xFE840000, 1) == b"\0"


def test_a_claim_of_somebody_else_goes_with_the_bar(machine: Machine) -> None:
    machine.claim(Range(0xFEA00000, 16), "mine")
    effects = effects_of(machine)
    bus_of(machine).remove(device(machine, "0000:00:05.0"), "1")
    assert "mine" not in machine.iomem()
    assert Reopened(Range(0xFEA00000, 4096)) in effects
    machine.reset()
    assert "fea00000-feafffff : 0000:00:05.0" in machine.iomem()


def test_a_rescan_makes_new_objects_with_nothing_of_the_old_ones(machine: Machine) -> None:
    bus, old = bus_of(machine), device(machine, "0000:00:05.0")
    bus.set_enable(old, "1")
    bus.set_driver_override(old, "pci-stub")
    bus.remove(old, "1")
    effects = effects_of(machine)
    assert outcome(lambda: bus.rescan("x")) == "EINVAL"
    bus.rescan("0")
    assert old.name not in bus.devices
    bus.rescan("1\n")
    new = device(machine, old.name)
    assert new is not old
    assert (old.gone, new.gone) == (True, False)
    assert (new.enable_count, new.driver_override, new.power_state) == (0, None, "D0")
    assert NodesChanged("/sys/bus/pci/devices", (old.name,)) in effects
    message = next(event.message for event in machine.events if event.kind == "rescan")
    assert "[1234:11e8]" in message
    assert "BAR 0 [mem 0x20000000-0x200fffff]: assigned" in message
    before = kinds(machine)
    bus.rescan("1")
    assert kinds(machine) == before


@pytest.mark.parametrize("how", ["rescan", "rescan_bus", "rescan_device", "deeper"])
def test_every_way_to_rescan(machine: Machine, how: str) -> None:
    bus = bus_of(machine)
    bus.remove(device(machine, NIC), "1")
    if how == "rescan":
        bus.rescan("1")
    elif how == "rescan_bus":
        bus.rescan_bus("0000:01", "1")
    elif how == "rescan_device":
        bus.rescan_device(device(machine, PORT), "1")
    else:
        bus.rescan_bus("0000:00", "1")
    assert [r.start for r in device(machine, NIC).resources[:7]] == [
        0xFE840000, 0xFE860000, 0xC000, 0xFE880000, 0, 0, 0xFE800000,
    ]  # fmt: skip
    assert outcome(lambda: bus.rescan_bus("0000:09", "1")) == "ENODEV"


def test_a_bridge_goes_with_everything_behind_it_and_comes_back() -> None:
    machine = switch_machine()
    bus = bus_of(machine)
    cards = [device(machine, name) for name in ("0000:03:00.0", "0000:04:00.0")]
    assert all(card.driver for card in cards)
    effects = effects_of(machine)
    bus.remove(device(machine, "0000:00:01.0"), "1")
    assert bus.devices == {}
    assert bus.slots == {}
    assert bus.roots[0].children == {}
    assert all(card.gone and card.driver is None for card in cards)
    assert "PCI Bus 0000:01" not in machine.iomem()
    assert Reopened(Range(0xE0000000, 64 * K)) in effects
    assert NodesChanged("/sys/bus/pci/slots", ("7",)) in effects
    assert (
        NodesChanged("/sys/class/pci_bus", ("0000:01", "0000:02", "0000:03", "0000:04")) in effects
    )
    bus.rescan("1")
    assert len(bus.devices) == 6
    assert list(bus.slots) == ["7"]
    new = [device(machine, name) for name in ("0000:03:00.0", "0000:04:00.0")]
    assert all(card.driver is bus.drivers["card"] for card in new)
    text = machine.iomem()
    assert text.count("PCI Bus 0000:0") == 4 + 4  # four windows of the host bridge
    for card in new:
        resource = card.resources[0]
        window = card.parent.windows[1] if card.parent else None
        assert window is not None
        assert window.start <= resource.start <= resource.end <= window.end
        card.function.bars[0].target.write(0, b"card")
        assert machine.memory.read(resource.start, 4) == b"card"
    top = device(machine, "0000:00:01.0").windows[1]
    config = device(machine, "0000:00:01.0").function.config
    assert header.bridge_windows(config.data)[1] == (top.start, top.end)
    assert top.size == 4 * M


def test_what_does_not_fit_gets_no_address(machine: Machine) -> None:
    functions = [
        port("00:01.0", 1, 1, memory=(0xE0000000, 0xE00FFFFF)),
        function("01:00.0", "1111:2222", 0, (0, "mem32", M, 0xE0000000)),
    ]
    machine = machine_of(functions)
    bus = bus_of(machine)
    bus.remove(device(machine, NIC), "1")
    machine.claim(Range(0xE0000000, 16), "mine")
    bus.rescan("1")
    card = device(machine, NIC)
    assert (card.resources[0].start, card.resources[0].flags) == (0, 0)
    assert "failed to assign" in next(e.message for e in machine.events if e.kind == "rescan")
    bus.set_enable(card, "1")


# -- pulling and plugging -------------------------------------------------------------------


@pytest.mark.parametrize("on_unplug", ["sigbus", "poison"])
def test_pulling_a_card_kills_its_mappings_and_everything_else(on_unplug: str) -> None:
    machine = switch_machine(on_unplug)
    bus, card = bus_of(machine), device(machine, "0000:03:00.0")
    effects = effects_of(machine)
    bus.unplug("03:00.0")
    revoked = [effect for effect in effects if isinstance(effect, Revoke)]
    span = Range(0xE0000000, 64 * K)
    assert revoked == [Revoke(span, "0000:03:00.0 was unplugged", even_cows=False)]
    assert isinstance(effects[-1], Reopened)
    assert (card.gone, card.unplugged, card.driver) == (True, True, None)
    assert "0000:03:00.0" not in machine.iomem()
    assert bus.fabric.config_read(card.bdf, 0, 4) == b"\xff" * 4
    assert machine.memory.read(0xE0000000, 4) == b"\xff" * 4
    assert kinds(machine) == ["unplug", "revoke", "release", "unbind", "unplug"]
    assert outcome(lambda: bus.unplug("03:00.0")) == "ENODEV"
    bus.plug("0000:03:00.0")
    again = device(machine, "0000:03:00.0")
    assert again is not card
    assert again.driver is bus.drivers["card"]
    assert again.resources[0].start == 0xE0000000


def test_a_quiet_function_reads_ones_and_revokes_nothing(machine: Machine) -> None:
    bus = bus_of(machine)
    effects = effects_of(machine)
    bus.unplug(NIC)
    assert not [effect for effect in effects if isinstance(effect, Revoke)]
    assert machine.memory.read(0xFE840000, 4) == b"\xff" * 4
    bus.plug(NIC)
    nic = device(machine, NIC)
    assert nic.irq == 0
    assert nic.function.config.get(header.COMMAND, 2) == 0
    assert nic.resources[0].start == 0xFE840000
    assert nic.enable_count == 0


def test_a_whole_switch_goes_and_comes_back_at_once() -> None:
    machine = switch_machine()
    bus = bus_of(machine)
    effects = effects_of(machine)
    bus.unplug("01:00.0")
    assert list(bus.devices) == ["0000:00:01.0"]
    assert len([effect for effect in effects if isinstance(effect, Revoke)]) == 2
    assert "with 4 behind it" in next(e.message for e in machine.events if e.kind == "unplug")
    assert outcome(lambda: bus.plug("03:00.0")) == "ENODEV"
    bus.plug("01:00.0")
    assert len(bus.devices) == 6
    assert device(machine, "0000:04:00.0").driver is bus.drivers["card"]


def test_plugging_what_is_there_and_pulling_what_is_not(machine: Machine) -> None:
    bus = bus_of(machine)
    with pytest.raises(PciError, match="plugged in already; unplug comes first") as caught:
        bus.plug(NIC)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(PciError, match=r"no such function; there are 0000:00:00\.0, "):
        bus.unplug("7f:00.0")
    assert outcome(lambda: bus.unplug("nonsense")) == "EINVAL"
    assert outcome(lambda: bus.link_down(NIC)) == "EINVAL"
    assert outcome(lambda: bus.link_up(PORT)) == "EINVAL"


def test_pulling_what_the_kernel_has_removed_before(machine: Machine) -> None:
    bus = bus_of(machine)
    bus.remove(device(machine, NIC), "1")
    bus.unplug(NIC)
    bus.rescan("1")
    assert NIC not in bus.devices
    bus.remove(device(machine, PORT), "1")
    bus.plug(NIC)
    assert NIC not in bus.devices
    bus.rescan("1")
    assert NIC in bus.devices


def test_a_card_that_needs_a_window_gets_one() -> None:
    functions = [
        port("00:01.0", 1, 1),
        function("01:00.0", "1111:2222", 0, (0, "mem32", 64 * K, 0), (1, "pref64", 16 * M, 0), (3, "io", 32, 0)),
    ]  # fmt: skip
    machine = machine_of(functions)
    bus = bus_of(machine)
    assert not any(r.flags for r in device(machine, "0000:00:01.0").resources[WINDOWS:])
    bus.rescan("1")
    shown = [(r.start, r.end, r.flags) for r in device(machine, "0000:00:01.0").windows]
    assert shown == [
        (0x1000, 0x1FFF, 0x100),
        (0x20000000, 0x201FFFFF, 0x200),
        (0x900000000, 0x900FFFFFF, 0x102201),
        (0, 0, 0),
    ]
    card = device(machine, NIC)
    assert [r.start for r in card.resources[:4]] == [0x20000000, 0x900000000, 0, 0x1000]
    bus.set_enable(card, "1")
    card.function.bars[1].target.write(0, b"high")
    assert machine.memory.read(0x900000000, 4) == b"high"


# -- slots and links ------------------------------------------------------------------------


def test_a_slot_is_switched_off_and_on(machine: Machine) -> None:
    bus = bus_of(machine)
    slot = bus.slots["1"]
    assert (slot.address, slot.powered, slot.adapter, slot.hotplug) == (
        "0000:01:00",
        True,
        True,
        True,
    )
    bus.modprobe("e1000e")
    for text, answer in (("1", "ENODEV"), ("2", "EINVAL"), ("9\n", "EINVAL")):
        assert outcome(lambda text=text: bus.slot_power("1", text)) == answer
    bus.slot_power("1", "0\n")
    assert (slot.powered, slot.adapter) == (False, True)
    assert NIC not in bus.devices
    assert "e1000e" not in machine.iomem()
    assert outcome(lambda: bus.slot_power("1", "junk")) == "ENODEV"  # simple_strtoul: 0
    assert outcome(lambda: bus.plug(NIC)) == "EEXIST"
    bus.rescan("1")
    assert NIC not in bus.devices
    bus.slot_power("1", "1")
    assert device(machine, NIC).driver is bus.drivers["e1000e"]
    assert (slot.powered, slot.adapter) == (True, True)
    assert kinds(machine).count("power") == 2
    assert outcome(lambda: bus.slot_power("none", "1")) == "ENODEV"


def test_a_slot_is_where_it_was_built(machine: Machine) -> None:
    """Bus numbers that somebody writes to the port move no card."""
    bus = bus_of(machine)
    port = device(machine, str(bus.slots["1"].port))
    bus.config_write(port, header.SECONDARY, b"\0")
    others = set(bus.devices) - {NIC}
    bus.slot_power("1", "0")
    assert set(bus.devices) == others


def test_a_bus_keeps_its_name_whatever_is_written_to_the_bridge(machine: Machine) -> None:
    bus = bus_of(machine)
    port = device(machine, str(bus.slots["1"].port))
    bus.config_write(port, header.SECONDARY, b"\x20")
    assert port.secondary_name == "0000:01"
    effects: list[object] = []
    machine.subscribers.append(effects.append)
    bus.remove(port, "1")
    assert NodesChanged("/proc/bus/pci", ("01",)) in effects
    assert NodesChanged("/sys/class/pci_bus", ("0000:01",)) in effects


def test_pulling_a_card_out_of_a_slot_without_power(machine: Machine) -> None:
    bus = bus_of(machine)
    bus.slot_power("1", "0")
    bus.unplug(NIC)
    assert not bus.slots["1"].adapter
    assert outcome(lambda: bus.slot_power("1", "1")) == "ENODEV"
    bus.plug(NIC)
    assert bus.slots["1"].powered
    assert NIC in bus.devices


def test_a_link_goes_down_and_the_files_stay(machine: Machine) -> None:
    bus, nic = bus_of(machine), device(machine, NIC)
    effects = effects_of(machine)
    bus.link_down(PORT)
    assert bus.config_read(nic, 0, 4) == b"\xff" * 4
    assert machine.memory.read(0xFE840000, 4) == b"\xff" * 4
    assert not nic.gone
    assert not effects
    bus.config_write(nic, 4, b"\0\0")
    bus.link_up(PORT)
    assert bus.config_read(nic, 0, 4) == bytes.fromhex("8680d310")
    assert machine.memory.read(0xFE840000, 4) == b"\0" * 4
    assert kinds(machine) == ["link", "link"]


# -- the way back ---------------------------------------------------------------------------


def test_reset_goes_back_to_boot(machine: Machine) -> None:
    bus = bus_of(machine)
    text, ports, names = machine.iomem(), ports_text(machine), list(bus.devices)
    kept = device(machine, "0000:00:04.0")
    irqs = device(machine, PORT).msi_irqs
    bus.modprobe("e1000")
    bus.modprobe("nvme")
    bus.new_id("nvme", "1234 11e8")
    bus.remove(device(machine, "0000:00:02.0"), "1")
    bus.rescan("1")
    bus.remove(device(machine, "0000:00:05.0"), "1")
    bus.unplug(NIC)
    bus.set_autoprobe("0")
    bus.set_numa_node(kept, "0")
    bus.config_write(kept, 0x3C, b"\x55")
    machine.claim(Range(0xFC000000, 4096), "mine")
    bus.link_down(PORT)
    machine.reset()
    assert (machine.iomem(), ports_text(machine), list(bus.devices)) == (text, ports, names)
    assert device(machine, "0000:00:04.0") is kept
    assert (kept.driver, kept.numa_node, kept.enable_count) == (None, -1, 0)
    assert kept.function.config.get(0x3C, 1) == 10
    assert list(bus.drivers) == ["pcieport"]
    assert bus.autoprobe
    assert bus.known_drivers["nvme"].dynamic_ids == []
    assert device(machine, "0000:00:02.0").resources[2].start == 0xFB000000
    assert machine.memory.read(0xFE840000, 1) == b"\0"
    assert device(machine, PORT).driver is bus.drivers["pcieport"]
    assert device(machine, PORT).msi_irqs == irqs
    assert machine.claims == ()
    again = list(bus.devices.values())
    machine.reset()
    assert list(bus.devices.values()) == again


def test_reset_restores_bindings_of_boot_and_revokes_for_them() -> None:
    machine = switch_machine()
    bus = bus_of(machine)
    text = machine.iomem()
    bus.unbind("card", "0000:03:00.0")
    bus.remove(device(machine, "0000:04:00.0"), "1")
    effects = effects_of(machine)
    machine.reset()
    assert machine.iomem() == text
    assert Revoke(Range(0xE0000000, 64 * K), "claimed by card") in effects
    assert machine.read(0xE0000000, 4)[0].errno
    assert device(machine, "0000:04:00.0").driver is bus.drivers["card"]
    bus.rmmod("card")
    machine.reset()
    assert machine.iomem() == text


def test_a_store_through_the_ecam_says_what_moved(machine: Machine) -> None:
    bus = bus_of(machine)
    posted: list[object] = []
    machine.posted = posted.append
    bus.fabric.config_write(device(machine, "0000:00:05.0").bdf, 4, b"\0")
    assert [str(getattr(effect, "span", effect)) for effect in posted] == ["fea00000-feafffff"]
    del posted[:]
    bus.config_write(device(machine, "0000:00:05.0"), 4, b"\x02")
    assert posted == []
