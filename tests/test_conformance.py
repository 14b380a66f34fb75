"""The conformance suite without a probe: recordings, comparing, the monitor, machines of recordings."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fakedev.conformance import places, q35, score
from fakedev.conformance.compare import Kind, compare
from fakedev.conformance.configuration import Configuration, configuration
from fakedev.conformance.deviations import DEVIATIONS
from fakedev.conformance.monitor import PROMPT, Monitor
from fakedev.conformance.reasons import REASONS, Reason
from fakedev.conformance.records import Record, Recording, parse, read_recording, record_of
from fakedev.conformance.run import with_phases
from fakedev.conformance.score import Score
from fakedev.control.verbs import Verbs
from fakedev.model.errors import HostError
from fakedev.model.ranges import Range
from fakedev.profiles.build import build_machine
from fakedev.profiles.loader import load_profile

WHOLE = {reason.text for reason in REASONS if reason.field == "*"}


@pytest.fixture(scope="module", params=places.RECORDED)
def made(request: pytest.FixtureRequest) -> Configuration:
    return configuration(request.param)


def record(**fields: Any) -> Record:
    return record_of({"phase": "fd", "case": "a", "op": "read", "result": 0, **fields})


def judged(one: Record, two: Record | None, *reasons: Reason) -> tuple[Kind, set[str]]:
    (found,) = compare([one], [two] if two else [], reasons)
    return found.kind, {difference.field for difference in found.differences}


# -- recordings ---------------------------------------------------------------------------------


def test_a_broken_line_is_told_with_its_number_and_the_rest_is_read() -> None:
    lines = [
        b'{"phase":"fd","case":"a","op":"read"}',
        b"",
        b'{"phase":"fd",',
        b"[1]",
        b'{"phase":"fd","case":7,"op":"read"}',
        b'{"phase":"fd","case":"a","op":"read","signal":"SIGBUS"}',
        b'{"phase":"fd","case":"b","op":"read","extra":[]}',
        b'{"phase":"fd","case":"b","op":"read","args":[1]}',
        b'{"phase":"fd","case":"b","op":"read","data":5}',
        b'{"phase":"fd","case":"b","op":"read","config":{}}',
        b'{"phase":"fd","case":"b\\ud800","op":"read"}',
        b"\xff\xfe",
        b'{"phase":"fd","case":"b","op":"read"}',
    ]
    found = parse(lines, "x.jsonl")
    assert [one["case"] for one in found.records] == ["a", "b", "b"]
    assert [problem.partition(": ")[0] for problem in found.problems] == [
        f"x.jsonl:{number}" for number in (3, 4, 5, 6, 8, 9, 10, 11, 12)
    ]


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    for name, data in {"none": b"", "text": b"hello\n", "bad": b"\xfd7zXZ\0nothing"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(HostError, match=name):
            read_recording(tmp_path / name)
    with pytest.raises(HostError, match="nowhere"):
        read_recording(tmp_path / "nowhere")


def test_fields_beside_the_common_ones_are_extra_wherever_they_stand() -> None:
    line = {"phase": "fd", "case": "a", "op": "read", "seq": 7, "size": 3, "extra": {"mode": 1}}
    assert record_of(line)["extra"] == {"size": 3, "mode": 1}


def test_the_recordings_have_every_record() -> None:
    counts = [len(configuration(name).recording.records) for name in places.RECORDED]
    assert counts == [4399, 950]


# -- comparing ----------------------------------------------------------------------------------


def test_every_field_counts() -> None:
    one = record(
        signal={"signo": "SIGBUS", "si_code": "BUS_ADRERR"}, data="00", args={"off": "0x1"}
    )
    assert judged(one, json.loads(json.dumps(one))) == (Kind.EQUAL, set())
    for field, value in {
        "result": -1,
        "errno": "EPERM",
        "data": "01",
        "signal": None,
        "args": {"off": "0x2"},
        "extra": {"size": 1},
    }.items():
        kind, fields = judged(one, {**one, field: value})
        assert kind is Kind.DIFFERENT
        assert all(found.split(".")[0] in {field, "size"} for found in fields)


def test_a_record_that_was_not_made_is_different() -> None:
    assert judged(record(), None) == (Kind.DIFFERENT, {"record"})


def test_records_of_one_name_belong_together_by_their_number() -> None:
    recorded = [record(result=1), record(result=2), record(case="b", result=3)]
    here = [record(case="b", result=3), record(result=1), record(result=4)]
    kinds = [one.kind for one in compare(recorded, here, ())]
    assert kinds == [Kind.EQUAL, Kind.DIFFERENT, Kind.EQUAL]


def test_functions_belong_together_by_their_address() -> None:
    recorded = [record(op="enumerate", args={"bdf": bdf}, result=bdf) for bdf in ("a", "b")]
    assert {one.kind for one in compare(recorded, recorded[::-1], ())} == {Kind.EQUAL}


def test_a_reason_takes_out_what_it_names_and_no_more() -> None:
    one, two = record(data="ab12", result=0), record(data="cd12", result=0)
    assert judged(one, two, Reason("why", field="data"))[0] is Kind.EQUAL
    assert judged(one, two, Reason("why", case="b", field="data"))[0] is Kind.DIFFERENT
    assert judged(one, two, Reason("why", field="data", mask="^.."))[0] is Kind.EQUAL
    assert judged(one, two, Reason("why", field="data", mask="12$"))[0] is Kind.DIFFERENT
    assert judged(one, {**two, "errno": "EIO"}, Reason("why", field="data"))[0] is Kind.DIFFERENT
    assert judged(one, two, Reason("why"))[0] is Kind.NOT_COMPARABLE


def test_a_mask_does_not_hide_that_there_was_nothing() -> None:
    one, two = record(data="ab"), record(data=None)
    assert judged(one, two, Reason("why", field="data", mask=".*"))[0] is Kind.DIFFERENT


def test_a_recording_is_equal_to_itself(made: Configuration) -> None:
    records = made.recording.records
    judgements = compare(records, records, REASONS)
    assert {one.kind for one in judgements} <= {Kind.EQUAL, Kind.NOT_COMPARABLE}
    assert sum(one.kind is Kind.NOT_COMPARABLE for one in judgements) < 10


def test_no_reason_hides_another_errno_result_or_signal(made: Configuration) -> None:
    signal = {"signo": "SIGILL", "si_code": "ILL_ILLOPN"}
    records = made.recording.records
    for changed in ({"errno": "EXFULL"}, {"result": 12345}, {"signal": signal}):
        judgements = compare(records, [{**one, **changed} for one in records], REASONS)
        hidden = [one for one in judgements if one.kind is not Kind.DIFFERENT]
        assert {one.reason for one in hidden} <= WHOLE
        assert len(hidden) < 10


def test_no_reason_or_deviation_is_about_an_address_or_a_number() -> None:
    for reason in (*REASONS, *DEVIATIONS):
        words = f"{reason.phase} {reason.case} {reason.op}"
        assert "0x" not in words
        assert "@0" not in words
        assert reason.text


def test_every_reason_is_about_some_record() -> None:
    records = [one for name in places.RECORDED for one in configuration(name).recording.records]
    for reason in (*REASONS, *DEVIATIONS):
        assert any(reason.is_about(one) for one in records), reason


# -- the machine of a recording -----------------------------------------------------------------


def test_a_machine_boots_as_the_recorded_one_did(made: Configuration) -> None:
    machine = made.machine()
    texts = {one["case"]: one["data"] for one in made.recording.records if one["phase"] == "env"}
    assert machine.iomem(privileged=True) == texts["iomem-root"]
    assert machine.rules.cmdline + "\n" == texts["cmdline"]
    assert f"[{machine.rules.lockdown_level}]" in texts["lockdown"]


def test_what_a_boot_left_in_place_is_taken_from_the_recording() -> None:
    default, lockdown = (configuration(name).settings for name in places.RECORDED)
    assert "virtio_mem.vm0.unmovable=2097152" in default
    assert "virtio_mem.vm0.unmovable=0" in lockdown
    assert 'memory_blocks.unmovable=["10000000-17ffffff"]' in default


def test_given_arguments_come_before_those_of_the_recording() -> None:
    made = configuration("default", cmdline="iomem=relaxed", memory=5 << 30)
    machine = made.machine()
    assert machine.rules.cmdline == "iomem=relaxed"
    assert machine.high_memory == 0x1C0000000


def test_a_configuration_that_tells_nothing_needs_arguments(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"phase":"fd","case":"a","op":"read"}')
    with pytest.raises(HostError, match="--kernel-cmdline"):
        configuration(str(path))
    assert configuration(str(path), cmdline="").name == "mine"


def test_q35_with_5_gib() -> None:
    machine = build_machine(load_profile("pc-q35", overrides=q35.overrides(5 << 30)))
    lines = machine.iomem(privileged=True).splitlines()
    for line in (
        "00100000-7ffd5fff : System RAM",
        "7ffd6000-7fffffff : Reserved",
        "80000000-afffffff : PCI Bus 0000:00",
        "b0000000-bfffffff : PCI MMCONFIG 0000 [bus 00-ff]",
        "100000000-1bfffffff : System RAM",
        "880000000-107fffffff : PCI Bus 0000:00",
    ):
        assert line in lines
    assert machine.virtio_mem.devices["vm0"].span.start == 0x1C0000000
    assert sorted(region.span.start for region in machine.nd.regions) == [0x200000000, 0x210000000]
    assert machine.blocks.dimms.plans["dimm0"].at == 0x220000000
    assert len(machine.blocks.blocks) == (5 << 30) // (128 << 20)
    assert bytes(machine.peek(Range(0x200000000, 7))) == b"NVDIMM0"


def test_the_kernel_lies_where_kaslr_put_it_even_above_4_gib() -> None:
    kernel = ["13a000000-13ae01d31 : Kernel code", "13b000000-13b8eafff : Kernel rodata"]
    settings = q35.overrides(5 << 30, kernel)
    machine = build_machine(load_profile("pc-q35", overrides=settings))
    text = machine.iomem(privileged=True)
    assert "\n100000000-1bfffffff : System RAM\n  13a000000-13ae01d31 : Kernel code\n" in text
    assert text.count("Kernel") == 2


def test_q35_as_it_was_recorded() -> None:
    plain = build_machine(load_profile("pc-q35"))
    same = build_machine(load_profile("pc-q35", overrides=q35.overrides(q35.RECORDED)))
    assert same.iomem(privileged=True) == plain.iomem(privileged=True)


@pytest.mark.parametrize("size", [0, 64 << 20, (1 << 30) + 4096, 24 << 30])
def test_q35_refuses_what_qemu_would_not_do(size: int) -> None:
    with pytest.raises(HostError, match="--memory"):
        q35.overrides(size)


# -- the monitor --------------------------------------------------------------------------------


@pytest.fixture
def verbs() -> Verbs:
    return Verbs(build_machine(load_profile("pc-q35")))


def recorded_devices(number: int) -> str:
    found = [
        one["data"]
        for one in configuration("default").recording.records
        if one["phase"] == "vmem" and one["case"] == "memory-devices"
    ]
    return str(found[number])


def test_memory_devices_are_those_of_qemu(verbs: Verbs) -> None:
    monitor = Monitor(verbs)
    said = monitor.answer("info memory-devices")
    assert said.replace("\r\n", "\n") == recorded_devices(0)
    verbs("modprobe", {"name": "virtio_pci"}, lambda: False)
    verbs("modprobe", {"name": "virtio_mem"}, lambda: False)
    assert monitor.answer("qom-set /machine/peripheral/vm0 requested-size 640M") == ""
    said = monitor.answer("info memory-devices")
    assert said.replace("\r\n", "\n") == recorded_devices(2)


def test_a_dimm_and_a_card_come_and_go(verbs: Verbs) -> None:
    monitor, machine = Monitor(verbs), verbs.machine
    monitor.answer("object_add memory-backend-ram,id=dm0,size=256M")
    assert monitor.answer("device_add pc-dimm,id=dimm0,memdev=dm0") == ""
    assert '[dimm]: "dimm0"\r\n  addr: 0x160000000' in monitor.answer("info memory-devices")
    assert monitor.answer("device_del dimm0") == ""
    assert "dimm0" not in monitor.answer("info memory-devices")
    card = "0000:01:00.0"
    assert monitor.answer("device_del hp0") == ""
    assert card not in machine.pci.devices
    assert monitor.answer("device_add e1000e,id=hp0,bus=rp1") == ""
    assert card in machine.pci.devices


def test_what_cannot_be_done_is_an_error_and_no_end(verbs: Verbs) -> None:
    monitor = Monitor(verbs)
    assert monitor.answer("device_del dimm0").startswith("Error: ")
    assert monitor.answer("frobnicate it") == "unknown command: 'frobnicate'\r\n"


def test_the_terminal_echoes_answers_and_prompts(verbs: Verbs) -> None:
    with Monitor(verbs) as monitor:
        terminal = os.open(monitor.path, os.O_RDWR | os.O_NOCTTY)
        said = b""
        try:
            os.write(terminal, b"nonsense\n")
            while not said.endswith(PROMPT.encode()):
                said += os.read(terminal, 4096)
        finally:
            os.close(terminal)
    assert said.decode() == f"nonsense\r\nunknown command: 'nonsense'\r\n{PROMPT}"


# -- what is told -------------------------------------------------------------------------------


def example() -> Score:
    recorded = [record(case=name) for name in ("a", "b", "c", "d", "e", "f")]
    here = [{**one, "result": 1} if one["case"] > "a" else one for one in recorded]
    judgements = compare(recorded, here, [Reason("no use", case="f")], [Reason("known", case="b")])
    made = Configuration("mine", Recording(recorded, []), "quiet", 0, [])
    return Score(made, judgements, [], 1.5)


def test_recordings_without_the_phase_are_left_out() -> None:
    both = [configuration(name) for name in places.RECORDED]
    assert [one.name for one in with_phases(both, ["fd"])] == ["default"]
    assert with_phases(both, []) == both
    with pytest.raises(HostError, match="no phase 'nosuch' in the recording: bind-errors,"):
        with_phases(both, ["fd", "nosuch"])


def test_a_long_text_is_shown_from_where_it_differs() -> None:
    one, two = score._from_the_difference("x" * 500 + "here", "x" * 500 + "there")
    assert (one, two) == ("..." + "x" * 80 + "here", "..." + "x" * 80 + "there")


def test_the_table_counts_every_record() -> None:
    lines = list(score.table(example()))
    assert lines[-6].split() == ["all", "1", "4", "1", "20.0%"]
    assert [line.strip() for line in lines[-5:]] == [
        "not comparable:",
        "1  no use",
        "different:",
        "3  not known yet",
        "1  known",
    ]


def test_the_first_differences_are_shown_in_full() -> None:
    few = "\n".join(score.differences(example(), everything=False))
    assert "result: 0 -> 1" in few
    assert "because: known" in few
    assert "and 1 more" in few
    assert "more" not in "\n".join(score.differences(example(), everything=True))


def test_json_has_the_same_numbers() -> None:
    (found,) = json.loads(json.dumps(score.as_json([example()])))
    assert found["phases"]["fd"] == {
        "equal": 1, "different": 4, "not comparable": 1, "percent": 20.0,
    }  # fmt: skip
    assert found["deviations"] == {"not known yet": 3, "known": 1}
    assert [one["reason"] for one in found["differences"]] == ["known", None, None, None]
