"""`fakedev ctl memory`, `online`, `offline`, `plug-dimm`, `unplug-dimm`: arguments in, JSON out."""

import errno
from typing import Any

import pytest
from memory_machines import machine_of, shown

from fakedev.control.verbs import Verbs
from fakedev.model.errors import FakedevError


@pytest.fixture
def verbs() -> Verbs:
    return Verbs(machine_of())


def do(verbs: Verbs, verb: str, **arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = verbs(verb, arguments, lambda: False)
    return found


def test_the_table(verbs: Verbs) -> None:
    found = do(verbs, "memory")
    assert found["block_size"] == 128 << 20
    assert found["blocks"][1] == {
        "name": "memory1",
        "range": "08000000-0fffffff",
        "state": "online",
        "zone": "DMA32",
        "zones": ["DMA32"],
        "node": 0,
        "removable": True,
        "poisoned": False,
    }
    assert found["dimms"][0] == {
        "slot": "dimm0", "range": "200000000-20fffffff", "node": 1, "plugged": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("34", [34]),
        ("memory34", [34]),
        ("memory34-36", [34, 35, 36]),
        ("110000000-11fffffff", [34, 35]),
        ("0x110000000+128M", [34]),
    ],
)
def test_which_blocks(verbs: Verbs, text: str, numbers: list[int]) -> None:
    found = do(verbs, "offline", blocks=text)
    assert [one["name"] for one in found["blocks"]] == [f"memory{n}" for n in numbers]
    assert [n for n, state in shown(verbs.machine).items() if state == "offline"] == numbers
    do(verbs, "online", blocks=text, kind="online_movable")
    assert {shown(verbs.machine)[n] for n in numbers} == {"Movable"}


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("offline", {"blocks": "99"}, errno.ENODEV),
        ("offline", {"blocks": "memory34-99"}, errno.ENODEV),
        ("offline", {"blocks": "110000000-1100fffff"}, errno.EINVAL),
        ("offline", {"blocks": "900000000-90fffffff"}, errno.ENODEV),
        ("offline", {"blocks": "2"}, errno.EBUSY),
        ("offline", {"blocks": "memory1-2"}, errno.EBUSY),
        ("online", {"blocks": "34"}, errno.EINVAL),
        ("online", {"blocks": "34", "kind": "x"}, errno.EINVAL),
        ("plug-dimm", {"slot": "x"}, errno.ENODEV),
        ("unplug-dimm", {"slot": "dimm0"}, errno.ENODEV),
    ],
)
def test_what_is_refused_changes_nothing(
    verbs: Verbs, verb: str, arguments: dict[str, Any], code: int
) -> None:
    before = do(verbs, "memory")
    with pytest.raises(FakedevError) as caught:
        do(verbs, verb, **arguments)
    assert caught.value.errno == code  # type: ignore[attr-defined]
    assert do(verbs, "memory") == before


def test_dimms(verbs: Verbs) -> None:
    found = do(verbs, "plug-dimm", slot="dimm0")
    assert [one["state"] for one in found["blocks"]] == ["offline", "offline"]
    do(verbs, "online", blocks="200000000-20fffffff")
    assert do(verbs, "memory")["dimms"][0]["plugged"]
    do(verbs, "unplug-dimm", slot="dimm0")
    assert not do(verbs, "memory")["dimms"][0]["plugged"]
