"""YAML to nodes: places, aliases, merge keys; the same with and without libyaml."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakedev.model.errors import ProfileError
from fakedev.profiles.nodes import Node, Place, Scalar
from fakedev.profiles.positions import decode, parse_yaml


@pytest.fixture(params=["libyaml", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(yaml, "CSafeLoader", yaml.SafeLoader, raising=False)
    return str(request.param)


def parse(text: str) -> Node:
    problems: list[str] = []
    node = parse_yaml(text, "f", problems)
    assert problems == []
    assert node is not None
    return node


def test_places(parser: str) -> None:
    root = parse("a: 1\nb:\n  - x\n  - {c: 'd'}\n")
    assert root.find(("a",)).place == Place("f", 1, 4)
    assert root.find(("b",)).key_place == Place("f", 2, 1)
    assert root.find(("b", 0)).place == Place("f", 3, 5)
    assert root.find(("b", 1, "c")).place == Place("f", 4, 9)
    assert root.find(("b", 1, "c")).key_place == Place("f", 4, 6)
    # where there is nothing, the nearest thing around it
    assert root.find(("b", 1, "zz", 3)).place == Place("f", 4, 5)
    assert str(root.place) == "f:1:1"


def test_lines_of_a_block(parser: str) -> None:
    root = parse("a: |\n  one\n\n  three\nb: one\n")
    assert root.find(("a",)).line_place(2) == Place("f", 4, 1)
    assert root.find(("b",)).line_place(2) == Place("f", 5, 4)


def test_scalars_are_text_and_remember_quotes(parser: str) -> None:
    root = parse("[1, '1', ~, '', null, !!str 1, !!int 1]")
    assert root.plain() == ["1", "1", None, "", None, "1", "1"]
    assert isinstance(root.value, list)
    plain = [node.value.plain for node in root.value if isinstance(node.value, Scalar)]
    assert plain == [True, False, False, False, True]


def test_null_takes_a_key_away(parser: str) -> None:
    assert parse("{a: ~, b: [~]}").plain() == {"b": [None]}


def test_aliases_and_merge_keys(parser: str) -> None:
    root = parse("a: &x {k: 1, l: 2}\nb: *x\nc: {<<: *x, l: 3}\nd: {<<: [{m: 4}, *x], '<<': 5}\n")
    assert root.plain() == {
        "a": {"k": "1", "l": "2"},
        "b": {"k": "1", "l": "2"},
        "c": {"l": "3", "k": "1"},
        "d": {"<<": "5", "m": "4", "k": "1", "l": "2"},
    }
    assert root.find(("b",)).key_place == Place("f", 2, 1)
    assert root.find(("b", "k")).place == Place("f", 1, 11)


def test_byte_order_mark() -> None:
    assert parse(decode(b"\xef\xbb\xbfa: b\n", "f")).plain() == {"a": "b"}
    with pytest.raises(ProfileError, match="f:1:2: byte 0xff at offset 4"):
        decode(b"\xef\xbb\xbfa\xff", "f")


def test_duplicate_keys_do_not_stop_the_reading(parser: str) -> None:
    problems: list[str] = []
    node = parse_yaml("a: 1\na: 2\nb: {c: 1, c: 2}\n", "f", problems)
    assert problems == [
        "f:2:1: the key 'a' stands twice in this mapping (first on line 1); keep one",
        "f:3:11: the key 'c' stands twice in this mapping (first on line 3); keep one",
    ]
    assert node is not None
    assert node.plain() == {"a": "1", "b": {"c": "1"}}


VALUES = st.recursive(
    st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcd"), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_yaml_writes_is_read_back(value: object) -> None:
    text = yaml.safe_dump(value, default_style='"', allow_unicode=True)
    assert parse(text).plain() == value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_node_or_a_profile_error(data: bytes) -> None:
    try:
        parse_yaml(decode(data, "f"), "f", [])
    except ProfileError as error:
        if not all(problem.startswith("f:") for problem in error.problems):
            pytest.fail(f"no place: {error.problems}")
