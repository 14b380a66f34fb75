"""The control verbs about PCI, on the machine that docs/pci.md describes."""

import re
from pathlib import Path
from typing import Any

import pytest
from machines import small_machine

from fakedev.control.explaining import explain, where
from fakedev.control.verbs import Verbs, event_json
from fakedev.model.effects import Event, Mapper
from fakedev.model.errors import ControlError, FakedevError
from fakedev.model.machine import Machine
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

DOCS = Path(__file__).parent.parent / "docs" / "pci.md"
PORT, CARD = "0000:00:01.0", "0000:01:00.0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    profile = tmp_path / "board.yaml"
    profile.write_text(re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)[0])
    return build_machine(load_profile(str(profile)))


@pytest.fixture
def call(machine: Machine) -> Any:
    verbs = Verbs(machine)
    return lambda verb, **values: verbs(verb, values, lambda: False)


def functions(call: Any) -> dict[str, dict[str, Any]]:
    return {row["bdf"]: row for row in call("pci")["functions"]}


def kinds(machine: Machine) -> list[str]:
    return [event.kind for event in machine.events]


def test_the_table_has_every_function(call: Any) -> None:
    rows = functions(call)
    assert list(rows) == ["0000:00:00.0", PORT, CARD]
    card = rows[CARD]
    assert (card["id"], card["class"], card["subsystem"]) == ("10ee:7024", "058000", "10ee:0007")
    assert (card["state"], card["driver"], card["parent"]) == ("present", None, PORT)
    assert card["bars"][0] == {
        "index": 0,
        "kind": "mem32",
        "prefetch": False,
        "range": "30000000-3000ffff",
        "size": 65536,
    }


def test_a_driver_is_loaded_bound_and_unloaded(call: Any, machine: Machine) -> None:
    loaded = call("modprobe", name="fpga")
    assert loaded["bound"] == {CARD: "fpga"}
    assert "fpga" in machine.iomem()
    assert functions(call)[CARD]["driver"] == "fpga"
    assert call("unbind", device="01:00.0")["unbound"] == {CARD: "fpga"}
    assert call("bind", driver="fpga", device="01:00.0")["bound"] == {CARD: "fpga"}
    assert call("rmmod", name="fpga")["unbound"] == {CARD: "fpga"}
    assert "fpga" not in machine.iomem()
    assert {"module", "bind", "unbind"} <= set(kinds(machine))


def test_a_probe_that_fails_says_who_is_in_the_way(call: Any, machine: Machine) -> None:
    machine.claim("30000000-30000fff", "squatter")
    loaded = call("modprobe", name="fpga")
    assert loaded["bound"] == {}
    assert any("BAR 0" in message for message in loaded["failed"])
    with pytest.raises(ControlError, match="EBUSY"):
        call("bind", driver="fpga", device=CARD)


def test_a_function_is_removed_and_found_again(call: Any, machine: Machine) -> None:
    assert call("remove", device="01:00.0")["removed"] == [CARD]
    assert functions(call)[CARD]["state"] == "removed"
    assert functions(call)[CARD]["id"] == "10ee:7024"
    with pytest.raises(ControlError, match="removed: fakedev ctl rescan"):
        call("remove", device="01:00.0")
    assert call("rescan")["added"] == [CARD]
    assert call("rescan", device="00:01.0")["added"] == []
    assert functions(call)[CARD]["state"] == "present"
    assert {"remove", "rescan"} <= set(kinds(machine))


def test_a_bridge_takes_along_what_is_behind_it(call: Any) -> None:
    assert set(call("remove", device=PORT)["removed"]) == {PORT, CARD}
    assert set(call("rescan")["added"]) == {PORT, CARD}


def test_a_function_is_unplugged_and_put_back(call: Any) -> None:
    assert CARD in call("unplug", device="01:00.0")["removed"]
    assert functions(call)[CARD]["state"] == "unplugged"
    with pytest.raises(ControlError, match=f"unplugged: fakedev ctl plug {CARD}"):
        call("bind", driver="pci-stub", device="01:00.0")
    assert CARD in call("plug", device="01:00.0")["added"]
    assert functions(call)[CARD]["state"] == "present"


def test_what_is_behind_an_unplugged_port_says_so(call: Any) -> None:
    assert set(call("unplug", device="00:01.0")["removed"]) == {PORT, CARD}
    with pytest.raises(ControlError, match=f"unplugged: fakedev ctl plug {PORT}"):
        call("remove", device=CARD)
    assert set(call("plug", device="00:01.0")["added"]) == {PORT, CARD}


def test_a_link_goes_down_and_comes_back(call: Any, machine: Machine) -> None:
    call("link-down", device="00:01.0")
    assert functions(call)[CARD]["state"] == "link down"
    assert machine.peek("0x30001000+4") == b"\xff" * 4
    call("remove", device="01:00.0")
    with pytest.raises(ControlError, match=r"unreachable: fakedev ctl link-up 0000:00:01\.0"):
        call("bind", driver="pci-stub", device="01:00.0")
    call("link-up", device="00:01.0")
    assert functions(call)[CARD]["state"] == "removed"
    call("rescan")
    assert functions(call)[CARD]["state"] == "present"


def test_a_slot_is_switched(call: Any) -> None:
    off = call("slot-power", slot="1", power="off")
    assert (off["slot"], off["power"], off["removed"]) == ("1", "off", [CARD])
    assert functions(call)[CARD]["state"] == "without power"
    with pytest.raises(ControlError, match="without power: fakedev ctl slot-power 1 on"):
        call("remove", device=CARD)
    assert call("slot-power", slot="1", power="on")["added"] == [CARD]
    with pytest.raises(ControlError, match="no slot '7'; slots: 1"):
        call("slot-power", slot="7", power="on")
    with pytest.raises(ControlError, match="on or off"):
        call("slot-power", slot="1", power="maybe")


def test_a_function_is_reset(call: Any, machine: Machine) -> None:
    assert call("reset-function", device="01:00.0")["device"] == CARD
    assert kinds(machine)[-1] == "reset-function"
    with pytest.raises(FakedevError, match="ENOTTY"):
        call("reset-function", device="00:00.0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "write 00:1f.2 or 0000:00:1f.2"),
        ("00:02.0", "there is no function 0000:00:02.0; did you mean 0000:0"),
        ("00:20.0", "beyond 1f"),
        ("", "fakedev ctl pci"),
    ],
)
def test_a_function_that_is_none_gets_help(call: Any, text: str, message: str) -> None:
    for verb in ("remove", "unplug", "plug", "link-down", "reset-function", "unbind"):
        with pytest.raises(ControlError, match=re.escape(message)):
            call(verb, device=text)


def test_errors_of_bind_say_what_to_do(call: Any) -> None:
    with pytest.raises(ControlError, match="not loaded: fakedev ctl modprobe fpga"):
        call("bind", driver="fpga", device=CARD)
    with pytest.raises(ControlError, match=r"no driver 'nonsense' \(loaded: .*pci-stub"):
        call("bind", driver="nonsense", device=CARD)
    with pytest.raises(ControlError, match=r"ENODEV.*10ee 7024.*new_id"):
        call("bind", driver="pci-stub", device=CARD)
    with pytest.raises(ControlError, match="has no driver"):
        call("unbind", device=CARD)
    call("modprobe", name="fpga")
    with pytest.raises(ControlError, match=r"EBUSY.*bound to fpga: fakedev ctl unbind"):
        call("bind", driver="fpga", device=CARD)
    with pytest.raises(ControlError, match="is bound to fpga"):
        call("unbind", driver="pci-stub", device=CARD)


def test_drivers_that_are_none(call: Any) -> None:
    for verb in ("modprobe", "rmmod"):
        with pytest.raises(FakedevError, match="nonsense"):
            call(verb, name="nonsense")


def test_a_machine_without_pci_says_so() -> None:
    verbs = Verbs(small_machine())
    for verb, values in (
        ("pci", {}),
        ("bind", {"driver": "x", "device": "00:00.0"}),
        ("modprobe", {"name": "x"}),
        ("rescan", {}),
        ("slot-power", {"slot": "1", "power": "on"}),
    ):
        with pytest.raises(ControlError, match="small has no PCI"):
            verbs(verb, values, lambda: False)


def test_a_path_is_explained(machine: Machine, call: Any) -> None:
    path = f"/sys/bus/pci/devices/{CARD}/resource0"
    assert where(machine, path) == Range(0x30000000, 0x10000)
    assert explain(machine, "mmap", path).allowed
    assert call("explain", path=path, op="read")["errno"] == "EIO"
    machine.claim("30000000-30000fff", "other")
    verdict = call("explain", path=path, op="mmap")
    assert (verdict["errno"], verdict["resource"]) == ("EINVAL", "30000000-30000fff : other")
    for bad, message in (
        (f"/sys/bus/pci/devices/{CARD}/resource5", "no BAR 5"),
        ("/sys/bus/pci/devices/0000:09:00.0/resource0", "no function"),
        ("/etc/passwd", "path of a resourceN"),
    ):
        with pytest.raises(ControlError, match=message):
            explain(machine, "mmap", bad)
    with pytest.raises(ControlError, match="has no PCI"):
        explain(small_machine(), "mmap", path)


def test_an_event_shows_who_lost_a_mapping() -> None:
    mapper = Mapper(123, "gdb", Range(0x30000000, 4096))
    shown = event_json(Event(1, "revoke", "gone", Range(0x30000000, 4096), (mapper,)))
    assert shown["mappers"] == [{"pid": 123, "comm": "gdb", "range": "30000000-30000fff"}]
    assert "mappers" not in event_json(Event(1, "claim", "taken"))
