"""`extends` and `--set`: one tree out of several."""

from __future__ import annotations

from fakedev.model.errors import ProfileError
from fakedev.model.words import closest
from fakedev.profiles.nodes import Node, Place
from fakedev.profiles.positions import DEPTH_LIMIT, parse_yaml

# Below these keys a member of the extending profile replaces the inherited one as a whole.
_WHOLE = frozenset({("files",)})
_INDEX_DIGITS = 9


def merge(base: Node, over: Node, path: tuple[str, ...] = ()) -> Node:
    """`over` on top of `base`: mappings merge deeply, everything else is replaced."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        below = merged.get(key)
        whole = below is None or path in _WHOLE
        merged[key] = node if below is None or whole else merge(below, node, (*path, key))
    made = Node(merged, over.place)
    made.key_place = over.key_place
    return made


def apply_override(root: Node, option: str) -> Node:
    """`root` with `a.b.0.c=value` set. Raises ProfileError that quotes the option."""
    place = Place(f"--set {option}", 0, 0)
    key, equals, text = option.partition("=") if '"' not in option else _quoted_partition(option)
    steps = _split(key)
    if not equals or not all(steps):
        raise ProfileError([(f"{place}: not an override; write KEY.PATH=VALUE, "
                            "for example kernel.strict_devmem=true")])  # fmt: skip
    if len(steps) > DEPTH_LIMIT:
        raise ProfileError([f"{place}: the key is more than {DEPTH_LIMIT} levels deep"])
    return _put(root, steps, _value(text, place), place)


def _quoted_partition(option: str) -> tuple[str, str, str]:
    quoted = False
    for index, character in enumerate(option):
        if character == '"':
            quoted = not quoted
        elif character == "=" and not quoted:
            return option[:index], "=", option[index + 1 :]
    return option, "", ""


def _split(key: str) -> list[str]:
    """The steps of a key path; `files."/proc/a.b".text` keeps the dots between quotes."""
    steps = [""]
    quoted = False
    for character in key.strip():
        if character == '"':
            quoted = not quoted
        elif character == "." and not quoted:
            steps.append("")
        else:
            steps[-1] += character
    return steps


def _value(text: str, place: Place) -> Node:
    problems: list[str] = []
    try:
        node = parse_yaml(text, place.file, problems)
    except ProfileError as error:
        raise ProfileError(
            [f"{place}: the value is not YAML: {_tail(error.problems[-1])}"]
        ) from None
    if problems:
        raise ProfileError([f"{place}: {_tail(problem)}" for problem in problems])
    return _moved(node, place) if node is not None else Node(None, place)


def _tail(problem: str) -> str:
    return problem.rsplit(": not YAML: ", 1)[-1] if ": not YAML: " in problem else problem


def _moved(node: Node, place: Place) -> Node:
    """`node` with every place replaced by the option's."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _moved(member, place) for key, member in value.items()}
    elif isinstance(value, list):
        value = [_moved(member, place) for member in value]
    return Node(value, place, weight=node.weight)


def _put(node: Node, steps: list[str], value: Node, place: Place) -> Node:
    step, rest = steps[0], steps[1:]
    if isinstance(node.value, list):
        return _put_index(node, step, rest, value, place)
    if node.value is not None and not isinstance(node.value, dict):
        raise ProfileError([(f"{place}: {step!r} cannot be set: what is above it ({node.place}) "
                            "is a single value")])  # fmt: skip
    members = dict(node.value or {})
    below = members.get(step)
    if below is None or below.value is None:
        # A list that is not there yet can be begun by its first member.
        below = Node([] if rest[:1] == ["0"] else {}, place)
    members[step] = _put(below, rest, value, place) if rest else value.copy()
    return _replaced(node, members)


def _put_index(node: Node, step: str, rest: list[str], value: Node, place: Place) -> Node:
    members = list(node.value) if isinstance(node.value, list) else []
    # ASCII digits only, and few of them: int() takes neither "²" nor thousands of digits.
    if not (step.isascii() and step.isdigit() and len(step) <= _INDEX_DIGITS):
        raise ProfileError([(f"{place}: {step!r} is not an index; the list at {node.place} has "
                            f"{len(members)} members, counted from 0")])  # fmt: skip
    index = int(step)
    if index > len(members) or (index == len(members) and rest):
        hint = "" if members else '; quote a key with dots: pci.functions."01:00.0".id=...'
        raise ProfileError([(f"{place}: there is no member {index}; the list at {node.place} has "
                            f"{len(members)} members, counted from 0{hint}")])  # fmt: skip
    if index == len(members):
        members.append(value)
    else:
        members[index] = _put(members[index], rest, value, place) if rest else value
    return _replaced(node, members)


def _replaced(node: Node, value: dict[str, Node] | list[Node]) -> Node:
    made = Node(value, node.place)
    made.key_place = node.key_place
    return made


def suggest(word: str, known: list[str]) -> str:
    """` (did you mean 'x'?)` where a known word is close."""
    near = closest(word, known)
    return f" (did you mean {near!r}?)" if near else ""
