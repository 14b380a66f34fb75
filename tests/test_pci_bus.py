"""The kernel's half of PCI: what is found at boot, and what each write below /sys/bus/pci does."""

import errno
import time
from typing import Any

import pytest
from pci_machines import (
    PORTS,
    effects_of,
    function,
    machine_of,
    outcome,
    port,
    q35_machine,
)
from recordings import records

from fakedev.devices.pci import header
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.device import WINDOWS, PciDevice
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.parsing import hex_fields, kstrtoint, kstrtoul
from fakedev.devices.pci.settings import Facts
from fakedev.devices.pci.texts import cpu_mask, resource_text
from fakedev.model.effects import NodesChanged, Reopened, Revoke
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

MODULES = {"uio": "uio_pci_generic", "vfio": "vfio-pci"}


@pytest.fixture
def machine() -> Machine:
    return q35_machine()


def bus_of(machine: Machine) -> PciBus:
    bus: PciBus = machine.pci
    return bus


def device(machine: Machine, name: str) -> PciDevice:
    return bus_of(machine).devices[f"0000:{name}"]


def command(machine: Machine, name: str) -> int:
    return device(machine, name).function.config.get(header.COMMAND, 2)


def lines(machine: Machine) -> set[str]:
    return {line.strip() for line in machine.iomem().splitlines()}


# -- boot -----------------------------------------------------------------------------------


def test_boot_finds_every_function_and_gives_each_bar_its_node(machine: Machine) -> None:
    bus = bus_of(machine)
    assert list(bus.devices) == [
        "0000:00:00.0", "0000:00:02.0", "0000:00:03.0", "0000:00:04.0", "0000:00:05.0",
        "0000:00:07.0", "0000:00:0b.0", "0000:01:00.0",
    ]  # fmt: skip
    text = machine.iomem()
    assert "  fb000000-fbffffff : 0000:00:02.0\n" in text
    assert "  fe800000-fe9fffff : PCI Bus 0000:01\n" in text
    assert "    fe840000-fe85ffff : 0000:01:00.0\n" in text
    assert "  feb00000-feb3ffff : 0000:00:03.0\n" in text
    assert "  fe000000-fe1fffff : PCI Bus 0000:01\n" in text
    ports = machine.ports.iomem_text(privileged=True, depth_cap=5)
    assert "  c000-cfff : PCI Bus 0000:01\n    c000-c01f : 0000:01:00.0\n" in ports


def test_a_function_says_what_its_configuration_space_says(machine: Machine) -> None:
    nic = device(machine, "01:00.0")
    assert (nic.vendor, nic.device, nic.class_, nic.revision) == (0x8086, 0x10D3, 0x020000, 1)
    assert (nic.subvendor, nic.subdevice) == (0x1AF4, 0x1100)
    assert nic.path == "/sys/devices/pci0000:00/0000:00:0b.0/0000:01:00.0"
    assert nic.parent is device(machine, "00:0b.0")
    assert nic.parent.children == {"0000:01:00.0": nic}
    assert (nic.d3cold_allowed, device(machine, "00:03.0").d3cold_allowed) == (True, False)
    assert (nic.irq, nic.enable_count, nic.power_state, nic.driver) == (11, 0, "unknown", None)
    assert [root.path for root in bus_of(machine).roots] == ["/sys/devices/pci0000:00"]


def test_resources_are_those_of_the_recorded_kernel(machine: Machine) -> None:
    shown = [(r.start, r.end, r.flags) for r in device(machine, "00:02.0").resources]
    assert len(shown) == 13
    assert shown[0] == (0xFEB7C000, 0xFEB7C0FF, 0x40200)
    assert shown[2] == (0xFB000000, 0xFBFFFFFF, 0x14220C)
    assert shown[1] == shown[3] == (0, 0, 0)
    bridge = [(r.start, r.end, r.flags) for r in device(machine, "00:0b.0").resources]
    assert bridge[WINDOWS:] == [
        (0xC000, 0xCFFF, 0x100),
        (0xFE800000, 0xFE9FFFFF, 0x200),
        (0xFE000000, 0xFE1FFFFF, 0x102201),
        (0, 0, 0),
    ]
    rom = device(machine, "00:07.0").resources[6]
    assert (rom.start, rom.end, rom.flags) == (0xC0000, 0xDFFFF, 0x212)
    assert device(machine, "00:07.0").boot_vga


def test_loaded_drivers_are_bound_at_boot_without_a_trace_in_the_registers() -> None:
    machine = q35_machine(facts={"00:04.0": Facts(driver="nvme", irq=33)})
    nvme = device(machine, "00:04.0")
    assert nvme.driver is bus_of(machine).drivers["nvme"]
    assert (nvme.enable_count, nvme.msi, nvme.msi_irqs) == (1, "msix", [24, 25, 26])
    assert (nvme.irq, nvme.dma_mask_bits, nvme.power_state) == (33, 64, "D0")
    assert command(machine, "00:04.0") == 0x107
    assert "    feb70000-feb73fff : nvme\n" in machine.iomem()
    assert not machine.events
    assert device(machine, "00:0b.0").driver is bus_of(machine).drivers["pcieport"]
    assert device(machine, "00:0b.0").msi_irqs == [27]


def test_what_a_profile_lists_already_is_taken_over() -> None:
    listed = """\
20000000-afffffff : PCI Bus 0000:00
c0000000-febfffff : PCI Bus 0000:00
  feb70000-feb73fff : 0000:00:04.0
    feb70000-feb73fff : nvme
"""
    machine = q35_machine(iomem=listed, facts={"00:04.0": Facts(driver="nvme")})
    assert machine.iomem().count("feb70000-feb73fff") == 2
    node = device(machine, "00:04.0").resources[0].node
    assert node is not None
    assert [child.name for child in node.children] == ["nvme"]
    bus_of(machine).unbind("nvme", "0000:00:04.0")
    assert machine.iomem().count("feb70000-feb73fff") == 1


def test_unlisted_resources_have_no_node() -> None:
    machine = q35_machine(facts={"00:05.0": Facts(unlisted=frozenset({0}))})
    assert "0000:00:05.0" not in machine.iomem()
    resource = device(machine, "00:05.0").resources[0]
    assert (resource.assigned, resource.node) == (True, None)


def test_a_bar_that_collides_is_unassigned_and_cannot_be_enabled() -> None:
    two = [
        function("00:01.0", "1111:2222", 0, (0, "mem32", 4096, 0xE0000000)),
        function("00:02.0", "1111:2222", 0, (0, "mem32", 8192, 0xE0000000)),
    ]
    machine = machine_of(two)
    states = [device(machine, name).resources[0].flags for name in ("00:01.0", "00:02.0")]
    assert sorted(bool(flags & 0x20000000) for flags in states) == [False, True]
    broken = next(d for d in bus_of(machine).devices.values() if not d.resources[0].assigned)
    with pytest.raises(PciError, match=r"can't enable device: BAR 0 \[mem size") as caught:
        bus_of(machine).set_enable(broken, "1")
    assert caught.value.errno == errno.EINVAL
    assert broken.enable_count == 0


# -- what the recorded kernel answered ------------------------------------------------------


class Recorded:
    """Writes to sysfs files, as records have them, done on the model."""

    def __init__(self, machine: Machine) -> None:
        self.bus = bus_of(machine)

    def write(self, path: str, text: str) -> str | None:
        parts = path.split("/")
        name = parts[-1]
        if "drivers" in parts:
            verb = getattr(self.bus, name)
            return outcome(lambda: verb(parts[5], text))
        if "devices" in parts:
            target = self.bus.devices[parts[5]]
            verb = getattr(self.bus, name if name in {"remove", "rescan"} else f"set_{name}")
            return outcome(lambda: verb(target, text))
        return outcome(lambda: getattr(self.bus, name)(text))


def replay(machine: Machine, phase: str) -> int:
    """Do the writes of a phase; every errno must be the recorded one."""
    bus, done = bus_of(machine), 0
    recorded = Recorded(machine)
    for record in records(phase):
        op, args = record["op"], record["args"]
        if op == "open+write" and args["value"] and record["errno"] != "EACCES":
            assert recorded.write(args["path"], args["value"]) == record["errno"], record["case"]
            done += 1
        elif op == "shell" and record["case"].startswith(("modprobe-", "rmmod-")):
            verb, _, name = record["case"].partition("-")
            if not record["result"]:
                getattr(bus, verb)(MODULES.get(name, name))
        elif op == "readlink" or (op == "state" and "bdf" in args):
            name = args.get("bdf", "0000:00:05.0")
            driver = bus.devices[name].driver
            assert record["result"] == (driver.name if driver else "(none)"), record["case"]
            if op == "state":
                assert record["extra"]["enable"] == f"{bus.devices[name].enable_count}\n"
                found = bus.devices[name].function.config.get(4, 2)
                assert record["extra"]["pci_command"] == f"{found:#x}", record["case"]
    return done


def test_bind_errors_are_those_of_the_recorded_kernel(machine: Machine) -> None:
    assert replay(machine, "bind-errors") >= 25


@pytest.mark.parametrize(
    ("phase", "name", "place"),
    [
        ("remove-ivshmem", "00:02.0", (2, 0x900000000)),
        ("remove-edu", "00:05.0", (0, 0x20000000)),
        ("remove-e1000-bound", "00:03.0", (0, 0x20040000)),
    ],
)
def test_removal_is_that_of_the_recorded_kernel(
    machine: Machine, phase: str, name: str, place: tuple[int, int]
) -> None:
    bus = bus_of(machine)
    bus.modprobe("uio_pci_generic")
    bus.new_id("uio_pci_generic", "1234 11e8")
    bus.unbind("uio_pci_generic", "0000:00:05.0")
    if phase == "remove-e1000-bound":
        bus.modprobe("e1000")
    assert replay(machine, phase) >= 3
    assert device(machine, name).resources[place[0]].start == place[1]


def test_rescans_put_everything_where_the_recorded_kernel_put_it(machine: Machine) -> None:
    bus = bus_of(machine)
    for name in ("00:02.0", "00:05.0"):
        bus.remove(device(machine, name), "1")
        bus.rescan("1")
    bus.modprobe("e1000")
    bus.remove(device(machine, "00:03.0"), "1")
    assert "e1000" not in machine.iomem()
    bus.rescan("1")
    assert lines(machine) >= {
        "20000000-200000ff : 0000:00:02.0",
        "900000000-900ffffff : 0000:00:02.0",
        "20020000-2003ffff : 0000:00:03.0",
        "20020000-2003ffff : e1000",
        "20040000-2007ffff : 0000:00:03.0",
        "20100000-201fffff : 0000:00:05.0",
    }
    nic = device(machine, "00:03.0")
    assert (nic.resources[1].start, nic.resources[1].end) == (0x1000, 0x103F)
    assert command(machine, "00:03.0") == 0x107
    config = nic.function.config
    assert (config.get(0x10, 4), config.get(0x14, 4)) == (0x20020000, 0x1001)
    ports = machine.ports.iomem_text(privileged=True, depth_cap=5)
    assert "  1000-103f : 0000:00:03.0\n    1000-103f : e1000\n" in ports
    nic.function.bars[0].target.write(0, b"here")
    assert machine.memory.read(0x20020000, 4) == b"here"
    assert machine.memory.read(0xFEB40000, 4) == b"\xff" * 4


@pytest.mark.parametrize(
    ("name", "driver", "module", "bound", "after"),
    [
        ("00:03.0", "e1000", "e1000", 0x107, 0x103),
        ("00:04.0", "nvme", "nvme", 0x507, 0x103),
        ("00:07.0", "bochs-drm", "bochs", 0x103, 0x103),
    ],
)
def test_command_register_and_enable_count_follow_the_binding(
    machine: Machine, name: str, driver: str, module: str, bound: int, after: int
) -> None:
    bus = bus_of(machine)
    bus.modprobe(module)
    assert device(machine, name).driver is bus.drivers[driver]
    assert (command(machine, name), device(machine, name).enable_count) == (bound, 1)
    assert device(machine, name).power_state == "D0"
    bus.unbind(driver, f"0000:{name}\n")
    assert (command(machine, name), device(machine, name).enable_count) == (after, 0)
    bus.bind(driver, f"0000:{name}")
    bus.rmmod(module)
    assert (command(machine, name), device(machine, name).enable_count) == (after, 0)
    assert driver not in bus.drivers


# -- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1\n", 1), ("0x1F", 31), ("017", 15), ("+5", 5), ("0", 0), ("0\n", 0), ("00", 0)],
)
def test_kstrtoul_takes_what_the_kernel_takes(text: str, value: int) -> None:
    assert kstrtoul(text) == value


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "1x", " 1", "1 ", "1\n\n", "-1", "0x", "08", "0b1", "1_0", "٣", "++1"]
)
def test_kstrtoul_refuses_what_the_kernel_refuses(text: str) -> None:
    with pytest.raises(PciError) as caught:
        kstrtoul(text)
    assert caught.value.errno == errno.EINVAL


def test_numbers_that_are_too_large_are_erange() -> None:
    assert kstrtoul(str((1 << 64) - 1)) == (1 << 64) - 1
    assert outcome(lambda: kstrtoul(str(1 << 64)) and None) == "ERANGE"
    assert outcome(lambda: kstrtoul("9" * 10_000) and None) == "ERANGE"
    assert outcome(lambda: kstrtoint(str(1 << 31)) and None) == "ERANGE"
    assert kstrtoint("-2147483648") == -(1 << 31)
    assert kstrtoint("-1\n") == -1


def test_hex_fields_stop_at_junk() -> None:
    assert hex_fields("1234 11e8", 7) == [0x1234, 0x11E8]
    assert hex_fields("0x8086 0x100e\n", 7) == [0x8086, 0x100E]
    assert hex_fields("8086 zz 1", 7) == [0x8086]
    assert hex_fields("zzzz", 7) == []


def test_texts() -> None:
    assert cpu_mask("0-1") == "3"
    assert cpu_mask("0") == "1"
    assert cpu_mask("0-3,8") == "10f"
    assert cpu_mask("0,32") == "1,00000001"
    assert (
        resource_text(0xFB000000, 0xFBFFFFFF, 0x14220C) == "[mem 0xfb000000-0xfbffffff 64bit pref]"
    )
    assert resource_text(0xD100, 0xD13F, 0x40101) == "[io  0xd100-0xd13f]"


# -- knobs ----------------------------------------------------------------------------------


def test_enable_counts_and_refuses_as_the_kernel_does(machine: Machine) -> None:
    bus, edu = bus_of(machine), device(machine, "00:05.0")
    bus.set_enable(edu, "1")
    bus.set_enable(edu, "1\n")
    assert edu.enable_count == 2
    bus.set_enable(edu, "0")
    bus.set_enable(edu, "0")
    assert outcome(lambda: bus.set_enable(edu, "0")) == "EIO"
    assert outcome(lambda: bus.set_enable(edu, "x")) == "EINVAL"
    bus.modprobe("e1000")
    assert outcome(lambda: bus.set_enable(device(machine, "00:03.0"), "1")) == "EBUSY"


def test_enabling_turns_decoding_on_and_the_bridge_above_as_well() -> None:
    quiet = [
        port("00:01.0", 1, 1, memory=(0xE0000000, 0xE00FFFFF), command=0),
        function("01:00.0", "1111:2222", 0, (0, "mem32", 4096, 0xE0000000), command=0),
    ]
    machine = machine_of(quiet, [PciDriver("none")])
    bus, card = bus_of(machine), device(machine, "01:00.0")
    assert machine.memory.read(0xE0000000, 4) == b"\xff" * 4
    bus.set_enable(card, "1")
    assert command(machine, "01:00.0") & 2
    assert command(machine, "00:01.0") & 6 == 6
    assert device(machine, "00:01.0").enable_count == 1
    assert machine.memory.read(0xE0000000, 4) == b"\0" * 4


def test_driver_override_decides_alone(machine: Machine) -> None:
    bus, edu = bus_of(machine), device(machine, "00:05.0")
    bus.modprobe("pci-stub")
    bus.set_driver_override(edu, "pci-stub\nrest")
    assert edu.driver_override == "pci-stub"
    bus.drivers_probe("0000:00:05.0\n")
    assert edu.driver is bus.drivers["pci-stub"]
    bus.unbind("pci-stub", edu.name)
    bus.set_driver_override(edu, "e1000")
    assert outcome(lambda: bus.bind("pci-stub", edu.name)) == "ENODEV"
    bus.set_driver_override(edu, "\n")
    assert edu.driver_override is None
    assert outcome(lambda: bus.set_driver_override(edu, "x" * 4095)) == "EINVAL"
    bus.drivers_probe(edu.name)
    assert edu.driver is None


def test_small_attributes(machine: Machine) -> None:
    bus, edu = bus_of(machine), device(machine, "00:05.0")
    bus.set_numa_node(edu, "0")
    assert edu.numa_node == 0
    assert outcome(lambda: bus.set_numa_node(edu, "7")) == "EINVAL"
    assert outcome(lambda: bus.set_numa_node(edu, "-2")) == "EINVAL"
    bus.set_numa_node(edu, "-1")
    bus.set_msi_bus(edu, "0")
    bus.set_broken_parity_status(edu, "1")
    bus.set_d3cold_allowed(edu, "1")
    assert (edu.numa_node, edu.msi_bus, edu.broken_parity_status) == (-1, False, True)
    for knob in (bus.set_msi_bus, bus.set_broken_parity_status, bus.set_d3cold_allowed):
        assert outcome(lambda knob=knob: knob(edu, "junk")) == "EINVAL"
    bus.set_rom(edu, "1")
    assert edu.rom_enabled
    bus.set_rom(edu, "0\n")
    assert not edu.rom_enabled
    bus.set_autoprobe("0\n")
    assert not bus.autoprobe
    bus.set_autoprobe("1")
    assert bus.autoprobe


def test_reset_needs_a_method_and_the_number_one(machine: Machine) -> None:
    bus, nvme = bus_of(machine), device(machine, "00:04.0")
    assert outcome(lambda: bus.reset(device(machine, "00:05.0"), "1")) == "ENOTTY"
    for text in ("0", "2", "x"):
        assert outcome(lambda text=text: bus.reset(nvme, text)) == "EINVAL"
    bus.reset(nvme, "1\n")
    assert (command(machine, "00:04.0"), nvme.function.config.get(0x10, 4)) == (0x107, 0xFEB70004)
    assert machine.events[-1].kind == "reset-function"
    assert outcome(lambda: bus.set_reset_method(nvme, "bus")) == "EINVAL"
    assert outcome(lambda: bus.set_reset_method(nvme, "nonsense")) == "EINVAL"
    bus.set_reset_method(nvme, "\n")
    assert outcome(lambda: bus.reset(nvme, "1")) == "ENOTTY"
    bus.set_reset_method(nvme, "default")
    assert nvme.reset_methods == ("flr",)
    bus.set_reset_method(nvme, "flr \n")
    bus.reset_subordinate(device(machine, "00:0b.0"), "1")
    assert outcome(lambda: bus.reset_subordinate(device(machine, "00:0b.0"), "0")) == "EINVAL"


# -- configuration space --------------------------------------------------------------------


def test_configuration_is_read_and_written_over_the_bus(machine: Machine) -> None:
    bus, edu = bus_of(machine), device(machine, "00:05.0")
    assert bus.config_read(edu, 0, 4) == bytes.fromhex("3412e811")
    settled: list[Range] = []
    machine.settle = lambda spans, action: (settled.extend(spans), action())[1]  # type: ignore[arg-type]
    bus.config_write(edu, 0x10, (0xE0000000).to_bytes(4, "little"))
    page, megabyte = 4096, 1 << 20
    assert sorted(set(settled)) == [
        Range(0xB0028000, page),
        Range(0xE0000000, megabyte),
        Range(0xFEA00000, megabyte),
    ]
    assert edu.resources[0].start == 0xFEA00000
    assert "  fea00000-feafffff : 0000:00:05.0\n" in machine.iomem()
    assert machine.memory.read(0xE0000000, 2) == b"\0\0"
    assert machine.memory.read(0xFEA00000, 2) == b"\xff\xff"
    assert machine.events[-1].kind == "config"


def test_settle_is_never_called_under_the_lock(machine: Machine) -> None:
    free: list[bool] = []

    def settle(span: Range, action: Any) -> Any:
        free.append(not machine.lock._is_owned())  # type: ignore[attr-defined] # of RLock
        return action()

    machine.settle = settle
    seen: list[bool] = []
    machine.subscribers.append(lambda _: seen.append(not machine.lock._is_owned()))  # type: ignore[attr-defined]
    bus = bus_of(machine)
    bus.modprobe("nvme")
    bus.remove(device(machine, "00:04.0"), "1")
    bus.rescan("1")
    bus.unplug("01:00.0")
    bus.plug("01:00.0")
    bus.slot_power("1", "0")
    bus.slot_power("1", "1")
    bus.link_down("00:0b.0")
    bus.link_up("00:0b.0")
    bus.reset(device(machine, "00:04.0"), "1")
    machine.reset()
    assert len(free) > 10
    assert all(free)
    assert len(seen) > 10
    assert all(seen)


class Raises:
    """A model that fails at every write."""

    def config_written(self, function: Any, offset: int, size: int) -> None:
        raise ValueError("broken model")


def test_a_model_that_raises_stops_its_own_write_and_no_verb_of_the_kernel(
    machine: Machine,
) -> None:
    bus, nic = bus_of(machine), device(machine, "00:03.0")
    nic.function.model = Raises()
    with pytest.raises(ValueError, match="broken model"):
        bus.config_write(nic, 4, b"\x07")
    bus.config_read(nic, 0, 4)
    nic.function.config.put(4, 2, 0)
    bus.modprobe("e1000")
    assert nic.driver is bus.drivers["e1000"]
    assert any(
        event.kind == "error" and "0000:00:03.0" in event.message for event in machine.events
    )
    bus.remove(nic, "1")
    bus.rescan("1")
    again = device(machine, "00:03.0")
    assert (again.resources[0].start, again.function.config.get(0x10, 4)) == (0x20040000,) * 2


class Broken(Raises):
    """A model that does not come out of a reset either."""

    def reset(self) -> None:
        raise KeyError("reset")


def test_a_model_that_raises_when_it_is_reset_is_logged(machine: Machine) -> None:
    bus = bus_of(machine)
    nic = device(machine, "00:03.0")
    nic.function.model, nic.reset_methods = Broken(), ("flr",)
    before = nic.function.config.get(0x10, 4)
    bus.reset_function(nic, "1")
    assert nic.function.config.get(0x10, 4) == before
    bus.unplug(nic.name)
    bus.plug(nic.name)
    assert nic.name in bus.devices
    machine.reset()
    assert device(machine, "00:03.0").function.config.get(0x10, 4) == before
    messages = [event.message for event in machine.events if event.kind == "error"]
    assert any("Broken raised KeyError: 'reset'" in message for message in messages)


# -- speed ----------------------------------------------------------------------------------


def test_four_thousand_functions_are_found_in_well_under_a_second() -> None:
    functions = []
    for number in range(16):
        base = 0x1000000000 + number * 0x10000000
        functions.append(
            port(
                f"00:{number:02x}.0",
                number + 1,
                number + 1,
                prefetch=(base, base + 0xFFFFFFF),
                slot=f"{number}",
            )
        )
        for devfn in range(256):
            place = base + devfn * 0x10000
            functions.append(
                function(f"{number + 1:02x}:{devfn >> 3:02x}.{devfn & 7}", "144d:a808", 0x010802, (0, "pref64", 0x4000, place),
                         capabilities=[("msix", {"vectors": 4, "table": [0, 0x2000], "pba": [0, 0x3000]})])
            )  # fmt: skip
    iomem = "1000000000-1fffffffff : PCI Bus 0000:00\n"
    known = [PciDriver("nvme", [PciId(0x144D, 0xA808)], msi="msix", vectors=4)]
    before = time.process_time()
    machine = machine_of(functions, known, iomem=iomem, ports=PORTS)
    took = time.process_time() - before
    bus = bus_of(machine)
    assert len(bus.devices) == 16 * 257
    assert device(machine, "10:1f.7").driver is bus.drivers["nvme"]
    # The fabric and the machine are in this time too.
    assert took < 10
    bus.remove(device(machine, "03:1f.7"), "1")
    before = time.process_time()
    bus.rescan("1")
    assert time.process_time() - before < 5
    assert device(machine, "03:1f.7").driver is not None


def test_effects_of_a_bind_name_what_changed(machine: Machine) -> None:
    bus, seen = bus_of(machine), effects_of(machine)
    bus.modprobe("e1000")
    nic = device(machine, "00:03.0")
    assert seen == [
        NodesChanged("/sys/bus/pci/drivers", ("e1000",)),
        Revoke(Range(0xFEB40000, 128 << 10), "claimed by e1000"),
        NodesChanged(nic.path, ("driver", "msi_irqs", "waiting_for_supplier")),
        NodesChanged("/sys/bus/pci/drivers/e1000", (nic.name,)),
    ]
    del seen[:]
    bus.unbind("e1000", nic.name)
    assert seen == [
        Reopened(Range(0xFEB40000, 128 << 10)),
        NodesChanged(nic.path, ("driver", "msi_irqs", "waiting_for_supplier")),
        NodesChanged("/sys/bus/pci/drivers/e1000", (nic.name,)),
    ]
