"""Userspace I/O: devices that come and go with bindings, their files, and modules that are in use."""

import errno
import os
import stat
import threading
from collections.abc import Callable

import pytest
from calling import PAGE, SHARED, call, mapped, said, sought
from pci_machines import function, machine_of
from pci_tree import EDU, NVME, ROOT, WRITER, Setup, directory_at, node_at, read, refused

from fakedev.devices.pci import binding
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.settings import Facts
from fakedev.devices.pci.uio import MAJOR, End
from fakedev.model.errors import ControlError
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile
from fakedev.views.node import Opener, Symlink, Waits
from fakedev.views.pci.uio import UioFile, UioHandle
from fakedev.views.tree import listing, live_directories

K, M = 1 << 10, 1 << 20
IDS = "1234 11e8"
NAME = "uio_pci_generic"
CARD = [(0, "mem32", 16 * K, 0xE0000000), (1, "io", 64, 0xD000), (2, "mem32", 256, 0xE0010100)]
MORE = [(0, "pref32", 4 * K, 0xE0020000), (2, "mem64", 4 * K, 0xE0030000), (5, "mem32", 4 * K, 0xE0040000)]  # fmt: skip


@pytest.fixture
def pc() -> Setup:
    return Setup(build_machine(load_profile("pc-q35")))


@pytest.fixture
def bound(pc: Setup) -> Setup:
    """With edu as uio0."""
    pc.machine.pci.modprobe(NAME)
    pc.machine.pci.new_id(NAME, IDS)
    return pc


def cards(known: PciDriver, *, facts: dict[str, Facts] | None = None) -> Setup:
    """Two functions, and a driver that takes both when it is loaded."""
    functions = [
        function("00:04.0", "10ee:7024", 0x058000, *CARD, line=11),  # type: ignore[arg-type]
        function("00:05.0", "10ee:7024", 0x058000, *MORE),  # type: ignore[arg-type]
    ]
    return Setup(machine_of(functions, [known], facts=facts))


def driver(**options: object) -> PciDriver:
    given = {"claims": (), "loaded": False, "uio": True, **options}
    return PciDriver("card", [PciId(0x10EE, 0x7024)], **given)  # type: ignore[arg-type]


def uio(setup: Setup, name: str = "uio0") -> UioFile:
    node = node_at(setup.tree, f"/dev/{name}")
    assert isinstance(node, UioFile)
    return node


def opened(setup: Setup, name: str = "uio0") -> UioHandle:
    return uio(setup, name).open(Opener(1, 0, os.O_RDWR))


def there(setup: Setup) -> list[str]:
    return [name for name in directory_at(setup.tree, "/dev").entries() if name.startswith("uio")]


def text(setup: Setup, path: str) -> str:
    return read(node_at(setup.tree, path)).decode()


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(ControlError) as caught:
        action()
    return errno.errorcode[caught.value.errno]


def rmmod(setup: Setup, name: str = NAME) -> None:
    setup.machine.pci.rmmod(name)


# -- the device -----------------------------------------------------------------------------------


def test_it_comes_and_goes_with_the_binding(pc: Setup) -> None:
    assert there(pc) == []
    assert directory_at(pc.tree, "/sys/class/uio").entries() == {}
    bus = pc.machine.pci
    bus.modprobe(NAME)
    assert there(pc) == []
    bus.new_id(NAME, IDS)
    assert there(pc) == ["uio0"]
    assert pc.device(EDU).lookup("uio") is not None
    bus.unbind(NAME, EDU)
    assert there(pc) == []
    assert directory_at(pc.tree, "/sys/class/uio").entries() == {}
    assert pc.device(EDU).lookup("uio") is None
    assert bus.uio == {}


def test_where_it_shows_is_told(bound: Setup) -> None:
    number = f"{MAJOR}:0"
    expected = [("/dev", "uio0"), ("/sys/class/uio", "uio0"), ("/sys/dev/char", number),
                (f"/sys/devices/pci0000:00/{EDU}", "uio")]  # fmt: skip
    assert [change for change in bound.changed if change in expected] == expected
    bound.changed.clear()
    bound.machine.pci.unbind(NAME, EDU)
    assert [change for change in bound.changed if change in expected] == expected


def test_its_directory(bound: Setup) -> None:
    """As recorded (`uio-sysfs`)."""
    directory = directory_at(bound.tree, f"/sys/devices/pci0000:00/{EDU}/uio/uio0")
    names = ["dev", "device", "event", "maps", "name", "power", "subsystem", "uevent", "version"]
    assert list(directory.entries()) == names
    links = {n: node.target.decode() for n, node in directory.entries().items() if isinstance(node, Symlink)}  # fmt: skip
    assert links == {"device": f"../../../{EDU}", "subsystem": "../../../../../class/uio"}
    modes = {name: stat.S_IMODE(directory.entries()[name].attr().mode) for name in ("dev", "uevent", "maps")}  # fmt: skip
    assert modes == {"dev": 0o444, "uevent": 0o644, "maps": 0o755}
    for name, said_ in {
        "name": NAME, "version": "0.01.0", "event": "0", "dev": f"{MAJOR}:0",
        "uevent": f"MAJOR={MAJOR}\nMINOR=0\nDEVNAME=uio0", "maps/map0/addr": "0x00000000fea00000",
        "maps/map0/size": "0x0000000000100000", "maps/map0/offset": "0x0", "maps/map0/name": EDU,
    }.items():  # fmt: skip
        assert text(bound, f"/sys/devices/pci0000:00/{EDU}/uio/uio0/{name}") == said_ + "\n"


@pytest.mark.parametrize("path", ["/sys/class/uio/uio0", f"/sys/dev/char/{MAJOR}:0"])
def test_links_to_it(bound: Setup, path: str) -> None:
    link = node_at(bound.tree, path)
    assert isinstance(link, Symlink)
    assert link.target.decode() == f"../../devices/pci0000:00/{EDU}/uio/uio0"


def test_stat_shows_a_character_device(bound: Setup) -> None:
    look = uio(bound).look()
    assert (look.mode, look.size) == (stat.S_IFCHR | 0o600, 0)
    assert look.rdev == os.makedev(MAJOR, 0)
    assert refused(uio(bound).open, Opener(1, 1000, os.O_RDONLY)) == "EACCES"


def test_the_lowest_free_number_is_taken() -> None:
    setup = cards(driver())
    bus = setup.machine.pci
    bus.modprobe("card")
    assert there(setup) == ["uio0", "uio1"]
    old = opened(setup)
    bus.unbind("card", "0000:00:04.0")
    bus.bind("card", "0000:00:04.0")
    assert [one.device.name for one in bus.uio.values()] == ["0000:00:05.0", "0000:00:04.0"]
    assert refused(old.read, 0, 4) == "EIO", "the old file is not one of the new device"
    assert text(setup, f"{bus.uio[0].path}/dev") == f"{MAJOR}:0\n"


def test_a_driver_that_is_none_for_user_space_makes_nothing(pc: Setup) -> None:
    pc.machine.pci.modprobe("nvme")
    assert pc.machine.pci.devices[NVME].driver.name == "nvme"
    assert there(pc) == []


def test_bound_at_boot_and_after_a_reset() -> None:
    known = driver(loaded=True)
    setup = cards(known, facts={"00:05.0": Facts(driver="")})
    assert there(setup) == ["uio0"]
    handle = opened(setup)
    setup.machine.pci.bind("card", "0000:00:05.0")
    assert there(setup) == ["uio0", "uio1"]
    setup.machine.reset()
    assert there(setup) == ["uio0"]
    assert handle.until.alive  # it was bound all the time
    setup.machine.pci.unbind("card", "0000:00:04.0")
    setup.machine.reset()
    assert there(setup) == ["uio0"]
    assert not handle.until.alive


def test_beside_nodes_that_come_and_go_otherwise(pc: Setup) -> None:
    """/dev of this machine has those of persistent memory, too."""
    bus = pc.machine.pci
    pc.machine.nd.modprobe("nfit")
    bus.modprobe(NAME)
    bus.new_id(NAME, IDS)
    assert {"mem", "port", "uio0", "pmem0"} <= set(directory_at(pc.tree, "/dev").entries())
    first = node_at(pc.tree, "/dev/pmem0")
    pc.machine.nd.nd_unbind("nd_pmem", "namespace0.0")
    names = set(directory_at(pc.tree, "/dev").entries())
    assert "pmem0" not in names
    assert "uio0" in names
    pc.machine.nd.nd_bind("nd_pmem", "namespace0.0")
    assert node_at(pc.tree, "/dev/pmem0") is not first
    before = uio(pc)
    bus.unbind(NAME, EDU)
    bus.bind(NAME, EDU)
    assert uio(pc) is not before


def test_places_in_a_sandbox(pc: Setup) -> None:
    modes = listing(pc.machine)
    assert stat.S_ISREG(modes["/dev/uio0"])
    assert stat.S_ISLNK(modes["/sys/class/uio/uio0"])
    assert live_directories(pc.machine)["/sys/class/uio"] is False
    assert live_directories(pc.machine)["/sys/dev/char"] is True


def test_a_machine_without_such_a_driver_has_no_place_for_it() -> None:
    setup = cards(driver(uio=False))
    assert "/sys/class/uio" not in listing(setup.machine)


def test_a_profile_says_which_driver_is_one() -> None:
    override = ["pci.drivers.e1000.uio=true", "pci.drivers.uio_pci_generic.uio=false"]
    machine = build_machine(load_profile("pc-q35", overrides=override))
    known = machine.pci.known_drivers
    assert [name for name, one in known.items() if one.uio] == ["e1000"]
    assert [n for n, one in build_machine(load_profile("pc-q35")).pci.known_drivers.items() if one.uio] == [NAME]  # fmt: skip


# -- maps -----------------------------------------------------------------------------------------


def test_maps_of_a_driver_that_claims_nothing() -> None:
    """Those that are 32 bits wide and not prefetchable, among the first five resources."""
    setup = cards(driver())
    setup.machine.pci.modprobe("card")
    first, second = (setup.machine.pci.uio[number] for number in (0, 1))
    assert [(m.span, m.offset) for m in first.maps] == [
        (Range(0xE0000000, 16 * K), 0), (Range(0xE0010000, PAGE), 0x100),
    ]  # fmt: skip
    assert second.maps == ()
    assert "maps" not in directory_at(setup.tree, second.path).entries()


def test_maps_of_a_driver_that_claims() -> None:
    setup = cards(driver(claims="all"))
    setup.machine.pci.modprobe("card")
    assert [m.span.start for m in setup.machine.pci.uio[1].maps] == [0xE0020000, 0xE0030000, 0xE0040000]  # fmt: skip
    setup = cards(driver(claims=(2,)))
    setup.machine.pci.modprobe("card")
    assert [m.span.start for m in setup.machine.pci.uio[0].maps] == [0xE0010000]


def test_mmap(bound: Setup) -> None:
    node = uio(bound)
    assert mapped(node) is None
    assert mapped(node, 0, M) is None
    assert mapped(node, 0, M + 1) == "EINVAL"
    assert mapped(node, PAGE) == "EINVAL", "there is one map"
    assert mapped(node, 1 << 40) == "EINVAL"
    assert mapped(node, prot=3, status=os.O_RDONLY) == "EACCES"
    assert mapped(node, flags=SHARED, prot=4) is None
    bound.machine.pci.unbind(NAME, EDU)
    assert mapped(node) == "EINVAL"


def test_each_map_has_a_file_of_its_own() -> None:
    """The second page of the first map and the first page of the second have one offset."""
    setup = cards(driver())
    setup.machine.pci.modprobe("card")
    node = uio(setup)
    assert node.mapped_through(call()) is None
    assert node.mapped_through(call(PAGE)) == "/dev/uio0:1"
    second = uio(setup, "uio0:1")
    assert second.mapped_through(call(0)) == "/dev/uio0"
    assert second.mapped_through(call(PAGE)) is None
    assert there(setup) == ["uio0", "uio1"]
    assert directory_at(setup.tree, "/dev").lookup("uio0:2") is None
    memory = setup.machine.memory
    memory.write(0xE0001000, b"1st, 2nd page")
    memory.write(0xE0010100, b"2nd")
    assert bytes(b"".join(opened(setup).fault(PAGE, PAGE))[:3]) == b"1st"
    assert bytes(b"".join(opened(setup, "uio0:1").fault(PAGE, PAGE))[0x100:0x103]) == b"2nd"
    assert second.attr().size == 2 * PAGE
    setup.machine.pci.unbind("card", "0000:00:04.0")
    assert directory_at(setup.tree, "/dev").lookup("uio0:1") is None


def test_a_device_without_maps_can_be_opened() -> None:
    setup = cards(driver())
    setup.machine.pci.modprobe("card")
    assert uio(setup, "uio1").attr().size == 0
    assert mapped(uio(setup, "uio1")) == "EINVAL"
    opened(setup, "uio1").released()


def test_only_a_card_that_was_pulled_takes_mappings_with_it(bound: Setup) -> None:
    node, handle = uio(bound), opened(bound)
    bound.machine.claim("fea00000-feafffff", "somebody")
    assert not node.revocable()
    assert not node.shared
    bound.machine.pci.unbind(NAME, EDU)
    assert not node.revocable()
    assert b"".join(handle.fault(0, 4))[:1] == b"\xed", "a mapping that is there lives on"
    bound.machine.pci.bind(NAME, EDU)
    node = uio(bound)
    bound.machine.pci.unplug(EDU)
    assert node.revocable()


def test_failed_memory(bound: Setup) -> None:
    handle = opened(bound)
    bound.machine.poison.add(Range(0xFEA01000, PAGE))
    assert refused(handle.fault, PAGE, PAGE) == "EIO"
    assert handle.explain(PAGE, PAGE).errno == errno.EIO
    handle.fault(0, PAGE)


# -- read, write, poll ----------------------------------------------------------------------------


def test_read_waits_for_an_interrupt(bound: Setup) -> None:
    handle = opened(bound)
    assert refused(handle.read, 0, 8) == "EINVAL"
    assert refused(handle.read, 0, 0) == "EINVAL"
    with pytest.raises(Waits) as caught:
        handle.read(0, 4)
    assert caught.value.errno == errno.EAGAIN
    ended: list[str] = []
    caught.value.until.call(1, lambda: ended.append("over"))
    bound.machine.pci.unbind(NAME, EDU)
    assert ended == ["over"]
    assert refused(handle.read, 0, 4) == "EIO"


def test_without_an_interrupt() -> None:
    setup = cards(driver())
    setup.machine.pci.modprobe("card")
    assert setup.machine.pci.uio[1].irq == 0
    handle = opened(setup, "uio1")
    assert refused(handle.read, 0, 4) == "EIO"
    assert refused(handle.write, 0, memoryview(bytes(4))) == "EIO"
    assert handle.poll() & 1
    assert opened(setup).poll() == 0


def test_write(bound: Setup) -> None:
    handle = opened(bound)
    assert refused(handle.write, 0, memoryview(bytes(3))) == "EINVAL"
    assert refused(handle.write, 0, memoryview(bytes(4))) == "ENOSYS"
    bound.machine.pci.unbind(NAME, EDU)
    assert refused(handle.write, 0, memoryview(bytes(4))) == "EINVAL"
    assert handle.poll() & 1


def test_calls_that_no_file_system_is_asked_about(bound: Setup) -> None:
    node = uio(bound)
    assert said(node.empty(0)) == "EINVAL"
    assert said(node.call("fsync")) == "EINVAL"
    assert sought(node, 100, os.SEEK_SET, 5) == 5, "noop_llseek"


# -- modules --------------------------------------------------------------------------------------


def test_a_module_in_use_is_not_unloaded(bound: Setup) -> None:
    handle = opened(bound)
    assert fails(lambda: rmmod(bound)) == "EAGAIN"
    assert NAME in bound.machine.pci.drivers
    assert there(bound) == ["uio0"]
    bound.machine.pci.unbind(NAME, EDU)
    assert fails(lambda: rmmod(bound)) == "EAGAIN", "the open file outlives the device"
    assert refused(uio_gone(bound).open, ROOT) == "ENODEV"
    handle.released()
    rmmod(bound)
    assert NAME not in bound.machine.pci.drivers


def uio_gone(setup: Setup) -> UioFile:
    """A node that was looked up before its device went."""
    bus = setup.machine.pci
    bus.bind(NAME, EDU)
    node = uio(setup)
    bus.unbind(NAME, EDU)
    return node


def test_rmmod_waits_for_a_close_that_is_under_way(
    bound: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "CLOSING", 30)
    handle = opened(bound)
    unloading = threading.Thread(target=rmmod, args=(bound,))
    unloading.start()
    handle.released()
    unloading.join(10)
    assert not unloading.is_alive()
    assert NAME not in bound.machine.pci.drivers


def test_unloading_takes_the_device_along(bound: Setup) -> None:
    node = uio(bound)
    node.open(WRITER).released()
    rmmod(bound)
    assert there(bound) == []
    assert refused(node.open, ROOT) == "ENODEV"


def test_removal_of_the_function_ends_the_device(bound: Setup) -> None:
    handle, former = opened(bound), uio(bound)
    bound.machine.pci.remove(bound.machine.pci.devices[EDU], "1")
    assert not handle.until.alive
    assert there(bound) == []
    bound.machine.pci.rescan("1")
    assert there(bound) == ["uio0"], "the dynamic id takes it again"
    assert uio(bound).uio is not former.uio


def test_a_machine_is_one_world_for_all_its_trees(bound: Setup) -> None:
    other = Setup(bound.machine)
    handle = opened(other)
    assert fails(lambda: rmmod(bound)) == "EAGAIN"
    handle.released()
    rmmod(bound)


# -- an end ---------------------------------------------------------------------------------------


def test_an_end_comes_once() -> None:
    end, seen = End(), list[str]()
    end.call("a", lambda: seen.append("replaced"))
    end.call("a", lambda: seen.append("a"))
    end.call("b", lambda: seen.append("b"))
    end.forget("b")
    end.forget("unknown")
    end.come()
    end.come()
    assert seen == ["a"]
    end.call("c", lambda: seen.append("at once"))
    assert seen == ["a", "at once"]


def test_what_is_called_at_the_end_may_ask_and_wait_again() -> None:
    end = End()
    seen: list[bool] = []

    def again() -> None:
        seen.append(end.alive)
        end.forget("a")
        end.call("a", lambda: seen.append(True))

    end.call("a", again)
    end.come()
    assert seen == [False, True]
