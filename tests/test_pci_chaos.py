"""Verbs in any order: whatever is refused, the tables and the trees fit together afterwards."""

import random
from collections.abc import Callable

import pytest
from pci_machines import drivers, function, machine_of, port, q35

from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.errors import PciError
from fakedev.model.errors import ControlError, ResourceConflictError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range

K, M = 1 << 10, 1 << 20


def crowded() -> Machine:
    """The recorded machine with a switch beside."""
    more = [
        port("00:10.0", 2, 5, memory=(0xE0000000, 0xE03FFFFF), slot="7"),
        port("02:00.0", 3, 5, memory=(0xE0000000, 0xE03FFFFF), kind="upstream"),
        port("03:00.0", 4, 4, memory=(0xE0000000, 0xE00FFFFF), kind="downstream"),
        port("03:01.0", 5, 5, memory=(0xE0100000, 0xE02FFFFF), kind="downstream", slot="8"),
        function("04:00.0", "1111:2222", 0x020000, (0, "mem32", 64 * K, 0xE0000000), on_unplug="sigbus"),
        function("05:00.0", "1111:2222", 0x020000, (0, "mem32", M, 0xE0100000), on_unplug="poison"),
    ]  # fmt: skip
    known = [*drivers(), PciDriver("card", [PciId(0x1111, 0x2222)], msi="msix")]
    return machine_of(q35() + more, known)


def check(machine: Machine) -> None:
    bus: PciBus = machine.pci
    claimed = set()
    for name, device in bus.devices.items():
        assert name == device.name
        assert not device.gone
        siblings = device.parent.children if device.parent else bus.roots[0].children
        assert siblings[name] is device
        assert device.parent is None or bus.devices[device.parent.name] is device.parent
        for resource in device.resources:
            node = resource.node
            if node is not None:
                assert (node.start, node.end) == (resource.start, resource.end)
                top = node
                while top.parent is not None:
                    assert top in top.parent.children
                    top = top.parent
                assert top in (machine.tree.root, machine.ports.root)
        assert bool(device.driver) or not (device.claims or device.msi)
        if device.driver:
            assert device.driver.name in bus.drivers
        for claim in device.claims:
            claimed.add(claim.node)
        if device.function.present and device.bars and device.function.config.get(4, 2) & 2:
            for resource in device.bars:
                if resource.bar and resource.bar.index < 6 and resource.assigned:
                    assert resource.bar.address(device.function.config.data) == resource.start
    numbers = [number for device in bus.devices.values() for number in device.msi_irqs]
    assert len(numbers) == len(set(numbers))
    others = [claim for claim in machine.claims if claim not in claimed and claim.name != "ctl"]
    assert others == []


@pytest.mark.parametrize("seed", range(6))
def test_verbs_in_any_order(seed: int) -> None:
    machine = crowded()
    bus: PciBus = machine.pci
    dice = random.Random(seed)
    text, names = machine.iomem(), list(bus.devices)
    functions = [str(bdf) for bdf in bus.fabric.functions]
    loadable = [name for name in bus.known_drivers if name != "pcieport"]

    def any_device() -> str:
        return dice.choice(list(bus.devices) or names)

    def on_device(verb: str, *texts: str) -> Callable[[], None]:
        device = bus.devices.get(any_device())
        return lambda: device and getattr(bus, verb)(device, dice.choice(texts))

    def claim() -> None:
        device = bus.devices.get(any_device())
        for resource in device.bars if device else ():
            if resource.is_memory and resource.node:
                machine.claim(Range(resource.start, 4 * K), "ctl")

    verbs: list[Callable[[], object]] = [
        lambda: bus.modprobe(dice.choice(loadable)),
        lambda: bus.rmmod(dice.choice(loadable)),
        lambda: bus.bind(dice.choice(loadable), any_device()),
        lambda: (
            (d := bus.devices.get(any_device())) and d.driver and bus.unbind(d.driver.name, d.name)
        ),
        lambda: bus.new_id(
            dice.choice(loadable), dice.choice(["1234 11e8", "8086 10d3", "1111 2222"])
        ),
        lambda: bus.drivers_probe(any_device()),
        lambda: bus.rescan("1"),
        lambda: bus.rescan("1"),
        on_device("remove", "1"),
        on_device("set_enable", "0", "1"),
        on_device("reset", "1"),
        on_device("rescan_device", "1"),
        lambda: bus.remove(bus.devices[any_device()], "1"),
        lambda: bus.reset(bus.devices[any_device()], "1"),
        lambda: bus.set_enable(bus.devices[any_device()], dice.choice("01")),
        lambda: bus.unplug(dice.choice(functions)),
        lambda: bus.plug(dice.choice(functions)),
        lambda: bus.plug(dice.choice(functions)),
        lambda: bus.slot_power(dice.choice("178"), dice.choice("01")),
        lambda: bus.link_down(dice.choice(functions)),
        lambda: bus.link_up(dice.choice(functions)),
        lambda: bus.set_autoprobe(dice.choice("011")),
        claim,
        lambda: machine.claims and machine.release(dice.choice(machine.claims).span),
    ]
    done = 0
    for _ in range(400):
        try:
            dice.choice(verbs)()
            done += 1
        except (PciError, ControlError, ResourceConflictError, KeyError):
            pass
        check(machine)
    assert done > 100
    machine.reset()
    check(machine)
    assert machine.iomem() == text
    assert list(bus.devices) == names
