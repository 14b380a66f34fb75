"""Files of PCI that come, go, and change what is there; and what asking costs."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pci_recorded import recorded_machine
from pci_tree import (
    E1000,
    EDU,
    IVSHMEM,
    NVME,
    PORT,
    ROOT,
    Setup,
    device_path,
    directory_at,
    entries_of,
    node_at,
    read,
    refused,
    write,
)

from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.model.files import StaticFile
from fakedev.model.kernel import KernelRules
from fakedev.model.machine import Machine
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.resources import ResourceTree
from fakedev.views.node import Directory, Opener, Refused, Symlink
from fakedev.views.tree import Tree, listing

HOTPLUG = "0000:01:00.0"


@pytest.fixture
def boot() -> Setup:
    return Setup(recorded_machine())


def driver_file(setup: Setup, driver: str, name: str):
    return directory_at(setup.tree, f"/sys/bus/pci/drivers/{driver}").lookup(name)


def test_binding(boot: Setup) -> None:
    """The recorded phase `bind-errors`, through files."""
    boot.machine.pci.modprobe("pci-stub")
    bind, unbind, new_id, remove_id = (
        driver_file(boot, "pci-stub", name) for name in ("bind", "unbind", "new_id", "remove_id")
    )
    assert refused(write, bind, "0000:ff:1f.7") == "ENODEV"
    assert refused(write, bind, EDU) == "ENODEV"
    assert refused(write, unbind, EDU) == "ENODEV"
    assert refused(write, new_id, "zzzz") == "EINVAL"
    assert boot.device(EDU).lookup("driver") is None
    assert boot.device(EDU).lookup("waiting_for_supplier") is not None
    assert write(new_id, "1234 11e8") == 9
    assert refused(write, new_id, "1234 11e8") == "EEXIST"
    link = boot.device(EDU).lookup("driver")
    assert isinstance(link, Symlink)
    assert link.target == b"../../../bus/pci/drivers/pci-stub"
    back = driver_file(boot, "pci-stub", EDU)
    assert isinstance(back, Symlink)
    assert back.target == f"../../../../devices/pci0000:00/{EDU}".encode()
    assert "waiting_for_supplier" not in boot.device(EDU).entries()
    assert read(boot.attribute(EDU, "uevent")).startswith(b"DRIVER=pci-stub\nPCI_CLASS=FF00\n")
    assert refused(write, bind, EDU) == "EBUSY"
    assert write(unbind, EDU + "\n") == 13
    assert boot.device(EDU).lookup("driver") is None
    assert driver_file(boot, "pci-stub", EDU) is None
    assert write(remove_id, "1234 11e8") == 9
    assert refused(write, remove_id, "1234 11e8") == "ENODEV"
    assert refused(bind.open, ROOT) == "EACCES"
    probe = node_at(boot.tree, "/sys/bus/pci/drivers_probe")
    write(boot.attribute(EDU, "driver_override"), "pci-stub")
    assert write(probe, EDU) == 12
    assert refused(write, probe, "0000:ff:1f.7") == "ENODEV"
    assert boot.device(EDU).lookup("driver") is not None


def test_bus_wide_files(boot: Setup) -> None:
    autoprobe = node_at(boot.tree, "/sys/bus/pci/drivers_autoprobe")
    assert read(autoprobe) == b"1\n"
    write(autoprobe, "0")
    assert read(autoprobe) == b"0\n"
    alignment = node_at(boot.tree, "/sys/bus/pci/resource_alignment")
    assert read(alignment) == b""
    write(alignment, "20@00:05.0\n")
    assert read(alignment) == b"20@00:05.0\n"
    assert refused(write, node_at(boot.tree, "/sys/bus/pci/rescan"), "x") == "EINVAL"
    assert write(node_at(boot.tree, "/sys/bus/pci/uevent"), "add") == 3


def test_removal_and_rescan(boot: Setup) -> None:
    """The recorded phase `remove-ivshmem`: what is held dies, a rescan makes other nodes."""
    directory = boot.device(IVSHMEM)
    held = {name: boot.attribute(IVSHMEM, name) for name in ("vendor", "config", "resource2")}
    handles = {name: node.open(Opener(1, 0, os.O_RDONLY)) for name, node in held.items()}
    write(boot.attribute(IVSHMEM, "enable"), "1")
    assert write(boot.attribute(IVSHMEM, "remove"), "1") == 1
    assert [refused(handle.read, 0, 4) for handle in handles.values()] == ["ENODEV"] * 3
    assert [node.attr().size for node in held.values()] == [4096, 256, 1 << 24]
    assert not directory.entries()
    assert directory.lookup("vendor") is None
    assert directory_at(boot.tree, "/sys/devices/pci0000:00").lookup(IVSHMEM) is None
    assert directory_at(boot.tree, "/sys/bus/pci/devices").lookup(IVSHMEM) is None
    assert directory_at(boot.tree, "/proc/bus/pci/00").lookup("02.0") is None
    assert b"1af41110" not in read(node_at(boot.tree, "/proc/bus/pci/devices"), size=1 << 16)

    assert write(node_at(boot.tree, "/sys/bus/pci/rescan"), "1") == 1
    fresh = boot.device(IVSHMEM)
    assert fresh is not directory
    assert read(fresh.lookup("enable")) == b"0\n"
    assert "0x0000000900000000 0x0000000900ffffff 0x000000000014220c" in (
        read(fresh.lookup("resource")).decode()
    )
    assert refused(handles["config"].read, 0, 4) == "ENODEV"
    assert fresh.lookup("firmware_node") is not None


def test_a_bridge_takes_its_bus_along(boot: Setup) -> None:
    write(boot.attribute(PORT, "remove"), "1")
    assert directory_at(boot.tree, "/sys/bus/pci/devices").lookup(HOTPLUG) is None
    assert directory_at(boot.tree, "/sys/class/pci_bus").lookup("0000:01") is None
    assert directory_at(boot.tree, "/proc/bus/pci").lookup("01") is None
    assert directory_at(boot.tree, "/sys/bus/pci/slots").lookup("0") is None
    write(node_at(boot.tree, "/sys/devices/pci0000:00/pci_bus/0000:00/rescan"), "1")
    assert boot.attribute(HOTPLUG, "vendor") is not None
    assert directory_at(boot.tree, "/sys/bus/pci/slots").lookup("0") is not None


def test_a_surprise(boot: Setup) -> None:
    held = {name: boot.attribute(HOTPLUG, name) for name in ("current_link_speed", "config")}
    boot.machine.pci.link_down(PORT)
    assert read(held["config"], size=4) == b"\xff" * 4
    assert read(held["current_link_speed"]) == b"Unknown\n"
    boot.machine.pci.link_up(PORT)
    assert read(held["current_link_speed"]) == b"2.5 GT/s PCIe\n"
    boot.machine.pci.unplug(HOTPLUG)
    assert [refused(node.open, ROOT) for node in held.values()] == ["ENODEV", "ENODEV"]
    assert boot.device(PORT).lookup(HOTPLUG) is None
    boot.machine.pci.plug(HOTPLUG)
    assert read(boot.attribute(HOTPLUG, "vendor")) == b"0x8086\n"


def test_message_interrupts() -> None:
    bound = Setup(recorded_machine("bound"))
    vectors = directory_at(bound.tree, f"{device_path(NVME)}/msi_irqs")
    assert [read(node) for node in vectors.entries().values()] == [b"msix\n"]
    assert vectors.lookup("1") is None
    write(driver_file(bound, "nvme", "unbind"), NVME)
    assert bound.device(NVME).lookup("msi_irqs") is None


def test_what_a_driver_adds() -> None:
    """Class links and the files that they lead to come and go with the function's own driver."""
    machine = recorded_machine("bound")
    bdf = Bdf.parse(NVME)
    facts = dict(machine.pci.settings.facts)
    facts[bdf] = facts[bdf]._replace(links=(("/sys/class/nvme/nvme0", "nvme/nvme0"),))
    machine.pci.settings = machine.pci.settings._replace(facts=facts)
    machine.pci.devices[NVME].facts = facts[bdf]
    machine.files[f"{device_path(NVME)}/nvme/nvme0/model"] = StaticFile.text("small\n")
    machine.files[f"{device_path(NVME)}/label"] = StaticFile.text("disk\n")
    setup = Setup(machine)
    assert stat.S_ISLNK(listing(machine)["/sys/class/nvme/nvme0"])
    links = directory_at(setup.tree, "/sys/class/nvme")
    target = f"../../devices/pci0000:00/{NVME}/nvme/nvme0"
    assert entries_of(links) == {"nvme0": [stat.S_IFLNK | 0o777, 0, target]}
    assert read(node_at(setup.tree, f"{device_path(NVME)}/nvme/nvme0/model")) == b"small\n"
    write(driver_file(setup, "nvme", "unbind"), NVME)
    assert not links.entries()
    assert links.lookup("nvme0") is None
    assert setup.device(NVME).lookup("nvme") is None
    assert read(setup.attribute(NVME, "label")) == b"disk\n"
    write(driver_file(setup, "nvme", "bind"), NVME)
    assert list(links.entries()) == ["nvme0"]
    write(setup.attribute(NVME, "remove"), "1")
    assert not links.entries()
    write(node_at(setup.tree, "/sys/bus/pci/rescan"), "1")
    assert read(node_at(setup.tree, f"{device_path(NVME)}/nvme/nvme0/model")) == b"small\n"


def test_paths_for_the_sandbox(boot: Setup) -> None:
    found = {path: mode for path, mode in listing(boot.machine).items() if "0000:00:" not in path}
    directories = {path for path, mode in found.items() if stat.S_ISDIR(mode)}
    assert directories == {
        "/sys/bus/pci", "/sys/class/pci_bus", "/proc/bus/pci", "/sys/devices/pci0000:00",
    }  # fmt: skip
    assert stat.S_ISREG(found["/proc/ioports"])
    assert "/dev/port" not in found


def test_dev_port() -> None:
    machine = recorded_machine(port=True)
    setup = Setup(machine)
    node = node_at(setup.tree, "/dev/port")
    assert stat.S_ISREG(listing(machine)["/dev/port"])
    assert node.attr() == (stat.S_IFREG | 0o640, 65536, 0, 1)
    assert refused(node.open, Opener(1, 1000, os.O_RDONLY)) == "EACCES"
    write(node, (0x80002800).to_bytes(4, "little"), 0xCF8)
    assert read(node, offset=0xCFC, size=4) == bytes.fromhex("3412e811")
    assert read(node, offset=65534, size=8) == b"\xff\xff"
    assert read(node, offset=65536) == b""
    machine.rules = KernelRules.preset("6.1", phys_bits=40, lockdown="integrity")
    assert refused(node.open, ROOT) == "EPERM"


def test_configuration_ports_wait_for_mapped_pages() -> None:
    """Stores through a mapping of the ECAM are seen behind CF8 and CFC, and the other way round."""
    machine = recorded_machine(port=True)
    machine.pci._ecam_pages[Bdf.parse(EDU)] = [Range(0xB0028000, 4096)]
    node = node_at(Setup(machine).tree, "/dev/port")
    settled: list[object] = []

    def settle(spans: object, action: Callable[[], object]) -> object:
        settled.append(spans)
        return action()

    machine.settle = settle
    handle = node.open(ROOT)
    assert getattr(handle, "slow", False)
    assert getattr(handle, "settles", False)
    assert handle.write(0xCF8, memoryview((0x80002800).to_bytes(4, "little"))) == 4
    handle.read(0xCFC, 4)
    handle.write(0xCFC, memoryview(b"\0"))
    assert settled == [[], [Range(0xB0028000, 4096)], [Range(0xB0028000, 4096)]]


EXPECTED = (errno.ENOENT, errno.EIO, errno.ENODEV, errno.EINVAL, errno.ELOOP)


class suppress_expected:  # noqa: N801 - used like a function
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, Refused) and error.errno in EXPECTED


def read_everything(tree: Tree) -> None:
    """Read what can be read; what was removed meanwhile answers with an errno."""
    for _, node in tree.walk():
        if not isinstance(node, Directory) and node.attr().mode & 0o444 == 0o444:
            with suppress_expected():
                read(node)


def test_readers_beside_verbs(boot: Setup) -> None:
    """Listings and texts from several threads while functions come and go: no error, no stale node."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            read_everything(boot.tree)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(look) for _ in range(3)]
        for _ in range(20):
            for name in (PORT, IVSHMEM):
                write(boot.attribute(name, "remove"), "1")
            write(node_at(boot.tree, "/sys/bus/pci/rescan"), "1")
        done.set()
        assert [reader.result() for reader in readers] == [None] * 3
    assert read(boot.attribute(E1000, "vendor")) == b"0x8086\n"


def many(count: int) -> Machine:
    """A machine with `count` functions on its root buses, 256 on each."""
    functions = []
    for number in range(count):
        config = ConfigSpace()
        config.put(0, 4, 0x7024_10EE)
        functions.append(Function(Bdf.of(number >> 16, number >> 8 & 0xFF, number & 0xFF), config))
    memory, ports = PhysicalMemory(), PhysicalMemory()
    fabric = Fabric(functions, memory, ports)
    iomem, ioports = ResourceTree(), ResourceTree.ioports()
    bus = PciBus(fabric, iomem=iomem, ioports=ioports)
    bus.boot()
    machine = Machine(KernelRules.preset("6.1", phys_bits=40), memory, iomem, ports=ioports)
    machine.pci = bus
    bus.attach(machine)
    return machine


def test_thousands_of_functions() -> None:
    machine = many(4096)
    tree = Tree(machine)
    assert len(directory_at(tree, "/sys/bus/pci/devices").entries()) == 4096
    roots = [directory_at(tree, root.path).entries() for root in machine.pci.roots]
    assert sum(name.endswith(".0") for root in roots for name in root) == 512
    text = read(node_at(tree, "/proc/bus/pci/devices"), size=1 << 20)
    assert text.count(b"\n") == 4096
    places = (
        "/sys/bus/pci/devices",
        "/sys/devices/pci0000:00",
        "/proc/bus/pci",
        "/sys/class/pci_bus",
    )
    for directory in (directory_at(tree, path) for path in places):
        for number in range(2000):
            assert directory.lookup(f"00ff:{number:02x}") is None
